//! What came due and what changed, beside what the ledger and Airflow have of it: nothing lost,
//! nothing twice.
//!
//! It decides on plain values and waits for nothing, so that its own tests can show that it finds
//! what it is there to find.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use flowkeeper::domain::run::RunState;
use flowkeeper::store::model::Run;
use jiff::Timestamp;

use super::editor::{self, Edit};
use super::schedules::{CRON, EVERY_SECOND_RUNS, FLAG, LOCKED};
use super::writer::{Done, History};

/// How many differences of each kind a report shows.
const SHOWN: usize = 10;

/// A DAG run, as Airflow has it.
#[derive(Debug, Clone)]
pub(crate) struct DagRun {
    pub(crate) airflow: &'static str,
    pub(crate) dag_id: String,
    pub(crate) id: String,
    pub(crate) logical_date: Option<Timestamp>,
    /// By Airflow's clock, like all its times.
    pub(crate) accepted: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    pub(crate) conf: serde_json::Value,
}

/// What is wrong.
#[derive(Debug, Default)]
pub(crate) struct Differences {
    /// Came due or changed, and no row covers it; or a row says that Airflow has it, and it has not.
    pub(crate) lost: Vec<String>,
    /// Covered by two rows; or in Airflow, and in no row.
    pub(crate) doubled: Vec<String>,
    /// A row that is not as it should be at the end.
    pub(crate) unsettled: Vec<String>,
}

impl Differences {
    pub(crate) fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.unsettled.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, list) in [("lost", &self.lost), ("doubled", &self.doubled), ("not settled", &self.unsettled)] {
            writeln!(f, "{}: {what}", list.len())?;
            for line in list.iter().take(SHOWN) {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

/// All that is compared.
pub(crate) struct Evidence<'a> {
    /// Seconds from this one on were due …
    pub(crate) first_second: i64,
    /// … up to this one.
    pub(crate) last_second: i64,
    pub(crate) done: &'a Done,
    pub(crate) edits: &'a [Edit],
    pub(crate) runs: &'a [Run],
    pub(crate) dag_runs: &'a [DagRun],
}

/// Everything that is wrong.
pub(crate) fn compare(evidence: &Evidence<'_>) -> Differences {
    let mut differences = Differences::default();
    for schedule in CRON {
        seconds(evidence, schedule, &mut differences);
    }
    let of = |schedule: &str| evidence.runs.iter().filter(|run| run.schedule == schedule).collect::<Vec<_>>();
    let flag = BTreeMap::from([(FLAG.to_owned(), evidence.done.flag.clone())]);
    versions("flag", &flag, &of("flag"), &mut differences);
    versions("tree", &evidence.done.tree, &of("tree"), &mut differences);
    children(&evidence.done.inbox, &of("inbox"), &mut differences);
    lives(&evidence.done.life, &of("life"), &mut differences);
    let seconds = evidence.first_second..=evidence.last_second;
    editor::compare(evidence.edits, evidence.runs, seconds, &mut differences);
    settled(evidence.runs, &mut differences);
    locks(evidence.dag_runs, &mut differences);
    airflow(evidence, &mut differences);
    differences
}

/// Each second is covered by one row.
fn seconds(evidence: &Evidence<'_>, schedule: &str, differences: &mut Differences) {
    let mut covered: BTreeMap<i64, usize> = BTreeMap::new();
    for run in evidence.runs.iter().filter(|run| run.schedule == schedule) {
        let Some(nominal) = run.nominal_time else {
            differences.unsettled.push(format!("{}: a run by the clock without a nominal time", run.dag_run_id));
            continue;
        };
        let (from, to) = (run.from.unwrap_or(nominal).as_second(), run.to.unwrap_or(nominal).as_second());
        if to - from + 1 != run.count {
            differences.unsettled.push(format!("{}: covers {from} to {to} and says {}", run.dag_run_id, run.count));
        }
        if EVERY_SECOND_RUNS.contains(&schedule) && (run.count != 1 || !run.state.was_accepted()) {
            let reason = run.reason.as_deref().unwrap_or_default();
            differences.lost.push(format!("{}: {} ({reason}), not a run", run.dag_run_id, run.state));
        }
        for second in from..=to {
            *covered.entry(second).or_default() += 1;
        }
    }
    let at = |second: i64| Timestamp::from_second(second).map(|time| time.to_string()).unwrap_or_default();
    for second in evidence.first_second..=evidence.last_second {
        if !covered.contains_key(&second) {
            differences.lost.push(format!("{schedule}: {}", at(second)));
        }
    }
    for (second, rows) in covered.iter().filter(|(_, rows)| **rows > 1) {
        differences.doubled.push(format!("{schedule}: {} is in {rows} rows", at(*second)));
    }
}

/// Each version is the one of a run, or counted in one.
fn versions(schedule: &str, histories: &BTreeMap<String, History>, runs: &[&Run], differences: &mut Differences) {
    let mut covered: BTreeMap<&str, BTreeMap<i64, usize>> = BTreeMap::new();
    for run in runs {
        let znode = &run.conf["znode"];
        let (Some(path), Some(version)) = (znode["path"].as_str(), znode["version"].as_i64()) else {
            differences.unsettled.push(format!("{}: no znode in its conf", run.dag_run_id));
            continue;
        };
        for version in version - run.coalesced..=version {
            *covered.entry(path).or_default().entry(version).or_default() += 1;
        }
    }
    for (path, history) in histories {
        let mut covered = covered.remove(path.as_str()).unwrap_or_default();
        for version in history.first..=history.last() {
            match covered.remove(&version).unwrap_or_default() {
                0 => differences.lost.push(format!("{schedule}: version {version} of {path}")),
                1 => {}
                rows => differences.doubled.push(format!("{schedule}: version {version} of {path} is in {rows} rows")),
            }
        }
        let unknown: Vec<_> = covered.keys().collect();
        if !unknown.is_empty() {
            differences.doubled.push(format!("{schedule}: {path} never had the versions {unknown:?}"));
        }
    }
    for path in covered.keys() {
        differences.doubled.push(format!("{schedule}: {path} never was"));
    }
}

/// Each child is one run.
fn children(histories: &BTreeMap<String, History>, runs: &[&Run], differences: &mut Differences) {
    let mut counts = count(runs, "created");
    for (path, history) in histories {
        match counts.remove(path.as_str()).unwrap_or_default() {
            0 if !history.uncertain => differences.lost.push(format!("inbox: {path}")),
            0 | 1 => {}
            rows => differences.doubled.push(format!("inbox: {path} has {rows} rows")),
        }
    }
    differences.doubled.extend(counts.keys().map(|path| format!("inbox: {path} never was")));
}

/// Each creation is one run, and each deletion.
fn lives(histories: &BTreeMap<String, History>, runs: &[&Run], differences: &mut Differences) {
    for event in ["created", "deleted"] {
        let mut counts = count(runs, event);
        for (path, history) in histories {
            let due = usize::from(event == "created" || history.deleted);
            match counts.remove(path.as_str()).unwrap_or_default() {
                rows if rows < due => differences.lost.push(format!("life: {path} was {event}")),
                rows if rows > due => differences.doubled.push(format!("life: {path} has {rows} rows for {event}")),
                _ => {}
            }
        }
        differences.doubled.extend(counts.keys().map(|path| format!("life: {path} never was")));
    }
}

/// How many rows each path has for an event.
fn count<'a>(runs: &[&'a Run], event: &str) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for run in runs.iter().filter(|run| run.conf["znode"]["event"] == event) {
        *counts.entry(run.conf["znode"]["path"].as_str().unwrap_or_default()).or_default() += 1;
    }
    counts
}

/// No row is open, and none was given up.
fn settled(runs: &[Run], differences: &mut Differences) {
    let mut ids = BTreeSet::new();
    for run in runs {
        if !ids.insert(&run.dag_run_id) {
            differences.doubled.push(format!("{} has two rows", run.dag_run_id));
        }
        let policy = matches!(run.state, RunState::Skipped | RunState::Missed) && CRON.contains(&run.schedule.as_str());
        if run.state != RunState::Success && !policy {
            let reason = run.reason.as_deref().unwrap_or_default();
            differences.unsettled.push(format!("{}: {} ({reason})", run.dag_run_id, run.state));
        }
    }
}

/// No DAG run of a lock begins before the one before has ended.
fn locks(dag_runs: &[DagRun], differences: &mut Differences) {
    let mut held: Vec<&DagRun> = dag_runs.iter().filter(|run| LOCKED.contains(&run.dag_id.as_str())).collect();
    held.sort_by_key(|run| run.accepted);
    for pair in held.windows(2) {
        if pair[0].ended.is_none_or(|ended| ended > pair[1].accepted) {
            differences.doubled.push(format!("{} began while {} held their lock", pair[1].id, pair[0].id));
        }
    }
}

/// Every accepted row is one DAG run with its conf, and there are no others.
fn airflow(evidence: &Evidence<'_>, differences: &mut Differences) {
    let key = |dag_run: &DagRun| (dag_run.airflow, dag_run.dag_id.clone(), dag_run.id.clone());
    let mut dag_runs: BTreeMap<_, _> = evidence.dag_runs.iter().map(|dag_run| (key(dag_run), dag_run)).collect();
    for run in evidence.runs.iter().filter(|run| run.state.was_accepted()) {
        let key = (run.airflow.as_str(), run.dag_id.clone(), run.dag_run_id.clone());
        match dag_runs.remove(&key) {
            None => differences.lost.push(format!("{}: {} and no DAG run", run.dag_run_id, run.state)),
            Some(dag_run) if dag_run.conf != run.conf => {
                differences.unsettled.push(format!("{}: Airflow has another conf", run.dag_run_id));
            }
            Some(_) => {}
        }
    }
    for (airflow, _, dag_run_id) in dag_runs.keys() {
        differences.doubled.push(format!("{dag_run_id}: in Airflow `{airflow}` and in no row"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::rows::row;
    use serde_json::{Value, json};

    const FIRST: i64 = 1_000_000;

    fn znode(path: &str, event: &str, version: i64) -> Value {
        json!({"znode": {"path": path, "event": event, "version": version}})
    }

    fn history(first: i64, versions: usize) -> History {
        History { first, written: vec![Timestamp::UNIX_EPOCH; versions], ..History::default() }
    }

    /// Three seconds of every schedule by the clock, and a little of everything else, all as it should be.
    fn as_it_should_be() -> (Done, Vec<Run>) {
        let done = Done {
            flag: history(1, 3),
            tree: BTreeMap::from([("/tree/00".into(), history(0, 2))]),
            inbox: BTreeMap::from([
                ("/inbox/a".into(), history(0, 1)),
                ("/inbox/b".into(), History { uncertain: true, ..History::default() }),
            ]),
            life: BTreeMap::from([("/life/a".into(), History { deleted: true, ..history(0, 1) })]),
        };
        let mut rows: Vec<(&str, Value, Option<i64>)> = CRON
            .into_iter()
            .flat_map(|schedule| (0..3).map(move |second| (schedule, json!({}), Some(FIRST + second))))
            .collect();
        rows.extend([
            ("flag", znode(FLAG, "changed", 1), None),
            ("flag", znode(FLAG, "changed", 3), None),
            ("tree", znode("/tree/00", "created", 0), None),
            ("tree", znode("/tree/00", "changed", 1), None),
            ("inbox", znode("/inbox/a", "created", 0), None),
            ("life", znode("/life/a", "created", 0), None),
            ("life", znode("/life/a", "deleted", 0), None),
        ]);
        let row =
            |(id, (schedule, conf, nominal)): (usize, (&str, Value, Option<i64>))| row(id, schedule, &conf, nominal);
        let mut runs: Vec<Run> = rows.into_iter().enumerate().map(row).collect();
        // Version 2 was merged into version 3.
        find(&mut runs, "flag", 1).coalesced = 1;
        (done, runs)
    }

    fn find<'a>(runs: &'a mut [Run], schedule: &str, nth: usize) -> &'a mut Run {
        runs.iter_mut().filter(|run| run.schedule == schedule).nth(nth).expect("such a run")
    }

    fn in_airflow(runs: &[Run]) -> Vec<DagRun> {
        let accepted = runs.iter().filter(|run| run.state.was_accepted());
        let dag_run = |run: &Run| DagRun {
            airflow: "calm",
            dag_id: run.dag_id.clone(),
            id: run.dag_run_id.clone(),
            logical_date: run.nominal_time,
            accepted: run.nominal_time.unwrap_or(run.due_at),
            ended: Some(run.nominal_time.unwrap_or(run.due_at)),
            conf: run.conf.clone(),
        };
        accepted.map(dag_run).collect()
    }

    fn judge(done: &Done, runs: &[Run], dag_runs: &[DagRun]) -> (usize, usize, usize) {
        let edits = [Edit { at: Timestamp::UNIX_EPOCH, round: 0, rule: None }];
        let evidence = Evidence { first_second: FIRST, last_second: FIRST + 2, done, edits: &edits, runs, dag_runs };
        let differences = compare(&evidence);
        (differences.lost.len(), differences.doubled.len(), differences.unsettled.len())
    }

    #[test]
    fn what_is_as_it_should_be_has_no_differences() {
        let (done, runs) = as_it_should_be();
        assert_eq!(judge(&done, &runs, &in_airflow(&runs)), (0, 0, 0));
    }

    #[test]
    fn every_way_to_lose_or_to_double_is_found() {
        type Spoil = fn(&mut Vec<Run>);
        let cases: [(&str, Spoil, (usize, usize, usize)); 12] = [
            ("a second without a row", |runs| runs.retain(|run| run.dag_run_id != "tick-1"), (1, 0, 0)),
            ("the first second", |runs| runs.retain(|run| run.dag_run_id != "tick-0"), (1, 0, 0)),
            (
                "a second in two rows",
                |runs| {
                    let mut again = find(runs, "tick", 1).clone();
                    again.dag_run_id.push_str("-again");
                    runs.push(again);
                },
                (0, 1, 0),
            ),
            (
                "a skipped second where every second runs",
                |runs| find(runs, "tick", 1).state = RunState::Skipped,
                (1, 0, 0),
            ),
            (
                "a skipped second where a policy may skip",
                |runs| {
                    find(runs, "tick-newest", 1).state = RunState::Skipped;
                },
                (0, 0, 0),
            ),
            ("a merged version that is not counted", |runs| find(runs, "flag", 1).coalesced = 0, (1, 0, 0)),
            ("a version counted twice", |runs| find(runs, "flag", 1).coalesced = 2, (0, 1, 0)),
            ("a version that never was", |runs| find(runs, "tree", 1).coalesced = 2, (0, 2, 0)),
            ("a child without a run", |runs| runs.retain(|run| run.schedule != "inbox"), (1, 0, 0)),
            (
                "a child of two runs",
                |runs| {
                    let mut again = find(runs, "inbox", 0).clone();
                    again.dag_run_id.push_str("-again");
                    runs.push(again);
                },
                (0, 1, 0),
            ),
            (
                "a deletion that nobody noticed",
                |runs| {
                    runs.retain(|run| run.conf["znode"]["event"] != "deleted");
                },
                (1, 0, 0),
            ),
            ("a row that is open", |runs| find(runs, "life", 0).state = RunState::Queued, (0, 0, 1)),
        ];
        for (what, spoil, expected) in cases {
            let (done, mut runs) = as_it_should_be();
            spoil(&mut runs);
            assert_eq!(judge(&done, &runs, &in_airflow(&runs)), expected, "{what}");
        }
    }

    #[test]
    fn rows_and_dag_runs_must_agree() {
        let (done, runs) = as_it_should_be();
        let whole = in_airflow(&runs);
        assert_eq!(judge(&done, &runs, &whole[1..]), (1, 0, 0), "a row that Airflow knows nothing of");
        let mut more = whole.clone();
        more.push(DagRun { id: "tick-x".into(), ..whole[0].clone() });
        assert_eq!(judge(&done, &runs, &more), (0, 1, 0), "a DAG run that the ledger knows nothing of");
        let mut long = whole.clone();
        let holder = long.iter_mut().find(|run| run.dag_id == LOCKED[0]).expect("a run with a lock");
        holder.ended = holder.ended.and_then(|ended| ended.checked_add(jiff::SignedDuration::from_millis(1)).ok());
        assert_eq!(judge(&done, &runs, &long), (0, 1, 0), "two runs at a time hold one lock");
        let mut other = whole.clone();
        other[0].conf = json!({"other": 1});
        assert_eq!(judge(&done, &runs, &other), (0, 0, 1), "another conf");
    }
}
