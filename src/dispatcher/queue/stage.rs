//! Where a run stands, and what follows when something is heard of it: one pure function.
//!
//! What is heard comes over ways that keep no order among each other: the answers to requests, and what
//! the ledger tells of commits. A run that was handed out therefore keeps the latest word of the ledger
//! until its answer is in; only the two together say where it stands next.

use crate::store::ActiveRun;

/// Where a run stands. Each run that is known has one stage, and stands nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dispatcher) enum Stage {
    /// In the line of its schedule.
    Waiting,
    /// Has asked for its lock.
    Locking,
    /// Has its lock, and waits for a place.
    Locked,
    /// Waits for the time of its next try.
    Delayed,
    /// Handed out to the loop, which submits or skips it; the answer is still to come.
    Handed(Word),
    /// Open in Airflow.
    Open(ActiveRun),
}

/// The ledger's latest word on a run that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dispatcher) enum Word {
    /// None since it was handed out.
    Nothing,
    /// Airflow has it.
    Open(ActiveRun),
    /// Its row was closed without Airflow: there is no next try, but an acceptance takes it up again.
    GivenUp,
    /// Airflow had it, and it is over.
    Over,
}

/// What is heard of a run.
#[derive(Debug, Clone)]
pub(super) enum News {
    /// Airflow has it open, as the ledger says.
    Opened(ActiveRun),
    /// Its row is closed; whether Airflow had it.
    Closed { accepted: bool },
    /// What it was handed out for is done, and in the ledger.
    Answered(Answer),
}

/// What came of a run that was handed out.
#[derive(Debug, Clone)]
pub(in crate::dispatcher) enum Answer {
    /// Airflow has it, and it is not over.
    Open(ActiveRun),
    /// There is nothing more to send: it was refused or skipped, or is over already.
    Done,
    /// It is to be tried again.
    Again,
}

impl Stage {
    /// The stage that follows; `None` for a run that nothing is expected of any more.
    pub(super) fn after(stage: Option<Self>, news: News) -> Option<Self> {
        match (stage, news) {
            (Some(Self::Handed(_)), News::Opened(active)) => Some(Self::Handed(Word::Open(active))),
            // Airflow has it, so that nothing is to be sent, wherever it waited.
            (_, News::Opened(active)) => Some(Self::Open(active)),
            (Some(Self::Handed(_)), News::Closed { accepted }) => {
                Some(Self::Handed(if accepted { Word::Over } else { Word::GivenUp }))
            }
            // It was given up before Airflow took it, and the acceptance was heard of first.
            (open @ Some(Self::Open(_)), News::Closed { accepted: false }) => open,
            (_, News::Closed { .. }) => None,
            (Some(Self::Handed(word)), News::Answered(answer)) => Self::answered(word, answer),
            (stage, News::Answered(_)) => stage,
        }
    }

    fn answered(word: Word, answer: Answer) -> Option<Self> {
        match (answer, word) {
            (Answer::Open(active), Word::Nothing | Word::GivenUp | Word::Open(_))
            | (Answer::Done | Answer::Again, Word::Open(active)) => Some(Self::Open(active)),
            (Answer::Again, Word::Nothing) => Some(Self::Delayed),
            // What is over stays so: the answer is older than the end that the ledger has seen.
            (_, Word::Over) | (Answer::Done, Word::Nothing | Word::GivenUp) | (Answer::Again, Word::GivenUp) => None,
        }
    }

    /// The stage of a known run of which the ledger says that it is pending; `None` where that can only
    /// be true if its end has not been heard of yet.
    pub(super) fn offered(&self) -> Option<Self> {
        match self {
            Self::Open(_) | Self::Handed(Word::Open(_)) => None,
            // Given up and taken up again while its request is on its way.
            Self::Handed(_) => Some(Self::Handed(Word::Nothing)),
            waiting => Some(waiting.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::RunId;
    use crate::domain::schedule::ScheduleName;

    fn run() -> ActiveRun {
        ActiveRun {
            id: RunId(1),
            schedule: ScheduleName::new("inbox").unwrap(),
            airflow: "main".into(),
            dag_id: "d".into(),
            dag_run_id: "flowkeeper__inbox__m1".into(),
        }
    }

    #[test]
    fn an_answer_and_the_ledgers_word_together_say_where_a_run_stands() {
        let (open, done, again) = (|| Answer::Open(run()), || Answer::Done, || Answer::Again);
        let stands = || Some(Stage::Open(run()));
        let cases = [
            (open(), Word::Nothing, stands()),
            (open(), Word::Open(run()), stands()),
            // The ledger takes a row that was given up up again.
            (open(), Word::GivenUp, stands()),
            // The run was quicker than the recording of its answer.
            (open(), Word::Over, None),
            (done(), Word::Nothing, None),
            (done(), Word::GivenUp, None),
            (done(), Word::Over, None),
            (done(), Word::Open(run()), stands()),
            (again(), Word::Nothing, Some(Stage::Delayed)),
            // The answer was lost, and the monitor has met the DAG run.
            (again(), Word::Open(run()), stands()),
            (again(), Word::GivenUp, None),
            (again(), Word::Over, None),
        ];
        for (answer, word, expected) in cases {
            let shown = format!("{answer:?} after {word:?}");
            let stage = Stage::after(Some(Stage::Handed(word)), News::Answered(answer));
            assert_eq!(stage, expected, "{shown}");
        }
    }

    #[test]
    fn the_ledger_moves_a_run_wherever_it_stands() {
        let handed = |word| Some(Stage::Handed(word));
        let open = || Some(Stage::Open(run()));
        let waiting = [Stage::Waiting, Stage::Locking, Stage::Locked, Stage::Delayed];
        // Where it stands; what is heard: Airflow has it, it was given up, it is over.
        let mut cases = vec![
            (None, open(), None, None),
            (open(), open(), open(), None),
            (handed(Word::Nothing), handed(Word::Open(run())), handed(Word::GivenUp), handed(Word::Over)),
            (handed(Word::Open(run())), handed(Word::Open(run())), handed(Word::GivenUp), handed(Word::Over)),
            (handed(Word::GivenUp), handed(Word::Open(run())), handed(Word::GivenUp), handed(Word::Over)),
            (handed(Word::Over), handed(Word::Open(run())), handed(Word::GivenUp), handed(Word::Over)),
        ];
        cases.extend(waiting.map(|stage| (Some(stage), open(), None, None)));
        for (stage, opened, given_up, over) in cases {
            let after = |news| Stage::after(stage.clone(), news);
            assert_eq!(after(News::Opened(run())), opened, "opened: {stage:?}");
            assert_eq!(after(News::Closed { accepted: false }), given_up, "given up: {stage:?}");
            assert_eq!(after(News::Closed { accepted: true }), over, "over: {stage:?}");
        }
    }

    #[test]
    fn a_run_that_is_taken_up_again_forgets_that_it_was_given_up() {
        let handed = |word| Stage::Handed(word);
        let cases = [
            (Stage::Waiting, Some(Stage::Waiting)),
            (Stage::Delayed, Some(Stage::Delayed)),
            (handed(Word::Nothing), Some(handed(Word::Nothing))),
            (handed(Word::GivenUp), Some(handed(Word::Nothing))),
            (handed(Word::Over), Some(handed(Word::Nothing))),
            (handed(Word::Open(run())), None),
            (Stage::Open(run()), None),
        ];
        for (stage, expected) in cases {
            assert_eq!(stage.offered(), expected, "{stage:?}");
        }
    }
}
