//! Opening a ledger: its tables, its identity, and the refusal of databases that are not ours.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::AnyConnection;
use tokio::sync::{broadcast, mpsc, watch};

use super::database::{Access, Database};
use super::error::ConnectFault;
use super::progress::Questions;
use super::readers::Readers;
use super::sql::{Columns, bind};
use super::turn::Turns;
use super::{EVENT_BACKLOG, Inner, Ledger, StoreError, StoreHealth, WRITE_QUEUE_LENGTH, migrations, writer};
use crate::clock::Clock;
use crate::vigil::Vigil;

/// How long opening a file is tried while another process may be creating its tables, and the pause
/// between. (On PostgreSQL, one waits for the other.)
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

impl Ledger {
    /// Opens the ledger at `url` (`sqlite://PATH` or `postgres://USER@HOST/DATABASE`), creating or
    /// upgrading its tables, and starts its writer. Any number of members may open one at once.
    pub async fn open(url: &str, clock: Clock) -> Result<Self, StoreError> {
        Self::open_with(url, clock, false).await
    }

    /// The same for a shadow: what comes due is recorded, and marked as not to be submitted.
    pub async fn open_shadow(url: &str, clock: Clock) -> Result<Self, StoreError> {
        Self::open_with(url, clock, true).await
    }

    async fn open_with(url: &str, clock: Clock, shadow: bool) -> Result<Self, StoreError> {
        let database = Arc::new(Database::parse(url)?);
        let started = tokio::time::Instant::now();
        let (connection, store_id) = loop {
            match prepare(&database, shadow).await {
                Err(StoreError::Database(_)) if !database.is_remote() && started.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                // It is the opening that failed, for a reason that the database names.
                Err(StoreError::Database(error)) => {
                    return Err(StoreError::Connect { url: database.shown(), fault: ConnectFault::of(&error) });
                }
                prepared => break prepared?,
            }
        };
        let reader = database.connect(Access::Beside).await?;
        let (sender, work) = mpsc::channel(WRITE_QUEUE_LENGTH);
        let vigil = Vigil::default();
        let inner = Arc::new(Inner {
            store_id,
            vigil: vigil.clone(),
            clock,
            turns: Turns::new(Arc::clone(&database), Access::Create, Some(connection)),
            readers: Arc::new(Readers::new(Arc::clone(&database), Access::Beside, reader)),
            questions: Questions::default(),
            lead_reader: Readers::single(Arc::clone(&database), Access::Beside),
            database,
            writer: sender,
            events: broadcast::Sender::new(EVENT_BACKLOG),
            sequence: std::sync::atomic::AtomicU64::new(0),
            tickets: Mutex::new(None),
            health: watch::Sender::new(StoreHealth::Writable),
            pauses: watch::Sender::new(0),
            shadow,
        });
        // The writer must not keep the ledger alive, or it would never see its last sender go.
        vigil.spawn(writer::run(Arc::downgrade(&inner), work));
        Ok(Self(inner, None))
    }

    /// Opens an existing ledger for reading beside a member that serves, or when none does.
    pub async fn open_read_only(url: &str, clock: Clock) -> Result<Self, StoreError> {
        let database = Arc::new(Database::parse(url)?);
        if let Some(store) = database.absent_file() {
            return Err(StoreError::Absent { store, what: "there is no such file" });
        }
        let mut connection = database.connect(Access::ReadOnly).await?;
        let store_id = read_identity(&database, &mut connection).await.map_err(|error| match error {
            StoreError::Database(error) => {
                StoreError::Connect { url: database.shown(), fault: ConnectFault::of(&error) }
            }
            error => error,
        })?;
        // No writer listens on the other end: writes answer that the ledger is closed.
        let (sender, _) = mpsc::channel(1);
        let inner = Arc::new(Inner {
            store_id,
            vigil: Vigil::default(),
            clock,
            turns: Turns::new(Arc::clone(&database), Access::ReadOnly, None),
            readers: Arc::new(Readers::new(Arc::clone(&database), Access::ReadOnly, connection)),
            questions: Questions::default(),
            lead_reader: Readers::single(Arc::clone(&database), Access::ReadOnly),
            database,
            writer: sender,
            events: broadcast::Sender::new(1),
            sequence: std::sync::atomic::AtomicU64::new(0),
            tickets: Mutex::new(None),
            health: watch::Sender::new(StoreHealth::Writable),
            pauses: watch::Sender::new(0),
            shadow: false,
        });
        Ok(Self(inner, None))
    }
}

/// A connection to a ledger whose tables are there, and the ledger's identity.
async fn prepare(database: &Database, shadow: bool) -> Result<(AnyConnection, String), StoreError> {
    let mut connection = database.connect(Access::Create).await?;
    refuse_foreign(database, &mut connection).await?;
    database.refuse_encoding(&mut connection).await?;
    migrations::migrate(database).await?;
    migrations::refuse_newer(database, &mut connection).await?;
    if identity(&mut connection).await?.is_none() {
        draw_identity(&mut connection, shadow).await?;
    }
    match identity(&mut connection).await? {
        // A shadow and a member that submits must not share a store: what one covers, the other would
        // not run.
        Some((_, is_shadow)) if is_shadow != shadow => Err(StoreError::Shadow { url: database.shown(), is_shadow }),
        Some((store_id, _)) => Ok((connection, store_id)),
        None => Err(StoreError::Corrupt { what: "the ledger has no identity".to_owned() }),
    }
}

/// The identity of a ledger that is there.
async fn read_identity(database: &Database, connection: &mut AnyConnection) -> Result<String, StoreError> {
    let empty = || StoreError::Absent { store: database.shown(), what: "the database is empty" };
    if !refuse_foreign(database, connection).await? {
        return Err(empty());
    }
    migrations::refuse_older(database, connection).await?;
    migrations::refuse_newer(database, connection).await?;
    identity(connection).await?.map(|(store_id, _)| store_id).ok_or_else(empty)
}

/// Refuses a database that holds tables but no ledger; whether it holds a ledger.
async fn refuse_foreign(database: &Database, connection: &mut AnyConnection) -> Result<bool, StoreError> {
    let mut tables = database.tables(connection).await?;
    // The first thing that a member creates that is just opening an empty database.
    tables.retain(|table| table != "_sqlx_migrations");
    let foreign = |table: &str| StoreError::Foreign { url: database.shown(), table: table.to_owned() };
    if !tables.iter().any(|table| table == "ledger") {
        return match tables.first() {
            Some(table) => Err(foreign(table)),
            None => Ok(false),
        };
    }
    let named = bind("SELECT application FROM ledger WHERE singleton = 1", []).fetch_all(connection).await;
    let ours = named.is_ok_and(|rows| {
        rows.iter().all(|row| Columns::of(row).text().is_ok_and(|application| application == "flowkeeper"))
    });
    if ours { Ok(true) } else { Err(foreign("ledger")) }
}

/// The id of the store, and whether it is a shadow's.
async fn identity(connection: &mut AnyConnection) -> Result<Option<(String, bool)>, StoreError> {
    let rows = bind("SELECT store_id, is_shadow FROM ledger WHERE singleton = 1", []).fetch_all(connection).await?;
    let read = |row| {
        let mut columns = Columns::of(row);
        Ok((columns.text()?, columns.boolean()?))
    };
    rows.first().map(read).transpose()
}

/// Draws the identity of a new store. Of several members that open it at once, one does.
async fn draw_identity(connection: &mut AnyConnection, shadow: bool) -> Result<(), StoreError> {
    let drawn = uuid::Uuid::new_v4().simple().to_string();
    let sql = "INSERT INTO ledger (singleton, application, store_id, epoch, is_shadow) VALUES (1, 'flowkeeper', $1, 0, $2) \
               ON CONFLICT (singleton) DO NOTHING";
    bind(sql, [drawn.into(), shadow.into()]).execute(connection).await?;
    Ok(())
}
