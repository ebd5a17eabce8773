//! `locks`: who holds which lock, and who waits. Reads ZooKeeper itself, so it works when nothing serves.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::error::CommandError;
use super::output::{Cell, Fit, Rows, Tone};
use super::time::show_time;
use crate::app::connect;
use crate::locks::listing::{self, ListError, LockState};

/// How long the home ensemble may take to open a session.
const ZOOKEEPER_PATIENCE: Duration = Duration::from_secs(5);

const FIELDS: [&str; 12] = [
    "lock",
    "position",
    "state",
    "since",
    "held_since",
    "run",
    "dag_run_id",
    "schedule",
    "store_id",
    "client",
    "text",
    "node",
];

pub(super) async fn run(context: &Context) -> Result<(), CommandError> {
    let config = context.config()?;
    let zones = context.zones(&config);
    let zookeeper = config.zookeeper.as_ref().ok_or_else(|| {
        CommandError::usage("failed to list locks: the configuration has no home ensemble")
            .hint("add a section [zookeeper] with `connect`")
    })?;
    let environment = Arc::new(context.environment.clone());
    let settings = connect::zookeeper(zookeeper.connection.clone(), environment, "zookeeper".to_owned())
        .map_err(|error| CommandError::usage(format!("failed to {error}")))?;
    let away = |reason: String| {
        CommandError::unreachable(format!("failed to read the locks in ZooKeeper: {reason}"))
            .hint("is ZooKeeper running, and can this host reach it?")
    };
    let visit = connect::visit(None, settings, context.clock.clone(), ZOOKEEPER_PATIENCE).await.map_err(away)?;
    let ledger = context.ledger_if_any(&config).await?;
    let locks = match listing::list(&visit.session, &zookeeper.root, ledger.as_ref()).await {
        Ok(locks) => locks,
        Err(ListError::ZooKeeper(error)) => return Err(away(error.to_string())),
        Err(ListError::Store(error)) => return Err(error.into()),
    };
    let rows = || {
        let mut rows = Rows::new([
            ("LOCK", Fit::Wrap),
            ("STATE", Fit::Whole),
            ("SINCE", Fit::Whole),
            ("WHO", Fit::Wrap),
            ("DAG RUN", Fit::Optional),
        ]);
        for lock in &locks {
            let state = match lock.state {
                LockState::Held => Cell::toned("held", Tone::Active),
                LockState::Waiting => Cell::toned(format!("waits, {}", lock.position - 1), Tone::Muted),
            };
            let zone = lock.schedule.as_deref().map_or_else(|| zones.common(), |schedule| zones.of(schedule));
            let since = lock.held_since.or(lock.since).map(|since| show_time(since, zone)).unwrap_or_default();
            let dag_run_id = lock.dag_run_id.clone().unwrap_or_default();
            rows.push([lock.lock.clone().into(), state, since.into(), lock.who().into(), dag_run_id.into()]);
        }
        rows
    };
    context.output.list(&locks, &FIELDS, rows, "nobody holds a lock")
}
