//! What Airflow 3.3.2 and 2.11.2 answer to the requests that flowkeeper sends, word for word where
//! flowkeeper looks at words.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::entries;
use super::server::{Request, Response, form};
use super::world::{Run, State, Version, World};

/// Largest page, whatever is asked for.
const MAX_PAGE: usize = 100;

/// Whether a request may change something in Airflow's database.
pub fn is_write(request: &Request) -> bool {
    let last = request.path.last().map(String::as_str);
    request.method != "GET" && !matches!(last, Some("list" | "token"))
}

/// Whether faults hit this request: it asks for a DAG run, or changes variables, pools or connections.
pub fn is_prone_to_faults(request: &Request) -> bool {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["api", _, "dags", _, "dagRuns"] => request.method == "POST",
        ["api", _, "variables" | "pools" | "connections", ..] => request.method != "GET",
        _ => false,
    }
}

/// The page that no JSON client expects.
pub fn not_found_page() -> Response {
    Response::text(404, "text/html", "<!DOCTYPE html><title>404</title>")
}

/// What a careless server answers, or a proxy that is there to find mistakes.
pub fn echo(request: &Request, status: u16) -> Response {
    let sent = String::from_utf8_lossy(&request.body).into_owned();
    let heard = format!("{}{sent}", request.head);
    let mut response = match status {
        422 => {
            let input = serde_json::from_str(&sent).unwrap_or(Value::String(sent));
            let fault = json!({"type": "string_type", "loc": ["body"], "msg": format!("not {heard}"), "input": input});
            Response::json(status, &json!({"detail": [fault]}))
        }
        400 | 401 | 409 => problem(status, "Refused", heard),
        403 => Response::json(status, &json!({"detail": {"request": heard, "body": sent}})),
        _ => Response::text(status, "text/html", format!("<!DOCTYPE html><pre>{heard}</pre>")),
    };
    if (300..400).contains(&status) {
        let told = request.authorization.as_deref().and_then(|text| text.split(' ').next_back()).unwrap_or_default();
        let place = format!("https://{told}:{told}@sso.example/login/{told};id={told}?token={told}#{told}");
        response.headers.push(("Location", place));
    }
    response
}

/// Does what is asked.
pub fn respond(world: &mut World, request: &Request) -> Response {
    let path: Vec<&str> = request.path.iter().map(String::as_str).collect();
    let three = world.version == Version::Three;
    let (api, rest) = match path.as_slice() {
        ["auth", "token"] if three => return token(world, request),
        ["oauth", "token"] => return oauth_token(world, request),
        ["health"] if !three => return health(world),
        ["api", api, rest @ ..] => (*api, rest),
        _ => return not_found_page(),
    };
    match (three, api) {
        (true, "v2") | (false, "v1") => {}
        (true, "v1") => {
            let gone = "/api/v1 has been removed in Airflow 3, please use its upgraded version /api/v2 instead.";
            return Response::json(404, &json!({"error": gone}));
        }
        _ => return not_found_page(),
    }
    let of_entries = entries::route(request, rest, three);
    let route = match (request.method.as_str(), rest) {
        _ if of_entries.is_some() => of_entries.unwrap_or_default(),
        ("GET", ["version"]) => "version",
        ("GET", ["monitor", "health"]) if three => "health",
        ("GET", ["health"]) if !three => "health",
        ("GET", ["dags"]) => "dags",
        ("GET", ["dags", _, "details"]) => "details",
        ("GET", ["importErrors"]) => "import_errors",
        ("GET", ["jobs"]) if three => "jobs",
        ("POST", ["dags", _, "dagRuns"]) => "trigger",
        ("GET", ["dags", _, "dagRuns"]) | ("POST", ["dags", "~", "dagRuns", "list"]) => "list",
        ("GET", ["dags", _, "dagRuns", _]) => "run",
        ("PATCH", ["dags", _, "dagRuns", _]) => "patch",
        ("PATCH", ["dags", _, "dagRuns", _, "setNote"]) if !three => "note",
        ("POST", ["dags", _, "dagRuns", _, "clear"]) => "clear",
        ("DELETE", ["dags", _, "dagRuns", _]) => "delete",
        _ if three => return Response::json(404, &json!({"error": "API route not found"})),
        _ => return problem(404, "Not Found", "The requested URL was not found on the server."),
    };
    *world.counts.entry(route).or_default() += 1;
    match route {
        "version" => {
            let version = if three { "3.3.2" } else { "2.11.2" };
            return Response::json(200, &json!({"version": version, "git_version": null}));
        }
        "health" => return health(world),
        _ => {}
    }
    if let Some(refused) = refuse(world, request) {
        return refused;
    }
    if of_entries.is_some() {
        return entries::respond(world, request, route, rest);
    }
    match (route, rest) {
        ("dags", _) => dags(world, request),
        ("details", [_, dag_id, ..]) => details(world, dag_id),
        ("import_errors", _) => {
            let errors: Vec<Value> = world
                .import_errors
                .iter()
                .enumerate()
                .map(
                    |(id, file)| json!({"import_error_id": id, "filename": file, "stack_trace": "ModuleNotFoundError"}),
                )
                .collect();
            Response::json(200, &json!({"total_entries": errors.len(), "import_errors": errors}))
        }
        ("jobs", _) => jobs(world, request),
        ("trigger", [_, dag_id, ..]) => trigger(world, request, dag_id),
        ("list", [_, dag_id, ..]) => list(world, request, dag_id),
        (_, [_, dag_id, _, dag_run_id, ..]) => one(world, request, route, dag_id, dag_run_id),
        _ => not_found_page(),
    }
}

pub(super) fn problem(status: u16, title: &str, detail: impl Into<Value>) -> Response {
    let body = json!({"detail": detail.into(), "status": status, "title": title, "type": "about:blank"});
    Response::text(status, "application/problem+json", body.to_string())
}

/// A failure in the words of the version: `detail`, and for API v1 a `title`.
pub(super) fn failure(world: &World, status: u16, title: &str, detail: impl Into<Value>) -> Response {
    match world.version {
        Version::Two => problem(status, title, detail),
        Version::Three => Response::json(status, &json!({"detail": detail.into()})),
    }
}

/// How old a heartbeat may be for Airflow, in seconds: its default for every kind of process.
const HEALTH_CHECK_THRESHOLD: i64 = 30;

/// As `airflow/api/common/airflow_health.py` has it: of each kind the process that has beaten last.
fn health(world: &World) -> Response {
    let now = world.clock.now();
    let part = |kind: &str, heartbeat: &str, without: Option<&str>| {
        let latest = world.processes.iter().filter(|process| process.kind == kind);
        let latest = latest.max_by_key(|process| process.stopped_at.unwrap_or(now));
        let beat = latest.map(|process| process.stopped_at.unwrap_or(now));
        let is_alive = latest.zip(beat).is_some_and(|(process, beat)| {
            process.state == "running" && now.duration_since(beat).as_secs() < HEALTH_CHECK_THRESHOLD
        });
        let status = if latest.is_none() { without } else { Some(if is_alive { "healthy" } else { "unhealthy" }) };
        json!({"status": status, heartbeat: beat.map(|beat| format!("{beat:.6}").replace('Z', "+00:00"))})
    };
    let scheduler = part("SchedulerJob", "latest_scheduler_heartbeat", Some("unhealthy"));
    let triggerer = part("TriggererJob", "latest_triggerer_heartbeat", None);
    let dag_processor = part("DagProcessorJob", "latest_dag_processor_heartbeat", None);
    let metadatabase = json!({"status": "healthy"});
    let parts = json!({
        "metadatabase": metadatabase, "scheduler": scheduler, "triggerer": triggerer, "dag_processor": dag_processor
    });
    Response::json(200, &parts)
}

/// A page of processes, the latest heartbeats first: the only order that is asked for.
fn jobs(world: &World, request: &Request) -> Response {
    if request.param("order_by") != Some("-latest_heartbeat") {
        return failure(world, 400, "Bad Request", "Ordering is disallowed");
    }
    let now = world.clock.now();
    let (limit, offset) = page(request);
    let mut processes: Vec<_> = world.processes.iter().collect();
    processes.sort_by_key(|process| std::cmp::Reverse(process.stopped_at.unwrap_or(now)));
    let shown: Vec<Value> = processes
        .iter()
        .skip(offset)
        .take(limit)
        .map(|process| {
            json!({
                "id": process.id, "dag_id": null, "state": process.state, "job_type": process.kind,
                "start_date": process.started_at, "end_date": process.ended_at,
                "latest_heartbeat": process.stopped_at.unwrap_or(now), "executor_class": null,
                "hostname": process.hostname, "unixname": "airflow", "dag_display_name": null
            })
        })
        .collect();
    Response::json(200, &json!({"jobs": shown, "total_entries": processes.len()}))
}

/// Who is asking? `None` lets the request through.
fn refuse(world: &World, request: &Request) -> Option<Response> {
    let authorization = request.authorization.as_deref();
    let bearer = authorization.and_then(|text| text.strip_prefix("Bearer "));
    if bearer.is_some_and(|token| world.tokens.contains(token)) {
        return None;
    }
    match (world.version, authorization) {
        (Version::Two, Some(text)) => {
            let expected = STANDARD.encode(format!("{}:{}", world.username, world.password));
            (text != format!("Basic {expected}")).then(|| problem(403, "Forbidden", Value::Null))
        }
        (Version::Two, None) => Some(problem(401, "Unauthorized", Value::Null)),
        (Version::Three, Some(_)) => Some(Response::json(403, &json!({"detail": "Invalid JWT token"}))),
        (Version::Three, None) => Some(Response::json(401, &json!({"detail": "Not authenticated"}))),
    }
}

fn token(world: &mut World, request: &Request) -> Response {
    *world.counts.entry("token").or_default() += 1;
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    if body["username"] != world.username.as_str() || body["password"] != world.password.as_str() {
        return Response::json(401, &json!({"detail": "Invalid credentials"}));
    }
    let now = world.clock.now().as_second();
    let lifetime = i64::try_from(world.token_lifetime.as_secs()).unwrap_or(i64::MAX);
    let claims = json!({"sub": "admin", "iat": now, "exp": now + lifetime, "jti": world.count("token")}).to_string();
    let token = format!("e30.{}.{}", URL_SAFE_NO_PAD.encode(claims), world.signature);
    world.tokens.insert(token.clone());
    Response::json(201, &json!({"access_token": token}))
}

/// A token server of its own, which wants the client `client` with the secret `secret` in a header.
fn oauth_token(world: &mut World, request: &Request) -> Response {
    *world.counts.entry("oauth").or_default() += 1;
    let fields = form(&String::from_utf8_lossy(&request.body));
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let basic = format!("Basic {}", STANDARD.encode(format!("client:{}", world.client_secret)));
    if field("grant_type") != Some("client_credentials") || request.authorization.as_deref() != Some(&basic) {
        return Response::json(401, &json!({"error": "invalid_client"}));
    }
    let token = format!("oauth-{}.{}", world.count("oauth"), world.signature);
    world.tokens.insert(token.clone());
    Response::json(
        200,
        &json!({"access_token": token, "token_type": "Bearer", "expires_in": world.token_lifetime.as_secs()}),
    )
}

pub(super) fn page(request: &Request) -> (usize, usize) {
    let number = |name| request.param(name).and_then(|text| text.parse::<usize>().ok());
    (number("limit").unwrap_or(MAX_PAGE).min(MAX_PAGE), number("offset").unwrap_or(0))
}

fn dag_json(world: &World, dag_id: &str) -> Value {
    let dag = &world.dags[dag_id];
    let mut body = json!({"dag_id": dag_id, "is_paused": dag.is_paused, "has_import_errors": dag.has_import_errors});
    match world.version {
        Version::Three => {
            body["is_stale"] = false.into();
            body["timetable_summary"] = json!(dag.schedule);
        }
        Version::Two => {
            body["is_active"] = true.into();
            body["schedule_interval"] = match &dag.schedule {
                Some(value) => json!({"__type": "CronExpression", "value": value}),
                None => Value::Null,
            };
        }
    }
    body
}

fn dags(world: &World, request: &Request) -> Response {
    let (limit, offset) = page(request);
    let prefixes: Option<Vec<&str>> = request
        .param("dag_id_prefix_pattern")
        .filter(|_| world.version == Version::Three)
        .map(|pattern| pattern.split('|').collect());
    let wanted = |dag_id: &&String| {
        prefixes.as_ref().is_none_or(|prefixes| prefixes.iter().any(|prefix| dag_id.starts_with(prefix)))
    };
    let all: Vec<&String> = world.dags.keys().filter(wanted).collect();
    let shown: Vec<Value> = all.iter().skip(offset).take(limit).map(|dag_id| dag_json(world, dag_id)).collect();
    Response::json(200, &json!({"dags": shown, "total_entries": all.len()}))
}

fn details(world: &World, dag_id: &str) -> Response {
    if !world.dags.contains_key(dag_id) {
        return match world.version {
            Version::Three => {
                Response::json(404, &json!({"detail": format!("The Dag with ID: `{dag_id}` was not found")}))
            }
            Version::Two => problem(404, "DAG not found", format!("The DAG with dag_id: {dag_id} was not found")),
        };
    }
    let mut body = dag_json(world, dag_id);
    body["params"] = Value::Object(world.dags[dag_id].params.clone());
    Response::json(200, &body)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRun<'a> {
    dag_run_id: Option<String>,
    #[expect(clippy::option_option, reason = "null and absent are told apart")]
    // `Some(None)` is null, which only API v2 takes; absent is `None`, which only API v1 takes.
    #[serde(default, deserialize_with = "present")]
    logical_date: Option<Option<Timestamp>>,
    data_interval_start: Option<Timestamp>,
    data_interval_end: Option<Timestamp>,
    #[serde(borrow)]
    conf: Option<&'a RawValue>,
    note: Option<String>,
}

#[expect(clippy::option_option, reason = "null and absent are told apart")]
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Timestamp>>, D::Error> {
    Option::<Timestamp>::deserialize(deserializer).map(Some)
}

fn trigger(world: &mut World, request: &Request, dag_id: &str) -> Response {
    let Some(dag) = world.dags.get(dag_id) else {
        let name = if world.version == Version::Three { "Dag" } else { "DAG" };
        return failure(world, 404, "DAG not found", format!("{name} with dag_id: '{dag_id}' not found"));
    };
    if dag.has_import_errors {
        let text = format!("DAG with dag_id: '{dag_id}' has import errors and cannot be triggered");
        return failure(world, 400, "DAG cannot be triggered", text);
    }
    let three = world.version == Version::Three;
    let invalid = |world: &World, text: String| match world.version {
        Version::Three => Response::json(422, &json!({"detail": [{"type": "invalid", "loc": ["body"], "msg": text}]})),
        Version::Two => problem(400, "Bad Request", text),
    };
    let new: NewRun<'_> = match serde_json::from_slice(&request.body) {
        Ok(new) => new,
        Err(error) => return invalid(world, error.to_string()),
    };
    let now = world.clock.now();
    let logical_date = match (three, new.logical_date) {
        (_, Some(Some(date))) => Some(date),
        (true, Some(None)) => None,
        (true, None) => return invalid(world, "logical_date: Field required".into()),
        (false, Some(None)) => {
            return problem(400, "Incorrect datetime argument", "'None' is not an instance of 'str'");
        }
        (false, None) => Some(now),
    };
    let conf = new.conf.map_or("{}", RawValue::get);
    if !conf.trim_start().starts_with('{') {
        return invalid(world, "conf: Input should be a valid dictionary".into());
    }
    let dag_run_id = new.dag_run_id.unwrap_or_else(|| format!("manual__{now}"));
    if dag_run_id.is_empty()
        || !dag_run_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.~:+-".contains(&byte))
    {
        return failure(
            world,
            400,
            "Bad Request",
            format!("The run_id provided '{dag_run_id}' does not match regex pattern"),
        );
    }
    let interval = new.data_interval_start.zip(new.data_interval_end);
    let run = Run {
        dag_id: dag_id.to_owned(),
        dag_run_id,
        state: State::Queued,
        conf: conf.to_owned(),
        note: new.note,
        logical_date,
        data_interval: logical_date.map(|date| interval.unwrap_or((date, date))),
        kind: "manual",
        queued_at: now,
        started_at: None,
        ended_at: None,
        updated_at: now,
        arrived: request.arrived,
    };
    let shown = run_json(world.version, &run);
    let dag_run_id = run.dag_run_id.clone();
    match (world.insert(run).map(drop), three) {
        (Ok(()), _) => Response::text(200, "application/json", shown),
        (Err(_), true) => {
            let detail =
                json!({"reason": "Unique constraint violation", "statement": "hidden", "orig_error": "hidden"});
            Response::json(409, &json!({"detail": detail}))
        }
        (Err("id"), false) => {
            let text = format!("DAGRun with DAG ID: '{dag_id}' and DAGRun ID: '{dag_run_id}' already exists");
            problem(409, "Conflict", text)
        }
        (Err(_), false) => {
            problem(409, "Conflict", format!("DAGRun with DAG ID: '{dag_id}' and DAGRun logical date already exists"))
        }
    }
}

fn run_json(version: Version, run: &Run) -> String {
    let (start, end) = run.data_interval.unzip();
    let mut body = json!({
        "dag_run_id": run.dag_run_id, "dag_id": run.dag_id, "logical_date": run.logical_date,
        "start_date": run.started_at, "end_date": run.ended_at, "data_interval_start": start,
        "data_interval_end": end, "last_scheduling_decision": null, "run_type": run.kind,
        "state": run.state.as_str(), "note": run.note,
    });
    match version {
        Version::Three => {
            body["queued_at"] = json!(run.queued_at);
            body["run_after"] = json!(run.queued_at);
            body["triggering_user_name"] = json!("admin");
        }
        Version::Two => {
            body["execution_date"] = json!(run.logical_date);
            body["external_trigger"] = json!(run.kind == "manual");
        }
    }
    // The conf goes in as the bytes that came.
    let mut text = body.to_string();
    text.pop();
    format!("{text},\"conf\":{}}}", run.conf)
}

fn list(world: &World, request: &Request, dag_id: &str) -> Response {
    if request.method == "POST" {
        return list_by_body(world, request);
    }
    if dag_id != "~" && world.version == Version::Three && !world.dags.contains_key(dag_id) {
        return Response::json(404, &json!({"detail": format!("The Dag with ID: `{dag_id}` was not found")}));
    }
    let time = |name: &str| request.param(name).and_then(|text| text.parse::<Timestamp>().ok());
    let date = if world.version == Version::Three { "logical_date" } else { "execution_date" };
    let states: Vec<&str> =
        request.query.iter().filter(|(name, _)| name == "state").map(|(_, value)| value.as_str()).collect();
    let (updated, from, to) = (time("updated_at_gte"), time(&format!("{date}_gte")), time(&format!("{date}_lte")));
    // As in Airflow, what is not a letter or digit at the end of a prefix does not count.
    let prefix = request
        .param("run_id_prefix_pattern")
        .filter(|_| world.version == Version::Three)
        .map(|prefix| prefix.trim_end_matches(|c: char| !c.is_alphanumeric()));
    let matching = world.runs().iter().filter(|run| {
        (dag_id == "~" || run.dag_id == dag_id)
            && (states.is_empty() || states.contains(&run.state.as_str()))
            && updated.is_none_or(|time| run.updated_at >= time)
            && from.is_none_or(|time| run.logical_date.is_some_and(|date| date >= time))
            && to.is_none_or(|time| run.logical_date.is_some_and(|date| date <= time))
            && prefix.is_none_or(|prefix| run.dag_run_id.starts_with(prefix))
    });
    let (limit, offset) = page(request);
    render_page(world.version, matching.collect(), limit, offset)
}

fn list_by_body(world: &World, request: &Request) -> Response {
    #[derive(Deserialize)]
    struct Wanted {
        #[serde(default)]
        dag_ids: Vec<String>,
        #[serde(default)]
        states: Vec<String>,
        #[serde(default)]
        page_limit: Option<usize>,
        #[serde(default)]
        page_offset: usize,
    }
    let Ok(wanted) = serde_json::from_slice::<Wanted>(&request.body) else {
        return failure(world, 400, "Bad Request", "Request body is not valid JSON");
    };
    let matching = world.runs().iter().filter(|run| {
        (wanted.dag_ids.is_empty() || wanted.dag_ids.contains(&run.dag_id))
            && (wanted.states.is_empty() || wanted.states.iter().any(|state| state == run.state.as_str()))
    });
    render_page(
        world.version,
        matching.collect(),
        wanted.page_limit.unwrap_or(MAX_PAGE).min(MAX_PAGE),
        wanted.page_offset,
    )
}

fn render_page(version: Version, matching: Vec<&Run>, limit: usize, offset: usize) -> Response {
    let total = matching.len();
    let shown: Vec<String> = matching.into_iter().skip(offset).take(limit).map(|run| run_json(version, run)).collect();
    Response::text(200, "application/json", format!("{{\"dag_runs\":[{}],\"total_entries\":{total}}}", shown.join(",")))
}

fn one(world: &mut World, request: &Request, route: &str, dag_id: &str, dag_run_id: &str) -> Response {
    if world.run(dag_id, dag_run_id).is_none() {
        return match world.version {
            Version::Three => {
                let text = format!("The DagRun with dag_id: `{dag_id}` and run_id: `{dag_run_id}` was not found");
                Response::json(404, &json!({"detail": text}))
            }
            Version::Two => {
                let text = format!("DAGRun with DAG ID: '{dag_id}' and DagRun ID: '{dag_run_id}' not found");
                problem(404, "DAGRun not found", text)
            }
        };
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    match route {
        "patch" | "note" => {
            if let Some(note) = body["note"].as_str() {
                world.change(dag_id, dag_run_id, |run| run.note = Some(note.to_owned()));
            }
            match body["state"].as_str() {
                Some("failed") => world.set_state(dag_id, dag_run_id, State::Failed),
                Some("success") => world.set_state(dag_id, dag_run_id, State::Success),
                _ => {}
            }
        }
        "clear" if body["dry_run"] == json!(false) => world.set_state(dag_id, dag_run_id, State::Queued),
        "delete" => {
            world.delete_run(dag_id, dag_run_id);
            return Response::text(204, "application/json", "");
        }
        _ => {}
    }
    match world.run(dag_id, dag_run_id) {
        Some(run) => Response::text(200, "application/json", run_json(world.version, run)),
        None => not_found_page(),
    }
}
