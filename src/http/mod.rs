//! The HTTP API: extract, one call, respond.
//!
//! Handlers decide nothing. What acts goes to `operations`, what reads asks the ledger, who may call
//! was settled by [`access`] before, and what only the leader can do was passed on to it by `forward`. `/openapi.json` is generated from the handlers themselves.
//! What people look at in a browser is in [`pages`].

pub mod access;
mod adopt;
mod airflow;
mod config;
mod dag_runs;
mod definitions;
mod ensembles;
mod ephemerals;
mod events;
mod extract;
mod forward;
mod history;
mod locks;
mod members;
mod pages;
mod probes;
pub mod problem;
mod runs;
pub mod schedules;
mod sync;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use access::{Access, Caller};
pub use forward::Peers;
pub use problem::{Problem, ProblemKind};

use crate::clock::Clock;
use crate::config::Config;
use crate::definitions::desk::Desk;
use crate::definitions::reloads::Reloads;
use crate::health::{Inspections, Inspector};
use crate::metrics;
use crate::operations::{Operations, Schedules};
use crate::status::Status;
use crate::store::Ledger;
use crate::zookeeper::Ensemble;

/// The longest body that is read.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The longest body that is read for this path.
fn max_body_bytes(path: &str) -> usize {
    if path == "/api/v1/config/definitions" { definitions::MAX_BYTES } else { MAX_BODY_BYTES }
}

/// How long a request may take before it is answered with a problem.
const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

/// Paths that need no token and tell nothing of what is scheduled.
const OPEN_PATHS: [&str; 4] = ["/healthz", "/readyz", "/openapi.json", pages::STYLESHEET];

/// Everything that handlers need. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// History.
    pub ledger: Ledger,
    /// Carries out what is asked for.
    pub operations: Operations,
    /// Takes definitions that are kept in ZooKeeper.
    pub definitions: Desk,
    /// The schedules in force.
    pub schedules: watch::Receiver<Schedules>,
    /// The time.
    pub clock: Clock,
    /// What this member knows of itself.
    pub status: Status,
    /// Who may call.
    pub access: Access,
    /// The home ensemble and the root of flowkeeper's znodes there.
    pub home: Option<(Ensemble, Arc<str>)>,
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// How the definitions in force stand, and who reads them again.
    pub reloads: Reloads,
    /// Inspects ensembles.
    pub inspector: watch::Receiver<Arc<Inspector>>,
    /// The other members.
    pub peers: Peers,
    /// What the rounds saw of ensembles last, for `/metrics`.
    pub inspections: watch::Receiver<Inspections>,
    /// Renders `/metrics`.
    pub metrics: PrometheusHandle,
    /// Cancelled when the member ends: open streams end, no request is taken any more.
    pub shutdown: CancellationToken,
}

/// Answers requests until `api.shutdown` is cancelled and those in flight are done.
pub async fn serve(listener: TcpListener, api: Api) -> io::Result<()> {
    let shutdown = api.shutdown.clone();
    let service = router(api).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// All routes, with what surrounds them.
fn router(api: Api) -> Router {
    let (router, openapi) = routes().split_for_parts();
    router
        .route("/openapi.json", get(async move || Json(openapi)))
        .route("/", get(pages::cluster))
        .route(pages::STYLESHEET, get(pages::stylesheet))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(api.clone(), forward::to_leader))
        .layer(middleware::from_fn_with_state(api.clone(), access::guard))
        .layer(middleware::from_fn(limit_time))
        .layer(middleware::from_fn(count))
        .with_state(api)
}

/// The routes alone, with their descriptions.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(description())
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::metrics))
        .routes(routes!(schedules::list))
        .routes(routes!(schedules::one))
        .routes(routes!(schedules::next))
        .routes(routes!(schedules::trigger))
        .routes(routes!(schedules::pause))
        .routes(routes!(schedules::resume))
        .routes(routes!(schedules::backfill))
        .routes(routes!(runs::list))
        .routes(routes!(runs::one))
        .routes(routes!(runs::retry))
        .routes(routes!(runs::cancel))
        .routes(routes!(dag_runs::list))
        .routes(routes!(adopt::list, adopt::adopt))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(definitions::read, definitions::push))
                .layer(DefaultBodyLimit::max(definitions::MAX_BYTES)),
        )
        .routes(routes!(definitions::roll_back))
        .routes(routes!(definitions::list))
        .routes(routes!(definitions::one))
        .routes(routes!(history::stats))
        .routes(routes!(history::audit))
        .routes(routes!(events::events))
        .routes(routes!(ensembles::list))
        .routes(routes!(ensembles::one))
        .routes(routes!(ensembles::checks))
        .routes(routes!(ensembles::run))
        .routes(routes!(ephemerals::list))
        .routes(routes!(ensembles::history))
        .routes(routes!(ensembles::transitions))
        .routes(routes!(config::show))
        .routes(routes!(config::reload))
        .routes(routes!(config::note))
        .routes(routes!(locks::list))
        .routes(routes!(airflow::list))
        .routes(routes!(sync::list))
        .routes(routes!(sync::apply))
        .routes(routes!(members::list))
}

fn description() -> OpenApi {
    let info = InfoBuilder::new()
        .title("flowkeeper")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(env!("CARGO_PKG_DESCRIPTION")))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// Whether a request changes something, so that it takes a role that may and the leader to do it.
/// Running a check looks at an ensemble and leaves it as it is.
fn changes(method: &Method, path: &str) -> bool {
    let runs_a_check = match path.strip_prefix("/api/v1/ensembles/").map(|rest| rest.split('/').collect::<Vec<_>>()) {
        Some(rest) => matches!(rest[..], [_, "checks", _, "run"]),
        None => false,
    };
    match *method {
        Method::GET | Method::HEAD | Method::OPTIONS => false,
        Method::POST => !runs_a_check,
        _ => true,
    }
}

async fn unknown_path(request: Request) -> Problem {
    Problem::new(ProblemKind::NotFound, format!("failed to find {}: there is no such path", request.uri().path()))
        .hint("`/openapi.json` lists the paths")
}

async fn unknown_method(request: Request) -> Problem {
    Problem::new(
        ProblemKind::MethodNotAllowed,
        format!("failed to do {} on {}: the path has other methods", request.method(), request.uri().path()),
    )
    .hint("`/openapi.json` lists them")
}

/// Answers for requests that take too long. Streams are not cut: their headers are sent at once.
async fn limit_time(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(
            ProblemKind::Timeout,
            format!("failed to answer {path} within {} s", REQUEST_TIMEOUT.as_secs()),
        )
        .hint("what was asked for may have been done: look before you repeat it")
        .into_response(),
    }
}

/// Counts requests by route, and keeps answers out of caches.
async fn count(matched: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let mut response = next.run(request).await;
    let route = matched.as_ref().map_or("unknown", MatchedPath::as_str);
    metrics::http_request(route, method.as_str(), response.status().as_u16());
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(header::HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}
