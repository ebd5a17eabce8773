//! The JSON that Airflow sends, read defensively.
//!
//! One type reads API v1 and v2 alike: what a version does not have is absent. A list is read entry
//! by entry, so that one entry that nobody understands does not hide the others. Nothing here may
//! panic, whatever the bytes are.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::components::is_over;
use super::{DagDetails, DagFacts, DagRun, ImportError, RunPage};
use crate::domain::component::{ComponentKind, Ended, HealthPart, Job, Jobs};
use crate::domain::run::AirflowState;
use crate::secret::Redaction;

/// Longest piece of Airflow's own words that goes into a message, in characters.
const MAX_DETAIL_CHARS: usize = 500;

/// Reads a JSON object. Serde would take an array for a struct as well, in the order of the fields.
fn object<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    body.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(body).ok()).flatten()
}

#[derive(Deserialize)]
struct WireRun {
    dag_id: String,
    dag_run_id: String,
    state: String,
    #[serde(default)]
    run_type: Option<String>,
    #[serde(default)]
    logical_date: Option<Timestamp>,
    #[serde(default)]
    queued_at: Option<Timestamp>,
    #[serde(default)]
    start_date: Option<Timestamp>,
    #[serde(default)]
    end_date: Option<Timestamp>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    conf: Option<Box<RawValue>>,
}

impl From<WireRun> for DagRun {
    fn from(run: WireRun) -> Self {
        Self {
            state: AirflowState::parse(&run.state),
            dag_id: run.dag_id,
            dag_run_id: run.dag_run_id,
            run_type: run.run_type,
            logical_date: run.logical_date,
            queued_at: run.queued_at,
            started_at: run.start_date,
            ended_at: run.end_date,
            note: run.note,
            conf: run.conf,
        }
    }
}

/// A DAG run; `None` when the body is anything else.
pub(super) fn dag_run(body: &[u8]) -> Option<DagRun> {
    object::<WireRun>(body).map(DagRun::from)
}

/// A page of DAG runs; `None` when the body is no such list.
pub(super) fn run_page(body: &[u8]) -> Option<RunPage> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        dag_runs: Vec<&'a RawValue>,
        total_entries: Option<u64>,
    }
    let page: Page<'_> = object(body)?;
    let entries = page.dag_runs.len();
    let runs: Vec<DagRun> = page.dag_runs.into_iter().filter_map(|entry| dag_run(entry.get().as_bytes())).collect();
    Some(RunPage { runs, entries, total: page.total_entries.unwrap_or(0) })
}

#[derive(Deserialize)]
struct WireDag {
    dag_id: String,
    #[serde(default)]
    is_paused: Option<bool>,
    #[serde(default)]
    has_import_errors: Option<bool>,
    #[serde(default)]
    is_stale: Option<bool>,
    #[serde(default)]
    is_active: Option<bool>,
    #[serde(default)]
    timetable_summary: Option<String>,
    #[serde(default)]
    schedule_interval: Option<Value>,
    #[serde(default)]
    params: Option<Map<String, Value>>,
}

impl WireDag {
    /// Whether the DAG's file is still there.
    fn is_live(&self) -> bool {
        self.is_stale != Some(true) && self.is_active != Some(false)
    }

    fn facts(self) -> DagFacts {
        let interval = self.schedule_interval.and_then(|interval| match interval {
            Value::Null => None,
            Value::Object(typed) => Some(typed.get("value").map_or_else(|| Value::from(typed.clone()), Value::clone)),
            other => Some(other),
        });
        let interval = interval.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        DagFacts {
            dag_id: self.dag_id,
            is_paused: self.is_paused.unwrap_or(false),
            has_import_errors: self.has_import_errors.unwrap_or(false),
            own_schedule: self.timetable_summary.or(interval),
        }
    }
}

/// A page of DAGs whose files are there, with the number of its entries and of all that match.
pub(super) fn dag_page(body: &[u8]) -> Option<(Vec<DagFacts>, usize, u64)> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        dags: Vec<&'a RawValue>,
        total_entries: Option<u64>,
    }
    let page: Page<'_> = object(body)?;
    let entries = page.dags.len();
    let dags = page.dags.into_iter().filter_map(|entry| object::<WireDag>(entry.get().as_bytes()));
    Some((dags.filter(WireDag::is_live).map(WireDag::facts).collect(), entries, page.total_entries.unwrap_or(0)))
}

/// A DAG with its params.
pub(super) fn dag_details(body: &[u8]) -> Option<DagDetails> {
    let mut dag: WireDag = object(body)?;
    let params = dag.params.take().unwrap_or_default();
    Some(DagDetails { facts: dag.facts(), params })
}

/// A page of import errors.
pub(super) fn import_errors(body: &[u8]) -> Option<Vec<ImportError>> {
    #[derive(Deserialize)]
    struct Page {
        import_errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        filename: Option<String>,
        #[serde(default)]
        stack_trace: Option<String>,
    }
    let page: Page = object(body)?;
    let entries = page.import_errors.into_iter();
    Some(
        entries
            .map(|entry| ImportError {
                filename: entry.filename.unwrap_or_default(),
                stack_trace: entry.stack_trace.unwrap_or_default(),
            })
            .collect(),
    )
}

/// The health of Airflow's parts. A part that beats says when, as `latest_scheduler_heartbeat` for example.
pub(super) fn health(body: &[u8]) -> Option<Vec<HealthPart>> {
    let parts: Map<String, Value> = object(body)?;
    let heartbeat = |part: &Map<String, Value>| {
        let (_, beat) = part.iter().find(|(key, _)| key.starts_with("latest_") && key.ends_with("_heartbeat"))?;
        beat.as_str()?.parse().ok()
    };
    parts.contains_key("metadatabase").then(|| {
        parts
            .into_iter()
            .map(|(name, part)| HealthPart {
                name,
                status: part.get("status").and_then(Value::as_str).map(one_line),
                heartbeat_at: part.as_object().and_then(heartbeat),
            })
            .collect()
    })
}

/// A page of jobs, the latest heartbeats first: those that are parts of an Airflow and have beaten.
pub(super) fn jobs(body: &[u8]) -> Option<Jobs> {
    #[derive(Deserialize)]
    struct Page<'a> {
        #[serde(borrow)]
        jobs: Vec<&'a RawValue>,
        total_entries: u64,
    }
    #[derive(Deserialize)]
    struct WireJob {
        id: i64,
        #[serde(default)]
        state: Option<String>,
        #[serde(default)]
        job_type: Option<String>,
        #[serde(default)]
        start_date: Option<Timestamp>,
        #[serde(default)]
        end_date: Option<Timestamp>,
        #[serde(default)]
        latest_heartbeat: Option<Timestamp>,
        #[serde(default)]
        hostname: Option<String>,
    }
    let page: Page<'_> = object(body)?;
    let entries = page.jobs.len() as u64;
    let jobs: Vec<WireJob> = page.jobs.into_iter().filter_map(|entry| object(entry.get().as_bytes())).collect();
    let earliest = jobs.iter().filter_map(|job| job.latest_heartbeat).min();
    // A page from which nothing can be read tells nothing of the others.
    if page.total_entries > entries && earliest.is_none() {
        return None;
    }
    let since = earliest.filter(|_| page.total_entries > entries);
    let jobs = jobs.into_iter().filter_map(|job| {
        let is_over = is_over(job.state.as_deref(), job.end_date);
        let state = job.state.as_deref().map_or_else(|| "no state".to_owned(), one_line);
        Some(Job {
            id: job.id,
            kind: ComponentKind::of_job(&job.job_type?)?,
            hostname: job.hostname.as_deref().filter(|host| !host.is_empty()).map(one_line),
            started_at: job.start_date,
            heartbeat_at: job.latest_heartbeat?,
            ended: is_over.then_some(Ended { at: job.end_date, state }),
        })
    });
    Some(Jobs::Listed { jobs: jobs.collect(), since })
}

/// The version that `…/version` names; `None` when the body is something else, a web page say.
pub(super) fn version(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    object::<Version>(body).map(|version| version.version)
}

/// What Airflow said went wrong, in one line and without what it was told in confidence; `None` when the body is
/// not JSON of Airflow's making.
///
/// API v1 answers with RFC 9457 problems (`title`, `detail`), API v2 with `detail` as text, as a list
/// of validation errors or as an object.
pub(super) fn failure(body: &[u8], redaction: &Redaction) -> Option<String> {
    #[derive(Deserialize)]
    struct Failure {
        #[serde(default)]
        detail: Option<Value>,
        #[serde(default)]
        title: Option<String>,
        #[serde(default)]
        error: Option<String>,
    }
    let failure: Failure = object(body)?;
    let detail = match failure.detail {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(errors)) => Some(errors.iter().map(validation_error).collect::<Vec<_>>().join("; ")),
        Some(Value::Object(object)) => Some(
            ["reason", "message"]
                .iter()
                .find_map(|key| object.get(*key)?.as_str())
                .map_or_else(|| Value::from(object.clone()).to_string(), str::to_owned),
        ),
        Some(other) => Some(other.to_string()),
    };
    let text = match (failure.title, detail) {
        (Some(title), Some(detail)) => format!("{title}: {detail}"),
        (Some(text), None) | (None, Some(text)) => text,
        (None, None) => failure.error?,
    };
    Some(one_line(&redaction.apply(&text)))
}

/// `{"loc": ["body", "conf"], "msg": "Input should be …"}` → `conf: Input should be …`.
fn validation_error(error: &Value) -> String {
    let message = error.get("msg").and_then(Value::as_str).unwrap_or("invalid");
    let place: Vec<String> = error
        .get("loc")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned))
        .filter(|part| part != "body")
        .collect();
    if place.is_empty() { message.to_owned() } else { format!("{}: {message}", place.join(".")) }
}

/// `text` on one line and not too long, for messages.
pub(super) fn one_line(text: &str) -> String {
    let mut words = String::new();
    for word in text.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.extend(word.chars().filter(|character| !character.is_control()));
        if words.len() > 4 * MAX_DETAIL_CHARS {
            break;
        }
    }
    if words.chars().count() <= MAX_DETAIL_CHARS {
        return words;
    }
    let mut cut: String = words.chars().take(MAX_DETAIL_CHARS - 1).collect();
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_shapes_of_both_versions_are_read() {
        let v2 = br#"{"dag_run_id":"r","dag_id":"d","logical_date":"2026-01-01T00:00:25.123456Z",
            "queued_at":"2026-11-22T14:59:25.789307Z","start_date":null,"end_date":null,"run_type":"manual",
            "state":"queued","conf":{"x":1.10},"note":"hello","dag_versions":[{"id":1}]}"#;
        let run = dag_run(v2).unwrap();
        assert_eq!(run.state, Some(AirflowState::Queued));
        assert_eq!(run.conf.unwrap().get(), r#"{"x":1.10}"#);
        assert_eq!(run.logical_date.unwrap().to_string(), "2026-01-01T00:00:25.123456Z");

        let v1 = br#"{"conf":{},"dag_id":"d","dag_run_id":"r","end_date":null,
            "execution_date":"2026-01-01T00:00:25+00:00","external_trigger":true,
            "logical_date":"2026-01-01T00:00:25+00:00","note":null,"start_date":null,"state":"restarting"}"#;
        assert_eq!(dag_run(v1).unwrap().state, Some(AirflowState::Running));
    }

    #[test]
    fn one_odd_entry_does_not_hide_the_others() {
        let body =
            br#"{"dag_runs":[{"dag_id":7},{"dag_id":"d","dag_run_id":"r","state":"melting"}],"total_entries":9}"#;
        let page = run_page(body).unwrap();
        assert_eq!((page.runs.len(), page.entries, page.total), (1, 2, 9));
        assert_eq!(page.runs[0].state, None);
    }

    #[test]
    fn a_schedule_of_the_dags_own_is_seen() {
        let cases = [
            (r#"{"dag_id":"d","timetable_summary":"0 0 * * *"}"#, Some("0 0 * * *")),
            (r#"{"dag_id":"d","timetable_summary":null}"#, None),
            (r#"{"dag_id":"d","schedule_interval":{"__type":"CronExpression","value":"@daily"}}"#, Some("@daily")),
            (r#"{"dag_id":"d","schedule_interval":null}"#, None),
        ];
        for (body, expected) in cases {
            assert_eq!(dag_details(body.as_bytes()).unwrap().facts.own_schedule.as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn stale_dags_are_not_listed() {
        let body = br#"{"dags":[{"dag_id":"a","is_stale":true},{"dag_id":"b","is_active":false},{"dag_id":"c","is_paused":true}],"total_entries":3}"#;
        let (dags, entries, total) = dag_page(body).unwrap();
        assert_eq!((dags.len(), entries, total), (1, 3, 3));
        assert!(dags[0].is_paused);
    }

    #[test]
    fn the_health_of_both_versions_is_read() {
        // Airflow 3.3.2, and 2.11.2 without a triggerer and without a DAG processor of its own.
        let v2 = br#"{"metadatabase":{"status":"healthy"},"scheduler":{"status":"healthy",
            "latest_scheduler_heartbeat":"2026-11-22T21:03:19.282908+00:00"}}"#;
        let parts = health(v2).unwrap();
        assert_eq!((parts[0].name.as_str(), parts[0].heartbeat_at), ("metadatabase", None));
        assert_eq!(parts[1].status.as_deref(), Some("healthy"));
        assert_eq!(parts[1].heartbeat_at.unwrap().to_string(), "2026-11-22T21:03:19.282908Z");
        let v1 =
            br#"{"triggerer":{"latest_triggerer_heartbeat":null,"status":null},"metadatabase":{"status":"healthy"}}"#;
        let triggerer = &health(v1).unwrap()[0];
        assert_eq!((triggerer.status.as_deref(), triggerer.heartbeat_at), (None, None));
        for body in [r#"{"scheduler":{}}"#, r#"{"metadatabase":7}"#, "<html>"] {
            assert!(health(body.as_bytes()).is_none_or(|parts| parts[0].status.is_none()), "{body}");
        }
    }

    #[test]
    fn jobs_that_are_parts_of_an_airflow_are_read() {
        let entry = |id, kind, state, end, beat| {
            format!(
                r#"{{"id":{id},"dag_id":null,"state":{state},"job_type":"{kind}","hostname":"vm","end_date":{end},
                "start_date":"2026-11-22T21:02:22.335568Z","latest_heartbeat":{beat},"executor_class":null}}"#
            )
        };
        let (early, late) = ("\"2026-11-22T21:03:41Z\"", "\"2026-11-22T21:04:01Z\"");
        let entries = [
            entry(3, "DagProcessorJob", "\"success\"", late, late),
            entry(2, "SchedulerJob", "\"running\"", "null", early),
            entry(4, "SchedulerJob", "\"failed\"", "null", early),
            entry(5, "LocalTaskJob", "\"running\"", "null", late),
            entry(6, "TriggererJob", "\"running\"", "null", "null"),
            r#"{"id":"seven"}"#.to_owned(),
        ];
        let body = |total| format!(r#"{{"jobs":[{}],"total_entries":{total}}}"#, entries.join(","));
        let Some(Jobs::Listed { jobs: read, since: None }) = jobs(body(6).as_bytes()) else { panic!("no list") };
        let shown: Vec<_> = read.iter().map(|job| (job.id, job.ended.is_some())).collect();
        assert_eq!(shown, [(3, true), (2, false), (4, true)]);
        // There are more than the page has: nothing is known of those that beat earlier.
        let Some(Jobs::Listed { since, .. }) = jobs(body(7).as_bytes()) else { panic!("no list") };
        assert_eq!(since.unwrap().to_string(), "2026-11-22T21:03:41Z");
        assert!(jobs(br#"{"jobs":[{"id":1}],"total_entries":2}"#).is_none());
        assert!(jobs(br#"{"jobs":[]}"#).is_none());
    }

    #[test]
    fn failures_become_one_line() {
        let cases = [
            (r#"{"detail":"Dag with dag_id: 'x' not found"}"#, Some("Dag with dag_id: 'x' not found")),
            (
                r#"{"detail":[{"type":"dict_type","loc":["body","conf"],"msg":"Input should be a valid dictionary"}]}"#,
                Some("conf: Input should be a valid dictionary"),
            ),
            (
                r#"{"detail":{"reason":"Unique constraint violation","statement":"hidden"}}"#,
                Some("Unique constraint violation"),
            ),
            (r#"{"detail":null,"status":403,"title":"Forbidden"}"#, Some("Forbidden")),
            (r#"{"detail":"a\n\n  b","title":"Bad Request"}"#, Some("Bad Request: a b")),
            (r#"{"error":"/api/v1 has been removed"}"#, Some("/api/v1 has been removed")),
            ("{}", None),
            ("<html>", None),
            ("[1]", None),
        ];
        for (body, expected) in cases {
            assert_eq!(failure(body.as_bytes(), &Redaction::default()).as_deref(), expected, "{body}");
        }
        assert_eq!(one_line(&"x".repeat(5000)).chars().count(), MAX_DETAIL_CHARS);
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            read_everything(&body);
        }

        #[test]
        fn no_json_makes_a_reader_panic(key in "dag_runs|dags|detail|title|state|dag_id|import_errors|params|metadatabase|jobs|id", value in "[\\[\\]{}\":,0-9a-z\\\\]{0,60}") {
            read_everything(format!("{{\"{key}\":{value}}}").as_bytes());
            read_everything(format!("{{\"{key}\":[{{\"{key}\":{value}}}]}}").as_bytes());
        }
    }

    fn read_everything(body: &[u8]) {
        let _ = dag_run(body);
        let _ = run_page(body);
        let _ = dag_page(body);
        let _ = dag_details(body);
        let _ = import_errors(body);
        let _ = health(body);
        let _ = jobs(body);
        let _ = version(body);
        let _ = failure(body, &Redaction::default());
        let _ = one_line(&String::from_utf8_lossy(body));
    }
}
