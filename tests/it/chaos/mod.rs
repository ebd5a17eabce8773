//! The promise through every failover: three members, a ZooKeeper ensemble, PostgreSQL and two
//! Airflows, one of which fails requests; znodes change, cron comes due each second and definitions are
//! edited, while one after the other is killed, frozen, cut off and started again.
//!
//! `faults` plans from a seed, `arena` inflicts, `writer` changes znodes, `editor` edits definitions,
//! `proof` compares, `latency` measures. In short, one fault of each kind, it is a test like any other; at length it runs with
//! `make chaos`.

mod arena;
mod editor;
mod faults;
mod latency;
mod proof;
mod schedules;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowkeeper::clock::Clock;
use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use arena::Arena;
use editor::Editor;
use faults::{Fault, Kind, Timing, plan};
use latency::{Arrival, Inflicted, percentile, table};
use proof::{DagRun, Evidence, compare};
use schedules::{CRON, FLAG, INBOX, MEASURED_CHANGES, MEASURED_CRON};
use writer::{Done, Writer};

/// How long a `make chaos` may take at most, in minutes, whatever number of faults it was told.
const MINUTES: &str = "FLOWKEEPER_CHAOS_MINUTES";

/// How many faults `make chaos` inflicts.
const FAULTS: &str = "FLOWKEEPER_CHAOS_FAULTS";

/// What the faults are drawn from.
const SEED: &str = "FLOWKEEPER_CHAOS_SEED";

/// Which kinds of fault `make chaos` draws from, separated by commas; all of them without it.
const KINDS: &str = "FLOWKEEPER_CHAOS_KINDS";

/// The members' session timeout and ZooKeeper's tickTime, in milliseconds.
const SESSION: &str = "FLOWKEEPER_CHAOS_SESSION_MS";
const TICK: &str = "FLOWKEEPER_CHAOS_TICK_MS";

/// For how many seconds the ensemble is down in `make chaos-outage`.
const OUTAGE: &str = "FLOWKEEPER_CHAOS_OUTAGE_SECONDS";

/// Where the members' logs are kept; without it they are kept when something is wrong.
const LOGS: &str = "FLOWKEEPER_CHAOS_LOGS";

/// After so many faults everything is compared, and again at the end.
const ROUND: usize = 100;

/// How long the last rows may take to be settled once nothing fails any more.
const PATIENCE: Duration = Duration::from_mins(2);

/// One run of the harness.
struct Trial {
    seed: u64,
    timing: Timing,
    arena: Arena,
    writer: Option<Writer>,
    editor: Option<Editor>,
    first_second: i64,
    inflicted: Vec<Inflicted>,
    /// Lines for the reader: what was done, when.
    history: Vec<String>,
}

/// What the comparison at the end of a round had before it.
struct Compared {
    runs: Vec<Run>,
    dag_runs: Vec<DagRun>,
}

impl Trial {
    async fn start(seed: u64, timing: Timing) -> Self {
        let arena = Arena::new(timing).await;
        let writer = Writer::new(&arena.ensemble.connect(), seed, Arc::clone(&arena.calm)).await;
        let editor = Editor::new(arena.directories(), seed);
        let mut trial = Self {
            seed,
            timing,
            arena,
            writer: Some(writer),
            editor: Some(editor),
            first_second: 0,
            inflicted: Vec::new(),
            history: Vec::new(),
        };
        let started = trial.arena.start_members().await;
        trial.demand(started);
        trial.first_second = Clock::system().now().as_second() + 1;
        trial
    }

    /// Goes on, or ends with everything that is known.
    fn demand<T>(&self, result: Result<T, String>) -> T {
        let complaint = match result {
            Ok(value) => return value,
            Err(complaint) => complaint,
        };
        let place = std::env::var_os(LOGS).map_or_else(
            || std::env::temp_dir().join(format!("flowkeeper-chaos-{}", std::process::id())),
            PathBuf::from,
        );
        let place = self.arena.keep_logs(&place);
        panic!(
            "{complaint}\nseed {}, faults:\n{}\nthe members' logs are in {}",
            self.seed,
            self.history.join("\n"),
            place.display()
        );
    }

    fn tell(&mut self, line: String) {
        eprintln!("{line}");
        self.history.push(line);
    }

    /// Inflicts these faults while znodes change, and compares.
    async fn round(&mut self, faults: &[Fault], end: Option<Instant>) -> Compared {
        let stop = CancellationToken::new();
        let writer = self.writer.take().expect("a writer between two rounds");
        let changing = tokio::spawn(writer.run(stop.clone()));
        let editor = self.editor.take().expect("an editor between two rounds");
        let editing = tokio::spawn(editor.run(stop.clone()));
        self.arena.fail_requests(true);
        for fault in faults {
            if end.is_some_and(|end| Instant::now() > end) {
                break;
            }
            let begun = Instant::now();
            let at = self.arena.inflict(*fault).await;
            let result = match &at {
                Ok(_) => self.arena.settled().await,
                Err(error) => Err(error.clone()),
            };
            let at = at.unwrap_or_else(|_| Clock::system().now());
            self.tell(format!(
                "{at:.3} {:4} {:42} for {:4} ms, all well after {:5} ms",
                fault.number,
                fault.kind.to_string(),
                fault.lasts.as_millis(),
                begun.elapsed().saturating_sub(fault.calm).as_millis()
            ));
            self.demand(result);
            self.inflicted.push(Inflicted { kind: fault.kind, at });
        }
        stop.cancel();
        self.writer = Some(changing.await.expect("the writer goes on through everything"));
        self.editor = Some(editing.await.expect("the editor goes on through everything"));
        self.arena.fail_requests(false);
        self.compare().await
    }

    /// Waits until all that came due is settled, and compares it.
    async fn compare(&mut self) -> Compared {
        let last_second = Clock::system().now().as_second();
        let end = Instant::now() + PATIENCE;
        // Seconds go on coming due; only these are judged.
        let judged = |nominal: Option<Timestamp>| nominal.is_none_or(|nominal| nominal.as_second() <= last_second);
        loop {
            let mut runs = self.arena.runs().await;
            let seen = CRON
                .iter()
                .all(|schedule| runs.iter().any(|run| run.schedule == *schedule && !judged(run.nominal_time)));
            runs.retain(|run| run.count > 1 || judged(run.nominal_time));
            let mut dag_runs = self.arena.dag_runs();
            dag_runs.retain(|run| judged(run.logical_date));
            let done = &self.writer.as_ref().expect("a writer between two rounds").done;
            let edits = &self.editor.as_ref().expect("an editor between two rounds").edits;
            let first_second = self.first_second;
            let evidence = Evidence { first_second, last_second, done, edits, runs: &runs, dag_runs: &dag_runs };
            let differences = compare(&evidence);
            if seen && differences.is_empty() {
                let count = |airflow: &str| dag_runs.iter().filter(|run| run.airflow == airflow).count();
                let merged: i64 = runs.iter().map(|run| run.coalesced).sum();
                eprintln!(
                    "compared after {} faults and {} edits: {} rows, {} + {} DAG runs, {merged} changes that ZooKeeper \
                     merged: 0 lost, 0 doubled",
                    self.inflicted.len(),
                    edits.len() - 1,
                    runs.len(),
                    count(schedules::CALM),
                    count(schedules::FAULTY)
                );
                return Compared { runs, dag_runs };
            }
            if Instant::now() > end {
                self.demand::<()>(Err(differences.to_string()));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// The inbox must be empty, and the members end well.
    async fn finish(&mut self) {
        let client = self.arena.ensemble.client().await;
        let end = Instant::now() + PATIENCE;
        loop {
            let left = client.list_children(INBOX).await.expect("list the inbox");
            if left.is_empty() {
                break;
            }
            if Instant::now() > end {
                self.demand::<()>(Err(format!("not consumed: {left:?}")));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let stopped = self.arena.stop_members().await;
        self.demand(stopped);
    }

    /// What the failovers so far took, for the reader.
    fn report(&self, compared: &Compared) -> String {
        let head = format!(
            "{} faults, seed {}, session timeout {} ms, tickTime {} ms\n\n",
            self.inflicted.len(),
            self.seed,
            self.timing.session.as_millis(),
            self.timing.tick.as_millis()
        );
        let changes = change_arrivals(compared, self.done());
        head + &table(&self.inflicted, &cron_arrivals(&compared.dag_runs), &changes)
    }

    fn done(&self) -> &Done {
        &self.writer.as_ref().expect("a writer between two rounds").done
    }
}

/// When each measured second came due and was accepted.
fn cron_arrivals(dag_runs: &[DagRun]) -> Vec<Arrival> {
    let measured = dag_runs.iter().filter(|run| run.dag_id == MEASURED_CRON);
    measured.filter_map(|run| Some(Arrival { due: run.logical_date?, accepted: run.accepted })).collect()
}

/// When each version of the flag was written, and when the run that covers it was accepted.
fn change_arrivals(compared: &Compared, done: &Done) -> Vec<Arrival> {
    let mut arrivals = Vec::new();
    let rows = compared.runs.iter().filter(|run| run.schedule == MEASURED_CHANGES);
    let rows: std::collections::HashMap<&str, i64> = rows.map(|run| (run.dag_run_id.as_str(), run.coalesced)).collect();
    for run in compared.dag_runs.iter().filter(|run| run.dag_id == MEASURED_CHANGES) {
        let version = run.conf["znode"]["version"].as_i64().unwrap_or_else(|| panic!("no version of {FLAG}"));
        for version in version - rows.get(run.id.as_str()).copied().unwrap_or_default()..=version {
            let index = usize::try_from(version - done.flag.first).expect("a version that was written");
            arrivals.push(Arrival { due: done.flag.written[index], accepted: run.accepted });
        }
    }
    arrivals
}

/// Waits until everything passed off well; the table of what the failovers took.
async fn fail_over(seed: u64, count: usize, among: &[Kind], timing: Timing, end: Option<Instant>) -> (usize, String) {
    eprintln!("seed {seed}, {count} faults");
    let mut trial = Trial::start(seed, timing).await;
    let faults = plan(seed, count, among, timing);
    let mut compared = Compared { runs: Vec::new(), dag_runs: Vec::new() };
    for round in faults.chunks(ROUND) {
        if end.is_some_and(|end| Instant::now() > end) {
            break;
        }
        compared = trial.round(round, end).await;
        eprintln!("{}", trial.report(&compared));
    }
    trial.finish().await;
    if let Some(place) = std::env::var_os(LOGS) {
        trial.arena.keep_logs(&PathBuf::from(place));
    }
    (trial.inflicted.len(), trial.report(&compared))
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")),
        Err(_) => default,
    }
}

/// What [`SESSION`] and [`TICK`] say.
fn timing() -> Timing {
    let short = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Timing {
        session: Duration::from_millis(number(SESSION, short(Timing::SHORT.session))),
        tick: Duration::from_millis(number(TICK, short(Timing::SHORT.tick))),
    }
}

/// The kinds that [`KINDS`] names, as they are written here.
fn kinds() -> Vec<Kind> {
    let Ok(names) = std::env::var(KINDS) else { return Kind::ALL.to_vec() };
    let known = |name: &str| Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == name);
    names
        .split(',')
        .map(|name| known(name).unwrap_or_else(|| panic!("{KINDS}: no {name} in {:?}", Kind::ALL)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn through_one_fault_of_each_kind_nothing_is_lost_and_nothing_runs_twice() {
    let (inflicted, _) = fail_over(20_261_122, Kind::ALL.len(), &Kind::ALL, Timing::SHORT, None).await;
    assert_eq!(inflicted, Kind::ALL.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes an hour and more: `make chaos`"]
async fn through_many_faults_nothing_is_lost_and_nothing_runs_twice() {
    let seed = number(SEED, u64::from(std::process::id()));
    let count = usize::try_from(number(FAULTS, 1000)).expect("a number of faults");
    let end = std::env::var_os(MINUTES).map(|_| Instant::now() + Duration::from_mins(number(MINUTES, 0)));
    let (_, report) = fail_over(seed, count, &kinds(), timing(), end).await;
    println!("{report}");
}

/// Lateness of cron while the home ensemble is there, while it is gone, and when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes a quarter of an hour: `make chaos-outage`"]
async fn while_the_ensemble_is_down_cron_is_as_punctual_as_before() {
    let outage = Duration::from_secs(number(OUTAGE, 600));
    let beside = (outage / 4).clamp(Duration::from_secs(10), Duration::from_mins(2));
    let mut trial = Trial::start(1, timing()).await;
    let clock = Clock::system();
    let begun = clock.now();
    tokio::time::sleep(beside).await;
    let down = clock.now();
    trial.arena.ensemble.kill_all();
    tokio::time::sleep(outage).await;
    let starting = clock.now();
    trial.arena.ensemble.restart_all().await;
    let up = clock.now();
    tokio::time::sleep(beside).await;
    let ended = clock.now();
    let compared = trial.compare().await;
    trial.finish().await;

    let arrivals = cron_arrivals(&compared.dag_runs);
    println!("| home ensemble | seconds due | p50 ms | p99 ms | max ms |\n|---|--:|--:|--:|--:|");
    let spans =
        [("up", begun, down), ("down", down, starting), ("its servers start", starting, up), ("up again", up, ended)];
    let mut medians = Vec::new();
    for (what, from, to) in spans {
        let mut late: Vec<SignedDuration> = arrivals
            .iter()
            .filter(|arrival| arrival.due > from && arrival.due <= to)
            .map(|arrival| arrival.accepted.duration_since(arrival.due))
            .collect();
        late.sort_unstable();
        println!("{}", latency::row(what, &late));
        medians.push(percentile(&late, 50));
    }
    assert!(
        medians[1] < medians[0] + SignedDuration::from_millis(100),
        "lateness while it is up and down: {medians:?}"
    );
}
