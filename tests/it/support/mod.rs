//! What stories share: real servers, a faulty network, and a world to tell them in.

pub(crate) mod airflow;
pub(crate) mod airflow_kept;
pub(crate) mod airflow_own;
pub(crate) mod airflow_tasks;
pub(crate) mod airflow_way;
pub(crate) mod browser;
pub(crate) mod certificates;
pub(crate) mod children;
pub(crate) mod ensemble;
pub(crate) mod fake_airflow;
pub(crate) mod member;
pub(crate) mod participant;
pub(crate) mod ports;
#[allow(dead_code, reason = "the tests of `src/store` use this file too, and other parts of it")]
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod random;
pub(crate) mod real_airflow;
pub(crate) mod rows;
pub(crate) mod sync_story;
pub(crate) mod team;
pub(crate) mod world;
pub(crate) mod zookeeper;
