-- What the ledger remembers of each ensemble, to notice that one of the two was rebuilt or restored.
-- The home ensemble is ''. `mark` is written before the znode `store` is, `confirmed_…` after it.
CREATE TABLE lineages (
    ensemble             TEXT PRIMARY KEY,
    generation           BIGINT NOT NULL,
    mark                 BIGINT NOT NULL,
    confirmed_generation BIGINT,
    confirmed_mark       BIGINT,
    confirmed_czxid      BIGINT,
    -- The foreign znode that an operator has decided to replace.
    replaces_czxid       BIGINT,
    replaces_version     BIGINT
);
-- How the next first look of a znode trigger treats what exists, after an operator's `adopt`.
ALTER TABLE schedules ADD COLUMN first_look TEXT;
