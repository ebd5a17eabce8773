-- The latest report on each ensemble (JSON), and the standing from which the next one is judged (JSON).
-- `revision` grows with each write; whoever writes compares it with what was read.
CREATE TABLE ensembles (
    name        TEXT PRIMARY KEY,
    revision    BIGINT NOT NULL,
    reported_at BIGINT NOT NULL,
    report      TEXT NOT NULL,
    standing    TEXT NOT NULL
);
-- A row when the verdict of a check on a server, or on the ensemble, becomes another one.
CREATE TABLE health_changes (
    id             INTEGER PRIMARY KEY,
    ensemble       TEXT NOT NULL,
    at             BIGINT NOT NULL,
    check_name     TEXT NOT NULL,
    server         TEXT,
    verdict_before TEXT,
    verdict_after  TEXT NOT NULL,
    value          DOUBLE PRECISION,
    unit           TEXT,
    meaning        TEXT NOT NULL
);
CREATE INDEX health_changes_by_ensemble ON health_changes (ensemble, id);
CREATE INDEX health_changes_by_check ON health_changes (ensemble, check_name, id);
CREATE INDEX health_changes_by_time ON health_changes (at);
-- What became of ensembles: an occurrence of ensemble triggers each (JSON).
CREATE TABLE ensemble_transitions (
    id         INTEGER PRIMARY KEY,
    ensemble   TEXT NOT NULL,
    at         BIGINT NOT NULL,
    transition TEXT NOT NULL,
    UNIQUE (ensemble, at)
);
