//! How far znode triggers have got, read for many at once.
//!
//! Thousands of triggers begin at the same moment when definitions change or a term begins, and each asks
//! for its own. Whoever asks while a read is under way is answered by the next one, which then is for all
//! of them; so nobody is told of before, and a few reads do.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::model::{ScheduleState, ZnodeCursor};
use super::{Ledger, StoreError};
use crate::domain::schedule::ScheduleName;

/// How many triggers share a read at most.
const SHARE_A_READ: usize = 256;

/// How far a znode trigger has got.
#[derive(Debug, Clone, Default)]
pub struct ZnodeProgress {
    /// What the ledger knows of its schedule; `None` where that is not in force.
    pub state: Option<ScheduleState>,
    /// The znodes that it has handled.
    pub cursors: Vec<ZnodeCursor>,
}

type Asked = (ScheduleName, oneshot::Sender<ZnodeProgress>);

/// Those who ask.
#[derive(Default)]
pub(super) struct Questions(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    asked: Vec<Asked>,
    /// Whether somebody reads for them.
    is_read: bool,
}

impl Questions {
    /// Adds a question; whether nobody reads yet, so that who asks has to see to it.
    fn ask(&self, question: Asked) -> bool {
        let mut waiting = self.waiting();
        waiting.asked.push(question);
        !std::mem::replace(&mut waiting.is_read, true)
    }

    /// Those who are answered next; nobody, when the reading is over.
    fn next(&self) -> Vec<Asked> {
        let mut waiting = self.waiting();
        let count = waiting.asked.len().min(SHARE_A_READ);
        waiting.is_read = count > 0;
        waiting.asked.drain(..count).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// How far the znode trigger of a schedule has got.
    pub async fn znode_progress(&self, schedule: &ScheduleName) -> Result<ZnodeProgress, StoreError> {
        let (sender, answer) = oneshot::channel();
        if self.0.questions.ask((schedule.clone(), sender)) {
            // Of its own, since whoever asks may go away while others wait.
            tokio::spawn(self.clone().answer());
        }
        if let Ok(progress) = answer.await {
            return Ok(progress);
        }
        // The read for all has failed: this one's own tells how.
        let ledger = self.snapshot().await?;
        let (state, cursors) = (ledger.schedule_state(schedule).await?, ledger.znode_cursors(schedule).await?);
        Ok(ZnodeProgress { state, cursors })
    }

    /// Answers until nobody asks.
    async fn answer(self) {
        loop {
            let asked = self.0.questions.next();
            if asked.is_empty() {
                return;
            }
            let names: Vec<ScheduleName> = asked.iter().map(|(name, _)| name.clone()).collect();
            match self.progress_of(&names).await {
                Ok(mut found) => {
                    for (name, reply) in asked {
                        // Two may ask for the same one: the other then reads for itself.
                        if let Some(progress) = found.remove(&name) {
                            // Who asked may have gone away.
                            drop(reply.send(progress));
                        }
                    }
                }
                Err(error) => {
                    let triggers = asked.len();
                    tracing::debug!(triggers, %error, "how far znode triggers have got could not be read for all at once");
                }
            }
        }
    }

    async fn progress_of(
        &self,
        schedules: &[ScheduleName],
    ) -> Result<HashMap<ScheduleName, ZnodeProgress>, StoreError> {
        let ledger = self.snapshot().await?;
        let mut found: HashMap<ScheduleName, ZnodeProgress> =
            schedules.iter().map(|name| (name.clone(), ZnodeProgress::default())).collect();
        for (name, state) in ledger.schedule_states_of(schedules).await? {
            found.entry(name).or_default().state = Some(state);
        }
        for (name, cursor) in ledger.znode_cursors_of(schedules).await? {
            found.entry(name).or_default().cursors.push(cursor);
        }
        Ok(found)
    }
}
