//! The Airflow client against a fake that does to it what Airflows, proxies and networks do.

use std::time::Duration;

use flowkeeper::airflow::{Airflow, Api, Auth, RunQuery, Settings, Submission, SubmitOutcome, Submitted, submit};
use flowkeeper::clock::Clock;
use flowkeeper::domain::note;
use flowkeeper::domain::run::AirflowState;
use flowkeeper::secret::{CommandLine, Credential, Secret};
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::support::fake_airflow::{FakeAirflow, Fault, State, Version, World};

const STORE: &str = "0b5c1f5e";
const NOTE: &str = "flowkeeper store 0b5c1f5e\nschedule s";
const RUN: &str = "flowkeeper__s__2026-11-22T02:30:00Z";
const DATE: &str = "2026-11-22T02:30:00Z";
const CONF: &str = r#"{"b":1.10,"a":"\u0041é"}"#;

pub(crate) fn fixed(secret: &str) -> Credential {
    Credential::Fixed(Secret::new(secret))
}

fn password(password: &str) -> Auth {
    Auth::Password { username: "admin".into(), password: fixed(password) }
}

fn settings(fake: &FakeAirflow, auth: Auth) -> Settings {
    Settings {
        name: "main".into(),
        url: fake.url().parse().expect("an address"),
        auth,
        headers: Vec::new(),
        ca: None,
        timeout: Duration::from_secs(20),
    }
}

fn client(settings: Settings) -> Airflow {
    Airflow::new(settings, Clock::system()).expect("good settings")
}

async fn started(version: Version) -> (FakeAirflow, Airflow) {
    let fake = FakeAirflow::start(World::new(version).with_dags(["load", "other"])).await;
    let airflow = client(settings(&fake, password("admin")));
    (fake, airflow)
}

async fn send(airflow: &Airflow, dag_id: &str, dag_run_id: &str, date: Option<&str>) -> SubmitOutcome {
    send_full(airflow, dag_id, dag_run_id, date, false).await.outcome
}

async fn send_full(
    airflow: &Airflow,
    dag_id: &str,
    dag_run_id: &str,
    date: Option<&str>,
    lookup_only: bool,
) -> Submitted {
    let conf = RawValue::from_string(CONF.to_owned()).expect("JSON");
    let date: Option<Timestamp> = date.map(|date| date.parse().expect("a time"));
    let submission = Submission {
        dag_id,
        dag_run_id,
        conf: &conf,
        logical_date: date,
        data_interval: date.map(|date| (date - jiff::SignedDuration::from_hours(24), date)),
        note: NOTE,
        store_id: STORE,
        lookup_only,
    };
    submit(airflow, &submission).await
}

fn is_accepted(outcome: &SubmitOutcome) -> bool {
    matches!(outcome, SubmitOutcome::Accepted { .. })
}

const BOTH: [Version; 2] = [Version::Three, Version::Two];

#[tokio::test]
async fn a_run_is_made_once_with_its_conf_its_dates_and_its_note() {
    for version in BOTH {
        let (fake, airflow) = started(version).await;
        let outcome = send(&airflow, "load", RUN, Some(DATE)).await;
        let expected = SubmitOutcome::Accepted { state: AirflowState::Queued, http_status: 200, detail: None };
        assert_eq!(outcome, expected, "{version:?}");
        // Sent again, it is recognised.
        let again = send(&airflow, "load", RUN, Some(DATE)).await;
        assert!(matches!(&again, SubmitOutcome::Accepted { http_status: 409, detail: Some(_), .. }), "{again:?}");
        assert_eq!(airflow.known_api(), Some(if version == Version::Two { Api::V1 } else { Api::V2 }));
        let world = fake.world();
        let run = world.run("load", RUN).expect("the run");
        assert_eq!((world.runs().len(), run.conf.as_str(), run.note.as_deref()), (1, CONF, Some(NOTE)));
        assert_eq!(run.logical_date, DATE.parse().ok());
        assert_eq!(run.data_interval, Some(("2026-11-21T02:30:00Z".parse().unwrap(), DATE.parse().unwrap())));
    }
}

#[tokio::test]
async fn what_happens_after_a_lost_answer_is_the_same_run() {
    // Each fault, whether the first request made the run, and whether that is known at once.
    let cases = [
        (Fault::ErrorBefore, false),
        (Fault::ErrorAfter, true),
        (Fault::ResetBefore, false),
        (Fault::ResetAfter, true),
        (Fault::HangBefore, false),
        (Fault::HangAfter, true),
        (Fault::Truncated, true),
        (Fault::Html, false),
    ];
    for version in BOTH {
        for (fault, made) in cases {
            let (fake, airflow) = started(version).await;
            let hangs = matches!(fault, Fault::HangBefore | Fault::HangAfter);
            let timeout = if hangs { Duration::from_secs(3) } else { Duration::from_secs(20) };
            let sender = client(Settings { timeout, ..settings(&fake, password("admin")) });
            fake.world().faults.push_back(fault);
            let outcome = send(&sender, "load", RUN, Some(DATE)).await;
            assert!(
                matches!(outcome, SubmitOutcome::Retry { proven_absent: false, .. }),
                "{version:?} {fault:?}: {outcome:?}"
            );
            assert_eq!(fake.world().runs().len(), usize::from(made), "{version:?} {fault:?}");
            // Only looking finds out what the truth is …
            let looked = send_full(&airflow, "load", RUN, Some(DATE), true).await.outcome;
            assert_eq!(is_accepted(&looked), made, "{looked:?}");
            assert_eq!(matches!(looked, SubmitOutcome::Retry { proven_absent: true, .. }), !made, "{looked:?}");
            // … and sending again makes it so, once.
            assert!(is_accepted(&send(&airflow, "load", RUN, Some(DATE)).await), "{version:?} {fault:?}");
            assert_eq!(fake.world().runs().len(), 1, "{version:?} {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_conflict_with_somebody_else_is_rejected_by_name() {
    for version in BOTH {
        let (fake, airflow) = started(version).await;
        fake.world().create("load", "manual__ann", DATE.parse().ok()).expect("free");
        let outcome = send(&airflow, "load", RUN, Some(DATE)).await;
        let SubmitOutcome::Rejected { http_status: 409, reason } = &outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("manual__ann") && reason.contains(DATE), "{reason}");

        fake.world().create("other", RUN, None).expect("free").note = Some("flowkeeper store ffff".into());
        let outcome = send(&airflow, "other", RUN, Some(DATE)).await;
        let SubmitOutcome::Rejected { reason, .. } = &outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("another flowkeeper") && reason.contains("ffff"), "{reason}");
        // The same when it is only looked for.
        let looked = send_full(&airflow, "other", RUN, None, true).await.outcome;
        assert!(matches!(looked, SubmitOutcome::Rejected { .. }), "{looked:?}");
    }
}

#[tokio::test]
async fn refusals_name_their_reason() {
    for version in BOTH {
        let (fake, airflow) = started(version).await;
        let missing = send(&airflow, "nosuch", RUN, None).await;
        assert!(
            matches!(&missing, SubmitOutcome::DagMissing { http_status: 404, detail } if detail.contains("nosuch")),
            "{missing:?}"
        );
        fake.world().dags.get_mut("other").expect("a DAG").has_import_errors = true;
        let broken = send(&airflow, "other", RUN, None).await;
        assert!(matches!(&broken, SubmitOutcome::DagMissing { http_status: 400, .. }), "{broken:?}");
        let illegal = send(&airflow, "load", "sp ace", Some(DATE)).await;
        assert!(matches!(&illegal, SubmitOutcome::Rejected { reason, .. } if reason.contains("sp ace")), "{illegal:?}");
        assert!(fake.world().runs().is_empty());
    }
}

#[tokio::test]
async fn too_many_requests_wait_as_long_as_airflow_asks() {
    let (fake, airflow) = started(Version::Three).await;
    fake.world().faults.push_back(Fault::TooMany(7));
    let outcome = send(&airflow, "load", RUN, None).await;
    let wait = Some(Duration::from_secs(7));
    assert!(
        matches!(outcome, SubmitOutcome::Retry { after, proven_absent: true, http_status: Some(429), .. } if after == wait),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn an_airflow_that_is_down_has_made_nothing() {
    let (fake, airflow) = started(Version::Three).await;
    let address = fake.address().to_string();
    let world = fake.stop().await;
    let outcome = send(&airflow, "load", RUN, None).await;
    assert!(matches!(outcome, SubmitOutcome::Retry { proven_absent: true, http_status: None, .. }), "{outcome:?}");
    // It goes on when Airflow is back.
    let _fake = FakeAirflow::start_on(world, &address).await;
    assert!(is_accepted(&send(&airflow, "load", RUN, None).await));
}

#[tokio::test]
async fn an_upgrade_from_2_to_3_is_noticed() {
    let (fake, airflow) = started(Version::Two).await;
    assert!(is_accepted(&send(&airflow, "load", RUN, None).await));
    let address = fake.address().to_string();
    let mut world = fake.stop().await;
    world.version = Version::Three;
    let fake = FakeAirflow::start_on(world, &address).await;
    assert!(is_accepted(&send(&airflow, "load", "flowkeeper__s__z2-0", None).await));
    assert_eq!((airflow.known_api(), airflow.version().as_deref()), (Some(Api::V2), Some("3.3.2")));
    // And back, as after a failed upgrade.
    fake.world().version = Version::Two;
    assert!(is_accepted(&send(&airflow, "load", "flowkeeper__s__z3-0", None).await));
    assert_eq!(airflow.known_api(), Some(Api::V1));
}

#[tokio::test]
async fn a_base_path_comes_before_every_path() {
    let mut world = World::new(Version::Three).with_dags(["load"]);
    world.base_path = "/team/airflow".into();
    let fake = FakeAirflow::start(world).await;
    for path in ["/team/airflow", "/team/airflow/"] {
        let url = format!("{}{path}", fake.url()).parse().expect("an address");
        let airflow = client(Settings { url, ..settings(&fake, password("admin")) });
        assert!(is_accepted(&send(&airflow, "load", RUN, None).await));
    }
    let airflow = client(settings(&fake, password("admin")));
    let outcome = send(&airflow, "load", RUN, None).await;
    assert!(
        matches!(&outcome, SubmitOutcome::Retry { detail, .. } if detail.contains("/api/v2 answers 404")),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn one_login_serves_all_and_is_renewed_in_time() {
    let (fake, airflow) = started(Version::Three).await;
    let burst = async |prefix: &str| {
        let ids: Vec<String> = (0..40).map(|n| format!("flowkeeper__s__{prefix}{n}-0")).collect();
        let sends = ids.iter().map(|id| send(&airflow, "load", id, None));
        assert!(futures_util::future::join_all(sends).await.iter().all(is_accepted));
    };
    fake.world().token_lifetime = Duration::from_secs(10);
    burst("za").await;
    assert_eq!((fake.count("token"), fake.count("version")), (1, 1));
    // Nine tenths of its life later, before anything is refused.
    tokio::time::sleep(Duration::from_millis(9_100)).await;
    fake.world().token_lifetime = Duration::from_hours(1);
    burst("zb").await;
    assert_eq!(fake.count("token"), 2);
}

#[tokio::test]
async fn an_expired_token_costs_one_login_and_no_run() {
    let (fake, airflow) = started(Version::Three).await;
    assert!(is_accepted(&send(&airflow, "load", "flowkeeper__s__z0-0", None).await));
    // The API server restarts with another signing key, right after the login was accepted.
    for n in 0..3 {
        fake.world().faults.push_back(Fault::TokensExpire);
        assert!(is_accepted(&send(&airflow, "load", &format!("flowkeeper__s__z1-{n}"), None).await));
    }
    assert_eq!(fake.count("token"), 4);
    assert_eq!(fake.world().runs().len(), 4);
}

#[tokio::test]
async fn a_wrong_password_is_said_once_and_not_hammered() {
    for version in BOTH {
        let fake = FakeAirflow::start(World::new(version).with_dags(["load"])).await;
        let airflow = client(settings(&fake, password("hunter2")));
        for _ in 0..20 {
            let outcome = send(&airflow, "load", RUN, None).await;
            let SubmitOutcome::Unauthorized { detail, .. } = &outcome else { panic!("{outcome:?}") };
            assert!(!detail.contains("hunter2"), "{detail}");
        }
        let world = fake.world();
        assert_eq!(world.count("token") + world.count("trigger"), 1, "{version:?}");
        assert!(!format!("{airflow:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn a_token_file_is_read_again_when_airflow_refuses() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    for version in BOTH {
        let fake = FakeAirflow::start(World::new(version).with_dags(["load"])).await;
        fake.world().tokens.insert("second".into());
        std::fs::write(&path, "first\n").expect("written");
        let airflow = client(settings(&fake, Auth::Token(Credential::File(path.clone()))));
        let refused = send(&airflow, "load", RUN, None).await;
        assert!(matches!(refused, SubmitOutcome::Unauthorized { http_status: Some(401 | 403), .. }), "{refused:?}");
        let airflow = client(settings(&fake, Auth::Token(Credential::File(path.clone()))));
        // The old token is what it has when Airflow refuses, and by then there is a new one.
        airflow.health().await.expect("healthy");
        std::fs::write(&path, "second\n").expect("written");
        assert!(is_accepted(&send(&airflow, "load", RUN, None).await));
    }
}

#[tokio::test]
async fn a_command_and_a_token_server_log_in_too() {
    let fake = FakeAirflow::start(World::new(Version::Three).with_dags(["load"])).await;
    fake.world().tokens.insert("printed".into());
    let argv = ["sh", "-c", r#"echo '{"headers":{"Authorization":"Bearer printed"}}'"#].map(str::to_owned).to_vec();
    let argv = CommandLine::new(argv);
    let command = Auth::Command { argv, ttl: Duration::from_mins(1), timeout: Duration::from_mins(1) };
    assert!(is_accepted(&send(&client(settings(&fake, command)), "load", "flowkeeper__s__z1-0", None).await));

    let oauth = |secret: &str| Auth::OAuth2 {
        token_url: format!("{}/oauth/token", fake.url()).parse().expect("an address"),
        client_id: "client".into(),
        client_secret: fixed(secret),
        scope: Some("api".into()),
        audience: None,
    };
    assert!(is_accepted(&send(&client(settings(&fake, oauth("secret"))), "load", "flowkeeper__s__z2-0", None).await));
    let outcome = send(&client(settings(&fake, oauth("hunter2"))), "load", "flowkeeper__s__z3-0", None).await;
    let SubmitOutcome::Unauthorized { detail, .. } = &outcome else { panic!("{outcome:?}") };
    assert!(detail.contains("/oauth/token answered 401") && !detail.contains("hunter2"), "{detail}");
}

#[tokio::test]
async fn lists_are_read_page_by_page_and_runs_can_be_changed() {
    for version in BOTH {
        let (fake, airflow) = started(version).await;
        for n in 0..230 {
            fake.world().create("load", &format!("flowkeeper__s__z{n}-0"), None).expect("free");
        }
        fake.world().set_state("load", "flowkeeper__s__z7-0", State::Running);
        let mut seen = Vec::new();
        loop {
            let page = airflow.list_runs(&RunQuery::default(), seen.len() as u64).await.expect("a page");
            if page.entries == 0 {
                break;
            }
            assert_eq!(page.total, 230);
            seen.extend(page.runs.into_iter().map(|run| run.dag_run_id));
        }
        assert_eq!(seen.len(), 230);
        let running = RunQuery {
            states: vec![AirflowState::Running],
            dag_ids: vec!["load".into(), "other".into()],
            ..RunQuery::default()
        };
        assert_eq!(airflow.list_runs(&running, 0).await.expect("a page").entries, 1);

        airflow.fail_run("load", "flowkeeper__s__z7-0").await.expect("failed");
        assert_eq!(fake.world().run("load", "flowkeeper__s__z7-0").map(|run| run.state), Some(State::Failed));
        airflow.clear_run("load", "flowkeeper__s__z7-0").await.expect("cleared");
        airflow.set_note("load", "flowkeeper__s__z7-0", "hello").await.expect("noted");
        let run = airflow.find_run("load", "flowkeeper__s__z7-0").await.expect("there");
        assert_eq!((run.state, run.note.as_deref()), (Some(AirflowState::Queued), Some("hello")));
        assert!(airflow.find_run("load", "nosuch").await.unwrap_err().is_absent());
        assert!(airflow.health().await.expect("healthy").iter().any(|part| part.name == "metadatabase"));
        assert!(airflow.clock_offset().expect("a date").abs() < jiff::SignedDuration::from_mins(1));
    }
}

#[test]
fn the_note_that_is_sent_is_recognised() {
    assert!(note::is_ours(Some(NOTE), STORE));
}
