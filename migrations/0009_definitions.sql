-- Every set of definitions that was in force, the newest last: which it was, from where, who pushed it
-- when and why, and its documents (JSON).
CREATE TABLE definitions (
    number            BIGINT PRIMARY KEY,
    version           TEXT NOT NULL,
    in_force_at       BIGINT NOT NULL,
    source            TEXT NOT NULL,
    zookeeper_version BIGINT,
    author            TEXT,
    message           TEXT,
    pushed_at         BIGINT NOT NULL,
    schedules         BIGINT NOT NULL,
    size_bytes        BIGINT NOT NULL,
    documents         TEXT NOT NULL
);
CREATE INDEX definitions_by_version ON definitions (version, number);
