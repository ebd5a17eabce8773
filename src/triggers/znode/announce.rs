//! Telling that triggers watch: one by one where they are few, in one line an ensemble where they are many.
//!
//! An edit may arm thousands of triggers within a second, and as many lines would hide what else it did. So
//! what is armed waits until for a moment nothing more is; each trigger's own state is told at once by the
//! API, and never waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use crate::domain::schedule::ScheduleName;
use crate::triggers::TOLD_ONE_BY_ONE;

/// How long no other trigger may be armed before those that were are told of.
const QUIET: Duration = Duration::from_millis(250);

/// How long they wait at most.
const PATIENCE: Duration = Duration::from_secs(5);

/// A trigger that watches, and has compared everything once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Armed {
    pub(super) schedule: ScheduleName,
    /// The ensemble, as people know it.
    pub(super) ensemble: String,
    /// What it watches.
    pub(super) path: Arc<str>,
    /// How many znodes it knows.
    pub(super) znodes: usize,
}

/// What is told.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    One(&'a Armed),
    Many { ensemble: &'a str, triggers: usize, znodes: usize },
}

/// Shared by all triggers of a term. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Announcements(Arc<Mutex<Vec<Armed>>>);

impl Announcements {
    /// Tells of a trigger, soon.
    pub(super) fn tell(&self, armed: Armed) {
        let mut waiting = self.waiting();
        waiting.push(armed);
        if waiting.len() == 1 {
            // Whoever armed it may end before.
            tokio::spawn(self.clone().tell_all());
        }
    }

    async fn tell_all(self) {
        let (began, mut known) = (Instant::now(), 0);
        loop {
            tokio::time::sleep(QUIET).await;
            let mut waiting = self.waiting();
            if waiting.len() == known || began.elapsed() >= PATIENCE {
                let armed = std::mem::take(&mut *waiting);
                drop(waiting);
                lines(&armed).iter().for_each(Line::write);
                return;
            }
            known = waiting.len();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Armed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How it is told that these are armed.
fn lines(armed: &[Armed]) -> Vec<Line<'_>> {
    if armed.len() <= TOLD_ONE_BY_ONE {
        return armed.iter().map(Line::One).collect();
    }
    let mut ensembles: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for armed in armed {
        let (triggers, znodes) = ensembles.entry(&armed.ensemble).or_default();
        *triggers += 1;
        *znodes += armed.znodes;
    }
    ensembles.into_iter().map(|(ensemble, (triggers, znodes))| Line::Many { ensemble, triggers, znodes }).collect()
}

impl Line<'_> {
    fn write(&self) {
        match self {
            Self::One(Armed { schedule, ensemble, path, znodes }) => {
                info!(%schedule, ensemble, %path, znodes, "watching, and up to date");
            }
            Self::Many { ensemble, triggers, znodes } => {
                info!(ensemble, triggers, znodes, "znode triggers are watching, and up to date");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(number: usize, ensemble: &str) -> Armed {
        Armed {
            schedule: ScheduleName::new(&format!("schedule-{number}")).expect("a legal name"),
            ensemble: ensemble.to_owned(),
            path: format!("/{number}").into(),
            znodes: 2,
        }
    }

    #[test]
    fn few_are_told_one_by_one_and_many_by_ensemble() {
        let few: Vec<_> = (0..TOLD_ONE_BY_ONE).map(|number| armed(number, "home")).collect();
        assert_eq!(lines(&few), few.iter().map(Line::One).collect::<Vec<_>>());
        let mut many = few;
        many.extend((0..3).map(|number| armed(number, "Solr")));
        let expected = [
            Line::Many { ensemble: "Solr", triggers: 3, znodes: 6 },
            Line::Many { ensemble: "home", triggers: TOLD_ONE_BY_ONE, znodes: 2 * TOLD_ONE_BY_ONE },
        ];
        assert_eq!(lines(&many), expected);
        assert_eq!(lines(&[]), []);
    }

    #[tokio::test]
    async fn what_is_armed_is_told_of_and_not_kept() {
        let announcements = Announcements::default();
        for round in 0..2 {
            announcements.tell(armed(round, "home"));
            announcements.tell(armed(round + 10, "home"));
            while !announcements.waiting().is_empty() {
                tokio::time::sleep(QUIET).await;
            }
        }
    }
}
