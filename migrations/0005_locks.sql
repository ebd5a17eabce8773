-- The distributed lock that a run owns: its name, recorded with the run; since when the run stands in
-- the queue for it, and since when it holds it. All NULL for runs without one.
ALTER TABLE runs ADD COLUMN lock_name TEXT;
ALTER TABLE runs ADD COLUMN lock_asked_at BIGINT;
ALTER TABLE runs ADD COLUMN lock_held_at BIGINT;
CREATE INDEX runs_open_by_lock ON runs (lock_name, id) WHERE is_open = 1 AND lock_name IS NOT NULL;
