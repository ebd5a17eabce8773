//! The ledger's promises, each on a real database file.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use super::model::*;
use super::*;
use crate::domain::run::{AirflowState, RunId, RunState};
use crate::domain::schedule::{Consume, Overlap, ScheduleName, TriggerKind};
use crate::domain::znode::ZnodeVersion;

struct World {
    directory: tempfile::TempDir,
    ledger: Ledger,
    leadership: Leadership,
    clock: Clock,
}

fn start() -> Timestamp {
    "2026-11-22T02:30:00Z".parse().unwrap()
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(start());
        let ledger = Ledger::open(&url(&directory), clock.clone()).await.unwrap();
        let leadership = ledger.take_lead("test").await.unwrap();
        let world = Self { directory, ledger, leadership, clock };
        world.adopt(&[("nightly", "cron 1"), ("inbox", "znode 1")]).await;
        world
    }

    async fn adopt(&self, schedules: &[(&str, &str)]) {
        let schedules: Vec<_> = schedules
            .iter()
            .map(|(schedule, key)| TriggerIdentity { name: name(schedule), was: None, key: (*key).to_owned() })
            .collect();
        self.ledger.adopt_schedules(&self.leadership, &schedules, self.clock.now()).await.unwrap();
    }

    async fn record(&self, run: NewRun) -> RecordedRun {
        let recording = Recording { runs: vec![run], ..Recording::default() };
        self.ledger.record(&self.leadership, recording).await.unwrap().remove(0)
    }

    async fn see(&self, id: &str, state: AirflowState) {
        let note = Some(format!("flowkeeper store {}", self.ledger.store_id()));
        let seen = vec![Sighting { note, ..sighting(id, state) }];
        self.ledger.record_sightings(&self.leadership, "main", seen, None).await.unwrap();
    }

    async fn state(&self, id: RunId) -> RunState {
        self.ledger.run(&id.to_string()).await.unwrap().unwrap().state
    }

    fn audit() -> NewAudit {
        NewAudit {
            actor: "local".into(),
            source: "127.0.0.1".into(),
            action: "test",
            target: "nightly".into(),
            detail: None,
            reason: None,
        }
    }
}

fn url(directory: &tempfile::TempDir) -> String {
    format!("sqlite://{}", directory.path().join("flowkeeper.db").display())
}

fn name(text: &str) -> ScheduleName {
    ScheduleName::new(text).unwrap()
}

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn cron_run(at: Timestamp, overlap: Overlap) -> NewRun {
    NewRun {
        schedule: name("nightly"),
        owner: Some("platform".into()),
        airflow: "main".into(),
        dag_id: "nightly_load".into(),
        dag_run_id: format!("flowkeeper__nightly__{at}"),
        trigger: TriggerKind::Cron,
        nominal_time: Some(at),
        due_at: at,
        covers: None,
        state: RunState::Pending,
        reason: None,
        coalesced: 0,
        conf: json(r#"{"b": 1, "a": 2}"#),
        logical_date: Some(at),
        data_interval: Some((at, at)),
        overlap,
        consume: None,
    }
}

fn sighting(id: &str, state: AirflowState) -> Sighting {
    Sighting {
        dag_id: "nightly_load".into(),
        dag_run_id: id.into(),
        state,
        run_type: Some("manual".into()),
        logical_date: None,
        queued_at: None,
        started_at: (state != AirflowState::Queued).then_some(start()),
        ended_at: (!state.as_run_state().is_open()).then(|| start() + SignedDuration::from_secs(9)),
        note: None,
        conf: None,
        keep: true,
    }
}

fn accepted(id: RunId, number: i64) -> AttemptRecord {
    AttemptRecord {
        run: id,
        number,
        started_at: start(),
        ended_at: start(),
        http_status: Some(200),
        detail: None,
        outcome: AttemptOutcome::Accepted(AirflowState::Queued),
    }
}

fn minute(n: i64) -> Timestamp {
    start() + SignedDuration::from_mins(n)
}

#[tokio::test]
async fn an_occurrence_is_recorded_once_however_often_it_is_found() {
    let world = World::new().await;
    let (sender, mut tickets) = mpsc::unbounded_channel();
    world.ledger.deliver_to(sender);
    let first = world.record(cron_run(minute(0), Overlap::Allow)).await;
    let again = world.record(cron_run(minute(0), Overlap::Allow)).await;
    assert!(first.fresh && !again.fresh);
    assert_eq!(first.id, again.id);
    assert_eq!(tickets.try_recv().unwrap().conf.get(), r#"{"b": 1, "a": 2}"#);
    assert!(tickets.try_recv().is_err(), "the second finding is not submitted");
}

#[tokio::test]
async fn the_same_identity_with_other_content_is_an_error_with_a_name() {
    let world = World::new().await;
    let by_hand = |conf: &str| NewRun {
        trigger: TriggerKind::Manual,
        nominal_time: None,
        dag_run_id: "flowkeeper__nightly__mfix".into(),
        conf: json(conf),
        ..cron_run(minute(0), Overlap::Allow)
    };
    world.record(by_hand("{}")).await;
    let recording = Recording { runs: vec![by_hand("[]")], ..Recording::default() };
    let error = world.ledger.record(&world.leadership, recording).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "record the run `flowkeeper__nightly__mfix`: it is already recorded with another conf"
    );
}

#[tokio::test]
async fn a_skipping_schedule_has_one_open_run_and_one_row_for_what_it_skipped() {
    let world = World::new().await;
    let recording =
        Recording { runs: (0..4).map(|n| cron_run(minute(n), Overlap::Skip)).collect(), ..Recording::default() };
    let states: Vec<_> =
        world.ledger.record(&world.leadership, recording).await.unwrap().into_iter().map(|run| run.state).collect();
    assert_eq!(states, [RunState::Pending, RunState::Skipped, RunState::Skipped, RunState::Skipped]);
    world.record(cron_run(minute(4), Overlap::Skip)).await;
    let page = world.ledger.runs(&RunFilter::default(), 10, None).await.unwrap();
    let shown: Vec<_> = page.items.iter().map(|run| (run.state, run.count, run.from, run.to)).collect();
    assert_eq!(shown, [(RunState::Skipped, 4, Some(minute(1)), Some(minute(4))), (RunState::Pending, 1, None, None)],);
    // The row's identity is that of the last time it covers.
    assert_eq!(page.items[0].dag_run_id, format!("flowkeeper__nightly__{}", minute(4)));
}

#[tokio::test]
async fn a_time_that_a_row_for_several_covers_is_not_recorded_again_when_the_clock_goes_back() {
    let world = World::new().await;
    let covers = Covered { from: minute(0), to: minute(9), count: 10 };
    let missed = NewRun {
        state: RunState::Missed,
        reason: Some("down".into()),
        covers: Some(covers),
        ..cron_run(minute(9), Overlap::Allow)
    };
    let to = minute(9);
    let cursors = vec![CursorMove::Cron { schedule: name("nightly"), to }];
    let recording = Recording { runs: vec![missed], cursors, ..Recording::default() };
    world.ledger.record(&world.leadership, recording).await.unwrap();
    let again = world.record(cron_run(minute(4), Overlap::Allow)).await;
    assert_eq!((again.fresh, again.state), (false, RunState::Missed));
    assert!(world.record(cron_run(minute(10), Overlap::Allow)).await.fresh);
}

#[tokio::test]
async fn only_the_newest_of_those_that_wait_keeps_its_place_under_queue_one() {
    let world = World::new().await;
    let mut runs = Vec::new();
    for n in 0..4 {
        runs.push(world.record(cron_run(minute(n), Overlap::QueueOne)).await.id);
    }
    let mut states = Vec::new();
    for run in runs {
        states.push(world.state(run).await);
    }
    assert_eq!(states, [RunState::Pending, RunState::Skipped, RunState::Skipped, RunState::Pending]);
}

#[tokio::test]
async fn a_run_follows_airflow_to_its_end_and_back() {
    let world = World::new().await;
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    world.ledger.record_attempt(&world.leadership, accepted(run.id, 1)).await.unwrap();
    for (seen, expected) in [
        (AirflowState::Running, RunState::Running),
        (AirflowState::Failed, RunState::Failed),
        // Cleared in Airflow.
        (AirflowState::Queued, RunState::Queued),
        (AirflowState::Success, RunState::Success),
    ] {
        world.see(&run.dag_run_id, seen).await;
        assert_eq!(world.state(run.id).await, expected);
    }
    let shown = world.ledger.run(&run.dag_run_id).await.unwrap().unwrap();
    assert_eq!((shown.reopened, shown.duration_ms, shown.attempts.len()), (1, Some(9000), 1));
    let moves: Vec<_> = shown.timeline.iter().map(|entry| entry.state.as_str()).collect();
    assert_eq!(moves, ["queued", "running", "failed", "queued", "success"]);
    let followed = world.ledger.dag_runs(&DagRunFilter::default(), 10, None).await.unwrap().items;
    assert_eq!((followed.len(), followed[0].state, followed[0].run), (1, RunState::Success, Some(run.id)));
}

#[tokio::test]
async fn a_run_that_was_cleared_and_ended_again_unseen_was_reopened() {
    let world = World::new().await;
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    let second = |n| Some(minute(0) + SignedDuration::from_secs(n));
    let looks = [
        (AirflowState::Failed, (1, 5), 0),
        // Marked as a success by hand: the same life.
        (AirflowState::Success, (1, 6), 0),
        (AirflowState::Failed, (7, 9), 1),
        // Ended alike, and still another life.
        (AirflowState::Failed, (20, 21), 2),
        (AirflowState::Failed, (20, 21), 2),
    ];
    for (state, (started, ended), reopened) in looks {
        let (started_at, ended_at) = (second(started), second(ended));
        let note = Some(world.ledger.store_id().to_owned());
        let seen = vec![Sighting { started_at, ended_at, note, ..sighting(&run.dag_run_id, state) }];
        world.ledger.record_sightings(&world.leadership, "main", seen, None).await.unwrap();
        let shown = world.ledger.run(&run.dag_run_id).await.unwrap().unwrap();
        assert_eq!((shown.reopened, shown.started_at, shown.ended_at), (reopened, started_at, ended_at));
    }
    let shown = world.ledger.run(&run.dag_run_id).await.unwrap().unwrap();
    let moves: Vec<_> = shown.timeline.iter().map(|entry| entry.state.as_str()).collect();
    assert_eq!(moves, ["failed", "success", "failed", "failed"], "every end is kept");
}

#[tokio::test]
async fn an_old_answer_does_not_undo_what_the_monitor_saw() {
    let world = World::new().await;
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    world.see(&run.dag_run_id, AirflowState::Success).await;
    world.ledger.record_attempt(&world.leadership, accepted(run.id, 1)).await.unwrap();
    assert_eq!(world.state(run.id).await, RunState::Success);
}

#[tokio::test]
async fn a_dag_run_of_ours_without_a_row_is_entered_and_a_foreign_one_is_not() {
    let world = World::new().await;
    let id = "flowkeeper__nightly__2026-11-22T02:30:00Z";
    let foreign = vec![sighting(id, AirflowState::Running)];
    world.ledger.record_sightings(&world.leadership, "main", foreign.clone(), None).await.unwrap();
    assert!(world.ledger.run(id).await.unwrap().is_none(), "no note: another flowkeeper's");
    let note = Some(format!("store {}", world.ledger.store_id()));
    let seen = vec![Sighting { note, ..sighting(id, AirflowState::Running) }];
    world.ledger.record_sightings(&world.leadership, "main", seen, None).await.unwrap();
    let run = world.ledger.run(id).await.unwrap().unwrap();
    assert_eq!((run.state, run.nominal_time), (RunState::Running, Some(minute(0))));
}

#[tokio::test]
async fn a_waiting_row_is_not_moved_by_another_flowkeepers_dag_run_of_the_same_id() {
    let world = World::new().await;
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    let foreign = vec![sighting(&run.dag_run_id, AirflowState::Success)];
    world.ledger.record_sightings(&world.leadership, "main", foreign, None).await.unwrap();
    assert_eq!(world.state(run.id).await, RunState::Pending);
    world.see(&run.dag_run_id, AirflowState::Success).await;
    assert_eq!(world.state(run.id).await, RunState::Success);
}

#[tokio::test]
async fn a_replaced_leader_is_refused() {
    let world = World::new().await;
    let newer = world.ledger.take_lead("other").await.unwrap();
    let recording = Recording { runs: vec![cron_run(minute(0), Overlap::Allow)], ..Recording::default() };
    let error = world.ledger.record(&world.leadership, recording.clone()).await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { held: 1, current: 2 }), "{error}");
    assert!(world.leadership.lost().is_cancelled() && !newer.lost().is_cancelled());
    world.ledger.record(&newer, recording).await.unwrap();
    let error = world.ledger.skip(&world.leadership, RunId(1), "no").await.unwrap_err();
    assert!(matches!(error, StoreError::Fenced { .. }), "{error}");
}

#[tokio::test]
async fn cursors_survive_with_the_runs_they_made() {
    let world = World::new().await;
    let seen = ZnodeVersion { czxid: 5, mzxid: 9, version: 3 };
    let znode = |path: &str, seen| CursorMove::Znode {
        schedule: name("inbox"),
        path: path.into(),
        seen,
        data: Some(b"old".to_vec()),
    };
    let recording = Recording {
        cursors: vec![
            znode("/inbox/a", Some(ZnodeVersion { mzxid: 7, ..seen })),
            znode("/inbox/a", Some(seen)),
            znode("/inbox/b", Some(seen)),
            CursorMove::ZnodeInitialized { schedule: name("inbox"), zxid: 9 },
            CursorMove::Cron { schedule: name("nightly"), to: minute(5) },
            CursorMove::Cron { schedule: name("nightly"), to: minute(4) },
        ],
        ..Recording::default()
    };
    world.ledger.record(&world.leadership, recording).await.unwrap();
    let gone = Recording { cursors: vec![znode("/inbox/b", None)], ..Recording::default() };
    world.ledger.record(&world.leadership, gone).await.unwrap();

    let again = Ledger::open(&url(&world.directory), world.clock.clone()).await.unwrap();
    let states = again.schedule_states().await.unwrap();
    assert_eq!(states[&name("nightly")].cron_cursor, minute(5));
    assert_eq!(states[&name("inbox")].znode_initialized, Some(9));
    let cursors = again.znode_cursors(&name("inbox")).await.unwrap();
    assert_eq!(cursors.iter().map(|c| (c.path.as_str(), c.seen)).collect::<Vec<_>>(), [("/inbox/a", seen)]);
    assert_eq!(again.previous_data(&name("inbox"), "/inbox/a").await.unwrap().as_deref(), Some(&b"old"[..]));
}

#[tokio::test]
async fn an_edited_trigger_begins_anew_and_a_renamed_one_goes_on() {
    let world = World::new().await;
    let to = minute(5);
    let cursors = vec![CursorMove::Cron { schedule: name("nightly"), to }];
    world.ledger.record(&world.leadership, Recording { cursors, ..Recording::default() }).await.unwrap();
    world.clock.advance(SignedDuration::from_hours(1));

    world.adopt(&[("nightly", "cron 1"), ("inbox", "znode 1")]).await;
    assert_eq!(world.ledger.schedule_states().await.unwrap()[&name("nightly")].cron_cursor, to, "unchanged");

    let renamed = TriggerIdentity { name: name("load"), was: Some(name("nightly")), key: "cron 1".into() };
    world.ledger.adopt_schedules(&world.leadership, &[renamed], world.clock.now()).await.unwrap();
    let states = world.ledger.schedule_states().await.unwrap();
    assert_eq!(states[&name("load")].cron_cursor, to, "renamed");
    assert!(!states.contains_key(&name("inbox")), "removed");

    world.adopt(&[("load", "cron 2")]).await;
    assert_eq!(world.ledger.schedule_states().await.unwrap()[&name("load")].cron_cursor, world.clock.now(), "edited");
}

#[tokio::test]
async fn a_pause_survives_a_restart_and_is_audited() {
    let world = World::new().await;
    let pause = Pause { by: "ada".into(), reason: Some("upgrade".into()), until: None, at: world.clock.now() };
    let pauses = world.ledger.pauses();
    world.ledger.pause(&world.leadership, &name("nightly"), pause.clone(), World::audit()).await.unwrap();
    assert!(pauses.has_changed().unwrap());
    let again = Ledger::open_read_only(&url(&world.directory), world.clock.clone()).await.unwrap();
    assert_eq!(again.schedule_states().await.unwrap()[&name("nightly")].pause, Some(pause));
    assert!(world.ledger.resume(&world.leadership, &name("nightly"), World::audit()).await.unwrap());
    assert!(!world.ledger.resume(&world.leadership, &name("nightly"), World::audit()).await.unwrap());
    assert_eq!(world.ledger.audit(10, None).await.unwrap().items.len(), 2);
    let nobody = name("nobody");
    let unknown = world.ledger.pause(
        &world.leadership,
        &nobody,
        Pause { by: "ada".into(), reason: None, until: None, at: world.clock.now() },
        World::audit(),
    );
    assert!(matches!(unknown.await, Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn a_consume_is_owed_until_it_is_settled() {
    let world = World::new().await;
    let work = ConsumeWork { ensemble: None, path: "/inbox/a".into(), czxid: 5, when: Consume::Accepted };
    let run = world.record(NewRun { consume: Some(work.clone()), ..cron_run(minute(0), Overlap::Allow) }).await;
    let first = RunId(0);
    assert!(world.ledger.consume_due(None, first).await.unwrap().is_empty(), "not accepted yet");
    world.ledger.record_attempt(&world.leadership, accepted(run.id, 1)).await.unwrap();
    let due = world.ledger.consume_due(None, first).await.unwrap();
    assert_eq!(due.iter().map(|due| (due.run, due.work.clone())).collect::<Vec<_>>(), [(run.id, work)]);
    assert!(world.ledger.consume_due(Some("solr"), first).await.unwrap().is_empty());
    assert!(world.ledger.consume_due(None, run.id).await.unwrap().is_empty(), "a page later");
    world.ledger.consumes_settled(&world.leadership, &[(run.id, "deleted")]).await.unwrap();
    assert!(world.ledger.consume_due(None, first).await.unwrap().is_empty());
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repeat_while_rows_arrive() {
    let world = World::new().await;
    for n in 0..25 {
        world.record(cron_run(minute(n), Overlap::Allow)).await;
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = world.ledger.runs(&RunFilter::default(), 10, cursor.as_deref()).await.unwrap();
        seen.extend(page.items.iter().filter_map(|run| run.nominal_time));
        world.record(cron_run(minute(100 + i64::try_from(seen.len()).unwrap()), Overlap::Allow)).await;
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, (0..25).rev().map(minute).collect::<Vec<_>>());
    let error = world.ledger.runs(&RunFilter::default(), 10, Some("x")).await.unwrap_err();
    assert!(matches!(error, StoreError::BadCursor { .. }));
}

#[tokio::test]
async fn filters_hold_together() {
    let world = World::new().await;
    for n in 0..6 {
        let mut run = cron_run(minute(n), Overlap::Allow);
        if n % 2 == 0 {
            (run.schedule, run.owner) = (name("inbox"), None);
            run.dag_id = "ingest".into();
        }
        if n == 5 {
            run.state = RunState::Rejected;
        }
        world.record(run).await;
    }
    let count = async |filter: RunFilter| world.ledger.runs(&filter, 100, None).await.unwrap().items.len();
    let all = RunFilter::default;
    assert_eq!(count(all()).await, 6);
    assert_eq!(count(RunFilter { schedule: Some("nightly".into()), ..all() }).await, 3);
    assert_eq!(count(RunFilter { dag_id: Some("ingest".into()), ..all() }).await, 3);
    assert_eq!(count(RunFilter { owner: Some("platform".into()), ..all() }).await, 3);
    assert_eq!(count(RunFilter { states: vec![RunState::Rejected, RunState::Pending], ..all() }).await, 6);
    assert_eq!(count(RunFilter { states: vec![RunState::Rejected], ..all() }).await, 1);
    assert_eq!(count(RunFilter { since: Some(minute(2)), until: Some(minute(4)), ..all() }).await, 2);
    let rejected = RunFilter { states: vec![RunState::Rejected], schedule: Some("inbox".into()), ..all() };
    assert_eq!(count(rejected).await, 0);
}

#[tokio::test]
async fn a_write_that_finds_the_file_locked_is_kept_until_it_succeeds() {
    let world = World::new().await;
    let other = sqlx::AnyPool::connect(&url(&world.directory)).await.unwrap();
    let mut lock = other.acquire().await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut *lock).await.unwrap();
    let mut health = world.ledger.health();
    let recording = Recording { runs: vec![cron_run(minute(0), Overlap::Allow)], ..Recording::default() };
    let (ledger, leadership) = (world.ledger.clone(), world.leadership.clone());
    let write = tokio::spawn(async move { ledger.record(&leadership, recording).await });
    let stuck = health.wait_for(|health| matches!(health, StoreHealth::Stuck { .. }));
    tokio::time::timeout(Duration::from_secs(20), stuck).await.unwrap().unwrap();
    assert!(!write.is_finished(), "nothing is acknowledged");
    sqlx::query("ROLLBACK").execute(&mut *lock).await.unwrap();
    let recorded = tokio::time::timeout(Duration::from_secs(20), write).await.unwrap().unwrap().unwrap();
    assert!(recorded[0].fresh);
    assert_eq!(*health.borrow_and_update(), StoreHealth::Writable);
}

#[tokio::test]
async fn a_full_database_loses_nothing_that_was_acknowledged_and_goes_on() {
    let world = World::new().await;
    // SQLite answers SQLITE_FULL at its page limit exactly as it does on a full disk.
    let pages = sqlx::query("PRAGMA page_count").fetch_one(&world.ledger.0.write_pool).await.unwrap();
    let pages: i64 = sql::Columns::of(&pages).integer().unwrap();
    let limit = |pages: i64| sql::bind(format!("PRAGMA max_page_count = {pages}"), []);
    limit(pages).fetch_all(&world.ledger.0.write_pool).await.unwrap();
    let mut health = world.ledger.health();
    let big = NewRun { conf: json(&format!("\"{}\"", "x".repeat(200_000))), ..cron_run(minute(0), Overlap::Allow) };
    let (ledger, leadership) = (world.ledger.clone(), world.leadership.clone());
    let write =
        tokio::spawn(
            async move { ledger.record(&leadership, Recording { runs: vec![big], ..Recording::default() }).await },
        );
    let stuck = health.wait_for(|health| matches!(health, StoreHealth::Stuck { reason } if reason.contains("full")));
    tokio::time::timeout(Duration::from_secs(20), stuck).await.unwrap().unwrap();
    limit(1_000_000).fetch_all(&world.ledger.0.write_pool).await.unwrap();
    let recorded = tokio::time::timeout(Duration::from_secs(20), write).await.unwrap().unwrap().unwrap();
    assert!(recorded[0].fresh);
}

#[tokio::test]
async fn foreign_and_newer_databases_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    sqlx::any::install_default_drivers();
    let other = sqlx::AnyPool::connect(&format!("{}?mode=rwc", url(&directory))).await.unwrap();
    sqlx::query("CREATE TABLE dag_run (id INTEGER)").execute(&other).await.unwrap();
    let error = Ledger::open(&url(&directory), Clock::system()).await.unwrap_err();
    assert!(matches!(&error, StoreError::Foreign { table, .. } if table == "dag_run"), "{error}");
    assert!(error.hint().is_some());

    let world = World::new().await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'x', 1, X'00', 0)",
    )
    .execute(&world.ledger.0.write_pool)
    .await
    .unwrap();
    let again = Ledger::open(&url(&world.directory), Clock::system()).await.unwrap_err();
    assert!(matches!(again, StoreError::Newer { migration: 99, .. }), "{again}");
    let reader = Ledger::open_read_only(&url(&world.directory), Clock::system()).await.unwrap_err();
    assert!(matches!(reader, StoreError::Newer { .. }), "{reader}");

    for bad in ["mysql://x", "sqlite://", "sqlite://a?b"] {
        assert!(matches!(Ledger::open(bad, Clock::system()).await, Err(StoreError::Unsupported { .. })), "{bad}");
    }
    let absent = Ledger::open_read_only("sqlite:///nowhere/flowkeeper.db", Clock::system()).await.unwrap_err();
    assert!(matches!(absent, StoreError::Absent { .. }), "{absent}");
}

#[tokio::test]
async fn retention_keeps_what_is_open_what_is_newest_and_keys_by_hand() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let run = world.record(cron_run(minute(n), Overlap::Allow)).await;
        ids.push(run.id);
        if n != 1 {
            world.see(&run.dag_run_id, AirflowState::Success).await;
        }
    }
    let by_hand = NewRun {
        trigger: TriggerKind::Manual,
        nominal_time: None,
        dag_run_id: "flowkeeper__nightly__mkey".into(),
        state: RunState::Skipped,
        ..cron_run(minute(0), Overlap::Allow)
    };
    let by_hand = world.record(by_hand).await.id;
    world.clock.advance(SignedDuration::from_hours(24 * 100));
    // A backfill of an old time has only just ended.
    let long_ago = minute(0) - SignedDuration::from_hours(24 * 365);
    let backfilled = world.record(NewRun { state: RunState::Skipped, ..cron_run(long_ago, Overlap::Allow) }).await.id;
    world.ledger.retain(&world.leadership, Duration::from_hours(2160)).await.unwrap();
    let kept: Vec<_> =
        world.ledger.runs(&RunFilter::default(), 10, None).await.unwrap().items.iter().map(|run| run.id).collect();
    let why = "the newest, the open one, the one by hand, and the one that ended late";
    assert_eq!(kept, [ids[2], ids[1], by_hand, backfilled], "{why}");
}

#[tokio::test]
async fn statistics_count_occurrences_and_rank_lateness() {
    let world = World::new().await;
    for n in 0..10 {
        let run = world.record(cron_run(minute(n), Overlap::Allow)).await;
        let late = SignedDuration::from_millis(n + 1);
        let mut attempt = accepted(run.id, 1);
        attempt.started_at = minute(n) + late;
        world.ledger.record_attempt(&world.leadership, attempt).await.unwrap();
        let state = if n < 9 { AirflowState::Success } else { AirflowState::Failed };
        world.see(&run.dag_run_id, state).await;
    }
    let missed = NewRun {
        state: RunState::Missed,
        reason: Some("down".into()),
        covers: Some(Covered { from: minute(10), to: minute(19), count: 10 }),
        ..cron_run(minute(19), Overlap::Allow)
    };
    world.record(missed).await;
    let stats = world.ledger.stats(StatsBy::Schedule, None).await.unwrap().remove(0);
    assert_eq!((stats.group.as_str(), stats.occurrences, stats.success_rate), ("nightly", 20, Some(0.9)));
    assert_eq!(stats.states.get("missed"), Some(&10));
    let lateness = stats.lateness_ms;
    assert_eq!((lateness.p50, lateness.p95, lateness.p99, lateness.max), (Some(5), Some(10), Some(10), Some(10)));
    let by_owner = world.ledger.stats(StatsBy::Owner, Some(minute(15))).await.unwrap().remove(0);
    assert_eq!((by_owner.group.as_str(), by_owner.occurrences), ("platform", 10));
}

#[tokio::test]
async fn a_backfill_takes_occurrences_out_of_a_row_that_covers_several() {
    let world = World::new().await;
    let covers = Covered { from: minute(0), to: minute(9), count: 10 };
    let missed = NewRun {
        state: RunState::Missed,
        reason: Some("down".into()),
        covers: Some(covers),
        conf: json("null"),
        ..cron_run(minute(9), Overlap::Allow)
    };
    let row = world.record(missed).await.id;
    let step = BackfillStep::Split {
        row,
        was: covers,
        before: Some((
            format!("flowkeeper__nightly__{}", minute(3)),
            Covered { from: minute(0), to: minute(3), count: 4 },
        )),
        after: Some(Covered { from: minute(6), to: minute(9), count: 4 }),
        runs: vec![cron_run(minute(4), Overlap::Skip), cron_run(minute(5), Overlap::Skip)],
    };
    let applied = world.ledger.backfill(&world.leadership, vec![step.clone()], World::audit()).await.unwrap();
    assert_eq!(applied, [true]);
    let again = world.ledger.backfill(&world.leadership, vec![step], World::audit()).await.unwrap();
    assert_eq!(again, [false], "the row no longer covers what the plan was made for");
    let rows = world.ledger.nominal_rows(&name("nightly"), minute(0), minute(9)).await.unwrap();
    let shown: Vec<_> =
        rows.iter().map(|row| (row.state, row.nominal_time, row.covers.map_or(1, |c| c.count))).collect();
    assert_eq!(
        shown,
        [
            (RunState::Missed, minute(3), 4),
            (RunState::Pending, minute(4), 1),
            (RunState::Pending, minute(5), 1),
            (RunState::Missed, minute(9), 4),
        ]
    );
}

#[tokio::test]
async fn a_retry_sends_what_was_stored_and_a_cancel_gives_up_only_what_waits() {
    let world = World::new().await;
    let (sender, mut tickets) = mpsc::unbounded_channel();
    world.ledger.deliver_to(sender);
    let run = world.record(cron_run(minute(0), Overlap::Allow)).await;
    tickets.try_recv().unwrap();
    let mut attempt = accepted(run.id, 1);
    attempt.outcome = AttemptOutcome::Rejected;
    attempt.detail = Some("Airflow refused".into());
    world.ledger.record_attempt(&world.leadership, attempt).await.unwrap();
    let shown = world.ledger.run(&run.dag_run_id).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.reason.as_deref()), (RunState::Rejected, Some("Airflow refused")));

    let reopen = |expected| Reopen { expected, fresh: None };
    assert!(!world.ledger.retry(&world.leadership, run.id, reopen(RunState::Missed), World::audit()).await.unwrap());
    assert!(world.ledger.retry(&world.leadership, run.id, reopen(RunState::Rejected), World::audit()).await.unwrap());
    let ticket = tickets.try_recv().unwrap();
    assert_eq!((ticket.attempts, ticket.first_attempt_at, ticket.conf.get()), (1, None, r#"{"b": 1, "a": 2}"#));

    assert!(world.ledger.not_pending(&[run.id]).await.unwrap().is_empty());
    assert!(world.ledger.cancel(&world.leadership, run.id, "not needed", World::audit()).await.unwrap());
    assert!(world.ledger.not_pending(&[run.id]).await.unwrap().contains(&run.id));
    assert!(!world.ledger.cancel(&world.leadership, run.id, "not needed", World::audit()).await.unwrap());
    assert_eq!(world.state(run.id).await, RunState::Skipped);
    // Its request was under way, and Airflow took it: the row follows.
    world.ledger.record_attempt(&world.leadership, accepted(run.id, 2)).await.unwrap();
    assert_eq!(world.state(run.id).await, RunState::Queued);
}

#[tokio::test]
async fn a_shadow_records_and_submits_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::open_shadow(&url(&directory), Clock::manual(start())).await.unwrap();
    let leadership = ledger.take_lead("shadow").await.unwrap();
    let (sender, mut tickets) = mpsc::unbounded_channel();
    ledger.deliver_to(sender);
    let recording = Recording { runs: vec![cron_run(minute(0), Overlap::Allow)], ..Recording::default() };
    let recorded = ledger.record(&leadership, recording).await.unwrap().remove(0);
    assert_eq!(recorded.state, RunState::Skipped);
    assert!(tickets.try_recv().is_err());
}
