//! Rows of the ledger as they would be read from it, for comparisons that have tests of their own.

use flowkeeper::store::model::Run;
use jiff::Timestamp;
use serde_json::{Value, json};

/// A run that has ended well; its times but the nominal one say nothing.
pub(crate) fn row(id: usize, schedule: &str, conf: &Value, nominal: Option<i64>) -> Run {
    let at = |second: i64| Timestamp::from_second(second).expect("a time").to_string();
    let due = at(nominal.unwrap_or_default());
    let value = json!({
        "id": id, "schedule": schedule, "owner": null, "airflow": "calm", "dag_id": schedule,
        "dag_run_id": format!("{schedule}-{id}"), "trigger": if nominal.is_some() { "cron" } else { "znode" },
        "nominal_time": nominal.map(at), "from": null, "to": null, "count": 1, "due_at": due,
        "recorded_at": due, "submitted_at": null, "accepted_at": null, "started_at": null,
        "ended_at": null, "state": "success", "reason": null, "coalesced": 0, "reopened": 0, "conf": conf,
        "attempts": [], "timeline": [], "lateness_ms": {"record": null, "submit": null, "queue": null},
        "duration_ms": null
    });
    serde_json::from_value(value).expect("a run")
}
