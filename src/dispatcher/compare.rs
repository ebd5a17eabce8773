//! What the dispatcher reads from the ledger: everything at its start, and now and then again.
//!
//! From the start it follows what it is told. Where it was told too little (events were missed, or
//! contradict each other), and every five minutes whatever happened, it compares: the ledger is right.

use std::collections::HashSet;

use super::queue::Stage;
use super::{Dispatcher, PAGE};
use crate::domain::run::RunId;
use crate::domain::schedule::ScheduleName;
use crate::store::model::Ticket;
use crate::store::patience::answer_while_leading;
use crate::store::{ActiveRun, Ledger, LockOwner, StoreError};

/// How much is to be compared with the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Compare {
    /// The runs that are known, and those open in Airflow.
    Known,
    /// Also what is pending, which may be a lot.
    All,
}

/// What the ledger tells of runs that may be in Airflow.
struct InAirflow {
    active: Vec<ActiveRun>,
    owners: Vec<LockOwner>,
}

impl InAirflow {
    async fn read(ledger: &Ledger) -> Result<Self, StoreError> {
        Ok(Self { active: ledger.active().await?, owners: ledger.lock_owners().await? })
    }
}

impl Dispatcher {
    /// Takes over the open rows, of this life or an earlier one; `false` when the lead was lost before
    /// they could be read.
    pub(super) async fn load(&mut self) -> Result<bool, StoreError> {
        const WHAT: &str = "the open rows";
        let (ledger, leadership) = (self.ledger.clone(), self.leadership.clone());
        let reading = answer_while_leading(&leadership, WHAT, || InAirflow::read(&ledger));
        let Some(in_airflow) = reading.await else { return Ok(false) };
        self.take_over(in_airflow?);
        let mut next = Some(RunId(0));
        while let Some(after) = next {
            let reading = answer_while_leading(&leadership, WHAT, || ledger.pending(None, after, PAGE));
            let Some(page) = reading.await else { return Ok(false) };
            next = self.offer_page(page?);
        }
        self.take_in_force();
        self.locks.ready();
        Ok(true)
    }

    fn take_over(&mut self, in_airflow: InAirflow) {
        self.locks.load(in_airflow.owners);
        for active in in_airflow.active {
            self.opened(active);
        }
    }

    /// Takes in a page of pending rows; after which row the next page begins.
    fn offer_page(&mut self, page: Vec<Ticket>) -> Option<RunId> {
        let last = page.last()?.id;
        self.offer(page);
        Some(last)
    }

    /// The open rows are to be compared at the next report, this thoroughly at least.
    pub(super) fn compare_soon(&mut self, compare: Compare) {
        self.owes = self.owes.max(Some(compare));
    }

    /// Compares what is held here with the ledger; tried again with the next report if that fails.
    pub(super) async fn compare(&mut self, compare: Compare) {
        match self.compare_with_ledger(compare).await {
            Ok(()) => self.owes = self.owes.filter(|owed| *owed > compare),
            Err(error) => {
                self.compare_soon(compare);
                tracing::warn!(error = %error, "the open rows could not be read; tried again in a second");
            }
        }
    }

    /// What is read is newer than all that was heard, and what is to be heard yet changes it in the order
    /// in which it happened.
    async fn compare_with_ledger(&mut self, compare: Compare) -> Result<(), StoreError> {
        let elsewhere: Vec<RunId> = self
            .airflows
            .values()
            .flat_map(|lanes| lanes.queue.stages())
            .filter_map(|(_, run, stage)| (!matches!(stage, Stage::Open(_))).then_some(run))
            .collect();
        let in_airflow = InAirflow::read(&self.ledger).await?;
        let moved = self.ledger.not_pending(&elsewhere).await?;
        let active: HashSet<RunId> = in_airflow.active.iter().map(|active| active.id).collect();
        for lanes in self.airflows.values_mut() {
            let over = |(schedule, run, stage): (&ScheduleName, RunId, &Stage)| {
                let accepted = if matches!(stage, Stage::Open(_)) {
                    (!active.contains(&run)).then_some(true)
                } else {
                    moved.get(&run).filter(|state| !state.is_open()).map(|state| state.was_accepted())
                };
                Some((schedule.clone(), run, accepted?))
            };
            let over: Vec<_> = lanes.queue.stages().filter_map(over).collect();
            for (schedule, run, accepted) in over {
                lanes.cancelling.remove(&run);
                lanes.queue.closed(&schedule, run, accepted);
            }
            // What was in doubt is known now.
            lanes.queue.take_doubt();
        }
        self.take_over(in_airflow);
        let mut next = (compare == Compare::All).then_some(RunId(0));
        while let Some(after) = next {
            let page = self.ledger.pending(None, after, PAGE).await?;
            next = self.offer_page(page);
        }
        let owners = self.locks.owners();
        let still_open = self.ledger.open_among(&owners).await?;
        // What is over and has been handed out may be in Airflow: the answer decides.
        let known = |run: &RunId| self.airflows.values().any(|lanes| lanes.queue.knows(*run));
        let over: Vec<RunId> = owners.into_iter().filter(|run| !still_open.contains(run) && !known(run)).collect();
        self.locks.give_back(over);
        Ok(())
    }
}
