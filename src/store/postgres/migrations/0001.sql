-- Sessions, in columns ordered so that no padding lies between them.
--
-- There is no index on expires_at: with one, no change of an expiry could be a HOT update. The index on slot is for SCAN
-- alone and its columns never change, so it does not stand in the way of HOT.
--
-- value keeps the default storage (EXTENDED: compressed over 2 kB, then out of line). EXTERNAL would save the attempt to
-- compress where sessions are encrypted.
CREATE TABLE cloakroom.entry (
    version    bigint   NOT NULL,
    expires_at bigint,            -- milliseconds since 1970, null: never
    slot       integer  NOT NULL, -- 31 bits of the key's hash; the order of SCAN
    db         smallint NOT NULL,
    kind       smallint NOT NULL,
    key        bytea    NOT NULL,
    value      bytea    NOT NULL,
    PRIMARY KEY (db, key)
) WITH (
    fillfactor = 85,                              -- room for HOT updates on every page
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.02,        -- small rounds often, as most rows are rewritten all day
    autovacuum_analyze_threshold = 1000,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    vacuum_truncate = off,                        -- giving the file's end back would lock out readers
    toast.autovacuum_vacuum_scale_factor = 0.02,
    toast.vacuum_truncate = off
);

CREATE INDEX entry_slot ON cloakroom.entry (db, slot);

-- Versions are taken in blocks: each nextval reserves the 2^20 numbers from its result on for one daemon, which numbers
-- its writes itself. So a version never repeats, and no write needs a nextval or a RETURNING for it. Blocks that a
-- daemon did not use up are lost; 2^43 of them last.
CREATE SEQUENCE cloakroom.version AS bigint INCREMENT BY 1048576 MINVALUE 1048576 START WITH 1048576 NO CYCLE;

-- Facts that all daemons on this database share, such as the secret that keys their hashes.
CREATE TABLE cloakroom.meta (
    name  text  PRIMARY KEY,
    value bytea NOT NULL
);
