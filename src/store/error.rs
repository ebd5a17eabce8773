//! What can go wrong with the ledger, and which of it passes by itself.

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
    /// Reading commands need a store that exists.
    #[error("open the store `{path}`: there is no such file")]
    Absent {
        /// The database file.
        path: String,
    },
    /// The database holds something else.
    #[error("open the store `{url}`: the database holds tables of another program ({table})")]
    Foreign {
        /// As configured, without a password.
        url: String,
        /// One of the foreign tables.
        table: String,
    },
    /// The database was written by a newer flowkeeper.
    #[error("open the store `{url}`: it was written by a newer version of flowkeeper (migration {migration})")]
    Newer {
        /// As configured, without a password.
        url: String,
        /// The migration that this version does not know.
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
    /// The database refused or could not be reached.
    #[error("use the ledger: {0}")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// Whether the same write may succeed later without anybody changing it: the disk is full, the
    /// file is locked or cannot be written. Such writes are kept and tried again.
    ///
    /// The codes are `SQLite`'s primary result codes (sqlite.org/rescode.html).
    pub fn is_transient(&self) -> bool {
        const BUSY: i64 = 5;
        const LOCKED: i64 = 6;
        const NO_MEMORY: i64 = 7;
        const READ_ONLY: i64 = 8;
        const INPUT_OUTPUT: i64 = 10;
        const FULL: i64 = 13;
        const CANNOT_OPEN: i64 = 14;
        match self {
            Self::Database(sqlx::Error::Database(error)) => {
                error.code().and_then(|code| code.parse::<i64>().ok()).is_some_and(|code| {
                    matches!(code & 0xff, BUSY | LOCKED | NO_MEMORY | READ_ONLY | INPUT_OUTPUT | FULL | CANNOT_OPEN)
                })
            }
            Self::Database(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed) => true,
            _ => false,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unsupported { .. } => {
                "use `sqlite://PATH`, relative to the configuration or absolute (`sqlite:///var/lib/flowkeeper.db`)"
                    .into()
            }
            Self::Absent { .. } => "`flowkeeper serve` creates it; is `[store] url` the one that serves?".into(),
            Self::Foreign { .. } => "point `[store] url` at a database of its own".into(),
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
                "check the disk's free space and who else holds the file; flowkeeper keeps trying".into()
            }
            _ => return None,
        })
    }
}
