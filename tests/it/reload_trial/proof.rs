//! What was written and what came due, beside what the ledger and Airflow have of it.
//!
//! When which set was in force is not asked of the members: each row tells in its conf the set that it
//! was recorded under. Those of the schedule `flag`, whose trigger ends before an edit and begins after
//! it, show between which of its rows an edit was. What comes due in between may be due by the one set or
//! by the other; everything else is judged exactly. The trigger of `tree` ends at another moment of the same
//! edit, so what it finds is judged by its own rows: a change that was written between two others was found
//! by the rule of the one, by that of the other, or by one in between.
//!
//! It decides on plain values and waits for nothing, so that its own tests can show that it finds what it
//! is there to find.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};

use super::sets::{ALWAYS, FLAG, Rule, SOMETIMES, TICK, clock_of};

/// A good set that was written.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// Just before it was.
    pub(crate) at: Timestamp,
    pub(crate) round: u64,
    pub(crate) clocks: BTreeMap<&'static str, Rule>,
    pub(crate) sees_sometimes: bool,
}

/// When each version of a znode was written, by ZooKeeper's clock.
pub(crate) type Versions = BTreeMap<i64, Timestamp>;

/// All that is compared.
pub(crate) struct Evidence<'a> {
    /// From after this second on …
    pub(crate) since: Timestamp,
    /// … up to this one it is judged.
    pub(crate) until: Timestamp,
    /// The seconds between two nominal times of `tick`.
    pub(crate) step: i64,
    /// In the order in which they were written; the first is the one to begin with.
    pub(crate) sets: &'a [Written],
    /// What was written to the znodes by path.
    pub(crate) znodes: &'a BTreeMap<&'static str, Versions>,
    pub(crate) runs: &'a [Run],
    /// How many DAG runs of each id Airflow has.
    pub(crate) in_airflow: &'a BTreeMap<String, usize>,
}

/// What came of the comparison.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) wrong: Vec<String>,
    /// How many nominal times of edited schedules were due for certain, and are there.
    pub(crate) due: usize,
    /// How many were certainly not due, and are not there.
    pub(crate) not_due: usize,
    /// How many were due by the set before an edit or by the one after it.
    pub(crate) at_an_edit: usize,
    /// How often a set was in force after a later one.
    pub(crate) went_back: usize,
    /// How long after each set was written a row was recorded under it.
    pub(crate) in_force_after: Vec<SignedDuration>,
}

/// Compares everything.
pub(crate) fn judge(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let recorded = recorded(evidence);
    first_rows(evidence.sets, &recorded, &mut verdict);
    let sights = Sights::of(evidence.sets, &recorded, &mut verdict);
    let of_tree = Sights::of(evidence.sets, &found(evidence), &mut verdict);
    every_step_has_its_tick(evidence, &mut verdict);
    edited_clocks(evidence, &sights, &mut verdict);
    for path in [FLAG, ALWAYS] {
        every_version_runs(evidence, path, &mut verdict);
    }
    sometimes(evidence, &of_tree, &mut verdict);
    airflow(evidence, &mut verdict);
    verdict
}

/// A row, and the round of the set that it was recorded under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    /// Where it stands among the others.
    at: Timestamp,
    recorded_at: Timestamp,
    round: u64,
}

/// The rows of `flag`, in the order in which they were recorded.
fn recorded(evidence: &Evidence<'_>) -> Vec<Row> {
    let of_flag = evidence.runs.iter().filter(|run| run.schedule == "flag");
    let row =
        |run: &Run| Some(Row { at: run.recorded_at, recorded_at: run.recorded_at, round: run.conf["round"].as_u64()? });
    let mut rows: Vec<Row> = of_flag.filter_map(row).collect();
    rows.sort_unstable();
    rows
}

/// The rows of [`ALWAYS`], in the order in which its versions were written.
fn found(evidence: &Evidence<'_>) -> Vec<Row> {
    let of_path = evidence.runs.iter().filter(|run| run.conf["path"] == ALWAYS);
    let row = |run: &Run| {
        let at = *evidence.znodes[ALWAYS].get(&run.conf["version"].as_i64()?)?;
        Some(Row { at, recorded_at: run.recorded_at, round: run.conf["round"].as_u64()? })
    };
    let mut rows: Vec<Row> = of_path.filter_map(row).collect();
    rows.sort_unstable();
    rows
}

/// How long after each set was written a row was recorded under it, for those that were written once.
fn first_rows(sets: &[Written], rows: &[Row], verdict: &mut Verdict) {
    for set in sets.iter().skip(1) {
        let alone = sets.iter().filter(|other| other.round == set.round).count() == 1;
        if let Some(row) = rows.iter().find(|row| alone && row.round == set.round) {
            verdict.in_force_after.push(row.at.duration_since(set.at));
        }
    }
}

/// A moment, and the sets that a row of it may have been recorded under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    at: Timestamp,
    earliest: usize,
    latest: usize,
}

/// What rows, in their order, tell of when which set was in force.
struct Sights(Vec<Sight>);

impl Sights {
    fn of(sets: &[Written], rows: &[Row], verdict: &mut Verdict) -> Self {
        // The same set may have been written again. Sets come into force in the order in which they are
        // written, so a row is no earlier than the one before it and no later than the one after it; but for
        // a new leader that has heard of fewer sets.
        let is_it = |index: usize, row: &Row| sets[index].round == row.round && sets[index].at <= row.recorded_at;
        let mut sights = Vec::new();
        let mut earliest = 0;
        for row in rows {
            if let Some(index) = (earliest..sets.len()).find(|index| is_it(*index, row)) {
                earliest = index;
            } else if let Some(index) = (0..earliest).rev().find(|index| is_it(*index, row)) {
                earliest = index;
                verdict.went_back += 1;
            } else {
                let Row { recorded_at, round, .. } = row;
                verdict.wrong.push(format!("round {round} was in force at {recorded_at}, and is of no good set"));
            }
            sights.push(Sight { at: row.at, earliest, latest: sets.len() - 1 });
        }
        let mut latest = sets.len() - 1;
        for (sight, row) in sights.iter_mut().zip(rows).rev() {
            latest = (0..=latest).rev().find(|index| is_it(*index, row)).unwrap_or(latest);
            sight.latest = latest.max(sight.earliest);
        }
        Self(sights)
    }

    /// The sets one of which was in force at this moment.
    fn at(&self, moment: Timestamp) -> RangeInclusive<usize> {
        let before = self.0.partition_point(|sight| sight.at < moment);
        let after = self.0.partition_point(|sight| sight.at <= moment);
        let around = &self.0[before.saturating_sub(1)..(after + 1).min(self.0.len())];
        let earliest = if before == 0 { Some(0) } else { around.iter().map(|sight| sight.earliest).min() };
        let latest = around.iter().map(|sight| sight.latest).max();
        earliest.unwrap_or(0)..=latest.or(earliest).unwrap_or(0)
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a second that a clock showed")
}

/// `tick` is in every set: each step has one row of its own.
fn every_step_has_its_tick(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut rows: BTreeMap<i64, usize> = BTreeMap::new();
    for run in evidence.runs.iter().filter(|run| run.schedule == TICK) {
        let nominal = run.nominal_time.expect("a nominal time").as_second();
        *rows.entry(nominal).or_default() += 1;
        if run.count != 1 || nominal % evidence.step != 0 {
            verdict.wrong.push(format!("{} covers {}", run.dag_run_id, run.count));
        }
    }
    for second in evidence.since.as_second() + 1..=evidence.until.as_second() {
        let (expected, found) = (usize::from(second % evidence.step == 0), rows.get(&second).copied().unwrap_or(0));
        if found != expected {
            verdict.wrong.push(format!("tick: {} has {found} rows", at(second)));
        }
    }
}

/// Schedules by the clock that are edited: due by the set in force, or at an edit by the one before it or
/// the one after it; never twice.
fn edited_clocks(evidence: &Evidence<'_>, sights: &Sights, verdict: &mut Verdict) {
    let mut rows: BTreeMap<(&'static str, i64), Vec<&Run>> = BTreeMap::new();
    for run in evidence.runs {
        if let (Some(clock), Some(nominal)) = (clock_of(&run.schedule), run.nominal_time) {
            rows.entry((clock, nominal.as_second())).or_default().push(run);
            if run.count != 1 {
                verdict.wrong.push(format!("{} covers {}", run.dag_run_id, run.count));
            }
        }
    }
    let clocks: BTreeSet<_> = evidence.sets.iter().flat_map(|set| set.clocks.keys().copied()).collect();
    for second in evidence.since.as_second() + 1..=evidence.until.as_second() {
        let possible = &evidence.sets[sights.at(at(second))];
        for clock in &clocks {
            let is_due = |set: &Written| set.clocks.get(clock).is_some_and(|rule| rule.is_due(second));
            let due = possible.iter().filter(|set| is_due(set)).count();
            let found = rows.get(&(*clock, second)).map_or(&[][..], Vec::as_slice);
            let rounds: Vec<_> = possible.iter().map(|set| set.round).collect();
            match (due, found) {
                (0, []) => verdict.not_due += 1,
                (due, []) if due < possible.len() => verdict.at_an_edit += 1,
                (_, []) => verdict.wrong.push(format!("{clock}: {} is lost, due in all of {rounds:?}", at(second))),
                (due, [run]) => {
                    let round = run.conf["round"].as_u64();
                    let by_its_own = possible.iter().any(|set| Some(set.round) == round && is_due(set));
                    if !by_its_own {
                        verdict.wrong.push(format!(
                            "{}: recorded at {} by round {round:?}, where {rounds:?} may have been in force",
                            run.dag_run_id, run.recorded_at
                        ));
                    } else if due == possible.len() {
                        verdict.due += 1;
                    } else {
                        verdict.at_an_edit += 1;
                    }
                }
                (_, several) => {
                    let ids: Vec<_> = several.iter().map(|run| &run.dag_run_id).collect();
                    verdict.wrong.push(format!("{clock}: {} is there twice: {ids:?}", at(second)));
                }
            }
        }
    }
}

/// How often each version of a znode is that of a run, or was merged into one.
fn covered(evidence: &Evidence<'_>, path: &str) -> BTreeMap<i64, Vec<String>> {
    let mut covered: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for run in evidence.runs.iter().filter(|run| run.conf["path"] == path) {
        let version = run.conf["version"].as_i64().expect("a version");
        for version in version - run.coalesced..=version {
            covered.entry(version).or_default().push(run.dag_run_id.clone());
        }
    }
    covered
}

/// A znode that is watched by every set.
fn every_version_runs(evidence: &Evidence<'_>, path: &str, verdict: &mut Verdict) {
    let mut covered = covered(evidence, path);
    let last = evidence.znodes[path].last_key_value().map_or(0, |(version, _)| *version);
    for version in 1..=last {
        let by = covered.remove(&version).unwrap_or_default();
        if by.len() != 1 {
            verdict.wrong.push(format!("{path}: version {version} is covered by {by:?}"));
        }
    }
    if !covered.is_empty() {
        verdict.wrong.push(format!("{path} never had the versions {covered:?}"));
    }
}

/// A znode that some sets watch.
fn sometimes(evidence: &Evidence<'_>, sights: &Sights, verdict: &mut Verdict) {
    let covered = covered(evidence, SOMETIMES);
    for (version, written) in &evidence.znodes[SOMETIMES] {
        let possible = &evidence.sets[sights.at(*written)];
        let by = covered.get(version).map_or(&[][..], Vec::as_slice);
        let seen = possible.iter().filter(|set| set.sees_sometimes).count();
        let may_be = usize::from(seen == possible.len())..=usize::from(seen > 0);
        if !may_be.contains(&by.len()) {
            let rounds: Vec<_> = possible.iter().map(|set| (set.round, set.sees_sometimes)).collect();
            verdict.wrong.push(format!(
                "{SOMETIMES}: version {version}, written at {written}, is covered by {by:?}, where one of {rounds:?} was \
                 in force"
            ));
        }
    }
}

/// Every row is one DAG run, and there are no others. Airflow was read before the rows were.
fn airflow(evidence: &Evidence<'_>, verdict: &mut Verdict) {
    let mut in_airflow = evidence.in_airflow.clone();
    for run in evidence.runs {
        let count = in_airflow.remove(&run.dag_run_id).unwrap_or_default();
        let is_there = run.state.was_accepted() && count == 1;
        if !is_there && (run.due_at <= evidence.until || count > 1) {
            let reason = run.reason.as_deref().unwrap_or_default();
            verdict.wrong.push(format!("{} is {} ({reason}), {count} times in Airflow", run.dag_run_id, run.state));
        }
    }
    verdict.wrong.extend(in_airflow.keys().map(|id| format!("{id} is in Airflow and in no row")));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::support::rows::row;

    /// A whole minute, so that rules that differ are due at different seconds of it.
    const FIRST: i64 = 1_000_020;

    struct Case {
        sets: Vec<Written>,
        znodes: BTreeMap<&'static str, Versions>,
        runs: Vec<Run>,
        /// How many were made.
        made: usize,
    }

    fn set(round: u64, second: i64, every: Option<i64>, sees_sometimes: bool) -> Written {
        let rule = every.map(|every| ("job", Rule { first: 0, every }));
        Written { at: at(FIRST + second), round, clocks: rule.into_iter().collect(), sees_sometimes }
    }

    impl Case {
        /// Every second for twenty, then each third one, and no rule about `sometimes` any more.
        fn new() -> Self {
            let sets = vec![set(1, -10, Some(1), true), set(2, 20, Some(3), false)];
            let mut case = Self { sets, znodes: BTreeMap::new(), runs: Vec::new(), made: 0 };
            for path in [FLAG, ALWAYS, SOMETIMES] {
                case.znodes.insert(path, (1..=40).map(|second| (second, at(FIRST + second))).collect());
            }
            for second in 1..=40 {
                let round = if second <= 20 { 1 } else { 2 };
                case.add(TICK, second, round);
                if round == 1 || second % 3 == 0 {
                    case.add("job", second, round);
                }
                case.change("flag", FLAG, second, round);
                case.change("tree", ALWAYS, second, round);
                if round == 1 {
                    case.change("tree", SOMETIMES, second, round);
                }
            }
            case
        }

        fn add(&mut self, schedule: &str, second: i64, round: u64) {
            self.made += 1;
            self.runs.push(row(self.made, schedule, &json!({ "round": round }), Some(FIRST + second)));
        }

        fn change(&mut self, schedule: &str, path: &str, version: i64, round: u64) {
            let conf = json!({ "round": round, "path": path, "version": version });
            self.made += 1;
            let mut run = row(self.made, schedule, &conf, None);
            // A moment after the second.
            run.recorded_at = at(FIRST + version) + SignedDuration::from_millis(100);
            self.runs.push(run);
        }

        /// How much is wrong.
        fn judge(&self, missing_in_airflow: usize) -> usize {
            let in_airflow: BTreeMap<String, usize> =
                self.runs.iter().skip(missing_in_airflow).map(|run| (run.dag_run_id.clone(), 1)).collect();
            let evidence = Evidence {
                since: at(FIRST),
                until: at(FIRST + 40),
                step: 1,
                sets: &self.sets,
                znodes: &self.znodes,
                runs: &self.runs,
                in_airflow: &in_airflow,
            };
            judge(&evidence).wrong.len()
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_not_wrong_and_every_loss_and_double_is() {
        assert_eq!(Case::new().judge(0), 0);
        assert_eq!(Case::new().judge(1), 1, "a row that Airflow has not");
        let lost = |schedule: &'static str, second: i64| {
            let mut case = Case::new();
            let gone = |run: &Run| {
                let nominal = run.nominal_time.map(|nominal| nominal.as_second() - FIRST);
                run.schedule == schedule && nominal.or(run.conf["version"].as_i64()) == Some(second)
            };
            let before = case.runs.len();
            case.runs.retain(|run| !gone(run));
            assert!(case.runs.len() < before);
            case.judge(0)
        };
        assert_eq!((lost(TICK, 7), lost("job", 7), lost("job", 30), lost("flag", 9)), (1, 1, 1, 1));
        // Both znodes of the tree, and only the one that is always watched.
        assert_eq!((lost("tree", 5), lost("tree", 35)), (2, 1));
        let more = |add: &dyn Fn(&mut Case)| {
            let mut case = Case::new();
            add(&mut case);
            case.judge(0)
        };
        assert_eq!(more(&|case| case.add(TICK, 7, 1)), 1, "a second has two rows");
        assert_eq!(more(&|case| case.add("work", 7, 1)), 1, "two, by both names of a schedule");
        assert_eq!(more(&|case| case.add("job", 31, 2)), 1, "due under no set in force");
        assert_eq!(more(&|case| case.change("flag", FLAG, 9, 1)), 1, "a version has two rows");
        assert_eq!(more(&|case| case.change("tree", SOMETIMES, 35, 2)), 1, "no rule was about it");
        assert_eq!(more(&|case| case.runs[1].conf = json!({"round": 2})), 1, "by a set before it was written");
        let merged = more(&|case| {
            let change = case.runs.iter_mut().rfind(|run| run.schedule == "flag").expect("a change");
            change.coalesced = 1;
        });
        assert_eq!(merged, 1, "a version that ran counts as merged");
    }

    #[test]
    fn what_is_due_at_an_edit_may_be_due_by_either_rule() {
        let mut case = Case::new();
        // Nothing tells when between these seconds the edit was.
        case.runs
            .retain(|run| run.schedule != "flag" || !(19..=24).contains(&run.conf["version"].as_i64().unwrap_or(0)));
        let others = case.judge(0);
        case.add("job", 22, 1);
        assert_eq!(case.judge(0), others, "due by the set before");
        case.add("job", 26, 1);
        assert_eq!(case.judge(0), others + 1, "the next is certain");
    }
}
