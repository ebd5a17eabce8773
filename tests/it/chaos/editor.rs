//! The user who edits definitions all the time, over every fault: a schedule gets another rule, another
//! name, goes and comes back, and is rolled back; and what must have come of that.
//!
//! The members have their definitions in files, so each hears of an edit by itself, also one that is down
//! or frozen when it is made: whoever leads next may begin with the set before, as in any rollout.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use flowkeeper::clock::Clock;
use flowkeeper::store::model::Run;
use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::proof::Differences;
use super::schedules::{CALM, ECHO, EDITED, EDITED_NAMES};
use crate::reload_trial::sets::Rule;
use crate::support::random::Random;

/// How long an edit stays: between these two, in milliseconds.
const STAYS: (u64, u64) = (2_500, 12_000);

/// How long members that live may take to hear of an edit, on a machine that is busy.
const HEARD: SignedDuration = SignedDuration::from_secs(15);

/// One edit: from now on this is in the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    /// Just before the first file was written.
    pub(crate) at: Timestamp,
    /// Its number; every conf tells it.
    pub(crate) round: u64,
    /// When the edited schedule is due, under which of its names; `None` while there is no such schedule.
    pub(crate) rule: Option<(Rule, usize)>,
}

/// The user.
pub(crate) struct Editor {
    /// Of each member.
    directories: Vec<PathBuf>,
    random: Random,
    pub(crate) edits: Vec<Edit>,
}

impl Editor {
    /// Writes what the members begin with.
    pub(crate) fn new(directories: Vec<PathBuf>, seed: u64) -> Self {
        let mut editor = Self { directories, random: Random::new(seed), edits: Vec::new() };
        editor.edit();
        editor
    }

    /// Edits until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Self {
        loop {
            let stays = self.random.milliseconds(STAYS.0, STAYS.1);
            tokio::select! {
                () = stop.cancelled() => return self,
                () = tokio::time::sleep(stays) => self.edit(),
            }
        }
    }

    fn edit(&mut self) {
        let back = self.edits.iter().nth_back(1).filter(|_| self.random.below(4) == 0);
        let rule = match back {
            Some(before) => before.rule,
            None if self.random.below(5) == 0 => None,
            None => {
                let rules = [(0, 1), (0, 2), (1, 2), (0, 3)].map(|(first, every)| Rule { first, every });
                Some((self.random.pick(&rules), usize::from(self.random.below(4) == 0)))
            }
        };
        let edit = Edit { at: Clock::system().now(), round: self.edits.len() as u64, rule };
        for directory in &self.directories {
            let (new, file) = (directory.join("edited.new"), directory.join(EDITED));
            std::fs::write(&new, text(&edit)).expect("write the definitions");
            std::fs::rename(&new, &file).expect("rename");
        }
        self.edits.push(edit);
    }
}

/// The file of an edit: a schedule that is always due, and the one that is edited.
fn text(edit: &Edit) -> String {
    let schedule = |name: &str, rule: Rule, more: &str| {
        format!(
            "[[schedule]]\nname = \"{name}\"\ncron = \"{}\"\nairflow = \"{CALM}\"\ndag = \"{name}\"\noverlap = \"allow\"\n\
             catchup = \"all\"\nretry = {{ initial = \"100ms\", max = \"300ms\" }}\nconf = {{ round = {} }}\n{more}",
            rule.cron(),
            edit.round
        )
    };
    let echo = schedule(ECHO, Rule { first: 0, every: 1 }, "");
    edit.rule.map_or(echo.clone(), |(rule, name)| {
        let was = format!("was = \"{}\"\n", EDITED_NAMES[1 - name]);
        echo + &schedule(EDITED_NAMES[name], rule, &was)
    })
}

/// Compares the edited schedule with the edits, up to and including `last_second`.
pub(crate) fn compare(edits: &[Edit], runs: &[Run], seconds: RangeInclusive<i64>, differences: &mut Differences) {
    let round = |run: &Run| run.conf["round"].as_u64().and_then(|round| usize::try_from(round).ok());
    let mut echoes: Vec<(Timestamp, usize)> =
        runs.iter().filter(|run| run.schedule == ECHO).filter_map(|run| Some((run.recorded_at, round(run)?))).collect();
    echoes.sort_unstable();
    let mut rows: BTreeMap<i64, Vec<&Run>> = BTreeMap::new();
    for run in runs.iter().filter(|run| EDITED_NAMES.contains(&run.schedule.as_str())) {
        rows.entry(run.nominal_time.map_or(0, Timestamp::as_second)).or_default().push(run);
    }
    for second in seconds {
        let at = Timestamp::from_second(second).unwrap_or_default();
        let possible = &edits[in_force(edits, &echoes, at)];
        let is_due = |edit: &Edit| edit.rule.is_some_and(|(rule, _)| rule.is_due(second));
        let due = possible.iter().filter(|edit| is_due(edit)).count();
        let rounds: Vec<_> = possible.iter().map(|edit| edit.round).collect();
        match rows.get(&second).map_or(&[][..], Vec::as_slice) {
            [] if due == possible.len() => {
                differences.lost.push(format!("edited: {at} is due in all of {rounds:?}"));
            }
            [] => {}
            [run] => {
                let own = possible.iter().any(|edit| Some(edit.round) == run.conf["round"].as_u64());
                if due == 0 || !own {
                    differences.doubled.push(format!(
                        "{}: recorded at {} by round {:?}, where one of {rounds:?} was in force",
                        run.dag_run_id, run.recorded_at, run.conf["round"]
                    ));
                }
            }
            several => {
                let ids: Vec<_> = several.iter().map(|run| &run.dag_run_id).collect();
                differences.doubled.push(format!("edited: {at} has {ids:?}"));
            }
        }
    }
}

/// The edits one of which was in force at this moment, as the rows of the schedule tell that is always due:
/// its rows go on under the set before until an edit is made, and a new leader may begin with the set
/// before the newest. Of several edits that are made while the ledger is away the last one follows on the
/// one before them all; what a rule that they have in common had due meanwhile is recorded by the new set.
fn in_force(edits: &[Edit], echoes: &[(Timestamp, usize)], at: Timestamp) -> RangeInclusive<usize> {
    let split = echoes.partition_point(|(recorded, _)| *recorded <= at);
    let before = split.checked_sub(1).map_or(0, |index| echoes[index].1);
    let (found, after) = echoes.get(split).copied().unwrap_or((Timestamp::MAX, edits.len() - 1));
    let heard = |index: usize| edits.get(index).is_some_and(|edit| edit.at + HEARD < at);
    let earliest = if heard(before) { before } else { before.saturating_sub(1) };
    let next = echoes[split..].iter().map(|(_, round)| *round).find(|round| *round > after).unwrap_or(after + 1);
    let latest = (0..edits.len()).rev().find(|index| edits[*index].at <= found).unwrap_or(0).min(next);
    earliest.min(after)..=latest.max(before)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::support::rows::row;

    const FIRST: i64 = 1_000_020;

    fn edit(round: u64, second: i64, rule: Option<(i64, i64)>) -> Edit {
        let at = Timestamp::from_second(second).expect("a time");
        Edit { at, round, rule: rule.map(|(first, every)| (Rule { first, every }, 0)) }
    }

    /// A row that was recorded when it was due.
    fn recorded(id: usize, schedule: &str, second: i64, round: u64) -> Run {
        let mut run = row(id, schedule, &json!({ "round": round }), Some(second));
        run.recorded_at = run.nominal_time.expect("a nominal time");
        run
    }

    /// Each second for a minute, then each third one for a minute.
    fn as_it_should_be() -> (Vec<Edit>, Vec<Run>) {
        let edits = vec![edit(0, FIRST - 60, Some((0, 1))), edit(1, FIRST + 60, Some((0, 3)))];
        let mut runs = Vec::new();
        for second in FIRST..FIRST + 120 {
            let round = u64::from(second > FIRST + 60);
            runs.push(recorded(runs.len(), ECHO, second, round));
            if round == 0 || second % 3 == 0 {
                runs.push(recorded(runs.len(), EDITED_NAMES[0], second, round));
            }
        }
        (edits, runs)
    }

    fn judge(spoil: impl FnOnce(&mut Vec<Run>)) -> (usize, usize) {
        let (edits, mut runs) = as_it_should_be();
        spoil(&mut runs);
        let mut differences = Differences::default();
        compare(&edits, &runs, FIRST..=FIRST + 119, &mut differences);
        (differences.lost.len(), differences.doubled.len())
    }

    fn at(run: &Run) -> i64 {
        run.nominal_time.expect("a nominal time").as_second() - FIRST
    }

    #[test]
    fn an_edited_schedule_is_due_by_one_rule_at_a_time() {
        assert_eq!(judge(|_| ()), (0, 0));
        let edited = |run: &Run| run.schedule == EDITED_NAMES[0];
        assert_eq!(judge(|runs| runs.retain(|run| !(edited(run) && at(run) == 20))), (1, 0), "lost before the edit");
        assert_eq!(judge(|runs| runs.retain(|run| !(edited(run) && at(run) == 99))), (1, 0), "lost after the edit");
        assert_eq!(
            judge(|runs| runs.push(recorded(999, EDITED_NAMES[0], FIRST + 100, 1))),
            (0, 1),
            "due under neither"
        );
        assert_eq!(
            judge(|runs| runs.push(recorded(999, EDITED_NAMES[1], FIRST + 20, 0))),
            (0, 1),
            "twice, by two names"
        );
        // The ledger is away from second 30 to 33 while the rule goes and comes back; all is recorded then.
        let edits =
            vec![edit(0, FIRST - 60, Some((0, 1))), edit(1, FIRST + 31, None), edit(2, FIRST + 32, Some((0, 1)))];
        let late = |second: i64| if (30..33).contains(&second) { 33 } else { second };
        let mut runs = Vec::new();
        for second in FIRST..FIRST + 60 {
            let at = Timestamp::from_second(FIRST + late(second - FIRST)).expect("a time");
            for (schedule, first) in [(ECHO, FIRST + 34), (EDITED_NAMES[0], FIRST + 31)] {
                let mut run = recorded(runs.len(), schedule, second, if second >= first { 2 } else { 0 });
                run.recorded_at = at;
                runs.push(run);
            }
        }
        let mut differences = Differences::default();
        compare(&edits, &runs, FIRST..=FIRST + 59, &mut differences);
        assert_eq!((differences.lost, differences.doubled), (vec![], vec![]));
        // At the edit itself either rule may hold.
        assert_eq!(judge(|runs| runs.retain(|run| !(edited(run) && at(run) == 61))), (0, 0));
    }
}
