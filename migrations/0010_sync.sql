-- The entries (variables, pools, connections) of Airflows that flowkeeper wrote, and only those are ever
-- changed or deleted. `hold` is creating, owned or deleting: an intent is written before its request.
-- `digest` is keyed, with a key that is not here; NULL while a request that changes the value is under way.
CREATE TABLE sync_entries (
    airflow TEXT NOT NULL,
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    sync TEXT NOT NULL,
    hold TEXT NOT NULL,
    digest TEXT,
    changed_at BIGINT NOT NULL,
    PRIMARY KEY (airflow, kind, key)
);
-- How the last comparison of each sync ended, as JSON: counts and keys, never values.
CREATE TABLE sync_passes (
    sync TEXT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL,
    report TEXT NOT NULL
);
