-- Schedules that were renamed and whose history has not followed yet: rows of `runs` up to `last_run` that
-- still have the old name are to get the new one, in the order of the numbers.
CREATE TABLE renames (
    number BIGINT NOT NULL PRIMARY KEY,
    old_name TEXT NOT NULL,
    new_name TEXT NOT NULL,
    last_run BIGINT NOT NULL
);
