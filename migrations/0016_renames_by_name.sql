-- A name is given up once before its history has followed; every row that is shown is looked up by it.
CREATE UNIQUE INDEX renames_by_old_name ON renames (old_name);
