//! What only the leader can do, asked of a member that stands by: passed on to the leader.
//!
//! [`way`] decides, a pure function. The caller's own credentials go along, so the leader checks them
//! itself; a request is passed on once, never twice. Every way in which that can end has its answer
//! here: no leader, nobody there, silence after the request was sent, something else in its place. The
//! status tells apart what matters: 502 was not done, 504 may have been.

use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::Serialize;
use tokio::sync::watch;

use super::access::Caller;
use super::problem::{Problem, ProblemKind};
use super::{Api, REQUEST_TIMEOUT, changes, max_body_bytes};
use crate::members::{Home, Sight};
use crate::metrics;

/// The id of the member that passes a request on.
pub(super) const FORWARDED_BY: HeaderName = HeaderName::from_static("flowkeeper-forwarded-by");

/// The address of the caller that it had the request from.
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("flowkeeper-forwarded-for");

/// How long connecting to the leader may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the leader may take to answer: a little less than this member has itself.
const TIMEOUT: Duration = REQUEST_TIMEOUT.saturating_sub(Duration::from_secs(2));

/// How long the leader is waited for where this member has an answer of its own.
const PREFERRED_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest answer that is passed back, streams excepted.
const ANSWER_MAX_BYTES: usize = 64 * 1024 * 1024;

/// When a caller may ask again while a leader is being elected.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// What of a request goes along.
const REQUEST_HEADERS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::ACCEPT,
    header::USER_AGENT,
    HeaderName::from_static("last-event-id"),
];

/// What of an answer comes back.
const ANSWER_HEADERS: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CACHE_CONTROL, header::RETRY_AFTER, header::WWW_AUTHENTICATE];

/// The way to the other members. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {
    sight: watch::Receiver<Sight>,
    http: reqwest::Client,
}

impl Peers {
    /// Fails where the client has no means to encrypt.
    pub fn new(sight: watch::Receiver<Sight>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Members are called directly, also where the environment names a proxy for the web.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { sight, http })
    }

    /// What is known of the members.
    pub fn sight(&self) -> watch::Ref<'_, Sight> {
        self.sight.borrow()
    }
}

/// Who answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// This member.
    Here,
    /// The leader; this member, knowing less, if that does not answer.
    LeaderPreferred,
    /// Nobody but the leader.
    Leader,
    /// Nobody: another member took this one for the leader.
    Astray,
}

/// Where a request goes. `alone` is a member without `[zookeeper]`, which has nobody to ask.
fn way(method: &Method, path: &str, leads: bool, alone: bool, forwarded: bool) -> Way {
    let Some(resource) = path.strip_prefix("/api/v1/").filter(|_| !leads && !alone) else { return Way::Here };
    // Each member reads its own definitions.
    let needs_leader = (changes(method, path) && resource != "config/reload") || resource == "events";
    let leader_knows_more = matches!(resource, "schedules" | "adopt")
        || resource.strip_prefix("schedules/").is_some_and(|name| !name.is_empty() && !name.contains('/'));
    match (needs_leader, forwarded) {
        (true, true) => Way::Astray,
        (true, false) => Way::Leader,
        (false, false) if leader_knows_more => Way::LeaderPreferred,
        (false, _) => Way::Here,
    }
}

/// The middleware: passes on what is for the leader.
pub(super) async fn to_leader(State(api): State<Api>, request: Request, next: Next) -> Response {
    let alone = api.peers.sight().home == Home::None;
    let forwarded = request.headers().contains_key(FORWARDED_BY);
    let leads = api.operations.lead().is_some();
    match way(request.method(), request.uri().path(), leads, alone, forwarded) {
        Way::Here => next.run(request).await,
        Way::Astray => {
            metrics::request_forwarded("astray");
            let detail = format!("failed to do {}: this member does not lead any more", described(&request));
            no_leader(detail).into_response()
        }
        Way::Leader => pass_on(&api, request).await.unwrap_or_else(Problem::into_response),
        Way::LeaderPreferred => {
            let answer = match prepare(&api, &request) {
                Ok((_, to_send)) => ask(to_send).await,
                Err(_) => None,
            };
            match answer {
                Some(answer) => answer,
                None => next.run(request).await,
            }
        }
    }
}

/// `POST /api/v1/…`, for problems.
fn described(request: &Request) -> String {
    format!("{} {}", request.method(), request.uri().path())
}

fn no_leader(detail: String) -> Problem {
    Problem::new(ProblemKind::Unavailable, detail)
        .hint("nothing was done; a new leader is elected within seconds, `flowkeeper members` shows who is there")
        .retry_after(RETRY_AFTER)
}

/// Asks the leader for what this member could answer as well; `None` if nothing good comes of it.
async fn ask(to_send: reqwest::RequestBuilder) -> Option<Response> {
    let answer = to_send.timeout(PREFERRED_TIMEOUT).send().await.ok()?;
    if !answer.status().is_success() || !is_ours(answer.headers()) {
        return None;
    }
    let (status, headers) = (answer.status(), kept(answer.headers()));
    let bytes = read(answer).await.ok()?;
    Some((status, headers, bytes).into_response())
}

/// Has the leader do it, or says why not, and whether it may have been done.
async fn pass_on(api: &Api, request: Request) -> Result<Response, Problem> {
    let what = described(&request);
    let streams = request.uri().path().ends_with("/events");
    let (leader, to_send) = prepare(api, &request).inspect_err(|_| metrics::request_forwarded("no_leader"))?;
    let limit = max_body_bytes(request.uri().path());
    let body = to_bytes(request.into_body(), limit).await.map_err(|_| {
        Problem::new(ProblemKind::BodyTooLarge, format!("failed to do {what}: the body is too large or broke off"))
            .hint(format!("a body has at most {limit} bytes"))
    })?;
    let sent = tokio::time::timeout(TIMEOUT, to_send.body(body).send()).await;
    let answer = match sent {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) if error.is_connect() => {
            metrics::request_forwarded("unreachable");
            return Err(unreachable(&what, &leader, &root_cause(&error)));
        }
        Ok(Err(error)) => return Err(silent(&what, &leader, &root_cause(&error))),
        Err(_) => return Err(silent(&what, &leader, &format!("no answer within {} s", TIMEOUT.as_secs()))),
    };
    let (status, headers) = (answer.status(), answer.headers());
    if !is_ours(headers) {
        metrics::request_forwarded("foreign");
        return Err(foreign(&what, &leader, status));
    }
    let headers = kept(headers);
    if streams && status.is_success() {
        metrics::request_forwarded("answered");
        let events = chunks(answer).take_until(api.shutdown.clone().cancelled_owned());
        return Ok((status, headers, Body::from_stream(events)).into_response());
    }
    let bytes = match tokio::time::timeout(TIMEOUT, read(answer)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(reason)) => return Err(silent(&what, &leader, &reason)),
        Err(_) => return Err(silent(&what, &leader, "the answer broke off")),
    };
    metrics::request_forwarded("answered");
    Ok((status, headers, bytes).into_response())
}

/// Tells the leader what this member has done for a caller, in that caller's name.
pub(super) async fn tell_leader(
    api: &Api,
    path: &'static str,
    caller: Caller,
    headers: &HeaderMap,
    note: &impl Serialize,
) -> Result<(), Problem> {
    let body = serde_json::to_vec(note).map_err(|error| Problem::new(ProblemKind::Internal, error.to_string()))?;
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    request.headers_mut().clone_from(headers);
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.extensions_mut().insert(caller);
    let (what, status) = (described(&request), pass_on(api, request).await?.status());
    if status.is_success() {
        return Ok(());
    }
    Err(Problem::new(ProblemKind::LeaderUnreachable, format!("failed to do {what}: the leader answers {status}")))
}

/// The request for the leader, without its body, and where that is.
fn prepare(api: &Api, request: &Request) -> Result<(String, reqwest::RequestBuilder), Problem> {
    let what = described(request);
    let sight = api.peers.sight();
    let Some((leader, base)) = sight.leader_elsewhere().and_then(|leader| Some((leader.clone(), leader.url?))) else {
        return Err(no_leader(format!("failed to do {what}: no member leads at the moment")));
    };
    if let Some(reason) = sight.misleading(&leader) {
        let (id, host) = (leader.id, leader.host);
        return Err(Problem::new(
            ProblemKind::LeaderUnreachable,
            format!("failed to do {what}: the leader {id} on {host} gives {base} as its address, and {reason}"),
        )
        .hint("nothing was done; set `[server] advertise` of each member to where the others reach it"));
    }
    let own = sight.own.as_ref().map(|own| own.id.clone()).unwrap_or_default();
    drop(sight);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut headers = HeaderMap::new();
    for name in REQUEST_HEADERS {
        if let Some(value) = request.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let source = request.extensions().get::<Caller>().map(|caller| caller.address.clone()).unwrap_or_default();
    for (name, value) in [(FORWARDED_BY, own), (FORWARDED_FOR, source)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    let url = format!("{}{path}", base.trim_end_matches('/'));
    Ok((base, api.peers.http.request(request.method().clone(), url).headers(headers)))
}

fn unreachable(what: &str, leader: &str, reason: &str) -> Problem {
    Problem::new(
        ProblemKind::LeaderUnreachable,
        format!("failed to do {what}: the leader at {leader} cannot be reached ({reason})"),
    )
    .hint("nothing was done; if the leader is gone, another member leads within seconds: repeat it then")
    .retry_after(RETRY_AFTER)
}

fn silent(what: &str, leader: &str, reason: &str) -> Problem {
    metrics::request_forwarded("silent");
    Problem::new(
        ProblemKind::LeaderSilent,
        format!("failed to learn what became of {what}: the leader at {leader} broke off ({reason})"),
    )
    .hint("it may have been done: look with `flowkeeper audit` before you repeat it")
}

fn foreign(what: &str, leader: &str, status: StatusCode) -> Problem {
    Problem::new(
        ProblemKind::LeaderSilent,
        format!("failed to learn what became of {what}: what answers at {leader} is not flowkeeper (status {status})"),
    )
    .hint("`[server] advertise` of that member must lead to its own API")
}

/// Whether this is an answer of flowkeeper's API.
fn is_ours(headers: &HeaderMap) -> bool {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim();
    ["application/json", "application/problem+json", "text/event-stream"].contains(&essence)
}

fn kept(headers: &HeaderMap) -> HeaderMap {
    let kept = ANSWER_HEADERS.into_iter().filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    kept.collect()
}

/// The whole answer; the reason where it broke off.
async fn read(mut answer: reqwest::Response) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| root_cause(&error))? {
        if bytes.len() + chunk.len() > ANSWER_MAX_BYTES {
            return Err("the answer is too long".to_owned());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// The answer as it comes. Where it breaks off the stream ends, and the caller connects again.
fn chunks(answer: reqwest::Response) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold(answer, |mut answer| async move {
        let chunk = answer.chunk().await.ok().flatten()?;
        Some((Ok(chunk), answer))
    })
}

/// The innermost error: the outer ones repeat the address.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_the_leader_is_passed_on_and_only_once() {
        let (get, post) = (Method::GET, Method::POST);
        let cases = [
            (&post, "/api/v1/schedules/a/trigger", Way::Leader, Way::Astray),
            (&post, "/api/v1/runs/7/cancel", Way::Leader, Way::Astray),
            (&get, "/api/v1/events", Way::Leader, Way::Astray),
            (&get, "/api/v1/schedules", Way::LeaderPreferred, Way::Here),
            (&get, "/api/v1/schedules/a", Way::LeaderPreferred, Way::Here),
            (&get, "/api/v1/adopt", Way::LeaderPreferred, Way::Here),
            (&get, "/api/v1/schedules/a/next", Way::Here, Way::Here),
            (&get, "/api/v1/runs", Way::Here, Way::Here),
            (&get, "/api/v1/members", Way::Here, Way::Here),
            (&post, "/api/v1/ensembles/main/checks/quorum/run", Way::Here, Way::Here),
            (&post, "/api/v1/ensembles/main/run/x", Way::Leader, Way::Astray),
            (&post, "/api/v1/config/reload", Way::Here, Way::Here),
            (&post, "/api/v1/config/reload/note", Way::Leader, Way::Astray),
            (&Method::PUT, "/api/v1/config/definitions", Way::Leader, Way::Astray),
            (&post, "/api/v1/config/rollback", Way::Leader, Way::Astray),
            (&get, "/api/v1/config/history", Way::Here, Way::Here),
            (&get, "/api/v1/config", Way::Here, Way::Here),
            (&get, "/healthz", Way::Here, Way::Here),
            (&get, "/readyz", Way::Here, Way::Here),
            (&get, "/metrics", Way::Here, Way::Here),
        ];
        for (method, path, expected, again) in cases {
            assert_eq!(way(method, path, false, false, false), expected, "{method} {path}");
            assert_eq!(way(method, path, false, false, true), again, "{method} {path}, passed on before");
            assert_eq!(way(method, path, true, false, true), Way::Here, "the leader does {method} {path} itself");
            assert_eq!(way(method, path, false, true, false), Way::Here, "alone, {method} {path}");
        }
    }
}
