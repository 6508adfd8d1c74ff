-- Daemons that serve from their caches in strict mode. A write is committed when each of those whose lease is alive has
-- acknowledged that it does not hold the keys any more. Rows of daemons that are gone are removed by the next that enters.
CREATE TABLE cloakroom.node (
    id          bigint PRIMARY KEY,
    lease_until bigint NOT NULL    -- milliseconds since 1970
) WITH (autovacuum_vacuum_threshold = 1000, fillfactor = 50);

-- Which life of which server the leases above were given in, and until when leases of another may be alive that are not in
-- the table: a standby that became the primary may not have got them.
CREATE TABLE cloakroom.fleet (
    one         boolean PRIMARY KEY DEFAULT true CHECK (one),
    incarnation text   NOT NULL,
    wait_until  bigint NOT NULL
);

CREATE FUNCTION cloakroom.clock() RETURNS bigint LANGUAGE sql VOLATILE AS $$
    SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
$$;

-- A daemon enters, for `lease` milliseconds. While it does, no strict write commits. For how long it must not write.
CREATE FUNCTION cloakroom.enter(node bigint, lease bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    life text := extract(epoch FROM pg_postmaster_start_time())::text || ' '
        || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
    wait bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
    PERFORM pg_advisory_xact_lock(7164223571444788483);
    INSERT INTO cloakroom.fleet AS f (incarnation, wait_until) VALUES (life, 0)
        ON CONFLICT (one) DO UPDATE SET incarnation = life, wait_until = cloakroom.clock() + lease
        WHERE f.incarnation <> life;
    SELECT greatest(0, wait_until - cloakroom.clock()) INTO wait FROM cloakroom.fleet;
    DELETE FROM cloakroom.node AS n WHERE n.lease_until < cloakroom.clock() - 60000;
    INSERT INTO cloakroom.node AS n (id, lease_until) VALUES (node, cloakroom.clock() + lease)
        ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until;
    RETURN wait;
END $$;

-- A daemon goes on for another `lease` milliseconds; false if it was without a lease.
CREATE FUNCTION cloakroom.renew(node bigint, lease bigint) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
    UPDATE cloakroom.node AS n SET lease_until = cloakroom.clock() + lease
        WHERE n.id = node AND n.lease_until > cloakroom.clock();
    RETURN FOUND;
END $$;

-- Lets a strict write go on if every daemon with a live lease is among those that have acknowledged it, and it is not so
-- late that they might take it for given up. Until the transaction has ended, none can enter.
CREATE FUNCTION cloakroom.admit(acknowledged bigint[], until bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7164223571444788483);
    IF cloakroom.clock() > until OR EXISTS (SELECT FROM cloakroom.node AS n
               WHERE n.lease_until > cloakroom.clock() AND n.id <> ALL (acknowledged)) THEN
        RAISE EXCEPTION 'a daemon has not acknowledged the write' USING ERRCODE = 'CR001';
    END IF;
END $$;
