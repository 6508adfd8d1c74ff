//! All SQL of the daily work, and the session settings that its plans rest on. Runs nothing.
//!
//! **Expiry**: an expired row is an absent one, by the database's clock, read once per statement (the scalar subselect).
//!
//! **Plans**: statements are prepared once per connection and planned once, for any number of rows, perhaps while the
//! table was empty. So they leave the planner no bad choice: sequential and bitmap scans, hash and merge joins are off
//! in our sessions, and joins with the table are written `= ANY(ARRAY[…])`, which an index can serve, but no hash or
//! merge join, and no ordered walk through a whole index. What remains is a loop over the given keys in their order,
//! each found in the primary key. That order is also the order of row locks, and all statements sort alike, so that
//! single statements cannot deadlock.

use std::fmt;
use std::time::Duration;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};

/// The database's clock in milliseconds, as a scalar subselect.
macro_rules! now {
    () => {
        "(SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)"
    };
}

/// The rows of puts, sorted by key; `slot` belongs to the key and never changes.
macro_rules! put {
    () => {
        "INSERT INTO cloakroom.entry AS e (version, expires_at, slot, db, kind, key, value) \
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[], $4::smallint[], $5::smallint[], \
         $6::bytea[], $7::bytea[]) \
         ON CONFLICT (db, key) DO UPDATE SET version = excluded.version, expires_at = excluded.expires_at, \
         kind = excluded.kind, value = excluded.value"
    };
}

/// A prepared statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sql {
    /// Puts that expect nothing.
    Put,
    /// Puts of which those from a version on expect no live entry; returns the versions of those applied.
    PutSome,
    /// Puts and new expiries that expect a live entry, perhaps of one version; null value: keep the value (whose
    /// out-of-line parts are then not touched). Returns the versions of those applied.
    Update,
    /// Deletes; returns the versions of those applied and whether a live entry was there.
    Delete,
    /// Locks rows in order, ahead of several statements over them.
    Lock,
    /// Live entries by key.
    Load,
    /// Rows in order of their slot.
    Page,
    /// All rows of one slot.
    Slot,
    /// A step of the sweeper.
    Sweep,
    /// Another daemon may be sweeping.
    SweepLock,
    /// The clock.
    Now,
    /// Another block of versions.
    Versions,
}

impl Sql {
    /// How many there are.
    pub(super) const COUNT: usize = Self::Versions as usize + 1;

    /// The statement.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Put => put!(),
            Self::PutSome => concat!(
                put!(),
                " WHERE excluded.version < $8::bigint OR e.expires_at <= ",
                now!(),
                " RETURNING e.version"
            ),
            Self::Update => UPDATE,
            Self::Delete => DELETE,
            Self::Lock => LOCK,
            Self::Load => LOAD,
            Self::Page => PAGE,
            Self::Slot => SLOT,
            Self::Sweep => SWEEP,
            Self::SweepLock => "SELECT pg_try_advisory_xact_lock($1::bigint)",
            Self::Now => concat!("SELECT ", now!()),
            Self::Versions => "SELECT nextval('cloakroom.version')",
        }
    }
}

const UPDATE: &str = concat!(
    "UPDATE cloakroom.entry AS e SET version = u.version, expires_at = u.expires_at, \
     kind = coalesce(u.kind, e.kind), value = coalesce(u.value, e.value) \
     FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::bytea[], $6::bytea[], \
     $7::bigint[]) AS u (version, expires_at, db, kind, key, value, expected) \
     WHERE e.db = ANY(ARRAY[u.db]) AND e.key = ANY(ARRAY[u.key]) \
     AND (e.expires_at IS NULL OR e.expires_at > ",
    now!(),
    ") AND (u.expected IS NULL OR e.version = u.expected) RETURNING e.version"
);

const DELETE: &str = concat!(
    "DELETE FROM cloakroom.entry AS e \
     USING (SELECT *, ",
    now!(),
    " AS now FROM unnest($1::bigint[], $2::smallint[], $3::bytea[], $4::boolean[], $5::bigint[]) \
     AS a (version, db, key, must_exist, expected)) AS u \
     WHERE e.db = ANY(ARRAY[u.db]) AND e.key = ANY(ARRAY[u.key]) \
     AND (NOT u.must_exist OR e.expires_at IS NULL OR e.expires_at > u.now) \
     AND (u.expected IS NULL OR e.version = u.expected) \
     RETURNING u.version, (e.expires_at IS NULL OR e.expires_at > u.now)"
);

const LOCK: &str = "SELECT count(*) FROM (SELECT FROM unnest($1::smallint[], $2::bytea[]) AS u (db, key) \
     JOIN cloakroom.entry AS e ON e.db = ANY(ARRAY[u.db]) AND e.key = ANY(ARRAY[u.key]) \
     FOR UPDATE OF e) AS locked";

const LOAD: &str = concat!(
    "SELECT key, kind, expires_at, version, value FROM cloakroom.entry \
     WHERE db = $1::smallint AND key = ANY($2::bytea[]) \
     AND (expires_at IS NULL OR expires_at > ",
    now!(),
    ")"
);

// Null for a key that is not wanted, so that a page always makes progress.
const PAGE: &str = concat!(
    "SELECT slot, CASE WHEN (expires_at IS NULL OR expires_at > ",
    now!(),
    ") AND ($4::smallint IS NULL OR kind = $4) AND substring(key FROM 1 FOR length($5::bytea)) = $5 \
     THEN key END FROM cloakroom.entry WHERE db = $1::smallint AND slot >= $2::integer \
     ORDER BY slot LIMIT $3::bigint"
);

const SLOT: &str = concat!(
    "SELECT slot, CASE WHEN (expires_at IS NULL OR expires_at > ",
    now!(),
    ") AND ($3::smallint IS NULL OR kind = $3) AND substring(key FROM 1 FOR length($4::bytea)) = $4 \
     THEN key END FROM cloakroom.entry WHERE db = $1::smallint AND slot = $2::integer"
);

// Rows that a writer holds are left for the next pass. The DELETE meets the version that was locked.
const SWEEP: &str = concat!(
    "WITH looked AS MATERIALIZED (SELECT db, key, expires_at FROM cloakroom.entry \
     WHERE (db, key) > ($1::smallint, $2::bytea) ORDER BY db, key LIMIT $3::bigint), \
     dead AS MATERIALIZED (SELECT e.db, e.key FROM looked AS l JOIN cloakroom.entry AS e \
     ON e.db = ANY(ARRAY[l.db]) AND e.key = ANY(ARRAY[l.key]) \
     WHERE l.expires_at <= ",
    now!(),
    " AND e.expires_at <= ",
    now!(),
    " FOR UPDATE OF e SKIP LOCKED), \
     gone AS (DELETE FROM cloakroom.entry AS e USING dead AS d \
     WHERE e.db = ANY(ARRAY[d.db]) AND e.key = ANY(ARRAY[d.key]) RETURNING 1) \
     SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM looked), l.db, l.key \
     FROM looked AS l ORDER BY l.db DESC, l.key DESC LIMIT 1"
);

/// Counts live entries by database; run with sequential scans on.
pub(super) const COUNT: &str = concat!(
    "SELECT db, count(*), count(expires_at) FROM cloakroom.entry \
     WHERE (expires_at IS NULL OR expires_at > ",
    now!(),
    ") AND substring(key FROM 1 FOR length($1::bytea)) = $1 GROUP BY db ORDER BY db"
);

/// Deletes by database (null: all) and prefix; run with sequential scans on.
pub(super) const FLUSH: &str = "DELETE FROM cloakroom.entry \
     WHERE ($1::smallint IS NULL OR db = $1) AND substring(key FROM 1 FOR length($2::bytea)) = $2";

/// The same, with rows locked in order of their keys, as writers do; slower.
pub(super) const FLUSH_ORDERED: &str = "WITH doomed AS MATERIALIZED (SELECT db, key FROM cloakroom.entry \
     WHERE ($1::smallint IS NULL OR db = $1) AND substring(key FROM 1 FOR length($2::bytea)) = $2 \
     ORDER BY db, key FOR UPDATE) \
     DELETE FROM cloakroom.entry AS e USING doomed AS d WHERE e.db = ANY(ARRAY[d.db]) AND e.key = ANY(ARRAY[d.key])";

/// What every session is told first.
pub(super) fn session_setup(statement_timeout: Duration) -> String {
    let timeout = statement_timeout.as_millis().max(1);
    format!(
        "SET search_path = pg_catalog; SET client_min_messages = warning; \
         SET statement_timeout = {timeout}; \
         SET idle_in_transaction_session_timeout = {idle}; \
         SET default_transaction_isolation = 'read committed'; \
         SET plan_cache_mode = force_generic_plan; SET jit = off; \
         SET enable_seqscan = off; SET enable_bitmapscan = off; \
         SET enable_hashjoin = off; SET enable_mergejoin = off; \
         SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'",
        idle = timeout.saturating_mul(2),
    )
}

/// A parameter that does not show in `Debug`, which tokio-postgres writes to its debug log.
pub(super) struct Hidden<T>(pub(super) T);

impl<T: ToSql> ToSql for Hidden<T> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql(ty, out)
    }

    fn accepts(ty: &Type) -> bool {
        T::accepts(ty)
    }

    fn to_sql_checked(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        self.0.to_sql_checked(ty, out)
    }
}

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
