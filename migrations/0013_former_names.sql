-- The names that a schedule had before its present one, the latest first, with spaces between them: what a
-- rename was carried out from, and what finds the schedule again when the rename is rolled back. NULL without.
ALTER TABLE schedules ADD COLUMN renamed_from TEXT;
