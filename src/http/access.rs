//! Who may call the API: named tokens, and protection from pages of other sites.
//!
//! Without tokens the API is for this machine alone; what remains is the browser on this machine,
//! which any site can make send requests. Two checks stop that: a page cannot choose the `Host`
//! header (DNS rebinding), and it cannot send JSON from elsewhere without telling its origin
//! (cross-site request forgery).

mod credentials;
mod rights;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq as _;

use self::rights::Verdict;
use super::forward::{FORWARDED_BY, FORWARDED_FOR};
use super::problem::{Problem, ProblemKind};
use super::{Api, OPEN_PATHS, changes, pages};
use crate::config::Environment;
use crate::config::model::{Role, Server};
use crate::config::secret::SecretError;
use crate::domain::team::Reach;
use crate::operations::Order;

/// The name of callers where no token is needed.
const LOCAL: &str = "local";

/// Who may call. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    tokens: Vec<NamedToken>,
    /// Host names under which this member is known, beside loopback.
    hosts: Vec<String>,
}

struct NamedToken {
    name: String,
    role: Role,
    /// The team whose schedules and runs alone it may act on.
    team: Option<Arc<str>>,
    /// Digests have one length, so comparing them tells nothing of the token's.
    digest: [u8; 32],
}

impl std::fmt::Debug for NamedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NamedToken")
            .field("name", &self.name)
            .field("role", &self.role)
            .field("team", &self.team)
            .finish_non_exhaustive()
    }
}

/// Who calls, for the audit. What the caller's role allows was checked before a handler runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token, or `local`.
    pub actor: String,
    /// Address that the request came from.
    pub address: String,
    /// The same for the audit: with the member that passed the request on, if one did.
    pub source: String,
    /// What it may act on; whose that is, is known where it is found.
    pub reach: Reach,
}

impl Caller {
    /// What the caller asks for, as the audit keeps it.
    pub(super) fn order(self, reason: Option<String>) -> Order {
        Order { actor: self.actor, source: self.source, reason, reach: self.reach }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::new(ProblemKind::Internal, "failed to tell who calls: the check did not run"))
    }
}

impl Access {
    /// Reads the tokens of `[[server.token]]`.
    pub fn from_config(server: &Server, environment: &Environment) -> Result<Self, SecretError> {
        let tokens = server
            .tokens
            .iter()
            .map(|token| {
                let secret = token.value.resolve(environment)?;
                let (name, role, team) = (token.name.clone(), token.role, token.team.clone());
                Ok(NamedToken { name, role, team, digest: digest(secret.expose()) })
            })
            .collect::<Result<_, SecretError>>()?;
        let mut hosts = vec![server.listen.ip().to_string()];
        let advertised = server.advertise.as_deref().and_then(|url| url.parse::<Uri>().ok());
        hosts.extend(advertised.as_ref().and_then(Uri::host).map(str::to_ascii_lowercase));
        Ok(Self(Arc::new(Rules { tokens, hosts })))
    }

    /// Decides about a request from `source`; `Ok` names the caller.
    fn admit(&self, source: SocketAddr, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Problem> {
        let local = || (LOCAL.to_owned(), Reach::Everything);
        let (actor, reach) = if OPEN_PATHS.contains(&uri.path()) {
            local()
        } else if self.0.tokens.is_empty() {
            self.admit_local(source, headers)?;
            local()
        } else {
            self.admit_token(headers, changes(method, uri.path()), method, uri)?
        };
        // Whatever it does, a page of another site shall not have it done.
        if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            refuse_other_sites(headers)?;
            require_json(headers, uri)?;
        }
        let address = source.ip().to_canonical().to_string();
        Ok(Caller { actor, source: address.clone(), address, reach })
    }

    fn admit_local(&self, source: SocketAddr, headers: &HeaderMap) -> Result<(), Problem> {
        if !source.ip().to_canonical().is_loopback() {
            return Err(Problem::new(
                ProblemKind::Forbidden,
                "failed to admit the request: without tokens the API is for this machine alone",
            )
            .hint("configure `[[server.token]]`"));
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).and_then(host_name);
        match host {
            Some(host) if is_loopback(&host) || self.0.hosts.contains(&host) => Ok(()),
            _ => Err(Problem::new(
                ProblemKind::Forbidden,
                "failed to admit the request: its `Host` header is none of this member's names",
            )
            .hint("call it as `localhost` or as in `[server] advertise`, or configure `[[server.token]]`")),
        }
    }

    fn admit_token(
        &self,
        headers: &HeaderMap,
        changes: bool,
        method: &Method,
        uri: &Uri,
    ) -> Result<(String, Reach), Problem> {
        let Some(token) = credentials::token(headers, !changes) else {
            return Err(Problem::new(
                ProblemKind::Unauthenticated,
                format!("failed to admit {method} {}: it carries no token", uri.path()),
            )
            .hint("send `Authorization: Bearer …` with a token of `[[server.token]]`"));
        };
        let given = digest(&token);
        // All are compared, so that the time taken does not tell which one came close.
        let matching = self.0.tokens.iter().filter(|token| bool::from(token.digest.ct_eq(&given))).collect::<Vec<_>>();
        let Some(token) = matching.first() else {
            return Err(Problem::new(
                ProblemKind::Unauthenticated,
                format!("failed to admit {method} {}: the token is unknown", uri.path()),
            )
            .hint("is it one of this member's `[[server.token]]`?"));
        };
        let (name, role) = (&token.name, token.role.as_str());
        let forbidden = |reason: String| {
            let detail = format!("failed to admit {method} {}: the token `{name}` {reason}", uri.path());
            Problem::new(ProblemKind::Forbidden, detail)
        };
        match (rights::judge(token.role, token.team.is_some(), changes, uri.path()), &token.team) {
            (Verdict::Needs(needed), _) => {
                Err(forbidden(format!("has the role `{role}`, and `{}` is needed", needed.as_str()))
                    .hint("use a token with that role"))
            }
            (Verdict::ConcernsAll, Some(team)) => {
                Err(forbidden(format!("is bound to the team `{team}`, and this concerns all teams"))
                    .hint("use a token without `team`"))
            }
            (_, Some(team)) => Ok((name.clone(), Reach::Team(Arc::clone(team)))),
            (_, None) => Ok((name.clone(), Reach::Everything)),
        }
    }
}

/// The middleware: admits the request, or answers with a problem.
pub(super) async fn guard(
    State(api): State<Api>,
    ConnectInfo(source): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = api.access.admit(source, request.method(), request.uri(), request.headers());
    match caller {
        Ok(mut caller) => {
            if let Some(source) =
                forwarded_source(request.headers(), &caller.address, |id| api.peers.sight().is_live(id))
            {
                caller.source = source;
            }
            request.extensions_mut().insert(caller);
            Ok(next.run(request).await)
        }
        Err(problem) => {
            tracing::info!(
                http.source = %source,
                http.method = %request.method(),
                http.path = request.uri().path(),
                http.status = problem.status().as_u16(),
                "a request was not admitted"
            );
            if pages::is_page(request.uri().path()) { Ok(pages::problem(&problem)) } else { Err(problem) }
        }
    }
}

/// Where a request came from that another member passed on. The headers are believed only if they name
/// a live member, and never hide the address that the request was really sent from: who forges them
/// adds words to the audit and takes none away.
fn forwarded_source(headers: &HeaderMap, address: &str, is_live: impl Fn(&str) -> bool) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    let member = text(FORWARDED_BY).filter(|id| is_live(id))?;
    let caller: IpAddr = text(FORWARDED_FOR)?.parse().ok()?;
    Some(format!("{caller} by way of {member} ({address})"))
}

/// Refuses what a browser sends on behalf of a page of another site. Programs send neither header.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or("?"));
    let other_site = text(header::HeaderName::from_static("sec-fetch-site"))
        .is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let own_host = text(header::HOST).map(str::to_ascii_lowercase);
    let other_origin = text(header::ORIGIN).is_some_and(|origin| {
        let origin_host = origin.split_once("://").map(|(_, host)| host.to_ascii_lowercase());
        origin_host.is_none() || origin_host != own_host
    });
    if other_site || other_origin {
        return Err(Problem::new(
            ProblemKind::Forbidden,
            "failed to admit the request: a page of another site sent it",
        )
        .hint("state is changed by flowkeeper's own pages and by programs only"));
    }
    Ok(())
}

/// A form of another site cannot send JSON without asking first.
fn require_json(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::UnsupportedMediaType,
        format!("failed to read the body for {}: its content type is not JSON", uri.path()),
    )
    .hint("send `Content-Type: application/json`, also with an empty body"))
}

/// The name in a `Host` header, without the port and the brackets of IPv6.
fn host_name(host: &str) -> Option<String> {
    let authority: axum::http::uri::Authority = host.parse().ok()?;
    // `user@host` is no host header.
    (!host.contains('@')).then(|| authority.host().trim_matches(['[', ']']).to_ascii_lowercase())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_str(value).expect("a value")))
            .collect()
    }

    #[test]
    fn pages_of_other_sites_change_nothing() {
        let cases: [(&[(&'static str, &str)], bool); 9] = [
            (&[("host", "localhost:8787")], true),
            (&[("host", "localhost:8787"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "localhost:8787"), ("sec-fetch-site", "none")], true),
            (&[("host", "localhost:8787"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "localhost:8787"), ("sec-fetch-site", "same-site")], false),
            (&[("host", "localhost:8787"), ("origin", "http://localhost:8787")], true),
            (&[("host", "localhost:8787"), ("origin", "http://localhost:3000")], false),
            (&[("host", "localhost:8787"), ("origin", "https://evil.example")], false),
            (&[("host", "localhost:8787"), ("origin", "null")], false),
        ];
        for (sent, admitted) in cases {
            assert_eq!(refuse_other_sites(&headers(sent)).is_ok(), admitted, "{sent:?}");
        }
    }

    #[test]
    fn a_host_header_is_this_machine_or_a_known_name() {
        let rules = Rules { tokens: Vec::new(), hosts: vec!["scheduler.example".into()] };
        let access = Access(Arc::new(rules));
        let here = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let cases = [
            ("localhost", true),
            ("LOCALHOST:8787", true),
            ("127.0.0.1:8787", true),
            ("127.9.9.9", true),
            ("[::1]:8787", true),
            ("scheduler.example:8787", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("evil@localhost", false),
            ("", false),
        ];
        for (host, admitted) in cases {
            assert_eq!(access.admit_local(here, &headers(&[("host", host)])).is_ok(), admitted, "{host:?}");
        }
        assert!(access.admit_local(here, &HeaderMap::new()).is_err());
        let away = SocketAddr::from(([10, 0, 0, 7], 40_000));
        assert!(access.admit_local(away, &headers(&[("host", "localhost")])).is_err());
    }

    #[test]
    fn who_passed_a_request_on_is_believed_if_it_is_a_member() {
        type Case<'c> = (&'c [(&'static str, &'c str)], Option<&'c str>);
        let is_live = |id: &str| id == "a:1~0";
        let cases: [Case<'_>; 5] = [
            (&[], None),
            (
                &[("flowkeeper-forwarded-by", "a:1~0"), ("flowkeeper-forwarded-for", "10.0.0.7")],
                Some("10.0.0.7 by way of a:1~0 (10.0.0.2)"),
            ),
            (&[("flowkeeper-forwarded-by", "x:1~0"), ("flowkeeper-forwarded-for", "10.0.0.7")], None),
            (&[("flowkeeper-forwarded-by", "a:1~0"), ("flowkeeper-forwarded-for", "the boss")], None),
            (&[("flowkeeper-forwarded-for", "10.0.0.7")], None),
        ];
        for (sent, expected) in cases {
            assert_eq!(forwarded_source(&headers(sent), "10.0.0.2", is_live).as_deref(), expected, "{sent:?}");
        }
    }

    #[test]
    fn debug_text_holds_no_token() {
        let token = NamedToken { name: "ci".into(), role: Role::Operate, team: None, digest: digest("hush") };
        let shown = format!("{:?}", Access(Arc::new(Rules { tokens: vec![token], hosts: Vec::new() })));
        assert!(shown.contains("ci") && !shown.contains("hush") && !shown.contains("digest"), "{shown}");
    }
}
