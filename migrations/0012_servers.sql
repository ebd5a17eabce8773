-- The servers and the chroot by which an ensemble was known when its znodes were last compared; NULL of one
-- that was met before this was noted, and of the home ensemble, which has the znode `store`.
ALTER TABLE lineages ADD COLUMN servers TEXT;
