//! The ledger's promises, each on a real file of SQLite and on a real PostgreSQL.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;
use sqlx::Connection as _;

use super::model::*;
use super::*;
use crate::domain::run::{AirflowState, RunId, RunState};
use crate::domain::schedule::{Consume, Overlap, ScheduleName, TriggerKind};
use crate::domain::znode::ZnodeVersion;

mod components;
mod cutting;
mod definitions;
mod failing;
mod following;
mod health;
mod lineage;
mod lists;
mod opening;
mod operating;
#[path = "../../tests/it/support/ports.rs"]
mod ports;
#[allow(dead_code, reason = "the stories of tests/it use this file too, and other parts of it")]
#[path = "../../tests/it/support/postgres.rs"]
mod postgres;
mod racing;
mod reading;
mod recording;
mod renaming;
mod snapshots;
mod syncing;

use postgres::PostgresServer;

/// How long anything may take that a test waits for.
const PATIENCE: Duration = Duration::from_mins(3);

/// The databases that the ledger promises the same on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    Sqlite,
    Postgres,
}

/// Makes tests of functions that take a [`World`] or a [`Place`]: one on each kind of store.
macro_rules! on_both_stores {
    ($fixture:ident: $($test:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::$fixture::on(super::Store::Sqlite).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::$fixture::on(super::Store::Postgres).await).await;
            })*
        }
    };
}
use on_both_stores;

/// Where a store may be made: an empty database.
struct Place {
    url: String,
    /// Goes with the test.
    _directory: Option<tempfile::TempDir>,
}

impl Place {
    async fn on(store: Store) -> Self {
        match store {
            Store::Sqlite => {
                let directory = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", directory.path().join("flowkeeper.db").display());
                Self { url, _directory: Some(directory) }
            }
            Store::Postgres => Self { url: PostgresServer::shared().await.create_database().await, _directory: None },
        }
    }

    /// A connection past the ledger.
    async fn connect(&self) -> sqlx::AnyConnection {
        sqlx::any::install_default_drivers();
        let url = if self.url.starts_with("sqlite") { format!("{}?mode=rwc", self.url) } else { self.url.clone() };
        sqlx::AnyConnection::connect(&url).await.unwrap()
    }

    /// Runs a statement past the ledger.
    async fn execute(&self, sql: &str) {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut self.connect().await).await.unwrap();
    }
}

/// A ledger with a leader and two schedules.
struct World {
    place: Place,
    ledger: Ledger,
    leadership: Leadership,
    clock: Clock,
}

fn start() -> Timestamp {
    "2026-11-22T02:30:00Z".parse().unwrap()
}

impl World {
    async fn on(store: Store) -> Self {
        let place = Place::on(store).await;
        let url = place.url.clone();
        Self::at(place, &url).await
    }

    /// With a way to the database that is not its own address.
    async fn at(place: Place, url: &str) -> Self {
        let clock = Clock::manual(start());
        let ledger = Ledger::open(url, clock.clone()).await.unwrap();
        let leadership = ledger.take_lead("test").await.unwrap();
        let world = Self { place, ledger, leadership, clock };
        world.adopt(&[("nightly", "cron 1"), ("inbox", "znode 1")]).await;
        world
    }

    async fn adopt(&self, schedules: &[(&str, &str)]) {
        let schedules: Vec<_> = schedules
            .iter()
            .map(|(schedule, key)| TriggerIdentity { name: name(schedule), was: Vec::new(), key: (*key).to_owned() })
            .collect();
        self.ledger.adopt_schedules(&self.leadership, &schedules, self.clock.now()).await.unwrap();
    }

    async fn record(&self, run: NewRun) -> RecordedRun {
        let recording = Recording { runs: vec![run], ..Recording::default() };
        self.ledger.record(&self.leadership, recording).await.unwrap().remove(0)
    }

    async fn see(&self, id: &str, state: AirflowState) {
        let note = Some(format!("flowkeeper store {}", self.ledger.store_id()));
        let seen = vec![Sighting { note, ..sighting(id, state) }];
        self.ledger.record_sightings(&self.leadership, "main", seen, None).await.unwrap();
    }

    async fn state(&self, id: RunId) -> RunState {
        self.ledger.run(&id.to_string()).await.unwrap().unwrap().state
    }

    fn audit() -> NewAudit {
        NewAudit {
            actor: "local".into(),
            source: "127.0.0.1".into(),
            action: "test",
            target: "nightly".into(),
            detail: None,
            reason: None,
        }
    }
}

fn name(text: &str) -> ScheduleName {
    ScheduleName::new(text).unwrap()
}

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn cron_run(at: Timestamp, overlap: Overlap) -> NewRun {
    NewRun {
        schedule: name("nightly"),
        owner: Some("platform".into()),
        airflow: "main".into(),
        dag_id: "nightly_load".into(),
        dag_run_id: format!("flowkeeper__nightly__{at}"),
        trigger: TriggerKind::Cron,
        nominal_time: Some(at),
        due_at: at,
        covers: None,
        state: RunState::Pending,
        reason: None,
        coalesced: 0,
        conf: json(r#"{"b": 1, "a": 2}"#),
        logical_date: Some(at),
        data_interval: Some((at, at)),
        overlap,
        consume: None,
        lock: None,
    }
}

fn sighting(id: &str, state: AirflowState) -> Sighting {
    Sighting {
        dag_id: "nightly_load".into(),
        dag_run_id: id.into(),
        state,
        run_type: Some("manual".into()),
        logical_date: None,
        queued_at: None,
        started_at: (state != AirflowState::Queued).then_some(start()),
        ended_at: (!state.as_run_state().is_open()).then(|| start() + SignedDuration::from_secs(9)),
        note: None,
        conf: None,
        keep: true,
    }
}

fn accepted(id: RunId, number: i64) -> AttemptRecord {
    AttemptRecord {
        run: id,
        number,
        started_at: start(),
        ended_at: start(),
        http_status: Some(200),
        detail: None,
        outcome: AttemptOutcome::Accepted(AirflowState::Queued),
    }
}

fn minute(n: i64) -> Timestamp {
    start() + SignedDuration::from_mins(n)
}
