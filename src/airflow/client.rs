//! The connection to one Airflow: finds out its API, sends with a login that works, reads answers.
//!
//! One keep-alive pool an Airflow. Redirects are not followed: a `POST` that a login page swallows
//! must be seen. Nothing here retries, except once after a fresh login and once after finding out that
//! the API has changed, both of which Airflow answered without doing anything.

use std::error::Error as _;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Certificate, Method, Url, redirect};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::answer::{self, Answer, Verdict};
use super::auth::{self, Authenticator, Session};
use super::{Api, Error, Settings, v1, v2, wire};
use crate::clock::Clock;
use crate::secret::Redaction;

/// Longest answer that is read; a page of 100 DAG runs with a conf of 100 KB each fits.
const MAX_ANSWER_BYTES: usize = 32 << 20;
/// How long connecting may take, within the time-out of the request.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A handle to one Airflow; clones share connections, login and what was found out.
#[derive(Clone)]
pub struct Airflow(Arc<Inner>);

struct Inner {
    settings: Settings,
    /// What Airflow is told also by requests without a login, and may repeat.
    redaction: Redaction,
    http: reqwest::Client,
    auth: Authenticator,
    clock: Clock,
    /// 0 until the API is known.
    api: AtomicU8,
    discovery: Mutex<()>,
    version: std::sync::Mutex<Option<String>>,
    /// Airflow's clock minus ours at its latest answer, in microseconds; `i64::MIN` before the first.
    clock_offset_us: AtomicI64,
}

/// A request of the API, without address and login.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, String)>,
    body: Option<Vec<u8>>,
    /// Airflow answers it whoever asks, so a good answer says nothing about the login.
    anonymous: bool,
}

impl Call {
    pub(super) fn new<const N: usize>(method: Method, path: [&str; N]) -> Self {
        Self { method, path: path.map(str::to_owned).to_vec(), query: Vec::new(), body: None, anonymous: false }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl fmt::Display) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    pub(super) fn page(self, limit: u32, offset: u64) -> Self {
        self.query("limit", limit).query("offset", offset)
    }

    pub(super) fn anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }

    pub(super) fn json(self, body: &serde_json::Value) -> Self {
        self.body(body.to_string().into_bytes())
    }

    pub(super) fn body(mut self, body: Vec<u8>) -> Self {
        self.body = Some(body);
        self
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It certainly did not reach Airflow.
    NotSent(String),
    /// It may have had its effect.
    Lost(String),
    /// The login did not work.
    Login(auth::AuthError),
    /// The API is not known and could not be found out.
    NoApi(Error),
}

/// An answer, and how long it took.
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) round_trip: Duration,
}

impl Airflow {
    /// Prepares the connection; sends nothing yet.
    pub fn new(settings: Settings, clock: Clock) -> Result<Self, Error> {
        let wrong = |detail: String| Error::Settings { airflow: settings.name.to_string(), detail };
        if !matches!(settings.url.scheme(), "http" | "https") {
            return Err(wrong(format!("{} is neither http nor https", settings.url.scheme())));
        }
        let mut headers = HeaderMap::new();
        let mut always_told = Vec::new();
        for (name, value) in &settings.headers {
            let value = value.read().map_err(|error| wrong(format!("header {name}: {error}")))?;
            let header = HeaderName::try_from(name).map_err(|_| wrong(format!("{name:?} is no header name")))?;
            let header_value =
                auth::header_value(value.expose()).map_err(|detail| wrong(format!("header {name}: {detail}")))?;
            headers.insert(header, header_value);
            always_told.push(value);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("flowkeeper/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
            .timeout(settings.timeout)
            .http1_only();
        if let Some(ca) = &settings.ca {
            let pem = std::fs::read(ca).map_err(|error| wrong(format!("{}: {error}", ca.display())))?;
            let certificates = Certificate::from_pem_bundle(&pem)
                .map_err(|error| wrong(format!("{}: {}", ca.display(), causes(&error))))?;
            if certificates.is_empty() {
                return Err(wrong(format!("{} holds no certificate", ca.display())));
            }
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder.build().map_err(|error| wrong(causes(&error)))?;
        let redaction = Redaction::of(&always_told);
        let auth =
            Authenticator::new(settings.auth.clone(), settings.url.clone(), http.clone(), clock.clone(), always_told);
        Ok(Self(Arc::new(Inner {
            settings,
            redaction,
            http,
            auth,
            clock,
            api: AtomicU8::new(0),
            discovery: Mutex::new(()),
            version: std::sync::Mutex::new(None),
            clock_offset_us: AtomicI64::new(i64::MIN),
        })))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.0.settings.name
    }

    /// Its address, without anything secret.
    pub fn address(&self) -> String {
        address(&self.0.settings.url)
    }

    /// The API that it speaks, once that is known.
    pub fn known_api(&self) -> Option<Api> {
        match self.0.api.load(Ordering::Relaxed) {
            1 => Some(Api::V1),
            2 => Some(Api::V2),
            _ => None,
        }
    }

    /// The version that it said it is, once that is known.
    pub fn version(&self) -> Option<String> {
        self.0.version.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Airflow's clock minus ours, from the `Date` header of its latest answer (whole seconds).
    pub fn clock_offset(&self) -> Option<SignedDuration> {
        let offset_us = self.0.clock_offset_us.load(Ordering::Relaxed);
        (offset_us != i64::MIN).then(|| SignedDuration::from_micros(offset_us))
    }

    /// What time it is in Airflow, judged from its latest answer.
    pub fn server_date(&self) -> Option<Timestamp> {
        self.0.clock.now().checked_add(self.clock_offset()?).ok()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// The API, found out if need be: v2 first, since Airflow 3 answers for v1 as well (with a 404).
    pub(super) async fn api(&self) -> Result<Api, Failure> {
        if let Some(api) = self.known_api() {
            return Ok(api);
        }
        let _turn = self.0.discovery.lock().await;
        if let Some(api) = self.known_api() {
            return Ok(api);
        }
        let mut said = String::new();
        for (api, number, root) in [(Api::V2, 2, v2::ROOT), (Api::V1, 1, v1::ROOT)] {
            let call = Call::new(Method::GET, ["version"]);
            let mut reply = self.send_once(root, &call, None).await?;
            if matches!(reply.answer.status, 300..=399 | 401 | 403) {
                // Something before Airflow asks who we are even for this.
                let session = self.0.auth.session(api).await.map_err(Failure::Login)?;
                reply = self.send_once(root, &call, Some(&session)).await?;
            }
            let answer = &reply.answer;
            match (answer.status, wire::version(&answer.body), answer::classify(answer)) {
                (200, Some(version), _) => {
                    tracing::info!(airflow = self.name(), airflow.version = version, airflow.api = ?api, "Airflow answers");
                    *self.0.version.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(version);
                    self.0.api.store(number, Ordering::Relaxed);
                    return Ok(api);
                }
                (_, _, Verdict::Unknown(detail)) if answer.status >= 500 || answer.status == 429 => {
                    // It may be v2 in trouble: asking for v1 would not tell.
                    return Err(Failure::NoApi(self.no_api(detail)));
                }
                (status, _, verdict) => {
                    let detail = match verdict {
                        Verdict::Done => "no Airflow".to_owned(),
                        Verdict::Absent(detail)
                        | Verdict::Unauthorized(detail)
                        | Verdict::WrongApi(detail)
                        | Verdict::Refused(detail)
                        | Verdict::Unknown(detail) => detail,
                    };
                    let separator = if said.is_empty() { "" } else { "; " };
                    let _ = write!(said, "{separator}/{} answers {status} ({detail})", root.join("/"));
                }
            }
        }
        Err(Failure::NoApi(self.no_api(said)))
    }

    fn no_api(&self, detail: String) -> Error {
        Error::NoApi { airflow: self.name().to_owned(), url: self.address(), detail }
    }

    /// Forgets which API it is, so that the next request finds it out again.
    pub(super) fn forget_api(&self, was: Api) {
        let number = if was == Api::V1 { 1 } else { 2 };
        let _ = self.0.api.compare_exchange(number, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Sends `call`, with one more try after a fresh login when Airflow does not accept the session.
    pub(super) async fn send(&self, api: Api, call: &Call) -> Result<Reply, Failure> {
        let root = if api == Api::V1 { v1::ROOT } else { v2::ROOT };
        let session = self.0.auth.session(api).await.map_err(Failure::Login)?;
        let reply = self.send_once(root, call, Some(&session)).await?;
        if !matches!(reply.answer.status, 401 | 403) {
            if !call.anonymous {
                session.prove();
            }
            return Ok(reply);
        }
        let expired = is_about_token(&reply.answer);
        let Some(fresh) = self.0.auth.renew(&session, api, expired).await.map_err(Failure::Login)? else {
            self.0.auth.refused(&session, &refused_text(&reply.answer)).await;
            return Ok(reply);
        };
        let reply = self.send_once(root, call, Some(&fresh)).await?;
        if matches!(reply.answer.status, 401 | 403) {
            self.0.auth.refused(&fresh, &refused_text(&reply.answer)).await;
        } else {
            fresh.prove();
        }
        Ok(reply)
    }

    /// Sends `call` as it is.
    async fn send_once(&self, root: [&str; 2], call: &Call, session: Option<&Session>) -> Result<Reply, Failure> {
        let mut url: Url = self.0.settings.url.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(root).extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let mut request = self.0.http.request(call.method.clone(), url);
        if let Some(session) = session {
            request = request.headers(session.headers.clone());
        }
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body.clone());
        }
        let started = Instant::now();
        let mut response = request.send().await.map_err(|error| failure(&error))?;
        let text =
            |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut answer = Answer {
            status: response.status().as_u16(),
            retry_after: text(RETRY_AFTER),
            location: text(LOCATION),
            date: text(DATE),
            body: Vec::new(),
            redaction: session.map_or(&self.0.redaction, |session| &session.redaction).clone(),
        };
        self.note_date(&answer);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if answer.body.len() + chunk.len() <= MAX_ANSWER_BYTES => {
                    answer.body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => return Err(Failure::Lost(format!("{}: the answer is too large", answer.status))),
                Ok(None) => break,
                Err(error) => return Err(Failure::Lost(format!("{}: {}", answer.status, causes(&error)))),
            }
        }
        Ok(Reply { answer, round_trip: started.elapsed() })
    }

    fn note_date(&self, answer: &Answer) {
        if let Some(date) = answer.date.as_deref().and_then(answer::http_date) {
            let offset = date.duration_since(self.0.clock.now());
            let offset_us = i64::try_from(offset.as_micros()).unwrap_or(i64::MAX);
            self.0.clock_offset_us.store(offset_us, Ordering::Relaxed);
        }
    }

    /// Sends the request that `make` makes for the API that this Airflow speaks. When the answer shows
    /// that it speaks another one by now, the request is made and sent once more.
    pub(super) async fn exchange(&self, make: impl Fn(Api) -> Call) -> Result<Reply, Failure> {
        let api = self.api().await?;
        let reply = self.send(api, &make(api)).await?;
        if !answer::is_wrong_api(&reply.answer) {
            return Ok(reply);
        }
        self.forget_api(api);
        match self.api().await? {
            other if other != api => self.send(other, &make(other)).await,
            _ => Ok(reply),
        }
    }

    /// Sends a request that reads or changes one thing, and gives back the body of a good answer.
    /// `tried` completes "failed to …" and names the thing.
    pub(super) async fn ask(&self, tried: &str, make: impl Fn(Api) -> Call) -> Result<Vec<u8>, Error> {
        let reply = self.exchange(make).await.map_err(|failure| self.error(tried, failure))?;
        let (airflow, tried) = (self.name().to_owned(), tried.to_owned());
        match answer::classify(&reply.answer) {
            Verdict::Done => Ok(reply.answer.body),
            Verdict::Absent(detail) => Err(Error::Absent { airflow, tried, detail }),
            Verdict::Unauthorized(detail) => Err(Error::Unauthorized { airflow, tried, detail }),
            Verdict::Refused(detail) | Verdict::Unknown(detail) | Verdict::WrongApi(detail) => {
                Err(Error::Refused { airflow, tried, detail })
            }
        }
    }

    /// The error of a request that has no answer.
    pub(super) fn error(&self, tried: &str, failure: Failure) -> Error {
        let (airflow, tried, url) = (self.name().to_owned(), tried.to_owned(), self.address());
        match failure {
            Failure::NotSent(detail) => Error::NoAnswer { airflow, url, tried, detail, not_sent: true },
            Failure::Lost(detail) => Error::NoAnswer { airflow, url, tried, detail, not_sent: false },
            Failure::Login(source) => Error::Login { airflow, source },
            Failure::NoApi(error) => error,
        }
    }

    /// The error of a good answer whose body is not what it should be.
    pub(super) fn garbled(&self, tried: &str) -> Error {
        Error::Refused {
            airflow: self.name().to_owned(),
            tried: tried.to_owned(),
            detail: "the answer is not what Airflow's API promises".to_owned(),
        }
    }
}

/// An Airflow's address as people are shown it, without anything secret.
pub fn address(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path().trim_end_matches('/'))
}

impl fmt::Debug for Airflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Airflow").field("name", &self.name()).field("address", &self.address()).finish_non_exhaustive()
    }
}

/// Whether a refusal is about the token and not about what its user may do: 401, or the words of
/// Airflow 3 (403, `Invalid JWT token`).
fn is_about_token(answer: &Answer) -> bool {
    const WORDS: &[u8] = b"Invalid JWT token";
    answer.status == 401 || answer.body.windows(WORDS.len()).any(|window| window == WORDS)
}

fn refused_text(answer: &Answer) -> String {
    match answer::classify(answer) {
        Verdict::Unauthorized(detail) => detail,
        _ => answer.status.to_string(),
    }
}

fn failure(error: &reqwest::Error) -> Failure {
    if error.is_connect() || error.is_builder() {
        Failure::NotSent(causes(error))
    } else {
        Failure::Lost(if error.is_timeout() { "no answer in time".to_owned() } else { causes(error) })
    }
}

/// An error with its causes, without the address (which may hold a secret, and is named anyway).
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        if !text.is_empty() {
            text.push_str(": ");
        }
        let _ = write!(text, "{error}");
        cause = error.source();
    }
    if text.is_empty() {
        if error.is_timeout() { "no answer in time".into() } else { "no answer".into() }
    } else {
        text
    }
}
