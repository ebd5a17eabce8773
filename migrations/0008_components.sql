-- What each Airflow said last of itself: one row an Airflow. `health` is JSON, Airflow's word on each part.
CREATE TABLE airflow_reports (
    airflow     TEXT PRIMARY KEY,
    url         TEXT NOT NULL,
    version     TEXT,
    reach       TEXT NOT NULL,
    since       BIGINT NOT NULL,
    reason      TEXT,
    checked_at  BIGINT NOT NULL,
    answered_at BIGINT,
    health      TEXT NOT NULL,
    jobs_reason TEXT,
    warnings    TEXT NOT NULL
);

-- The parts of each Airflow, also those that are gone, until `[store] retention` has passed. `job` is the
-- number of the process in Airflow, 0 for a kind of which Airflow tells as a whole.
CREATE TABLE airflow_components (
    airflow          TEXT NOT NULL,
    kind             TEXT NOT NULL,
    job              BIGINT NOT NULL,
    hostname         TEXT,
    state            TEXT NOT NULL,
    started_at       BIGINT,
    heartbeat_at     BIGINT,
    heartbeat_age_us BIGINT,
    first_seen_at    BIGINT NOT NULL,
    last_seen_at     BIGINT NOT NULL,
    gone_at          BIGINT,
    reason           TEXT,
    PRIMARY KEY (airflow, kind, job)
);
