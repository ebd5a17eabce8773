-- Times are microseconds since 1970-01-01T00:00:00Z. Booleans are 0 and 1. The statements that use
-- these tables keep to what SQLite and PostgreSQL share.

-- One row: which ledger this is, and who may write schedules' work into it.
CREATE TABLE ledger (
    singleton    INTEGER PRIMARY KEY CHECK (singleton = 1),
    application  TEXT NOT NULL,
    store_id     TEXT NOT NULL,
    epoch        BIGINT NOT NULL,
    leader       TEXT,
    leader_since BIGINT,
    -- A shadow's ledger: what came due was recorded and never submitted.
    is_shadow    BIGINT NOT NULL
);

-- How far each schedule's trigger has got, and the operator's pause over it.
CREATE TABLE schedules (
    name         TEXT PRIMARY KEY,
    trigger_key  TEXT NOT NULL,
    since        BIGINT NOT NULL,
    cron_cursor  BIGINT NOT NULL,
    znode_zxid   BIGINT,
    paused_by    TEXT,
    pause_reason TEXT,
    paused_at    BIGINT,
    pause_until  BIGINT
);

-- The version of each znode that a trigger last handled, with its data where templates look back.
CREATE TABLE znode_cursors (
    schedule TEXT NOT NULL,
    path     TEXT NOT NULL,
    czxid    BIGINT NOT NULL,
    mzxid    BIGINT NOT NULL,
    version  BIGINT NOT NULL,
    data     BLOB,
    PRIMARY KEY (schedule, path)
);

-- One row an occurrence, or one for several that ended alike without a run.
CREATE TABLE runs (
    id               INTEGER PRIMARY KEY,
    schedule         TEXT NOT NULL,
    owner            TEXT,
    airflow          TEXT NOT NULL,
    dag_id           TEXT NOT NULL,
    dag_run_id       TEXT NOT NULL UNIQUE,
    trigger_kind     TEXT NOT NULL,
    nominal_time     BIGINT,
    covers_from      BIGINT,
    covers_to        BIGINT,
    occurrences      BIGINT NOT NULL,
    due_at           BIGINT NOT NULL,
    recorded_at      BIGINT NOT NULL,
    submitted_at     BIGINT,
    accepted_at      BIGINT,
    started_at       BIGINT,
    ended_at         BIGINT,
    closed_at        BIGINT,
    state            TEXT NOT NULL,
    is_open          BIGINT NOT NULL,
    reason           TEXT,
    coalesced        BIGINT NOT NULL,
    reopened         BIGINT NOT NULL,
    conf             TEXT NOT NULL,
    logical_date     BIGINT,
    interval_start   BIGINT,
    interval_end     BIGINT,
    attempts         BIGINT NOT NULL,
    not_before       BIGINT,
    lookup_only      BIGINT NOT NULL,
    consume_when     TEXT,
    consume_ensemble TEXT,
    consume_path     TEXT,
    consume_czxid    BIGINT,
    consume_note     TEXT
);
CREATE INDEX runs_by_time ON runs (due_at, id);
CREATE INDEX runs_by_schedule ON runs (schedule, due_at, id);
CREATE INDEX runs_by_dag ON runs (dag_id, due_at, id);
CREATE INDEX runs_by_state ON runs (state, due_at, id);
CREATE INDEX runs_by_owner ON runs (owner, due_at, id) WHERE owner IS NOT NULL;
CREATE INDEX runs_open ON runs (airflow, id) WHERE is_open = 1;
CREATE INDEX runs_open_by_schedule ON runs (schedule, id) WHERE is_open = 1;
CREATE INDEX runs_owing_a_consume ON runs (id) WHERE consume_when IS NOT NULL AND consume_note IS NULL;

-- The requests that were made for a run.
CREATE TABLE attempts (
    run_id      BIGINT NOT NULL,
    number      BIGINT NOT NULL,
    started_at  BIGINT NOT NULL,
    ended_at    BIGINT NOT NULL,
    outcome     TEXT NOT NULL,
    http_status BIGINT,
    detail      TEXT,
    PRIMARY KEY (run_id, number)
);

-- The moves of a run from state to state after it was recorded.
CREATE TABLE timeline (
    id     INTEGER PRIMARY KEY,
    run_id BIGINT NOT NULL,
    at     BIGINT NOT NULL,
    state  TEXT NOT NULL,
    reason TEXT
);
CREATE INDEX timeline_by_run ON timeline (run_id, id);

-- Decisions that made no row: the last few of each schedule, and how many there were.
CREATE TABLE decisions (
    id       INTEGER PRIMARY KEY,
    schedule TEXT NOT NULL,
    at       BIGINT NOT NULL,
    kind     TEXT NOT NULL,
    detail   TEXT NOT NULL
);
CREATE INDEX decisions_by_schedule ON decisions (schedule, id);
CREATE TABLE decision_counts (
    schedule TEXT NOT NULL,
    kind     TEXT NOT NULL,
    count    BIGINT NOT NULL,
    PRIMARY KEY (schedule, kind)
);

-- What operators did.
CREATE TABLE audit (
    id     INTEGER PRIMARY KEY,
    at     BIGINT NOT NULL,
    actor  TEXT NOT NULL,
    source TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    detail TEXT,
    reason TEXT
);

-- How far each Airflow's list of DAG runs has been read.
CREATE TABLE airflows (
    name      TEXT PRIMARY KEY,
    watermark BIGINT NOT NULL
);

-- DAG runs that are followed whoever triggered them.
CREATE TABLE dag_runs (
    id            INTEGER PRIMARY KEY,
    airflow       TEXT NOT NULL,
    dag_id        TEXT NOT NULL,
    dag_run_id    TEXT NOT NULL,
    state         TEXT NOT NULL,
    run_type      TEXT,
    logical_date  BIGINT,
    started_at    BIGINT,
    ended_at      BIGINT,
    first_seen_at BIGINT NOT NULL,
    UNIQUE (airflow, dag_id, dag_run_id)
);
CREATE INDEX dag_runs_by_dag ON dag_runs (dag_id, id);
CREATE INDEX dag_runs_by_state ON dag_runs (state, id);
