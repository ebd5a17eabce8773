//! The tasks of one term: those that run from its beginning to its end, and the parts by key.
//!
//! A part whose writes the ledger refuses, since a newer leader has taken over, ends quietly: the term is
//! over, and the member stands by. A store that is away for the moment ends the term as well, and a later
//! one goes on. Any other failure of a part ends the process, since a scheduler with one limb missing
//! looks healthy and is not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::member::Member;
use super::parts::{self, Key, Needs, Part, PartError, Plan};
use crate::publisher::Publisher;
use crate::store::{Leadership, StoreError};

/// What follows when a part ends with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Consequence {
    /// Nothing: the term is ending anyway.
    Nothing,
    /// The term ends: a newer leader has taken over.
    EndOfTerm,
    /// The term ends, and a later one, of this member or another, begins again where it stood: the
    /// store is away for the moment.
    Rest,
    /// The process ends.
    EndOfProcess,
}

impl PartError {
    /// A ledger that is closed while nothing is ending has lost its writer. Taken for the end of a term,
    /// that would lead to one term after another in which nothing is recorded.
    fn consequence(&self, is_ending: bool) -> Consequence {
        match self {
            Self::Store(StoreError::Fenced { .. }) => Consequence::EndOfTerm,
            _ if is_ending => Consequence::Nothing,
            Self::Store(error) if error.is_transient() => Consequence::Rest,
            Self::Store(_) | Self::Chores(_) => Consequence::EndOfProcess,
        }
    }
}

/// The tasks of a term, and what all of them work with.
pub(super) struct Crew {
    pub(super) member: Arc<Member>,
    pub(super) leadership: Leadership,
    /// Where parts tell something in the home ensemble; a shadow's tells nobody.
    pub(super) publisher: Publisher,
    /// A child of the process's ending.
    pub(super) ending: CancellationToken,
    pub(super) tasks: TaskTracker,
    /// Cancelled when the store failed a part of it for the moment.
    pub(super) faltered: CancellationToken,
    running: Mutex<HashMap<Key, Running>>,
}

/// A part at work.
struct Running {
    needs: Vec<Needs>,
    /// Asks it to end.
    end: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
}

impl Crew {
    /// Nobody at work yet.
    pub(super) fn new(member: &Arc<Member>, leadership: Leadership) -> Self {
        Self {
            member: Arc::clone(member),
            leadership,
            publisher: Publisher::default(),
            ending: member.lifecycle.ending().child_token(),
            tasks: TaskTracker::new(),
            faltered: CancellationToken::new(),
            running: Mutex::default(),
        }
    }

    /// Runs something for as long as the term lasts; its error, unless it says that the term is over, is
    /// the process's.
    pub(super) fn spawn<E: Into<PartError>>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.spawn_until(name, CancellationToken::new(), work);
    }

    /// The same; `ended` is cancelled when it has ended.
    fn spawn_until<E: Into<PartError>>(
        &self,
        name: &'static str,
        ended: CancellationToken,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (lifecycle, leadership) = (self.member.lifecycle.clone(), self.leadership.clone());
        let faltered = self.faltered.clone();
        let work = tokio::spawn(async move { work.await.map_err(Into::into) });
        self.tasks.spawn(async move {
            let _ended = ended.drop_guard();
            let error = match work.await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error,
                Err(panic) => return lifecycle.fail(name, &format!("it panicked: {panic}")),
            };
            match error.consequence(leadership.lost().is_cancelled()) {
                Consequence::Nothing => {
                    tracing::debug!(task = name, error = %error, "a part ended with an error while its term was ending");
                }
                Consequence::EndOfTerm => leadership.give_up(),
                Consequence::Rest => {
                    tracing::warn!(task = name, error = %error, "a part failed for the moment, so the term ends");
                    faltered.cancel();
                    leadership.give_up();
                }
                Consequence::EndOfProcess => lifecycle.fail(name, &error),
            }
        });
    }

    /// What is to be done so that exactly the `declared` parts run.
    pub(super) fn plan(&self, declared: Vec<Part>) -> Plan {
        let running = self.running();
        parts::plan(running.iter().map(|(key, part)| (key, &*part.needs)), declared)
    }

    /// Asks these parts to end, and waits until they have.
    pub(super) async fn end(&self, parts: &[Key]) {
        let ending: Vec<Running> = {
            let mut running = self.running();
            parts.iter().filter_map(|key| running.remove(key)).collect()
        };
        for part in &ending {
            part.end.cancel();
        }
        for part in &ending {
            part.ended.cancelled().await;
        }
    }

    /// Begins parts.
    pub(super) fn begin(&self, parts: Vec<Part>) {
        let mut running = self.running();
        for Part { key, needs, begin } in parts {
            let (end, ended) = (self.ending.child_token(), CancellationToken::new());
            self.spawn_until(key.kind, ended.clone(), begin(end.clone()));
            running.insert(key, Running { needs, end, ended });
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Key, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_pass_ends_the_process() {
        let cases: [(StoreError, Consequence, Consequence); 4] = [
            (StoreError::Fenced { held: 1, current: 2 }, Consequence::EndOfTerm, Consequence::EndOfTerm),
            (StoreError::Closed, Consequence::EndOfProcess, Consequence::Nothing),
            (StoreError::OutcomeUnknown, Consequence::Rest, Consequence::Nothing),
            (StoreError::Corrupt { what: "a row".into() }, Consequence::EndOfProcess, Consequence::Nothing),
        ];
        for (error, expected, while_ending) in cases {
            let error = PartError::from(error);
            assert_eq!(error.consequence(false), expected, "{error}");
            assert_eq!(error.consequence(true), while_ending, "{error}, while the term ends");
        }
    }
}
