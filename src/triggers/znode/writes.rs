//! The way of a trigger's findings into the ledger: in order, many under way.
//!
//! The trigger does not wait for one write before the next. Data that a write brings is kept here
//! until the ledger has it, since `previous` may be asked for before.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use futures_util::future::{BoxFuture, FutureExt, ready};
use futures_util::stream::{FuturesOrdered, StreamExt};

use crate::domain::schedule::ScheduleName;
use crate::domain::znode::ZnodeVersion;
use crate::store::model::{CursorMove, Recording};
use crate::store::patience::answer_while_leading;
use crate::store::{Leadership, Ledger, StoreError};

/// What a write brought, once it is durable.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The first diff is done with it.
    pub(super) arms: bool,
    moves: Vec<(Arc<str>, Option<ZnodeVersion>)>,
}

/// A version that the ledger may not have yet, and its data.
type Unwritten = (Option<ZnodeVersion>, Option<Vec<u8>>);

pub(super) struct Writes {
    ledger: Ledger,
    leadership: Leadership,
    schedule: ScheduleName,
    /// Whether data is kept for `previous`.
    keeps_data: bool,
    under_way: FuturesOrdered<BoxFuture<'static, Result<Written, StoreError>>>,
    unwritten: HashMap<Arc<str>, Unwritten>,
}

impl Writes {
    pub(super) fn new(ledger: Ledger, leadership: Leadership, schedule: ScheduleName, keeps_data: bool) -> Self {
        Self { ledger, leadership, schedule, keeps_data, under_way: FuturesOrdered::new(), unwritten: HashMap::new() }
    }

    /// How many are under way.
    pub(super) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// Waits for the oldest one. Cancel-safe; never ends while none is under way.
    pub(super) async fn next(&mut self) -> Result<Written, StoreError> {
        let Some(result) = self.under_way.next().await else { return std::future::pending().await };
        let written = result?;
        for (path, seen) in &written.moves {
            if self.unwritten.get(path).is_some_and(|(newest, _)| newest == seen) {
                self.unwritten.remove(path);
            }
        }
        Ok(written)
    }

    /// The move of a cursor, to be recorded sooner or later.
    pub(super) fn cursor(&mut self, path: &Arc<str>, seen: Option<ZnodeVersion>, data: Option<Vec<u8>>) -> CursorMove {
        let data = data.filter(|_| self.keeps_data);
        if self.keeps_data {
            self.unwritten.insert(Arc::clone(path), (seen, data.clone()));
        }
        CursorMove::Znode { schedule: self.schedule.clone(), path: path.to_string(), seen, data }
    }

    /// The data that was last handled; from memory as long as the ledger may not have it.
    pub(super) async fn previous_data(&mut self, path: &Arc<str>) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some((_, data)) = self.unwritten.get(path) {
            return Ok(data.clone());
        }
        // A trigger does not stop because the readers are busy.
        let what = format!("the state of {path} last handled for {}", self.schedule);
        let ask = || self.ledger.previous_data(&self.schedule, path);
        // Without the lead there is nobody to tell.
        answer_while_leading(&self.leadership, &what, ask).await.unwrap_or(Err(StoreError::Closed))
    }

    /// Hands a write to the ledger, behind all earlier ones, and does not wait for it.
    pub(super) async fn record(&mut self, recording: Recording, arms: bool) {
        if recording.runs.is_empty() && recording.cursors.is_empty() && recording.decisions.is_empty() && !arms {
            return;
        }
        let moves = recording.cursors.iter().filter(|_| self.keeps_data).filter_map(|moved| match moved {
            CursorMove::Znode { path, seen, .. } => Some((path.as_str().into(), *seen)),
            _ => None,
        });
        let written = Written { arms, moves: moves.collect() };
        let (ledger, leadership) = (self.ledger.clone(), self.leadership.clone());
        let mut write: BoxFuture<'static, _> =
            Box::pin(async move { ledger.record(&leadership, recording).await.map(|_| written) });
        // Its first poll takes its place in the ledger's queue, so it happens here, in order.
        match poll_fn(|context| Poll::Ready(write.poll_unpin(context))).await {
            Poll::Ready(result) => self.under_way.push_back(Box::pin(ready(result))),
            Poll::Pending => self.under_way.push_back(write),
        }
    }
}
