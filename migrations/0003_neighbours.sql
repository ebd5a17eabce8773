-- The id of the last transaction of the leader in force: tells whether a commit took effect whose
-- answer was lost.
ALTER TABLE ledger ADD COLUMN last_transaction TEXT;
-- The last migration that a program must know to use this ledger. Newer ones only add, and are
-- nothing to it.
ALTER TABLE ledger ADD COLUMN needs_migration BIGINT NOT NULL DEFAULT 1;
