//! The decisions of flowkeeper as plain values and pure functions.
//!
//! Nothing here reads a clock, a file, a database or a network, and nothing is asynchronous: time,
//! identity and leadership come in as arguments. That is what makes each decision a table of cases.

pub mod calendar;
pub mod component;
pub mod edit;
pub mod ensemble;
pub mod health;
pub mod lineage;
pub mod note;
pub mod occurrence;
pub mod policy;
pub mod run;
pub mod schedule;
pub mod sync;
pub mod team;
pub mod template;
pub mod whereabouts;
pub mod znode;
