-- Settled by measuring what sessions are: rows of a kilobyte or so that are rewritten all day (docs/bench/storage.md).
--
-- A page of 8 kB that is filled to 85 % has room for one new version of one such row; the second update before the page
-- is pruned goes elsewhere and is not HOT. With 70 %, 99 % and more are HOT, and after a while the table is no larger,
-- since no row had to move.
ALTER TABLE cloakroom.entry SET (fillfactor = 70);

-- Values of over 2 kB are compressed. LZ4 takes a fraction of the time that pglz takes, and gives up sooner on what cannot be
-- compressed. A server may have been built without it, and stays with its default.
DO $$ BEGIN
    EXECUTE 'ALTER TABLE cloakroom.entry ALTER COLUMN value SET COMPRESSION lz4';
EXCEPTION WHEN feature_not_supported OR syntax_error OR invalid_parameter_value THEN
    NULL;
END $$;
