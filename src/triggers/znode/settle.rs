//! Batches: changes that settle together become one run. Pure; time comes in.

use std::time::Duration;

use tokio::time::Instant;

/// How many changes a batch holds where the schedule does not say.
pub(super) const DEFAULT_LIMIT: usize = 1000;

/// When a batch is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settling {
    /// Nothing was added for this long.
    pub(super) quiet: Duration,
    /// The first change is this old.
    pub(super) max: Option<Duration>,
    /// It holds this many changes.
    pub(super) limit: usize,
}

/// Changes that wait, and the cursor moves that belong to them.
///
/// All moves made while changes wait are held back with them, also those of changes that do not
/// fire: a cursor in the ledger must never be ahead of a change that is only in memory.
#[derive(Debug)]
pub(super) struct Batch<C, M> {
    changes: Vec<C>,
    moves: Vec<M>,
    first_at: Option<Instant>,
    last_at: Option<Instant>,
}

impl<C, M> Default for Batch<C, M> {
    fn default() -> Self {
        Self { changes: Vec::new(), moves: Vec::new(), first_at: None, last_at: None }
    }
}

impl<C, M> Batch<C, M> {
    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds a change and the move that it makes.
    pub(super) fn add(&mut self, change: C, moved: M, now: Instant) {
        self.changes.push(change);
        self.moves.push(moved);
        self.first_at.get_or_insert(now);
        self.last_at = Some(now);
    }

    /// Adds a move that no change belongs to.
    pub(super) fn add_move(&mut self, moved: M) {
        self.moves.push(moved);
    }

    /// When it is due; `None` while it is empty.
    pub(super) fn due_at(&self, settling: &Settling) -> Option<Instant> {
        let (first, last) = (self.first_at?, self.last_at?);
        if self.changes.len() >= settling.limit {
            return Some(last);
        }
        let quiet = last + settling.quiet;
        Some(settling.max.map_or(quiet, |max| quiet.min(first + max)))
    }

    /// Empties it.
    pub(super) fn take(&mut self) -> (Vec<C>, Vec<M>) {
        let batch = std::mem::take(self);
        (batch.changes, batch.moves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_batch_is_due_when_quiet_old_or_full() {
        let settling = Settling { quiet: seconds(2), max: Some(seconds(5)), limit: 4 };
        let start = Instant::now();
        let mut batch = Batch::default();
        assert_eq!(batch.due_at(&settling), None);
        // (seconds after the start, due after the start)
        for (at, due) in [(0, 2), (1, 3), (4, 5), (5, 5)] {
            batch.add(at, (), start + seconds(at));
            assert_eq!(batch.due_at(&settling), Some(start + seconds(due)), "after {at} s");
        }
        assert_eq!(batch.take().0, [0, 1, 4, 5]);
        assert_eq!(batch.due_at(&settling), None, "a new batch begins with its first change");
    }

    #[test]
    fn without_a_longest_time_only_quiet_counts() {
        let settling = Settling { quiet: seconds(2), max: None, limit: 1000 };
        let start = Instant::now();
        let mut batch = Batch::default();
        for at in 0..100 {
            batch.add((), (), start + seconds(at));
        }
        assert_eq!(batch.due_at(&settling), Some(start + seconds(101)));
    }

    #[test]
    fn moves_wait_with_the_changes_before_them() {
        let mut batch = Batch::default();
        batch.add("changed", 1, Instant::now());
        batch.add_move(2);
        assert_eq!(batch.take(), (vec!["changed"], vec![1, 2]));
        assert!(batch.is_empty());
    }
}
