//! The pages: what people look at in a browser, made on the server.
//!
//! Each page has a module that gathers its facts, a pure view of them (texts, no decisions left), and a
//! template in `templates/`, which only lays it out. Templates escape what they show; what leaves here
//! carries a policy that lets a browser load nothing but flowkeeper's own stylesheet and run no script.

mod cluster;

use std::sync::LazyLock;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};

use super::problem::{Problem, ProblemKind};

pub(super) use cluster::cluster;

/// Where the stylesheet is. It tells nothing, so it needs no token.
pub(super) const STYLESHEET: &str = "/assets/flowkeeper.css";

/// What a browser may do with a page.
const POLICY: &str = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// What a browser is told so that it asks its user for a token.
const CHALLENGE: &str = "Basic realm=\"flowkeeper\", charset=\"UTF-8\"";

/// The templates, compiled in. Their names end in `.html`, so what they show is escaped.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut templates = Environment::new();
    for (name, source) in [
        ("layout.html", include_str!("templates/layout.html")),
        ("cluster.html", include_str!("templates/cluster.html")),
        ("problem.html", include_str!("templates/problem.html")),
    ] {
        if let Err(error) = templates.add_template(name, source) {
            tracing::error!(error = %error, template = name, "a page cannot be compiled");
        }
    }
    templates
});

/// Whether this is the path of a page, for people, rather than of the API.
pub(super) fn is_page(path: &str) -> bool {
    path == "/"
}

/// The stylesheet of all pages.
pub(super) async fn stylesheet() -> impl IntoResponse {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=300")];
    (headers, include_str!("assets/flowkeeper.css"))
}

/// A page of this title, with what a template makes of `view`.
fn page(status: StatusCode, title: &str, template: &str, view: &Value) -> Result<Response, Problem> {
    let failed = |error: minijinja::Error| {
        tracing::error!(error = %error, template, "a page cannot be made");
        Problem::new(ProblemKind::Internal, format!("failed to make the page: {error}"))
            .hint("the API under /api/v1 tells the same")
    };
    let content = TEMPLATES.get_template(template).and_then(|template| template.render(view)).map_err(failed)?;
    let layout = context! { title, content => Value::from_safe_string(content), version => env!("CARGO_PKG_VERSION") };
    let text = TEMPLATES.get_template("layout.html").and_then(|layout_| layout_.render(layout)).map_err(failed)?;
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Ok(response)
}

/// A problem where a page was asked for. Without a token, the browser asks its user for one.
pub(super) fn problem(problem: &Problem) -> Response {
    let status = problem.status();
    match page(status, problem.title(), "problem.html", &Value::from(Serde(problem))) {
        Ok(mut response) => {
            if status == StatusCode::UNAUTHORIZED {
                response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
            }
            response
        }
        Err(worse) => worse.into_response(),
    }
}

/// A time as pages show it, in UTC to the second.
fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// A length of time in its largest unit: `4 s`, `12 min`, `3 h`, `5 d`.
fn span(length: SignedDuration) -> String {
    match length.as_secs().max(0) {
        0 if length.as_millis() > 0 => format!("{} ms", length.as_millis()),
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_one_unit() {
        for (ms, text) in [
            (-5_000, "0 s"),
            (0, "0 s"),
            (250, "250 ms"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (3_600_000, "1 h"),
            (172_800_000, "2 d"),
        ] {
            assert_eq!(span(SignedDuration::from_millis(ms)), text);
        }
    }

    #[test]
    fn what_a_page_shows_is_escaped() {
        let hostile = Problem::new(ProblemKind::Forbidden, "<script>alert(1)</script>").hint("a & b");
        let response = problem(&hostile);
        assert_eq!(response.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let body = runtime.block_on(axum::body::to_bytes(response.into_body(), 1 << 20)).expect("a body");
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("&lt;script&gt;alert(1)&lt;&#x2f;script&gt;") && text.contains("a &amp; b"), "{text}");
        assert!(!text.contains("<script"), "{text}");
    }
}
