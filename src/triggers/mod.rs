//! What makes schedules due: each trigger watches its source and records occurrences in the ledger.

pub mod consume;
pub mod cron;
pub mod ensemble;
pub mod gate;
pub mod gatekeeper;
pub mod lineage;
pub mod znode;

/// Up to how many schedules are told of one by one, where something happens to many at once.
pub(crate) const TOLD_ONE_BY_ONE: usize = 10;
