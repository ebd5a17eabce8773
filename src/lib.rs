//! flowkeeper decides when an Airflow DAG runs (cron, a znode change, the health of a ZooKeeper
//! ensemble), proves that it ran once, and remembers what became of it.
//!
//! The modules are named after the steps of the way that data takes: configuration → triggers → the
//! ledger in [`store`] → dispatcher → Airflow → monitor → history, which the HTTP API and the
//! commands show. [`domain`] holds the decisions as pure functions and knows none of the others.
//! `docs/architecture.md` has the map and the invariants.

pub mod airflow;
pub mod app;
pub mod chores;
pub mod cli;
pub mod clock;
pub mod components;
pub mod config;
pub mod definitions;
pub mod dispatcher;
pub mod domain;
pub mod ensembles;
pub mod health;
pub mod http;
pub mod lifecycle;
pub mod locks;
pub mod members;
pub mod metrics;
pub mod monitor;
pub mod operations;
pub mod overview;
pub mod publisher;
pub mod secret;
pub mod status;
pub mod store;
pub mod sync;
pub mod triggers;
pub mod vigil;
pub mod why;
pub mod zookeeper;
