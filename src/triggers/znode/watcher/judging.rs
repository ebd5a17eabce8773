//! From the answers to reads to what the ledger is told: the part of the watcher behind the reads.
//!
//! Each answer is judged against the cursor in memory, which moves at once. What came of it goes into
//! the recording under way, or waits in a batch, or is held back until it can share a row.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::FutureExt;
use futures_util::stream::StreamExt;
use tokio::time::Instant;
use tracing::debug;

use super::super::ZnodeTriggerError;
use super::super::decide::{Condition, Fired, Judgement, Sight, Withheld, fired, judge, previous_facts};
use super::super::scan::ParentMove;
use super::{RECORDING_MAX, Read, Watcher};
use crate::domain::schedule::WatchScope;
use crate::domain::template::ZnodeFacts;
use crate::domain::znode::{ZnodeStat, ZnodeVersion};
use crate::metrics;
use crate::store::model::{CursorMove, Recording};
use crate::triggers::gate::Gate;

impl Watcher {
    /// Judges an answer, and those that have come behind it, into one write.
    pub(super) async fn on_read(&mut self, first: Read) -> Result<(), ZnodeTriggerError> {
        let mut recording = Recording::default();
        let mut arms = false;
        let mut next = Some(first);
        while let Some(read) = next.take() {
            match read {
                Read::PassDone => arms = self.end_pass(&mut recording),
                Read::Znode { path, answer: Err(error), .. } => {
                    if error.ends_session() {
                        debug!(schedule = %self.rules.schedule.name, %path, %error, "a read was cut off");
                        self.give_up_session();
                        break;
                    }
                    let problem = format!("{path} cannot be read: {error}");
                    match &mut self.pass {
                        Some(pass) => pass.problem = Some(problem),
                        None => self.trouble(Some(problem)),
                    }
                    // Without the data nothing can be decided: it stays unhandled, for the next look.
                    self.clean = None;
                }
                Read::Znode { path, planned, answer: Ok(now) } => {
                    let size = now.as_ref().map_or(0, |(data, _)| data.len());
                    self.largest_read_bytes = size.max(self.largest_read_bytes - self.largest_read_bytes / 16);
                    if !planned {
                        // What happens from now on must not overtake what is held back.
                        self.add_withheld(&mut recording);
                    }
                    self.on_znode(path, planned, now, &mut recording).await?;
                }
            }
            if self.withheld.len() >= RECORDING_MAX {
                self.add_withheld(&mut recording);
            }
            if recording.runs.len() >= RECORDING_MAX {
                break;
            }
            next = self.reads.next().now_or_never().flatten();
        }
        self.writes.record(recording, arms).await;
        Ok(())
    }

    async fn on_znode(
        &mut self,
        path: Arc<str>,
        planned: bool,
        now: Option<(Vec<u8>, ZnodeStat)>,
        recording: &mut Recording,
    ) -> Result<(), ZnodeTriggerError> {
        let handled = self.cursors.get(&path).copied();
        // A hint may overtake what the first look planned, and whichever answer comes first is the first sight.
        let sight = if self.unseen.remove(&path) { Sight::First } else { Sight::Usual };
        let stat = now.as_ref().map(|(_, stat)| *stat);
        let judgement = judge(&self.rules, handled, self.initialized, sight, stat.as_ref()).map_err(|source| {
            ZnodeTriggerError::OtherHistory {
                schedule: self.rules.schedule.name.clone(),
                path: Arc::clone(&path),
                source,
            }
        })?;
        let change = match judgement {
            Judgement::Unchanged => return Ok(()),
            Judgement::Moved => None,
            Judgement::Fires(change) => Some(change),
        };
        let previous = match handled {
            Some(handled) if change.is_some() && self.rules.uses_previous => {
                Some(previous_facts(&path, handled, self.writes.previous_data(&path).await?))
            }
            _ => None,
        };
        let data = now.as_ref().filter(|_| self.rules.uses_previous).map(|(data, _)| data.clone());
        let moved = self.cursor_to(&path, stat.as_ref().map(ZnodeStat::seen), data);
        let Some(change) = change else {
            self.add_move(moved, recording);
            return Ok(());
        };
        let at = self.parts.clock.now();
        let fired = fired(&path, change, now, at);
        metrics::znode_coalesced(&self.label, u64::try_from(change.coalesced).unwrap_or(0));
        match self.rules.condition(&fired, previous.as_ref(), at) {
            Condition::Row(row) => {
                recording.runs.push(*row);
                self.add_move(moved, recording);
            }
            Condition::Decided(decision) => {
                recording.decisions.push(decision);
                self.add_move(moved, recording);
            }
            Condition::Holds => {
                let catch_up = self.catch_up.as_ref().filter(|_| planned && sight == Sight::Usual);
                let cause = match &self.gate {
                    Gate::Skipping { reason } => Some(Withheld::Skipping { reason: Arc::clone(reason) }),
                    _ => catch_up.and_then(|cause| self.rules.withholds(&fired, cause, at)),
                };
                match cause {
                    Some(cause) => self.withheld.push((fired, cause, moved)),
                    None => self.fire(fired, previous.as_ref(), moved, recording),
                }
            }
        }
        Ok(())
    }

    fn fire(&mut self, fired: Fired, previous: Option<&Arc<ZnodeFacts>>, moved: CursorMove, recording: &mut Recording) {
        let Some(settling) = self.settling else {
            recording.runs.push(self.rules.run(&fired, previous));
            recording.cursors.push(moved);
            return;
        };
        let now = Instant::now();
        self.batch.add(fired.for_batch(), moved, now);
        // A full batch is due at once.
        if self.batch.due_at(&settling).is_some_and(|due| due <= now) {
            self.drain_batch(recording);
        }
    }

    /// One row for all changes that are held back for the same reason.
    fn add_withheld(&mut self, recording: &mut Recording) {
        let mut groups: Vec<(Withheld, Vec<Fired>)> = Vec::new();
        for (fired, cause, moved) in self.withheld.drain(..) {
            recording.cursors.push(moved);
            match groups.iter_mut().find(|(known, _)| *known == cause) {
                Some((_, changes)) => changes.push(fired),
                None => groups.push((cause, vec![fired])),
            }
        }
        recording.runs.extend(groups.iter().map(|(cause, changes)| self.rules.withheld_row(changes, cause)));
    }

    pub(super) async fn flush_withheld(&mut self) {
        let mut recording = Recording::default();
        self.add_withheld(&mut recording);
        self.writes.record(recording, false).await;
    }

    /// Ends a pass; whether the trigger is armed once this is written.
    fn end_pass(&mut self, recording: &mut Recording) -> bool {
        let Some(pass) = self.pass.take() else { return false };
        self.add_withheld(recording);
        let path = Arc::clone(&self.rules.trigger.path);
        if let Some(ParentMove { seen }) = pass.parent {
            let moved = self.cursor_to(&path, seen, None);
            recording.cursors.push(moved);
        }
        // A single znode that could not be read was not looked at; it is still to be seen first.
        if self.initialized.is_none() && (pass.problem.is_none() || self.rules.trigger.watch != WatchScope::Node) {
            self.initialized = Some(pass.highest_zxid);
            recording.cursors.push(CursorMove::ZnodeInitialized {
                schedule: self.rules.schedule.name.clone(),
                zxid: pass.highest_zxid,
            });
        }
        if pass.problem.is_none() {
            self.seen_zxid = self.seen_zxid.max(pass.highest_zxid);
        }
        self.clean = pass.clean.filter(|_| pass.problem.is_none());
        self.catch_up = None;
        // What flooded the hints during the pass may be newer than its look.
        let pause = if self.look_again { Duration::ZERO } else { self.look_interval() };
        self.next_look_at = Instant::now() + pause;
        self.trouble(pass.problem);
        true
    }

    /// Moves the cursor in memory, and gives the move for the ledger.
    pub(super) fn cursor_to(
        &mut self,
        path: &Arc<str>,
        seen: Option<ZnodeVersion>,
        data: Option<Vec<u8>>,
    ) -> CursorMove {
        match seen {
            Some(seen) => self.cursors.insert(Arc::clone(path), seen),
            None => self.cursors.remove(path),
        };
        self.writes.cursor(path, seen, data)
    }

    /// Adds a move without a change: behind the changes that wait, if any do.
    fn add_move(&mut self, moved: CursorMove, recording: &mut Recording) {
        if self.batch.is_empty() {
            recording.cursors.push(moved);
        } else {
            self.batch.add_move(moved);
        }
    }

    fn drain_batch(&mut self, recording: &mut Recording) {
        let (changes, moves) = self.batch.take();
        if !changes.is_empty() {
            recording.runs.push(self.rules.batch_run(&changes));
        }
        recording.cursors.extend(moves);
    }

    pub(super) async fn flush_batch(&mut self) {
        let mut recording = Recording::default();
        self.drain_batch(&mut recording);
        self.writes.record(recording, false).await;
    }
}
