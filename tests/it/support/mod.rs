//! What stories share: real servers, a faulty network, and a world to tell them in.

pub(crate) mod airflow;
pub(crate) mod fake_airflow;
pub(crate) mod member;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod real_airflow;
pub(crate) mod world;
pub(crate) mod zookeeper;
