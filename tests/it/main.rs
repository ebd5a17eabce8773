//! Stories that flowkeeper promises, against the real things: one binary, a module a theme.

mod airflow_client;
mod airflow_real;
mod chaos;
mod cli;
mod crash;
mod election;
mod failover;
mod http_access;
mod http_actions;
mod http_airflow;
mod http_events;
mod http_reading;
mod locks;
mod overlap;
mod postgres;
mod shadow;
mod story_airflow2;
mod story_burst;
mod story_outage;
mod story_runs;
mod story_trouble;
mod support;
mod znode;
mod znode_consume;
mod znode_faults;
mod znode_scale;
