-- A znode trigger whose rule was edited, and that watches the same place as before: its first look takes
-- what was changed after this zxid for new, whatever `initial` says of what exists. NULL for others.
ALTER TABLE schedules ADD COLUMN znode_after BIGINT;
