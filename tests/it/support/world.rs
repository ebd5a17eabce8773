//! A world of znode triggers: a real ledger in a directory of its own, an ensemble, and what a test
//! needs to wait for.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::domain::schedule::{
    Catchup, ChangeKinds, DataInterval, Deadline, Initial, LogicalDate, Overlap, PausedDag, RetryPolicy, Schedule,
    ScheduleName, Trigger, WatchScope, ZnodeTrigger,
};
use flowkeeper::domain::template::Expression;
use flowkeeper::status::Status;
use flowkeeper::store::model::{Run, RunFilter};
use flowkeeper::store::{Leadership, Ledger, TriggerIdentity};
use flowkeeper::triggers::gate::{Gate, Gates};
use flowkeeper::triggers::lineage::{Keeper, Lineage};
use flowkeeper::triggers::znode::{self, Announcements, Handover, ZnodeTriggerParts};
use flowkeeper::zookeeper::{Ensemble, Settings};
use jiff::tz::TimeZone;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zookeeper_client::Client;

use super::zookeeper::SESSION_TIMEOUT;

/// How long anything may take that a test waits for.
pub(crate) const PATIENCE: Duration = Duration::from_mins(3);

/// A schedule's name.
pub(crate) fn name(name: &str) -> ScheduleName {
    ScheduleName::new(name).expect("a legal name")
}

/// A trigger on a znode that fires on creation and change; tests change what matters to them.
pub(crate) fn trigger(path: &str, watch: WatchScope) -> ZnodeTrigger {
    ZnodeTrigger {
        ensemble: None,
        path: path.into(),
        watch,
        on: ChangeKinds { created: true, changed: watch != WatchScope::Children, deleted: false },
        include: None,
        settle: None,
        settle_max: None,
        batch: None,
        initial: Initial::Ignore,
        consume: None,
    }
}

/// A schedule of `trigger` with the defaults.
pub(crate) fn schedule(schedule: &str, trigger: ZnodeTrigger) -> Schedule {
    Schedule {
        name: name(schedule),
        was: Vec::new(),
        owner: None,
        airflow: "main".into(),
        dag_id: "reload".into(),
        timezone: TimeZone::UTC,
        trigger: Trigger::Znode(trigger),
        when: None,
        conf: None,
        logical_date: LogicalDate::None,
        data_interval: DataInterval::Exact,
        catchup: Catchup::All,
        catchup_window: None,
        overlap: Overlap::Allow,
        retry: RetryPolicy::default(),
        deadline: Deadline::default(),
        lock: None,
        paused_dag: PausedDag::Hold,
        paused: false,
    }
}

/// A condition.
pub(crate) fn when(source: &str) -> Expression {
    Expression::parse(source).expect("a valid expression")
}

/// One life of a process, over a ledger that may have had others.
pub(crate) struct World {
    directory: Arc<tempfile::TempDir>,
    connect: String,
    pub(crate) ledger: Ledger,
    pub(crate) leadership: Leadership,
    pub(crate) status: Status,
    pub(crate) ensemble: Ensemble,
    pub(crate) lineage: Lineage,
    pub(crate) shutdown: CancellationToken,
    /// Ends the triggers for an edit.
    pub(crate) edit: CancellationToken,
    pub(crate) handover: Handover,
    gates: watch::Sender<Gates>,
    schedules: Vec<Arc<Schedule>>,
    pub(crate) tasks: TaskTracker,
}

impl World {
    /// A new ledger, and an ensemble at `connect`.
    pub(crate) async fn new(connect: &str) -> Self {
        Self::begin(Arc::new(tempfile::tempdir().expect("a directory for the ledger")), connect).await
    }

    async fn begin(directory: Arc<tempfile::TempDir>, connect: &str) -> Self {
        let url = format!("sqlite://{}", directory.path().join("ledger.db").display());
        let clock = Clock::system();
        let ledger = Ledger::open(&url, clock.clone()).await.expect("the ledger opens");
        let leadership = ledger.take_lead("test").await.expect("the lead is free");
        let shutdown = CancellationToken::new();
        let settings = Settings {
            connect: connect.to_owned(),
            session_timeout: SESSION_TIMEOUT,
            auth: None,
            tls: None,
            sasl: None,
        };
        let ensemble = Ensemble::start(None, Arc::new(move || Ok(settings.clone())), clock, shutdown.clone());
        let (lineage, tasks) = (Lineage::unwritten(None), TaskTracker::new());
        let keeper = Keeper::new(lineage.clone(), ensemble.clone(), ledger.clone(), leadership.clone());
        tasks.spawn(keeper.run(shutdown.clone()));
        Self {
            directory,
            connect: connect.to_owned(),
            ledger,
            leadership,
            status: Status::new(),
            ensemble,
            lineage,
            shutdown,
            edit: CancellationToken::new(),
            handover: Handover::default(),
            gates: watch::Sender::default(),
            schedules: Vec::new(),
            tasks,
        }
    }

    /// Ends all tasks; what was not in the ledger is lost.
    pub(crate) async fn stop(self) -> Stopped {
        self.shutdown.cancel();
        self.leadership.give_up();
        self.tasks.close();
        self.tasks.wait().await;
        Stopped { directory: self.directory, connect: self.connect, schedules: self.schedules }
    }

    /// Begins to watch.
    pub(crate) async fn watch(&mut self, schedule: Schedule) {
        self.watch_all(vec![schedule]).await;
    }

    /// Begins to watch for many schedules at once.
    pub(crate) async fn watch_all(&mut self, schedules: Vec<Schedule>) {
        let schedules: Vec<_> = schedules.into_iter().map(Arc::new).collect();
        self.schedules.extend(schedules.iter().cloned());
        let identities: Vec<_> = self
            .schedules
            .iter()
            .map(|schedule| TriggerIdentity {
                name: schedule.name.clone(),
                was: Vec::new(),
                key: schedule.trigger.identity(),
            })
            .collect();
        let now = Clock::system().now();
        self.ledger.adopt_schedules(&self.leadership, &identities, now).await.expect("schedules are adopted");
        for schedule in schedules {
            let parts = ZnodeTriggerParts {
                schedule,
                ensemble: self.ensemble.clone(),
                own_root: None,
                ledger: self.ledger.clone(),
                leadership: self.leadership.clone(),
                gates: self.gates.subscribe(),
                clock: Clock::system(),
                status: self.status.clone(),
                lineage: self.lineage.clone(),
                handover: self.handover.clone(),
                announcements: Announcements::default(),
            };
            let end = znode::End { edit: self.edit.clone(), now: self.shutdown.clone() };
            self.tasks.spawn(znode::run(parts, end));
        }
    }

    /// Ends all triggers as an edit does.
    pub(crate) async fn end_for_an_edit(&mut self) {
        std::mem::replace(&mut self.edit, CancellationToken::new()).cancel();
        for schedule in &self.schedules {
            self.disarmed(schedule.name.as_str()).await;
        }
    }

    /// Begins again with the schedules that there were.
    pub(crate) async fn watch_again(&mut self) {
        let schedules = std::mem::take(&mut self.schedules);
        self.watch_all(schedules.iter().map(|schedule| Schedule::clone(schedule)).collect()).await;
    }

    /// Moves the gate of a schedule.
    pub(crate) fn gate(&self, schedule: &str, gate: Gate) {
        self.gates.send_replace(Arc::new(HashMap::from([(name(schedule), gate)])));
    }

    /// Waits until the schedule's first diff is done.
    pub(crate) async fn armed(&self, schedule: &str) {
        let schedule = name(schedule);
        wait_for(
            || async { self.status.is_armed(&schedule).then_some(()) },
            || format!("{schedule} is not armed; trouble: {:?}", self.status.trouble(&schedule)),
        )
        .await;
    }

    /// Waits until the schedule is no longer armed.
    pub(crate) async fn disarmed(&self, schedule: &str) {
        let schedule = name(schedule);
        wait_for(
            || async { (!self.status.is_armed(&schedule)).then_some(()) },
            || format!("{schedule} is still armed"),
        )
        .await;
    }

    /// Waits for trouble with the schedule, and tells it.
    pub(crate) async fn trouble(&self, schedule: &str) -> String {
        let schedule = name(schedule);
        wait_for(|| async { self.status.trouble(&schedule) }, || format!("{schedule} has no trouble")).await
    }

    /// All rows of a schedule, oldest first.
    pub(crate) async fn runs(&self, schedule: &str) -> Vec<Run> {
        let filter = RunFilter { schedule: Some(schedule.to_owned()), ..RunFilter::default() };
        let mut runs = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.ledger.runs(&filter, 500, cursor.as_deref()).await.expect("runs are read");
            runs.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        runs.sort_by_key(|run| run.id.0);
        runs
    }

    /// Waits until the schedule has this many rows, and no more a moment later.
    pub(crate) async fn wait_for_runs(&self, schedule: &str, count: usize) -> Vec<Run> {
        wait_for(
            || async { (self.runs(schedule).await.len() >= count).then_some(()) },
            || format!("{schedule} has not come to {count} rows"),
        )
        .await;
        tokio::time::sleep(Duration::from_millis(150)).await;
        let runs = self.runs(schedule).await;
        assert_eq!(runs.len(), count, "rows of {schedule}: {:#?}", summary(&runs));
        runs
    }
}

/// A ledger between two lives of the process.
pub(crate) struct Stopped {
    directory: Arc<tempfile::TempDir>,
    connect: String,
    schedules: Vec<Arc<Schedule>>,
}

impl Stopped {
    /// Begins the next life with the same schedules.
    pub(crate) async fn start(self) -> World {
        let mut world = World::begin(self.directory, &self.connect).await;
        world.watch_all(self.schedules.iter().map(|schedule| Schedule::clone(schedule)).collect()).await;
        world
    }
}

/// Rows in short, for messages.
pub(crate) fn summary(runs: &[Run]) -> Vec<String> {
    let line = |run: &Run| {
        let reason = run.reason.as_deref().unwrap_or_default();
        format!("{} {} {} {reason}", run.dag_run_id, run.state, run.conf)
    };
    runs.iter().map(line).take(20).collect()
}

/// A field of the default conf of each run.
pub(crate) fn fields(runs: &[Run], field: &str) -> Vec<serde_json::Value> {
    runs.iter().map(|run| run.conf["znode"][field].clone()).collect()
}

/// The names of the children of a znode that is there, in order.
pub(crate) async fn children(zk: &Client, path: &str) -> Vec<String> {
    let mut children = zk.list_children(path).await.expect("the parent exists");
    children.sort();
    children
}

/// Waits until a znode has exactly these children.
pub(crate) async fn wait_for_children(zk: &Client, path: &str, expected: &[&str]) {
    wait_for(
        || async { (children(zk, path).await == expected).then_some(()) },
        || format!("{path} does not come to have the children {expected:?}"),
    )
    .await;
}

/// Asks again and again, until there is an answer.
pub(crate) async fn wait_for<T, F>(mut ask: impl FnMut() -> F, complaint: impl Fn() -> String) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{}", complaint());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
