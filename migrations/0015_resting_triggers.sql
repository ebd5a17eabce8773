-- Znode triggers whose rule is not that of the member that leads now, but of one that led shortly before: where
-- they had got, by the trigger's identity (of a long one, its beginning and its hash).
CREATE TABLE resting_triggers (
    schedule    TEXT NOT NULL,
    trigger_key TEXT NOT NULL,
    gone_at     BIGINT NOT NULL,
    znode_zxid  BIGINT,
    znode_after BIGINT,
    first_look  TEXT,
    PRIMARY KEY (schedule, trigger_key)
);

-- The znodes that they had handled, as in znode_cursors.
CREATE TABLE resting_cursors (
    schedule    TEXT NOT NULL,
    trigger_key TEXT NOT NULL,
    path        TEXT NOT NULL,
    full_path   TEXT,
    czxid       BIGINT NOT NULL,
    mzxid       BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    data        BLOB,
    PRIMARY KEY (schedule, trigger_key, path)
);
