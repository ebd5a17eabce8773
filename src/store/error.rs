//! What can go wrong with the ledger, and which of it passes by itself.

use std::fmt;
use std::io;

use sqlx::postgres::PgDatabaseError;

/// Why the ledger did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The `url` of `[store]` is not one that flowkeeper can open.
    #[error("open the store `{url}`: {reason}")]
    Unsupported {
        /// As configured, without a password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no connection to the database.
    #[error("open the store `{url}`: {fault}")]
    Connect {
        /// As configured, without a password.
        url: String,
        /// Why.
        fault: ConnectFault,
    },
    /// The database cannot keep every text.
    #[error("open the store `{url}`: the encoding of the database is {encoding}, which has not every character")]
    Encoding {
        /// As configured, without a password.
        url: String,
        /// Its encoding, in PostgreSQL's words.
        encoding: String,
    },
    /// Reading commands need a store that exists.
    #[error("open the store `{store}`: {what}")]
    Absent {
        /// The database file, or the URL without a password.
        store: String,
        /// What is missing.
        what: &'static str,
    },
    /// Reading commands need a store that has what they read.
    #[error(
        "open the store `{url}`: it was written by an older version of flowkeeper (migration {migration} is missing)"
    )]
    Older {
        /// As configured, without a password.
        url: String,
        /// The first migration that is missing.
        migration: i64,
    },
    /// The database holds something else.
    #[error("open the store `{url}`: the database holds tables of another program ({table})")]
    Foreign {
        /// As configured, without a password.
        url: String,
        /// One of the foreign tables.
        table: String,
    },
    /// The database was written by a newer flowkeeper, and says that this one cannot use it any more.
    #[error("open the store `{url}`: a newer version of flowkeeper has changed it (it needs migration {migration})")]
    Newer {
        /// As configured, without a password.
        url: String,
        /// The migration that a program must know to use it.
        migration: i64,
    },
    /// A shadow and a member that submits must not share a store.
    #[error("open the store `{url}`: it is {}", if *is_shadow { "a shadow's" } else { "not a shadow's" })]
    Shadow {
        /// As configured, without a password.
        url: String,
        /// Whose it is.
        is_shadow: bool,
    },
    /// Another member has taken the lead since.
    #[error("write to the ledger: a newer leader (epoch {current}) has taken over from epoch {held}")]
    Fenced {
        /// The epoch that was held.
        held: i64,
        /// The epoch in force.
        current: i64,
    },
    /// The same identity was recorded before with other content.
    #[error("record the run `{dag_run_id}`: it is already recorded with another {what}")]
    IdentityConflict {
        /// The identity.
        dag_run_id: String,
        /// What differs.
        what: &'static str,
    },
    /// There is no such row.
    #[error("find {what}: the ledger has none")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The row is in a state that does not allow it.
    #[error("{action} run {run}: it is {state}")]
    WrongState {
        /// What was asked.
        action: &'static str,
        /// The row.
        run: i64,
        /// Its state.
        state: &'static str,
    },
    /// A page cursor that this API did not hand out.
    #[error("read the next page: the cursor `{cursor}` is not one of ours")]
    BadCursor {
        /// As given.
        cursor: String,
    },
    /// A value in the database that no version of flowkeeper writes.
    #[error("read the ledger: {what}")]
    Corrupt {
        /// Which value.
        what: String,
    },
    /// The writer has stopped, since the process is ending.
    #[error("write to the ledger: it is shutting down")]
    Closed,
    /// The database did not say whether it committed, and does not answer since.
    #[error("write to the ledger: the database did not answer whether it is done")]
    OutcomeUnknown,
    /// The database refused or could not be reached.
    #[error("use the ledger: {0}")]
    Database(#[from] sqlx::Error),
}

/// Why a connection to the database did not come about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectFault {
    kind: ConnectFaultKind,
    /// The words of the database or of the operating system.
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConnectFaultKind {
    /// Nobody listens there, or nobody answers.
    Unreachable,
    /// It is starting or stopping, or takes no more connections.
    NotReady,
    /// The user or the password is not accepted.
    Login,
    NoDatabase,
    NotAllowed,
    Tls,
    /// The file cannot be opened as a database.
    File,
    /// Another process holds the file.
    Locked,
    Other,
}

impl ConnectFault {
    pub(super) fn of(error: &sqlx::Error) -> Self {
        let kind = match error {
            sqlx::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => ConnectFaultKind::Other,
            sqlx::Error::Io(_) => ConnectFaultKind::Unreachable,
            sqlx::Error::Tls(_) => ConnectFaultKind::Tls,
            sqlx::Error::Database(database) => match sqlstate(error).as_deref() {
                None if database.code().as_deref() == Some("5") => ConnectFaultKind::Locked,
                None => ConnectFaultKind::File,
                Some("28000" | "28P01") => ConnectFaultKind::Login,
                Some("3D000") => ConnectFaultKind::NoDatabase,
                Some("42501") => ConnectFaultKind::NotAllowed,
                Some(_) if database.is_transient_in_connect_phase() => ConnectFaultKind::NotReady,
                Some(_) => ConnectFaultKind::Other,
            },
            _ => ConnectFaultKind::Other,
        };
        let reason = match error {
            sqlx::Error::Database(error) => error.message().to_owned(),
            sqlx::Error::Io(error) => error.to_string(),
            sqlx::Error::Tls(error) => error.to_string(),
            error => error.to_string(),
        };
        Self { kind, reason }
    }

    /// Whether another process holds the file just now.
    pub(super) fn is_locked(&self) -> bool {
        self.kind == ConnectFaultKind::Locked
    }

    fn hint(&self) -> &'static str {
        match self.kind {
            ConnectFaultKind::Unreachable => "is PostgreSQL running there, and does it listen on that host and port?",
            ConnectFaultKind::NotReady => "it takes no connections now; try again, or raise `max_connections`",
            ConnectFaultKind::Login => {
                "give the password as `[store] password = { env = \"NAME\" }`, PGPASSWORD or ~/.pgpass; `pg_hba.conf` on \
                 the server decides who may log in from where"
            }
            ConnectFaultKind::NoDatabase => "create it, as a role that may: `createdb --owner USER DATABASE`",
            ConnectFaultKind::NotAllowed => {
                "`GRANT CONNECT ON DATABASE …`, or make the user the owner of its database, so that it may create tables"
            }
            ConnectFaultKind::Tls => {
                "`sslmode` says whether TLS is used, `sslrootcert` which authority signed the server's certificate"
            }
            ConnectFaultKind::File => "the directory must exist and be writable, and the file a flowkeeper's or new",
            ConnectFaultKind::Locked => "another process holds the file: try again when it has finished",
            ConnectFaultKind::Other => "check `[store] url`; docs/configuration.md has an example",
        }
    }
}

impl fmt::Display for ConnectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The five characters by which PostgreSQL tells errors apart; none for an error that is not its.
fn sqlstate(error: &sqlx::Error) -> Option<String> {
    let database = error.as_database_error()?;
    database.try_downcast_ref::<PgDatabaseError>().map(|error| error.code().to_owned())
}

/// Whether a statement that PostgreSQL refused with this code may succeed later, unchanged.
///
/// The codes are in the appendix "PostgreSQL Error Codes" of its documentation. What is not listed
/// blames the statement itself (22 data, 23 constraints, 42 names) or nothing that passes.
fn sqlstate_passes(code: &str) -> bool {
    match code {
        // A standby after a failover; a transaction that took too long.
        "25006" | "25P03" | "25P04"
        // Serialization, unknown completion, deadlock.
        | "40001" | "40003" | "40P01"
        // A right that was taken away: not the fault of what is written.
        | "42501"
        // An object or a lock in use.
        | "55006" | "55P03" => true,
        // Connections, resources, the operator, the system, logging in, the database.
        code => ["08", "53", "57", "58", "28", "3D"].iter().any(|class| code.starts_with(class)),
    }
}

/// Whether `SQLite`'s primary result code (sqlite.org/rescode.html) says that the same statement may
/// succeed later: the file is locked, the disk is full or cannot be used.
fn sqlite_passes(code: i64) -> bool {
    const BUSY: i64 = 5;
    const LOCKED: i64 = 6;
    const NO_MEMORY: i64 = 7;
    const READ_ONLY: i64 = 8;
    const INPUT_OUTPUT: i64 = 10;
    const FULL: i64 = 13;
    const CANNOT_OPEN: i64 = 14;
    matches!(code & 0xff, BUSY | LOCKED | NO_MEMORY | READ_ONLY | INPUT_OUTPUT | FULL | CANNOT_OPEN)
}

/// What stands for an answer that did not come in time.
pub(super) fn no_answer() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database does not answer"))
}

impl StoreError {
    /// Whether the same write may succeed later without anybody changing it: the disk is full, the
    /// file is locked, the server restarts or is out of reach. Such writes are kept and tried again.
    pub fn is_transient(&self) -> bool {
        match self {
            // What is written has no part in it.
            Self::Connect { .. } | Self::OutcomeUnknown => true,
            Self::Database(error) => match (sqlstate(error), error) {
                (Some(code), _) => sqlstate_passes(&code),
                (None, sqlx::Error::Database(error)) => {
                    error.code().and_then(|code| code.parse().ok()).is_some_and(sqlite_passes)
                }
                (None, error) => is_broken(error),
            },
            _ => false,
        }
    }

    /// Whether the connection on which it happened is of no more use.
    pub(super) fn is_broken_connection(&self) -> bool {
        match self {
            Self::Database(error) => match sqlstate(error) {
                Some(code) => ["08", "25", "57"].iter().any(|class| code.starts_with(class)),
                None => is_broken(error),
            },
            _ => false,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unsupported { .. } => {
                "use `sqlite://PATH`, relative to the configuration or absolute (`sqlite:///var/lib/flowkeeper.db`), or \
                 `postgres://USER@HOST/DATABASE`"
                    .into()
            }
            Self::Connect { fault, .. } => fault.hint().into(),
            Self::Encoding { .. } => "create one with `createdb --encoding UTF8 --template template0`".into(),
            Self::OutcomeUnknown => {
                "flowkeeper finds out when the database answers, and goes on from there; look again before you repeat it"
                    .into()
            }
            Self::Absent { .. } => "`flowkeeper serve` creates it; is `[store] url` the one that serves?".into(),
            Self::Foreign { .. } => "point `[store] url` at a database of its own".into(),
            Self::Older { .. } => "`flowkeeper serve` of this version upgrades it".into(),
            Self::Newer { .. } => "run the newer version, or restore the copy made before the upgrade".into(),
            Self::Shadow { is_shadow: true, .. } => {
                "what a shadow recorded was never submitted; serve from another `[store] url`".into()
            }
            Self::Shadow { is_shadow: false, .. } => {
                "a shadow takes a store of its own, so that it covers nothing that is to run: set `[store] url`, or \
                 FLOWKEEPER_STORE__URL for this call"
                    .into()
            }
            Self::Fenced { .. } => "this member stops scheduling; the newer one goes on".into(),
            Self::IdentityConflict { .. } => "choose another `--key`, or repeat the call with the same content".into(),
            Self::BadCursor { .. } => "start again without `cursor`".into(),
            Self::Database(_) if self.is_transient() => {
                "check the database: its disk's free space, who else holds the file, whether the server runs; flowkeeper \
                 keeps trying"
                    .into()
            }
            _ => return None,
        })
    }
}

/// Whether the connection broke under the statement.
fn is_broken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_postgresql_pass_or_blame_the_statement() {
        let cases = [
            ("08006", true, "the connection broke"),
            ("23505", false, "a unique key"),
            ("22021", false, "a character that the encoding has not"),
            ("25006", true, "the primary became a standby"),
            ("25P03", true, "the member was stopped in the middle of a transaction"),
            ("28P01", true, "the password was changed"),
            ("40001", true, "serialization"),
            ("40P01", true, "deadlock"),
            ("42501", true, "a right was taken away"),
            ("42703", false, "no such column"),
            ("53100", true, "disk full"),
            ("53300", true, "too many connections"),
            ("54000", false, "too complex"),
            ("55P03", true, "lock not available"),
            ("57P01", true, "the server shuts down"),
            ("57P03", true, "the server starts"),
            ("58030", true, "input or output failed"),
            ("XX000", false, "an internal error"),
        ];
        for (code, passes, what) in cases {
            assert_eq!(sqlstate_passes(code), passes, "{code}: {what}");
        }
    }

    #[test]
    fn errors_of_sqlite_pass_or_blame_the_statement() {
        // Extended codes carry the primary one in their low byte: 266 is SQLITE_IOERR_READ.
        for (code, passes) in [(5, true), (13, true), (266, true), (1, false), (19, false), (2067, false)] {
            assert_eq!(sqlite_passes(code), passes, "{code}");
        }
    }
}
