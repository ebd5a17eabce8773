//! Logging in to Airflow: four ways to come by the headers that a request needs.
//!
//! One login is under way at a time, whoever waits for it, and what it brought is used until shortly
//! before it expires. A login that was refused is not tried again at once: nobody's account should be
//! locked because a password changed.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, StatusCode, Url};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Api, Auth, wire};
use crate::clock::Clock;
use crate::secret::{Redaction, Secret};

/// A session this young that Airflow has accepted is not renewed for a 403: the user may not do that.
const FRESH: Duration = Duration::from_secs(30);
/// The first and the longest pause after a refused login.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(1));
/// What a token is good for when nobody says.
const DEFAULT_LIFETIME: Duration = Duration::from_mins(5);
/// Longest output of a command that is read.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// The longest argument of a command, in characters, that counts as no secret when the command repeats it.
const LONGEST_OPTION: usize = 5;

/// Why a login did not work; fits "failed to log in: …". Holds no secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthError {
    /// A secret could not be read.
    #[error("{0}")]
    Credential(String),
    /// Who we are is not believed.
    #[error("{0}")]
    Refused(String),
    /// The place to log in is out of reach or out of order.
    #[error("{0}")]
    Unavailable(String),
    /// The command failed.
    #[error("the command {program} {detail}")]
    Command {
        /// What was started.
        program: String,
        /// What it did.
        detail: String,
    },
}

impl AuthError {
    /// What a person can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Credential(_) => "the file or variable that `auth` names must hold the secret",
            Self::Refused(_) => "check user, password or client in `auth`; flowkeeper tries again within a minute",
            Self::Unavailable(_) => "flowkeeper goes on trying",
            Self::Command { .. } => "run the command by hand, as the user that flowkeeper runs as",
        }
    }
}

/// The headers that a login brought.
pub(super) struct Session {
    pub(super) headers: HeaderMap,
    /// A login of one version is nothing to the other.
    api: Api,
    generation: u64,
    obtained: Instant,
    renew_at: Option<Instant>,
    /// Airflow has accepted it at least once.
    proven: AtomicBool,
    /// What Airflow was told, and may repeat.
    pub(super) redaction: Redaction,
}

impl Session {
    /// Airflow has done something for this session, so who we are is believed.
    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Keeps one Airflow's session.
#[derive(Debug)]
pub(super) struct Authenticator {
    auth: Auth,
    base: Url,
    http: reqwest::Client,
    clock: Clock,
    /// What every request tells, whoever logs in.
    always_told: Vec<Secret>,
    current: RwLock<Option<Arc<Session>>>,
    login: Mutex<Option<Refusal>>,
    generations: AtomicU64,
}

/// The last refused login.
#[derive(Debug)]
struct Refusal {
    error: AuthError,
    pause: Duration,
    until: Instant,
}

/// What a login brings.
struct Grant {
    headers: HeaderMap,
    lifetime: Option<Duration>,
    /// What was told for it.
    told: Vec<Secret>,
}

impl Authenticator {
    /// `always_told` are the secrets in the headers of every request.
    pub(super) fn new(auth: Auth, base: Url, http: reqwest::Client, clock: Clock, always_told: Vec<Secret>) -> Self {
        Self {
            auth,
            base,
            http,
            clock,
            always_told,
            current: RwLock::new(None),
            login: Mutex::new(None),
            generations: AtomicU64::new(0),
        }
    }

    /// The session to use now; logs in when there is none or it is about to expire.
    pub(super) async fn session(&self, api: Api) -> Result<Arc<Session>, AuthError> {
        match self.usable(api) {
            Some(session) => Ok(session),
            None => self.log_in(api, None).await,
        }
    }

    /// A session newer than `stale`, which Airflow did not accept; `None` when there is nothing newer
    /// to be had, because Airflow knows us and refuses all the same.
    ///
    /// `expired`: Airflow named the token itself as the reason, so that a new one may help however
    /// young this one is (a restarted API server signs with another key).
    pub(super) async fn renew(
        &self,
        stale: &Session,
        api: Api,
        expired: bool,
    ) -> Result<Option<Arc<Session>>, AuthError> {
        let costly = match self.auth {
            Auth::None => return Ok(None),
            // The same words again, unless their file has changed.
            Auth::Token(_) => false,
            Auth::Password { .. } => api == Api::V2,
            Auth::Command { .. } | Auth::OAuth2 { .. } => true,
        };
        if costly && !expired && stale.proven.load(Ordering::Relaxed) && stale.obtained.elapsed() < FRESH {
            return Ok(None);
        }
        let fresh = self.log_in(api, Some(stale.generation)).await?;
        Ok((fresh.generation != stale.generation).then_some(fresh))
    }

    /// Airflow did not accept `session`. If it never has, nothing is sent for a while.
    pub(super) async fn refused(&self, session: &Session, detail: &str) {
        if matches!(self.auth, Auth::None) || session.proven.load(Ordering::Relaxed) {
            return;
        }
        let mut refusal = self.login.lock().await;
        if self.generation() == Some(session.generation) {
            self.set_current(None);
            back_off(&mut refusal, AuthError::Refused(detail.to_owned()));
        }
    }

    fn usable(&self, api: Api) -> Option<Arc<Session>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        let in_time = |session: &&Arc<Session>| session.renew_at.is_none_or(|at| Instant::now() < at);
        current.as_ref().filter(|session| session.api == api).filter(in_time).cloned()
    }

    fn generation(&self) -> Option<u64> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|session| session.generation)
    }

    fn set_current(&self, session: Option<Arc<Session>>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = session;
    }

    async fn log_in(&self, api: Api, stale: Option<u64>) -> Result<Arc<Session>, AuthError> {
        let mut refusal = self.login.lock().await;
        // Somebody may have logged in while this task waited for its turn.
        if let Some(session) = self.usable(api).filter(|session| Some(session.generation) != stale) {
            return Ok(session);
        }
        if let Some(refusal) = refusal.as_ref().filter(|refusal| Instant::now() < refusal.until) {
            return Err(refusal.error.clone());
        }
        match self.grant(api).await {
            Ok(grant) => {
                // A password or token that has not changed is no new session. Nor is the last refusal
                // forgotten before this session is proven: the pauses go on growing.
                if let Some(same) = self.usable(api).filter(|session| session.headers == grant.headers) {
                    return Ok(same);
                }
                let redaction = self.redaction(&grant.told, &grant.headers);
                let obtained = Instant::now();
                let session = Arc::new(Session {
                    headers: grant.headers,
                    api,
                    generation: self.generations.fetch_add(1, Ordering::Relaxed),
                    obtained,
                    renew_at: grant.lifetime.map(|lifetime| obtained + lifetime.mul_f64(0.9)),
                    proven: AtomicBool::new(false),
                    redaction,
                });
                self.set_current(Some(Arc::clone(&session)));
                Ok(session)
            }
            Err(error) => {
                if matches!(error, AuthError::Unavailable(_)) {
                    *refusal = None;
                } else {
                    back_off(&mut refusal, error.clone());
                }
                Err(error)
            }
        }
    }

    /// What an answer to a request with these headers may repeat, after a login that told these secrets.
    fn redaction(&self, told: &[Secret], headers: &HeaderMap) -> Redaction {
        let values = headers.values().filter_map(|value| value.to_str().ok());
        // Whoever repeats a header may leave its scheme out.
        let words = values.flat_map(|value| [Some(value), value.split_once(' ').map(|(_, credential)| credential)]);
        let sent: Vec<Secret> = words.flatten().map(Secret::new).collect();
        Redaction::of(self.always_told.iter().chain(told).chain(&sent))
    }

    async fn grant(&self, api: Api) -> Result<Grant, AuthError> {
        match &self.auth {
            Auth::None => Ok(Grant { headers: HeaderMap::new(), lifetime: None, told: Vec::new() }),
            Auth::Password { username, password } => {
                let password = read(password)?;
                let grant = match api {
                    Api::V1 => {
                        let basic = STANDARD.encode(format!("{username}:{}", password.expose()));
                        authorization(&format!("Basic {basic}"), None)
                    }
                    Api::V2 => self.exchange_password(username, &password).await,
                }?;
                Ok(Grant { told: vec![password], ..grant })
            }
            Auth::Token(token) => bearer(read(token)?.expose(), None),
            Auth::Command { argv, ttl, timeout } => {
                let output = run_command(argv, *timeout).await?;
                parse_output(&output, *ttl, self.clock.now())
                    .map_err(|detail| AuthError::Command { program: program(argv), detail })
            }
            Auth::OAuth2 { token_url, client_id, client_secret, scope, audience } => {
                let secret = read(client_secret)?;
                let mut form = vec![("grant_type", "client_credentials"), ("client_id", client_id.as_str())];
                form.extend(scope.as_deref().map(|scope| ("scope", scope)));
                form.extend(audience.as_deref().map(|audience| ("audience", audience)));
                let grant = self.exchange_client(token_url, client_id, &secret, form).await?;
                Ok(Grant { told: vec![secret], ..grant })
            }
        }
    }

    /// `POST /auth/token`: 201 with a JWT (measured on Airflow 3.3.2).
    async fn exchange_password(&self, username: &str, password: &Secret) -> Result<Grant, AuthError> {
        #[derive(Deserialize)]
        struct Token {
            access_token: String,
        }
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["auth", "token"]);
        }
        let body = json!({"username": username, "password": password.expose()});
        let response = self.http.post(url.clone()).json(&body).send().await;
        let (status, body) = read_answer(&url, response).await?;
        if !status.is_success() {
            return Err(self.refusal(&url, status, &body, std::slice::from_ref(password)));
        }
        let token: Token = serde_json::from_slice(&body).map_err(|_| {
            AuthError::Unavailable(format!("{} answered {status} without an access token", shown(&url)))
        })?;
        let lifetime = jwt_lifetime(&token.access_token, self.clock.now());
        bearer(&token.access_token, lifetime)
    }

    /// Token servers differ in where they want the client's secret (RFC 6749, section 2.3.1): in the
    /// body first, and in a header when that is refused.
    async fn exchange_client(
        &self,
        url: &Url,
        client_id: &str,
        secret: &Secret,
        form: Vec<(&str, &str)>,
    ) -> Result<Grant, AuthError> {
        #[derive(Deserialize)]
        struct Token {
            access_token: String,
            #[serde(default)]
            expires_in: Option<serde_json::Number>,
        }
        let mut with_secret = form.clone();
        with_secret.push(("client_secret", secret.expose()));
        let response = self.http.post(url.clone()).form(&with_secret).send().await;
        let (mut status, mut body) = read_answer(url, response).await?;
        if matches!(status.as_u16(), 400 | 401) {
            let request = self.http.post(url.clone()).basic_auth(client_id, Some(secret.expose())).form(&form);
            (status, body) = read_answer(url, request.send().await).await?;
        }
        if !status.is_success() {
            // As the header had it.
            let basic = Secret::new(STANDARD.encode(format!("{client_id}:{}", secret.expose())));
            return Err(self.refusal(url, status, &body, &[secret.clone(), basic]));
        }
        let token: Token = serde_json::from_slice(&body)
            .map_err(|_| AuthError::Unavailable(format!("{} answered {status} without an access token", shown(url))))?;
        let seconds = token.expires_in.and_then(|seconds| seconds.as_f64()).filter(|seconds| *seconds >= 1.0);
        let lifetime = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        bearer(&token.access_token, Some(lifetime.unwrap_or(DEFAULT_LIFETIME)))
    }

    /// The error of a login with these secrets that was answered, and not with a token.
    fn refusal(&self, url: &Url, status: StatusCode, body: &[u8], told: &[Secret]) -> AuthError {
        let redaction = self.redaction(told, &HeaderMap::new());
        let said = wire::failure(body, &redaction).map(|said| format!(": {said}")).unwrap_or_default();
        let text = format!("{} answered {}{said}", shown(url), status.as_u16());
        match status.as_u16() {
            408 | 425 | 429 | 500..=599 => AuthError::Unavailable(text),
            _ => AuthError::Refused(text),
        }
    }
}

fn back_off(refusal: &mut Option<Refusal>, error: AuthError) {
    // A refusal of long ago says nothing of this one.
    let last = refusal.as_ref().filter(|last| last.until.elapsed() < BACK_OFF.1);
    let pause = last.map_or(BACK_OFF.0, |last| (last.pause * 2).min(BACK_OFF.1));
    *refusal = Some(Refusal { error, pause, until: Instant::now() + pause });
}

fn read(credential: &crate::secret::Credential) -> Result<Secret, AuthError> {
    credential.read().map_err(|error| AuthError::Credential(error.to_string()))
}

fn bearer(token: &str, lifetime: Option<Duration>) -> Result<Grant, AuthError> {
    authorization(&format!("Bearer {token}"), lifetime)
}

fn authorization(value: &str, lifetime: Option<Duration>) -> Result<Grant, AuthError> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, header_value(value).map_err(AuthError::Credential)?);
    Ok(Grant { headers, lifetime, told: Vec::new() })
}

/// A header value that no log shows.
pub(super) fn header_value(value: &str) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| "the secret has characters that no header may hold".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// `url` without what may be a secret in it.
fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

async fn read_answer(url: &Url, response: reqwest::Result<Response>) -> Result<(StatusCode, Vec<u8>), AuthError> {
    let unavailable =
        |error: reqwest::Error| AuthError::Unavailable(format!("{}: {}", shown(url), super::client::causes(&error)));
    let response = response.map_err(unavailable)?;
    let status = response.status();
    Ok((status, response.bytes().await.map_err(unavailable)?.to_vec()))
}

/// How long a JWT is good for: `exp` against `iat`, or against our clock where there is no `iat`.
/// The signature is Airflow's business.
fn jwt_lifetime(token: &str, now: Timestamp) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
        #[serde(default)]
        iat: Option<f64>,
    }
    let payload = token.split('.').nth(1)?.trim_end_matches('=');
    let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    let from = claims.iat.unwrap_or(now.as_second() as f64);
    Duration::try_from_secs_f64((claims.exp - from).clamp(0.0, 1e9)).ok()
}

fn program(argv: &[String]) -> String {
    argv.first().cloned().unwrap_or_default()
}

async fn run_command(argv: &[String], timeout: Duration) -> Result<String, AuthError> {
    let failed = |detail: String| AuthError::Command { program: program(argv), detail };
    let [program, arguments @ ..] = argv else {
        return Err(failed("is empty".into()));
    };
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // What it starts itself belongs to the same group, and ends with it.
        .process_group(0)
        .spawn()
        .map_err(|error| failed(format!("cannot be started: {error}")))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("has no output".into()));
    };
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let work = async {
        let (mut stdout, mut stderr) = (stdout.take(MAX_OUTPUT_BYTES), stderr.take(MAX_OUTPUT_BYTES));
        tokio::try_join!(stdout.read_to_end(&mut output), stderr.read_to_end(&mut errors))?;
        child.wait().await
    };
    let status = match tokio::time::timeout(timeout, work).await {
        Err(_) => {
            // The child has not been waited for, so its id is not somebody else's yet.
            if let Some(group) = group
                && let Err(error) = kill_process_group(group, Signal::KILL)
            {
                tracing::warn!(program, %error, "The command for a token hangs and cannot be killed.");
            }
            return Err(failed(format!("did not end within {} s", timeout.as_secs_f64())));
        }
        Ok(Err(error)) => return Err(failed(format!("cannot be read: {error}"))),
        Ok(Ok(status)) => status,
    };
    if !status.success() {
        // Arguments may be secrets; the shorter ones are options and names.
        let secrets: Vec<Secret> = arguments
            .iter()
            .filter(|argument| argument.chars().count() > LONGEST_OPTION)
            .map(|argument| Secret::new(argument.as_str()))
            .collect();
        let said = Redaction::of(&secrets).apply(&String::from_utf8_lossy(&errors));
        return Err(failed(format!("ended with {status}: {}", wire::one_line(&said))));
    }
    String::from_utf8(output).map_err(|_| failed("printed something else than text".into()))
}

/// Reads what a command printed: a token, or JSON with headers. The errors never show any of it.
fn parse_output(output: &str, ttl: Duration, now: Timestamp) -> Result<Grant, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Printed {
        headers: BTreeMap<String, String>,
        #[serde(default)]
        expires_at: Option<Timestamp>,
    }
    let output = output.trim();
    if !output.starts_with('{') {
        if output.is_empty() || output.contains(char::is_whitespace) {
            return Err("printed neither a token on one line nor JSON".into());
        }
        let value = header_value(&format!("Bearer {output}"))?;
        let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
        return Ok(Grant { headers, lifetime: Some(ttl), told: Vec::new() });
    }
    // The message of serde_json may quote what it read.
    let printed: Printed = serde_json::from_str(output)
        .map_err(|_| r#"printed JSON other than {"headers": {…}, "expires_at": "…"}"#.to_owned())?;
    let mut headers = HeaderMap::new();
    for (name, value) in &printed.headers {
        let name = HeaderName::try_from(name).map_err(|_| "printed a header name that HTTP does not allow")?;
        headers.insert(name, header_value(value)?);
    }
    let left = printed.expires_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    Ok(Grant { headers, lifetime: Some(left.unwrap_or(ttl)), told: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Timestamp {
        "2026-11-22T14:59:25Z".parse().unwrap()
    }

    fn token(claims: &str) -> String {
        format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_tokens_lifetime_is_in_it() {
        let cases = [
            (token(r#"{"exp":1795445965,"iat":1795359565}"#), Some(86_400)),
            (token(r#"{"exp":1795359625}"#), Some(60)),
            (token(r#"{"exp":5,"iat":10}"#), Some(0)),
            (token(r#"{"exp":1e300}"#), Some(1_000_000_000)),
            (token("{}"), None),
            ("opaque".to_owned(), None),
            ("a.!!.c".to_owned(), None),
        ];
        for (token, seconds) in cases {
            assert_eq!(jwt_lifetime(&token, now()), seconds.map(Duration::from_secs), "{token}");
        }
    }

    #[test]
    fn a_command_prints_a_token_or_headers() {
        let ttl = Duration::from_mins(1);
        let grant = parse_output(" abc.def\n", ttl, now()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(grant.headers[AUTHORIZATION], "Bearer abc.def");
        assert_eq!(grant.lifetime, Some(ttl));
        let json = r#"{"headers":{"Cookie":"s=1"},"expires_at":"2026-11-22T15:59:25Z"}"#;
        let grant = parse_output(json, ttl, now()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(grant.headers["cookie"], "s=1");
        assert_eq!(grant.lifetime, Some(Duration::from_hours(1)));
        for bad in ["", "two words", "{", r#"{"token":"hunter2"}"#, r#"{"headers":{"a b":"hunter2"}}"#, "hunter2\u{7f}"]
        {
            let error = parse_output(bad, ttl, now()).err().unwrap_or_else(|| panic!("{bad:?} was taken"));
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_command_that_fails_or_hangs_says_so() {
        let run = async |script: &str, seconds| {
            let argv = ["sh", "-c", script].map(str::to_owned);
            run_command(&argv, Duration::from_secs(seconds)).await
        };
        assert_eq!(run("echo tok", 60).await.unwrap(), "tok\n");
        let failed = run("echo hunter2; echo no such account >&2; exit 3", 60).await.unwrap_err().to_string();
        assert!(failed.contains("no such account") && !failed.contains("hunter2"), "{failed}");
        // The shell waits for a program of its own, which must not outlive it.
        let left = tempfile::NamedTempFile::new().unwrap();
        let hangs = format!("sleep 600 & echo $! > {}; wait", left.path().display());
        let hung = run(&hangs, 3).await.unwrap_err().to_string();
        assert!(hung.contains("did not end within 3 s"), "{hung}");
        let pid: i32 = std::fs::read_to_string(left.path()).unwrap().trim().parse().unwrap();
        // A zombie, where nobody waits for orphans, has no command line any more.
        let runs = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
        for _ in 0..3_000 {
            if runs() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        assert!(!runs(), "process {pid} outlived the command");
        let argv = ["sh", "-c", "echo no account for $1 >&2; exit 1", "token", "--key=hunter2"].map(str::to_owned);
        let told = run_command(&argv, Duration::from_secs(10)).await.unwrap_err().to_string();
        assert!(told.ends_with("no account for …"), "{told}");
        let missing = run_command(&["/nonexistent/program".to_owned()], Duration::from_secs(1)).await.unwrap_err();
        assert!(missing.to_string().contains("cannot be started"), "{missing}");
    }

    proptest! {
        #[test]
        fn no_output_makes_a_reader_panic(output in ".{0,200}", token in "[a-zA-Z0-9._=-]{0,80}") {
            let _ = parse_output(&output, Duration::from_secs(1), now());
            let _ = jwt_lifetime(&token, now());
        }
    }
}
