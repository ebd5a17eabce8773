//! Distributed locks in ZooKeeper, in the layout of Curator's `InterProcessMutex`.
//!
//! A lock is a znode under `locks/` of the root; whoever wants it makes a sequential znode below, and
//! the lowest number holds it. A run's znode is persistent, so that the run owns the lock and not the
//! process that leads; [`keeper`] makes and deletes those. What is decided is in [`plan`], without
//! input or output; [`listing`] shows holders and those that wait, whoever they are. Nothing here
//! submits or closes runs.

pub mod guard;
pub mod keeper;
pub mod listing;
mod node;
mod plan;

pub use node::NodeData;

/// The znode above all locks.
pub fn locks_path(root: &str) -> String {
    format!("{}/locks", root.trim_end_matches('/'))
}

/// The znode of a lock.
pub fn lock_path(root: &str, lock: &str) -> String {
    format!("{}/{lock}", locks_path(root))
}
