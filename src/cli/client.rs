//! The API of the member that serves, as acting commands call it.
//!
//! Every way in which a call can end has its decision here: refused, too slow, broken off after it may
//! have taken effect, answered by something that is not flowkeeper, answered with a problem.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use reqwest::{Method, StatusCode, Url, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::CommandError;
use crate::config::model::{Role, Server};
use crate::config::{Environment, Fault};
use crate::overview::ScheduleOverview;
use crate::store::model::Page;

/// The variable that holds a token for those who may not read the one in the configuration.
const TOKEN_VARIABLE: &str = "FLOWKEEPER_TOKEN";

/// Longer than the member takes to give up by itself.
const TIMEOUT: Duration = Duration::from_secs(70);

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest answer that is read: a page of runs with large confs.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// How often a call that is safe to repeat is repeated after an outcome that is not known.
const RETRIES: usize = 5;

/// A member that stands by could not reach the leader: nothing was done.
const LEADER_UNREACHABLE: &str = "urn:flowkeeper:problem:leader-unreachable";

/// The leader did not answer a member that stands by: it may have been done.
const LEADER_SILENT: &str = "urn:flowkeeper:problem:leader-silent";

/// Calls the API of the member that serves.
pub(super) struct ApiClient {
    base: Url,
    token: Option<String>,
    http: reqwest::Client,
}

/// How a call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// Nothing took the connection: certainly nothing was done.
    NotServing { url: String, reason: String },
    /// The connection broke or took too long: it may have been done.
    Unknown { url: String, reason: String },
    /// What answered is not flowkeeper.
    Foreign { url: String, status: StatusCode },
    /// flowkeeper answered that it did not do it.
    Problem { status: StatusCode, problem: Problem },
}

/// A problem as the API answers it (RFC 9457).
#[derive(Debug, Deserialize)]
pub(super) struct Problem {
    /// Names the kind of problem.
    #[serde(rename = "type", default)]
    kind: String,
    detail: String,
    hint: Option<String>,
    #[serde(default)]
    faults: Vec<Fault>,
}

impl ApiClient {
    /// For calls that take this role.
    pub(super) fn new(server: &Server, environment: &Environment, role: Role) -> Result<Self, CommandError> {
        let base = server.advertise.clone().unwrap_or_else(|| format!("http://{}", reachable(server.listen)));
        let base = Url::parse(&base)
            .map_err(|error| CommandError::usage(format!("failed to read the address `{base}`: {error}")))?;
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            // A member is called directly, also where the environment names a proxy for the web.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("flowkeeper/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CommandError::failed(format!("failed to prepare the call of the API: {error}")))?;
        Ok(Self { base, token: token(server, environment, role), http })
    }

    /// Reads something.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, CallError> {
        self.call(Method::GET, path, &[], None::<&()>).await
    }

    /// All schedules, as the member knows them.
    pub(super) async fn schedules(&self) -> Result<Vec<ScheduleOverview>, CallError> {
        let (mut schedules, mut cursor) = (Vec::new(), None);
        loop {
            let query: Vec<_> = cursor.iter().map(|cursor: &String| ("cursor", cursor.as_str())).collect();
            let page: Page<ScheduleOverview> = self.call(Method::GET, &["schedules"], &query, None::<&()>).await?;
            schedules.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(schedules);
            }
        }
    }

    /// Does something, once.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, CallError> {
        self.call(Method::POST, path, &[], Some(body)).await
    }

    /// Does something that is safe to repeat: outcomes that are not known are tried again.
    pub(super) async fn post_repeatable<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        self.repeatable(Method::POST, path, body).await
    }

    /// As [`Self::post_repeatable`], for what is put somewhere.
    pub(super) async fn put_repeatable<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        self.repeatable(Method::PUT, path, body).await
    }

    async fn repeatable<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, CallError> {
        let (mut sent, mut told) = (false, false);
        let attempt = async || self.call(method.clone(), path, &[], Some(body)).await;
        let backoff = ExponentialBuilder::default().with_max_times(RETRIES).with_jitter();
        attempt
            .retry(backoff)
            .when(|error| {
                // Refused at once means that nothing serves; refused after an unknown outcome, that the
                // member is restarting.
                let refused_first = matches!(error, CallError::NotServing { .. }) && !sent;
                sent |= !matches!(error, CallError::NotServing { .. });
                error.may_pass() && !refused_first
            })
            .notify(|error, _| {
                if !std::mem::replace(&mut told, true) {
                    eprintln!("{}; it is tried again for up to a minute, Ctrl-C ends that", error.in_short());
                }
            })
            .await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&impl Serialize>,
    ) -> Result<T, CallError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = self.http.request(method, url.clone()).header(header::ACCEPT, "application/json");
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let shown = url.origin().ascii_serialization();
        let mut response = request.send().await.map_err(|error| {
            let (url, reason) = (shown.clone(), root_cause(&error));
            if error.is_connect() { CallError::NotServing { url, reason } } else { CallError::Unknown { url, reason } }
        })?;
        let status = response.status();
        let mut bytes = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if bytes.len() + chunk.len() <= MAX_ANSWER_BYTES => bytes.extend_from_slice(&chunk),
                Ok(Some(_)) => return Err(CallError::Foreign { url: shown, status }),
                Ok(None) => break,
                Err(error) => return Err(CallError::Unknown { url: shown, reason: root_cause(&error) }),
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|_| CallError::Foreign { url: shown, status });
        }
        match serde_json::from_slice(&bytes) {
            Ok(problem) => Err(CallError::Problem { status, problem }),
            Err(_) => Err(CallError::Foreign { url: shown, status }),
        }
    }
}

impl CallError {
    /// Whether another try may end otherwise without anybody changing anything.
    fn may_pass(&self) -> bool {
        match self {
            Self::NotServing { .. } | Self::Unknown { .. } => true,
            Self::Foreign { status, .. } => status.is_server_error(),
            Self::Problem { status, problem } => {
                *status == StatusCode::SERVICE_UNAVAILABLE
                    || [LEADER_UNREACHABLE, LEADER_SILENT].contains(&&*problem.kind)
            }
        }
    }

    /// What happened, without what follows from it.
    fn in_short(&self) -> String {
        match self {
            Self::NotServing { url, .. } => format!("no member serves at {url}"),
            Self::Unknown { url, reason } => format!("{url} broke off ({reason})"),
            Self::Foreign { url, status } => format!("{url} answered with status {status}"),
            Self::Problem { problem, .. } => problem.detail.clone(),
        }
    }

    /// Whether it may have been done all the same.
    pub(super) fn is_unknown(&self) -> bool {
        match self {
            Self::Unknown { .. } => true,
            Self::Problem { problem, .. } => problem.kind == LEADER_SILENT,
            Self::NotServing { .. } | Self::Foreign { .. } => false,
        }
    }

    /// What is wrong with a configuration that was sent.
    pub(super) fn faults(&self) -> &[Fault] {
        match self {
            Self::Problem { problem, .. } => &problem.faults,
            Self::NotServing { .. } | Self::Unknown { .. } | Self::Foreign { .. } => &[],
        }
    }

    /// For the reader; `action` fits "failed to …".
    pub(super) fn into_error(self, action: &str) -> CommandError {
        self.into_error_of(action, Role::Operate)
    }

    /// The same, for an action that takes this role.
    pub(super) fn into_error_of(self, action: &str, role: Role) -> CommandError {
        match self {
            Self::NotServing { url, reason } => {
                CommandError::unreachable(format!("failed to {action}: no member serves at {url} ({reason})"))
                    .next("nothing was done")
                    .hint("start one with `flowkeeper serve`, or correct `[server] listen` or `advertise`")
            }
            Self::Unknown { url, reason } => {
                CommandError::unreachable(format!("failed to {action}: {url} broke off ({reason})"))
                    .next("it is not known whether it was done")
                    .hint("look with `flowkeeper audit`; it is safe to run the command again")
            }
            Self::Foreign { url, status } => CommandError::failed(format!(
                "failed to {action}: what answers at {url} is not flowkeeper (status {status})"
            ))
            .hint("does another program use the port of `[server] listen`?"),
            Self::Problem { status, problem } => {
                // A detail says by itself what was tried.
                let message = match problem.detail.strip_prefix("failed to ") {
                    Some(_) => problem.detail,
                    None => format!("failed to {action}: {}", problem.detail),
                };
                let error = match status {
                    _ if problem.kind == LEADER_UNREACHABLE => CommandError::unreachable(message),
                    StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => CommandError::unreachable(message),
                    _ => CommandError::failed(message),
                };
                match (status, problem.hint) {
                    (StatusCode::FORBIDDEN, Some(hint)) => error.hint(format!("set {TOKEN_VARIABLE}: {hint}")),
                    (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
                        error.hint(format!("set {TOKEN_VARIABLE} to a token with the role `{}`", role.as_str()))
                    }
                    (_, Some(hint)) => error.hint(hint),
                    (_, None) => error,
                }
            }
        }
    }
}

/// The token to send: that of the environment, else the first of the configuration that has the role and
/// can be read.
fn token(server: &Server, environment: &Environment, role: Role) -> Option<String> {
    if let Some(token) = environment.get(TOKEN_VARIABLE) {
        return Some(token.trim().to_owned());
    }
    let able = server.tokens.iter().filter(|token| token.role >= role);
    able.filter_map(|token| token.value.resolve(environment).ok()).map(|secret| secret.expose().to_owned()).next()
}

/// Where a member that listens on every address is reached from the same machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The innermost error: the outer ones repeat the address.
fn root_cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
