//! What handlers take from a request, with refusals that are problems.

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::problem::{Problem, ProblemKind};
use crate::domain::run::RunState;

/// The longest page of a list.
const MAX_LIMIT: u32 = 1_000;

/// The query string; unknown parameters are refused, so that a misspelt filter is not ignored.
#[derive(Debug)]
pub(super) struct Parameters<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(rejection) => Err(Problem::new(
                ProblemKind::InvalidRequest,
                format!("failed to read the query of {}: {}", parts.uri.path(), rejection.body_text()),
            )
            .hint("`/openapi.json` lists the parameters")),
        }
    }
}

/// The one variable part of the path, or several of them as a tuple.
#[derive(Debug)]
pub(super) struct Name<T = String>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Name<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Self(name)),
            Err(rejection) => Err(Problem::new(
                ProblemKind::InvalidRequest,
                format!("failed to read the path {}: {}", parts.uri.path(), rejection.body_text()),
            )
            .hint("names in paths are UTF-8, with `%` escapes")),
        }
    }
}

/// A JSON body; an empty one stands for `{}`.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let path = request.uri().path().to_owned();
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| {
            if let BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) = rejection {
                Problem::new(ProblemKind::BodyTooLarge, format!("failed to read the body for {path}: it is too large"))
                    .hint(format!("a body has at most {} bytes", super::max_body_bytes(&path)))
            } else {
                Problem::new(ProblemKind::InvalidRequest, format!("failed to read the body for {path}: it broke off"))
            }
        })?;
        let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
        serde_json::from_slice(text).map(Self).map_err(|error| {
            Problem::new(ProblemKind::InvalidRequest, format!("failed to read the body for {path}: {error}"))
                .hint("`/openapi.json` describes the body")
        })
    }
}

/// A page's length, within bounds.
pub(super) fn page_limit(asked: Option<u32>, default: u32) -> Result<u32, Problem> {
    match asked {
        None => Ok(default),
        Some(limit @ 1..=MAX_LIMIT) => Ok(limit),
        Some(limit) => Err(Problem::new(
            ProblemKind::InvalidRequest,
            format!("failed to read `limit={limit}`: a page has 1 to {MAX_LIMIT} rows"),
        )
        .hint("follow `next_cursor` for more")),
    }
}

/// An RFC 3339 time from the query.
pub(super) fn time(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    // A `+` that was not escaped arrives as a space.
    text.map(|text| text.replace(' ', "+").parse()).transpose().map_err(|_| {
        Problem::new(
            ProblemKind::InvalidRequest,
            format!("failed to read `{name}={}`: not an RFC 3339 time", text.unwrap_or_default()),
        )
        .hint("for example `2026-11-22T02:30:00Z`")
    })
}

/// States, separated by commas; none is any.
pub(super) fn states(text: Option<&str>) -> Result<Vec<RunState>, Problem> {
    let Some(text) = text else { return Ok(Vec::new()) };
    text.split(',')
        .map(|word| {
            RunState::parse(word.trim()).ok_or_else(|| {
                let known: Vec<_> = RunState::ALL.iter().map(|state| state.as_str()).collect();
                Problem::new(
                    ProblemKind::InvalidRequest,
                    format!("failed to read `state={text}`: no state is `{word}`"),
                )
                .hint(format!("states are {}", known.join(", ")))
            })
        })
        .collect()
}
