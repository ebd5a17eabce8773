//! From a transition to rows.

use serde_json::{Value as Json, json};

use super::*;
use crate::config::{self, Environment};
use crate::domain::ensemble::{Condition, EnsembleEvent, Happening};
use crate::domain::health::{Check, Finding, ServerState, ServerView, Verdict};
use crate::domain::schedule::TriggerKind;

fn schedules(text: &str) -> Vec<Arc<Schedule>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flowkeeper.toml");
    let head = "[zookeeper]\nconnect = \"zk1:2181\"\n[ensemble.main]\n[ensemble.solr]\nconnect = \"solr1:2181\"\n\
                [airflow.main]\nurl = \"http://127.0.0.1:1\"\n";
    std::fs::write(&file, format!("{head}{text}")).unwrap();
    let checked = config::check(&file, &Environment::default());
    checked.unwrap_or_else(|faults| panic!("{:?}", faults.faults)).0.schedules
}

fn schedule(name: &str, keys: &str) -> String {
    format!("[[schedule]]\nname = \"{name}\"\ndag = \"d\"\n{keys}\n")
}

fn at() -> Timestamp {
    "2026-11-22T02:30:00.000007Z".parse().unwrap()
}

/// A leader died, and another one was elected.
fn transition() -> Transition {
    let happening =
        |event, server: Option<&str>, count| Happening { event, server: server.map(ToOwned::to_owned), count };
    Transition {
        ensemble: "main".into(),
        at: at(),
        events: vec![
            happening(EnsembleEvent::Degraded, None, 1),
            happening(EnsembleEvent::LeaderChanged, None, 3),
            happening(EnsembleEvent::ServerDown, Some("zk1:2181"), 1),
        ],
        before: Condition::Healthy,
        after: Condition::Degraded,
        leader_before: Some("zk1:2181".into()),
        leader_after: Some("zk2:2181".into()),
        servers: vec![ServerView { server: "zk1:2181".into(), state: ServerState::Down }],
        failing: vec![Finding::told(Check::Serving, Some("zk1:2181"), Verdict::Critical, "It is gone.")],
    }
}

fn recorded(text: &str, gates: &Gates) -> Recording {
    recording(&transition(), &schedules(text), gates, at())
}

fn conf(run: &NewRun) -> Json {
    serde_json::from_str(run.conf.get()).unwrap()
}

#[test]
fn each_schedule_has_one_run_of_what_it_listens_to() {
    let all = "on = [\"degraded\", \"leader_changed\", \"server_down\", \"server_up\", \"quorum_lost\", \"recovered\"]";
    let text = [
        schedule("all", &format!("ensemble = {{ {all} }}")),
        schedule("leader", "ensemble = { name = \"main\", on = [\"recovered\", \"leader_changed\"] }"),
        schedule("home", "ensemble = { name = \"home\", on = [\"server_down\"] }\nlock = \"l\"\noverlap = \"skip\""),
        schedule("other-event", "ensemble = { on = [\"recovered\"] }"),
        schedule("other-ensemble", &format!("ensemble = {{ name = \"solr\", {all} }}")),
        schedule("other-trigger", "cron = \"@daily\""),
    ];
    let recording = recorded(&text.concat(), &Gates::default());
    let told: Vec<_> = recording
        .runs
        .iter()
        .map(|run| {
            let conf = conf(run);
            let events = conf["ensemble"]["events"].as_array().unwrap().len();
            (run.dag_run_id.as_str(), conf["ensemble"]["event"].clone(), events, run.coalesced)
        })
        .collect();
    let expected = [
        ("flowkeeper__all__e1795314600000007-main", json!("degraded"), 3, 2),
        ("flowkeeper__leader__e1795314600000007-main", json!("leader_changed"), 1, 2),
        ("flowkeeper__home__e1795314600000007-main", json!("server_down"), 1, 0),
    ];
    assert_eq!(told, expected);
    let (first, last) = (&recording.runs[0], &recording.runs[2]);
    assert_eq!((first.state, first.trigger, first.due_at), (RunState::Pending, TriggerKind::Ensemble, at()));
    assert_eq!(first.overlap, crate::domain::schedule::Overlap::Allow, "nothing is lost by itself");
    assert_eq!(last.lock.as_deref(), Some("l"));
    assert!(recording.cursors.is_empty() && recording.decisions.is_empty());
}

#[test]
fn the_conf_says_what_happened() {
    let templates = "conf = { what = \"{{ ensemble.event }} of {{ ensemble.name }}\", day = \"{{ ensemble.at | date }}\", \
                     bad = \"{{ ensemble.failing[0].meaning }}\", leader = \"{{ ensemble.leader_after }}\", \
                     servers = \"{{ ensemble.events | map(attribute='server') | select | list }}\", all = \"{{ ensemble }}\" }";
    let on = "ensemble = { on = [\"degraded\", \"server_down\"] }\n";
    let text = schedule("own", &format!("{on}{templates}")) + &schedule("default", on);
    let recording = recorded(&text, &Gates::default());
    let own = conf(&recording.runs[0]);
    let default = conf(&recording.runs[1]);
    assert_eq!(own["what"], "degraded of main");
    assert_eq!((&own["day"], &own["bad"]), (&json!("2026-11-22"), &json!("It is gone.")));
    assert_eq!((&own["leader"], &own["servers"]), (&json!("zk2:2181"), &json!(["zk1:2181"])));
    let expected = json!({
        "name": "main",
        "at": "2026-11-22T02:30:00.000007Z",
        "event": "degraded",
        "server": null,
        "events": [
            { "event": "degraded", "server": null, "count": 1 },
            { "event": "server_down", "server": "zk1:2181", "count": 1 },
        ],
        "count": 1,
        "before": "healthy",
        "after": "degraded",
        "leader_before": "zk1:2181",
        "leader_after": "zk2:2181",
        "servers": [{ "server": "zk1:2181", "state": "down" }],
        "failing": [{
            "check": "serving",
            "server": "zk1:2181",
            "verdict": "critical",
            "value": null,
            "unit": null,
            "threshold": null,
            "meaning": "It is gone.",
            "remedy": Check::Serving.info().remedy,
        }],
    });
    assert_eq!(default, json!({ "ensemble": expected }));
    assert_eq!(own["all"]["failing"], expected["failing"]);
}

#[test]
fn a_condition_and_a_gate_decide() {
    let on = "ensemble = { on = [\"degraded\"] }\n";
    let text = [
        schedule("true", &format!("{on}when = \"ensemble.before == 'healthy' and ensemble.failing | length > 0\"")),
        schedule("false", &format!("{on}when = \"ensemble.count > 1\"")),
        schedule("broken", &format!("{on}when = \"ensemble.nothing.at_all\"")),
        schedule("no-conf", &format!("{on}conf = {{ a = \"{{{{ ensemble.failing[7].meaning }}}}\" }}")),
        schedule("paused", on),
        schedule("skipping", on),
        schedule("submitting", on),
    ];
    let gates: Gates = Arc::new(
        [
            ("paused", Gate::Paused { reason: "the schedule was paused by ada".into(), dag: false }),
            ("skipping", Gate::Skipping { reason: "the DAG d was paused".into() }),
            ("submitting", Gate::Submitting),
        ]
        .map(|(name, gate)| (crate::domain::schedule::ScheduleName::new(name).unwrap(), gate))
        .into(),
    );
    let recording = recorded(&text.concat(), &gates);
    let told: Vec<_> = recording
        .runs
        .iter()
        .map(|run| (run.schedule.as_str(), run.state, run.reason.as_deref().unwrap_or("")))
        .collect();
    let rejected = |text: &str| {
        told.iter().any(|(name, state, reason)| *name == text && *state == RunState::Rejected && !reason.is_empty())
    };
    assert!(rejected("broken") && rejected("no-conf"), "{told:?}");
    let skipped = "came due while the schedule was paused: the schedule was paused by ada";
    assert!(told.contains(&("paused", RunState::Skipped, skipped)), "{told:?}");
    assert!(told.contains(&("skipping", RunState::Skipped, "the DAG d was paused")), "{told:?}");
    assert!(told.contains(&("true", RunState::Pending, "")) && told.contains(&("submitting", RunState::Pending, "")));
    assert_eq!(told.len(), 6);
    let decisions: Vec<_> =
        recording.decisions.iter().map(|one| (one.schedule.as_str(), one.detail.as_str())).collect();
    assert_eq!(decisions, [("false", "main had degraded, and `when` was false")]);
}
