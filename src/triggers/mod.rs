//! What makes schedules due: each trigger watches its source and records occurrences in the ledger.

pub mod consume;
pub mod cron;
pub mod ensemble;
pub mod gate;
pub mod gatekeeper;
pub mod lineage;
pub mod znode;
