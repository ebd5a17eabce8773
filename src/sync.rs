//! Keeps variables, pools and connections of Airflows in step with znodes.
//!
//! A sync is one loop of the leader's term (`keeper`): a hint from ZooKeeper, or its interval, leads to a
//! comparison (`pass`), which reads everything anew, has `domain::sync::plan` decide, and carries that
//! out. It never changes or deletes what flowkeeper did not write, and never tells a value to anybody but
//! the Airflow that it is for.

mod apply;
mod desk;
pub mod keeper;
pub mod key;
pub mod pass;
pub mod report;
mod resting;
mod source;
mod timing;
pub mod turns;

pub use desk::{Desks, Unheard};
