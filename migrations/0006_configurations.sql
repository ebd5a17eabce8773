-- Since when a schedule is in no configuration of the members that led: it is kept for a while, since
-- another member may still have it.
ALTER TABLE schedules ADD COLUMN gone_at BIGINT;
-- The path of a znode that is too long for a key; `path` is then a part of it and its hash.
ALTER TABLE znode_cursors ADD COLUMN full_path TEXT;
