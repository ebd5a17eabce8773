//! The loop with a real ledger and a clock that tests move.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use jiff::SignedDuration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock::Clock;
use crate::domain::edit::Fates;
use crate::domain::policy::ON_TIME;
use crate::domain::run::RunState;
use crate::status::Status;
use crate::store::model::{Run, RunFilter};
use crate::store::{Leadership, Ledger, StoreError, TriggerIdentity};
use crate::triggers::cron::{Cron, Edit, TimeWitness};
use crate::triggers::gate::{Gate, Gates};

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_mins(3);

/// Says what it was told to say, and counts the questions.
#[derive(Clone, Default)]
struct Witness {
    answer: Arc<std::sync::Mutex<Option<Timestamp>>>,
    asked: Arc<AtomicUsize>,
}

impl TimeWitness for Witness {
    async fn time(&self) -> Option<Timestamp> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        *self.answer.lock().expect("no panic while held")
    }

    fn heard(&self) -> Option<Timestamp> {
        None
    }
}

struct World {
    _directory: tempfile::TempDir,
    ledger: Ledger,
    leadership: Leadership,
    witness: Witness,
    gates: watch::Sender<Gates>,
    edits: mpsc::Sender<Edit>,
    status: Status,
    shutdown: CancellationToken,
    running: Option<JoinHandle<Result<(), StoreError>>>,
}

impl World {
    /// A running trigger whose schedules begin at the time of `clock`, moved by `since`.
    async fn start(clock: Clock, since: SignedDuration, schedules: &[Arc<Schedule>]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let url = format!("sqlite://{}", directory.path().join("flowkeeper.db").display());
        let ledger = Ledger::open(&url, clock.clone()).await.expect("a ledger");
        let leadership = ledger.take_lead("test").await.expect("the lead");
        let identities: Vec<_> = schedules
            .iter()
            .map(|schedule| TriggerIdentity { name: schedule.name.clone(), was: Vec::new(), key: "1".into() })
            .collect();
        ledger.adopt_schedules(&leadership, &identities, clock.now() + since).await.expect("adopted");
        let states = ledger.schedule_states().await.expect("states");
        let (gates, gates_of_trigger) = watch::channel(Gates::default());
        let (edits, edits_of_trigger) = mpsc::channel(4);
        let (witness, armed, shutdown) = (Witness::default(), Status::new(), CancellationToken::new());
        let cron = Cron {
            ledger: ledger.clone(),
            leadership: leadership.clone(),
            clock: clock.clone(),
            witness: witness.clone(),
            gates: gates_of_trigger,
            edits: edits_of_trigger,
            status: armed.clone(),
            on_time: ON_TIME,
            shutdown: shutdown.clone(),
        };
        let schedules = schedules.to_vec();
        let running = Some(tokio::spawn(async move { cron.run(schedules, &states).await }));
        Self { _directory: directory, ledger, leadership, witness, gates, edits, status: armed, shutdown, running }
    }

    async fn runs(&self) -> Vec<Run> {
        let page = self.ledger.runs(&RunFilter::default(), 10_000, None).await.expect("a page");
        let mut runs = page.items;
        runs.sort_by_key(|run| run.due_at);
        runs
    }

    /// Waits until the runs are as wanted.
    async fn wait_for(&self, what: &str, wanted: impl Fn(&[Run]) -> bool) -> Vec<Run> {
        let end = Instant::now() + PATIENCE;
        loop {
            let runs = self.runs().await;
            if wanted(&runs) {
                return runs;
            }
            assert!(Instant::now() < end, "waited for {what}; there are {runs:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(mut self) -> Result<(), StoreError> {
        self.shutdown.cancel();
        self.running.take().expect("running").await.expect("no panic")
    }

    fn close(&self, gate: Gate) {
        self.gates.send(Arc::new(HashMap::from([(name("job"), gate)]))).expect("someone listens");
    }
}

fn manual() -> Clock {
    Clock::manual(at("2026-11-22T12:00:01.5Z"))
}

fn nominal_times(runs: &[Run]) -> Vec<Timestamp> {
    runs.iter().filter_map(|run| run.nominal_time).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nominal_times_are_recorded_as_they_come() {
    let world =
        World::start(Clock::system(), SignedDuration::ZERO, &[shared("job", "* * * * * *", Catchup::None)]).await;
    assert!(!world.status.is_armed(&name("other")));
    let runs = world.wait_for("three runs", |runs| runs.len() >= 3).await;
    assert!(world.status.is_armed(&name("job")));
    for run in &runs {
        let nominal = run.nominal_time.expect("a nominal time");
        assert_eq!(nominal.subsec_nanosecond(), 0);
        assert_eq!((run.state, run.dag_id.as_str(), run.count), (RunState::Pending, "load", 1));
        assert_eq!(run.dag_run_id, format!("flowkeeper__job__{nominal}"));
        assert_eq!(run.conf, serde_json::json!({"schedule": "job", "nominal_time": nominal.to_string()}));
        assert!(run.recorded_at >= nominal, "{run:?}");
    }
    // Far above what it takes, far below a tick: the timer is set to the nominal time.
    let soon = |run: &Run| run.lateness_ms.record.is_some_and(|late_ms| late_ms < 500);
    world.wait_for("one that is recorded as soon as it is due", |runs| runs.iter().any(soon)).await;
    assert!(nominal_times(&runs).windows(2).all(|pair| matches!(pair, [a, b] if b.duration_since(*a).as_secs() == 1)));
    let cursor = world.ledger.schedule_states().await.expect("states").remove("job").map(|state| state.cron_cursor);
    assert!(cursor >= runs.last().and_then(|run| run.nominal_time));
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn many_at_the_same_second_share_one_recording() {
    let schedules: Vec<_> = (0..200).map(|n| shared(&format!("job-{n}"), "* * * * * *", Catchup::None)).collect();
    let world = World::start(Clock::system(), SignedDuration::ZERO, &schedules).await;
    let runs = world.wait_for("a run of each", |runs| runs.len() >= 200).await;
    let first = runs.first().and_then(|run| run.nominal_time);
    let at_first: Vec<_> = runs.iter().filter(|run| run.nominal_time == first).collect();
    assert_eq!(at_first.len(), 200);
    assert!(at_first.iter().all(|run| Some(run.recorded_at) == at_first.first().map(|run| run.recorded_at)));
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn a_start_catches_up_with_what_the_ledger_has_not_covered() {
    let world =
        World::start(manual(), SignedDuration::from_hours(-8), &[shared("job", "0 * * * *", Catchup::Latest)]).await;
    let runs = world.wait_for("a run and two rows", |runs| runs.len() == 3).await;
    let shown: Vec<_> = runs.iter().map(|run| (run.state, run.count)).collect();
    // Noon is a moment ago: on time. The window of six hours and a bit leaves two outside.
    assert_eq!(shown, [(RunState::Missed, 2), (RunState::Skipped, 5), (RunState::Pending, 1)]);
    let reason = runs.first().and_then(|run| run.reason.clone()).unwrap_or_default();
    assert_eq!(reason, "came due while flowkeeper was not running (outside catchup_window)");
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn a_pause_holds_the_cursor_and_its_end_catches_up() {
    let clock = manual();
    let world = World::start(clock.clone(), SignedDuration::ZERO, &[shared("job", "* * * * *", Catchup::Latest)]).await;
    world.close(Gate::Paused { reason: "by ann: deploy".into(), dag: false });
    tokio::time::sleep(Duration::from_millis(100)).await;
    // Two jumps of less than a minute each are believed.
    for _ in 0..3 {
        clock.advance(SignedDuration::from_secs(50));
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    assert_eq!(world.runs().await.len(), 0);
    world.gates.send(Gates::default()).expect("someone listens");
    let runs = world.wait_for("a run and a row", |runs| runs.len() == 2).await;
    let shown: Vec<_> = runs.iter().map(|run| (run.state, run.reason.as_deref())).collect();
    let reason = "came due while the schedule was paused: by ann: deploy (catchup = \"latest\" runs only the newest)";
    assert_eq!(shown, [(RunState::Skipped, Some(reason)), (RunState::Pending, None)]);
    assert!(world.status.is_armed(&name("job")));
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn a_dag_that_is_to_be_skipped_leaves_rows_that_say_so() {
    let clock = manual();
    let world = World::start(clock.clone(), SignedDuration::ZERO, &[shared("job", "* * * * *", Catchup::All)]).await;
    world.close(Gate::Skipping { reason: "the DAG is paused in Airflow".into() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    clock.advance(SignedDuration::from_secs(59));
    let runs = world.wait_for("a row", |runs| !runs.is_empty()).await;
    let shown: Vec<_> = runs.iter().map(|run| (run.state, run.reason.as_deref())).collect();
    assert_eq!(shown, [(RunState::Skipped, Some("the DAG is paused in Airflow"))]);
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn a_large_jump_forwards_is_believed_only_with_a_witness() {
    let clock = manual();
    let world = World::start(clock.clone(), SignedDuration::ZERO, &[shared("job", "0 * * * *", Catchup::All)]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    clock.advance(SignedDuration::from_hours(3));
    for _ in 0..100 {
        if world.witness.asked.load(Ordering::SeqCst) > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nobody answers: nothing is due by the time before the jump.
    assert_eq!(world.witness.asked.load(Ordering::SeqCst), 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.runs().await.len(), 0);

    // Set right, and forward again, with a witness that agrees.
    clock.advance(SignedDuration::from_hours(-3));
    *world.witness.answer.lock().expect("no panic while held") = Some(clock.now() + SignedDuration::from_hours(3));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    clock.advance(SignedDuration::from_hours(3));
    let runs = world.wait_for("three runs", |runs| runs.len() == 3).await;
    let hours = [13, 14, 15].map(|hour| at(&format!("2026-11-22T{hour}:00:00Z")));
    assert_eq!(nominal_times(&runs), hours);
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn a_clock_that_is_set_back_repeats_nothing() {
    let clock = manual();
    let world = World::start(clock.clone(), SignedDuration::ZERO, &[shared("job", "* * * * *", Catchup::All)]).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    clock.advance(SignedDuration::from_secs(59));
    world.wait_for("a run", |runs| runs.len() == 1).await;
    clock.advance(SignedDuration::from_secs(-40));
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    for _ in 0..2 {
        clock.advance(SignedDuration::from_secs(50));
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    let runs = world.wait_for("a second run", |runs| runs.len() == 2).await;
    assert_eq!(nominal_times(&runs), [at("2026-11-22T12:01:00Z"), at("2026-11-22T12:02:00Z")]);
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn an_edit_goes_over_when_the_ledger_has_adopted_it() {
    let clock = manual();
    let before = [shared("job", "30 12 * * *", Catchup::All), shared("other", "* * * * *", Catchup::All)];
    let world = World::start(clock.clone(), SignedDuration::ZERO, &before).await;
    let edited = shared("job", "* * * * *", Catchup::All);
    let (settled, moment) = oneshot::channel();
    let (adopt, adopted) = oneshot::channel();
    let schedules =
        Arc::new(vec![Arc::clone(&edited), shared("new", "* * * * *", Catchup::All), Arc::clone(&before[1])]);
    let fates = Fates::between(&before, &schedules);
    let edit = Edit { schedules: Arc::clone(&schedules), fates, settled, adopted };
    world.edits.send(edit).await.expect("someone listens");
    let at = moment.await.expect("the moment of the edit");
    // As long as the ledger has not adopted it, only what is not edited comes due.
    clock.advance(SignedDuration::from_secs(60));
    let runs = world.wait_for("a run", |runs| !runs.is_empty()).await;
    assert_eq!(runs.iter().map(|run| run.schedule.as_str()).collect::<Vec<_>>(), ["other"]);

    let identity = |schedule: &Arc<Schedule>| TriggerIdentity {
        name: schedule.name.clone(),
        was: Vec::new(),
        key: if schedule.name == edited.name { "2".into() } else { "1".into() },
    };
    let identities: Vec<_> = schedules.iter().map(identity).collect();
    world.ledger.adopt_schedules(&world.leadership, &identities, at).await.expect("adopted");
    let states = world.ledger.schedule_states().await.expect("states");
    adopt.send(Arc::new(states)).expect("someone waits");
    let runs = world.wait_for("runs of all", |runs| runs.len() == 3).await;
    let mut names: Vec<_> = runs.iter().map(|run| run.schedule.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["job", "new", "other"], "what came due since the moment of the edit");
    assert!(world.status.is_armed(&name("job")));
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn a_conf_that_cannot_be_rendered_is_a_rejected_row() {
    use crate::domain::template::{ConfTemplate, Expression};
    let conf = serde_json::json!({"value": "{{ znode.text.missing.attribute }}"});
    let mut broken = schedule("broken", "* * * * * *", Catchup::None);
    broken.conf = Some(ConfTemplate::parse(conf.as_object().expect("an object")).expect("a template"));
    let mut silent = schedule("silent", "* * * * * *", Catchup::None);
    silent.when = Some(Expression::parse("false").expect("an expression"));
    let world = World::start(Clock::system(), SignedDuration::ZERO, &[Arc::new(broken), Arc::new(silent)]).await;
    let runs = world.wait_for("a row", |runs| !runs.is_empty()).await;
    assert!(runs.iter().all(|run| run.schedule == "broken" && run.state == RunState::Rejected));
    let reason = runs.first().and_then(|run| run.reason.clone()).unwrap_or_default();
    assert!(reason.starts_with("the conf could not be made: "), "{reason}");
    let decisions = world.ledger.decisions(&name("silent"), 10).await.expect("decisions");
    assert!(decisions.first().is_some_and(|decision| decision.kind == "when_false"));
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn schedules_of_other_triggers_are_left_alone() {
    use crate::domain::schedule::{ChangeKinds, Initial, WatchScope, ZnodeTrigger};
    let on = ChangeKinds { created: true, changed: true, deleted: false };
    let trigger = ZnodeTrigger {
        ensemble: None,
        path: "/data".into(),
        watch: WatchScope::Node,
        on,
        include: None,
        settle: None,
        settle_max: None,
        batch: None,
        initial: Initial::Ignore,
        consume: None,
    };
    let watching = Schedule { trigger: Trigger::Znode(trigger), ..schedule("watching", "* * * * * *", Catchup::None) };
    let clock = manual();
    let world = World::start(clock, SignedDuration::ZERO, &[Arc::new(watching)]).await;
    world.status.set_armed(&name("watching"), true);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(world.status.is_armed(&name("watching")));
    world.stop().await.expect("a clean end");
}

#[tokio::test]
async fn losing_the_lead_ends_the_loop() {
    let mut world =
        World::start(Clock::system(), SignedDuration::ZERO, &[shared("job", "* * * * * *", Catchup::None)]).await;
    world.wait_for("a run", |runs| !runs.is_empty()).await;
    let newer = world.ledger.take_lead("other").await.expect("the lead");
    assert!(newer.epoch() > world.leadership.epoch());
    let running = world.running.take().expect("running");
    let ended = tokio::time::timeout(PATIENCE, running).await.expect("in time").expect("no panic");
    assert!(matches!(ended, Ok(()) | Err(StoreError::Fenced { .. })), "{ended:?}");
    let runs = world.runs().await.len();
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(world.runs().await.len(), runs);
}
