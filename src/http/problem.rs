//! Errors of the API: `application/problem+json`, as RFC 9457 has it, with a `hint`.

use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Fault;
use crate::operations::OperationError;
use crate::store::StoreError;

/// An error as the API answers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem for programs, `urn:flowkeeper:problem:…`.
    #[serde(rename = "type")]
    kind: String,
    /// The kind of problem for people.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was tried, on what, and what went wrong.
    detail: String,
    /// What the caller can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    hint: Option<Box<str>>,
    /// What is wrong with a configuration, where that is the problem.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    #[schema(value_type = Vec<Fault>)]
    faults: Box<[Fault]>,
    /// When it is worth asking again, for the header `Retry-After`.
    #[serde(skip)]
    retry_after: Option<Duration>,
}

/// The kinds of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// A parameter, a body or a header is malformed.
    InvalidRequest,
    /// There is no token, or an unknown one.
    Unauthenticated,
    /// The caller is known and may not do this; or the request came from another site's page.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The path exists, with other methods.
    MethodNotAllowed,
    /// The thing is in a state that does not allow it.
    Conflict,
    /// The body is longer than the limit.
    BodyTooLarge,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// The request is well formed and cannot be done.
    Unprocessable,
    /// A fault of flowkeeper's own.
    Internal,
    /// Airflow refused, or answered nonsense.
    AirflowRefused,
    /// Airflow did not answer.
    AirflowUnreachable,
    /// The leader cannot be reached; nothing was done.
    LeaderUnreachable,
    /// The leader took the request and did not answer; it may have been done.
    LeaderSilent,
    /// This member cannot do it now; another moment or another member can.
    Unavailable,
    /// It took too long.
    Timeout,
}

impl ProblemKind {
    fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid-request", "The request is malformed"),
            Self::Unauthenticated => (StatusCode::UNAUTHORIZED, "unauthenticated", "A token is needed"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Not allowed"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "No such thing"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not for this path")
            }
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "The present state does not allow it"),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "The body must be JSON")
            }
            Self::Unprocessable => (StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", "This cannot be done"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "flowkeeper failed"),
            Self::AirflowRefused => (StatusCode::BAD_GATEWAY, "airflow", "Airflow did not do it"),
            Self::AirflowUnreachable => (StatusCode::GATEWAY_TIMEOUT, "airflow-unreachable", "Airflow did not answer"),
            Self::LeaderUnreachable => (StatusCode::BAD_GATEWAY, "leader-unreachable", "The leader cannot be reached"),
            Self::LeaderSilent => (StatusCode::GATEWAY_TIMEOUT, "leader-silent", "The leader did not answer"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not possible at the moment"),
            Self::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout", "It took too long"),
        }
    }
}

impl Problem {
    /// A problem of this kind. `detail` says what was tried, on what, and what went wrong; it holds no
    /// secret, since it goes to the caller.
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        let (status, name, title) = kind.parts();
        Self {
            kind: format!("urn:flowkeeper:problem:{name}"),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            hint: None,
            faults: Box::default(),
            retry_after: None,
        }
    }

    /// What was tried, on what, and what went wrong.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What the caller can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }

    /// What is wrong with the configuration that was handed in.
    #[must_use]
    pub fn faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults.into();
        self
    }

    /// When it is worth asking again; whole seconds.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    fn of_store(error: &StoreError) -> Self {
        let kind = match error {
            StoreError::BadCursor { .. } => ProblemKind::InvalidRequest,
            StoreError::NotFound { .. } => ProblemKind::NotFound,
            StoreError::WrongState { .. } | StoreError::IdentityConflict { .. } => ProblemKind::Conflict,
            StoreError::Fenced { .. } | StoreError::Closed => ProblemKind::Unavailable,
            error if error.is_transient() => ProblemKind::Unavailable,
            _ => ProblemKind::Internal,
        };
        if matches!(kind, ProblemKind::Internal | ProblemKind::Unavailable) {
            tracing::error!(error = %error, "a request could not be answered because of the ledger");
        }
        Self { hint: error.hint().map(Into::into), ..Self::new(kind, format!("failed to {error}")) }
    }

    /// The kind of problem, for people.
    pub(super) fn title(&self) -> &'static str {
        self.title
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::of_store(&error)
    }
}

impl From<OperationError> for Problem {
    fn from(error: OperationError) -> Self {
        let kind = match &error {
            OperationError::NoSchedule { .. }
            | OperationError::NoRun { .. }
            | OperationError::NoEnsemble { .. }
            | OperationError::NoSync { .. }
            | OperationError::NoHome => ProblemKind::NotFound,
            OperationError::OutOfReach { .. } => ProblemKind::Forbidden,
            OperationError::NotLeading { .. }
            | OperationError::StillAtWork { .. }
            | OperationError::SyncAtRest { .. } => ProblemKind::Unavailable,
            OperationError::BadKey { .. }
            | OperationError::EmptyRange { .. }
            | OperationError::PauseInThePast { .. } => ProblemKind::InvalidRequest,
            OperationError::KeyTaken { .. }
            | OperationError::WrongState { .. }
            | OperationError::CoversSeveral { .. }
            | OperationError::NothingToAdopt { .. } => ProblemKind::Conflict,
            OperationError::Conf { .. }
            | OperationError::NothingToSend { .. }
            | OperationError::NotCron { .. }
            | OperationError::NoAirflow { .. } => ProblemKind::Unprocessable,
            OperationError::Airflow { source, .. } if source.is_answer() => ProblemKind::AirflowRefused,
            OperationError::Airflow { .. } => ProblemKind::AirflowUnreachable,
            OperationError::Store(error) => return Self::of_store(error),
        };
        Self { hint: error.hint().map(Into::into), ..Self::new(kind, format!("failed to {error}")) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after) = (self.status(), self.retry_after);
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        if let Some(pause) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(pause.as_secs()));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
