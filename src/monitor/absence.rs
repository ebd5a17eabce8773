//! Which open runs are missing from Airflow's list of open DAG runs, and how often in a row.
//!
//! A list is not proof: rows move between pages while they are read, and a DAG run that has just
//! ended is missing as well. Only what was missing twice is asked for by itself.

use std::collections::{HashMap, HashSet};

use crate::domain::run::RunId;
use crate::store::model::OpenRun;

/// How often in a row a run may be missing before it is asked for.
const PATIENCE: u32 = 2;

/// How many runs are asked for by themselves after one comparison; the others wait for the next.
const QUESTIONS: usize = 20;

/// The memory of one monitor.
#[derive(Debug, Default)]
pub(super) struct Absences(HashMap<RunId, u32>);

impl Absences {
    /// Compares the open rows with the DAG runs that a full list showed; the rows to ask for.
    ///
    /// `open` must have been read before the list: a run that was accepted after it is not missing.
    pub(super) fn compare<'o>(&mut self, open: &'o [OpenRun], listed: &HashSet<(String, String)>) -> Vec<&'o OpenRun> {
        let mut missing = HashMap::new();
        let mut questions = Vec::new();
        for run in open {
            if listed.contains(&(run.dag_id.clone(), run.dag_run_id.clone())) {
                continue;
            }
            let times = self.0.get(&run.id).copied().unwrap_or_default() + 1;
            missing.insert(run.id, times);
            if times >= PATIENCE && questions.len() < QUESTIONS {
                questions.push(run);
            }
        }
        self.0 = missing;
        questions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::RunState;
    use crate::domain::schedule::ScheduleName;

    fn open(id: i64) -> OpenRun {
        OpenRun {
            id: RunId(id),
            schedule: ScheduleName::new("inbox").unwrap(),
            dag_id: "ingest".into(),
            dag_run_id: format!("flowkeeper__inbox__m{id}"),
            state: RunState::Running,
        }
    }

    fn listed(ids: &[i64]) -> HashSet<(String, String)> {
        ids.iter().map(|&id| open(id)).map(|run| (run.dag_id, run.dag_run_id)).collect()
    }

    #[test]
    fn only_what_is_missing_twice_in_a_row_is_asked_for() {
        let rows = [open(1), open(2), open(3)];
        let mut absences = Absences::default();
        let ids = |questions: Vec<&OpenRun>| questions.into_iter().map(|run| run.id.0).collect::<Vec<_>>();
        assert_eq!(ids(absences.compare(&rows, &listed(&[1]))), [0; 0]);
        // The third was only between two pages.
        assert_eq!(ids(absences.compare(&rows, &listed(&[1, 3]))), [2]);
        assert_eq!(ids(absences.compare(&rows, &listed(&[1]))), [2]);
        assert_eq!(ids(absences.compare(&rows, &listed(&[1]))), [2, 3]);
    }

    #[test]
    fn a_list_that_suddenly_shows_nothing_does_not_cause_a_flood_of_questions() {
        let rows: Vec<_> = (1..=1000).map(open).collect();
        let mut absences = Absences::default();
        absences.compare(&rows, &listed(&[]));
        assert_eq!(absences.compare(&rows, &listed(&[])).len(), QUESTIONS);
    }
}
