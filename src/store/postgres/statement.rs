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
//!
//! **Rows** are `unnest` in the list of a `SELECT`, where arrays advance together. A function in `FROM` would first put all
//! it returns into a tuplestore, and so copy every value once more.

use std::fmt;
use std::time::Duration;

use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{IsNull, ToSql, Type};

/// How long a commit on a link waits for a lock.
const HURRY: Duration = Duration::from_millis(100);

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
         SELECT unnest($1::bigint[]), unnest($2::bigint[]), unnest($3::integer[]), unnest($4::smallint[]), \
         unnest($5::smallint[]), unnest($6::bytea[]), unnest($7::bytea[]) \
         ON CONFLICT (db, key) DO UPDATE SET version = excluded.version, expires_at = excluded.expires_at, \
         kind = excluded.kind, value = excluded.value"
    };
}

/// See [`Sql::PutSome`].
macro_rules! put_some {
    () => {
        concat!(
            put!(),
            " WHERE excluded.version < $8::bigint OR e.expires_at <= ",
            now!(),
            " RETURNING e.version AS version"
        )
    };
}

/// See [`Sql::Update`].
macro_rules! update {
    () => {
        concat!(
            "UPDATE cloakroom.entry AS e SET version = u.version, expires_at = u.expires_at, \
     kind = coalesce(u.kind, e.kind), value = coalesce(u.value, e.value) \
     FROM (SELECT unnest($1::bigint[]) AS version, unnest($2::bigint[]) AS expires_at, unnest($3::smallint[]) AS db, \
     unnest($4::smallint[]) AS kind, unnest($5::bytea[]) AS key, unnest($6::bytea[]) AS value, \
     unnest($7::bigint[]) AS expected) AS u \
     WHERE e.db = ANY(ARRAY[u.db]) AND e.key = ANY(ARRAY[u.key]) \
     AND (e.expires_at IS NULL OR e.expires_at > ",
            now!(),
            ") AND (u.expected IS NULL OR e.version = u.expected) RETURNING e.version AS version"
        )
    };
}

/// See [`Sql::Delete`].
macro_rules! delete {
    () => {
        concat!(
            "DELETE FROM cloakroom.entry AS e \
     USING (SELECT unnest($1::bigint[]) AS version, unnest($2::smallint[]) AS db, unnest($3::bytea[]) AS key, \
     unnest($4::boolean[]) AS must_exist, unnest($5::bigint[]) AS expected, ",
            now!(),
            " AS now) AS u \
     WHERE e.db = ANY(ARRAY[u.db]) AND e.key = ANY(ARRAY[u.key]) \
     AND (NOT u.must_exist OR e.expires_at IS NULL OR e.expires_at > u.now) \
     AND (u.expected IS NULL OR e.version = u.expected) \
     RETURNING u.version AS version, (e.expires_at IS NULL OR e.expires_at > u.now) AS existed"
        )
    };
}

/// Announces every text of an array, from the transaction that it is part of.
macro_rules! tell {
    ($texts:literal) => {
        concat!("pg_notify('cloakroom', t) FROM unnest(", $texts, "::text[]) AS t")
    };
}

/// A statement that returns versions of what it did, and announces that if it did anything. What announcing adds to the
/// answer has no version.
macro_rules! done_and_told {
    ($statement:expr, $columns:literal, $nulls:literal, $texts:literal) => {
        concat!(
            "WITH done AS (",
            $statement,
            ") SELECT ",
            $columns,
            " FROM done UNION ALL SELECT CASE WHEN pg_notify('cloakroom', t) IS NULL THEN 0::bigint END",
            $nulls,
            " FROM unnest(",
            $texts,
            "::text[]) AS t WHERE EXISTS (SELECT FROM done)"
        )
    };
}

/// A prepared statement. Those that are `Told` do the same and announce it.
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
    /// See [`Sql::Put`].
    PutTold,
    /// See [`Sql::PutSome`].
    PutSomeTold,
    /// See [`Sql::Update`].
    UpdateTold,
    /// See [`Sql::Delete`].
    DeleteTold,
    /// Announces what several statements of a transaction do.
    Tell,
    /// Entries that must stay as they are; returns the versions of the mutations for which they are so.
    Check,
    /// Fails the transaction unless certain daemons are all that have a lease, and it is not too late.
    Admit,
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
            Self::PutSome => put_some!(),
            Self::Update => update!(),
            Self::Delete => delete!(),
            Self::PutTold => concat!("WITH done AS (", put!(), ") SELECT ", tell!("$8")),
            Self::PutSomeTold => done_and_told!(put_some!(), "version", "", "$9"),
            Self::UpdateTold => done_and_told!(update!(), "version", "", "$8"),
            Self::DeleteTold => done_and_told!(delete!(), "version, existed", ", NULL::boolean", "$6"),
            Self::Tell => concat!("SELECT ", tell!("$1")),
            Self::Check => CHECK,
            Self::Admit => "SELECT cloakroom.admit($1::bigint[], $2::bigint)",
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

const CHECK: &str = concat!(
    "SELECT u.version FROM (SELECT unnest($1::bigint[]) AS version, unnest($2::smallint[]) AS db, \
     unnest($3::bytea[]) AS key, unnest($4::bigint[]) AS expected) AS u \
     JOIN cloakroom.entry AS e ON e.db = ANY(ARRAY[u.db]) AND e.key = ANY(ARRAY[u.key]) \
     WHERE (e.expires_at IS NULL OR e.expires_at > ",
    now!(),
    ") AND (u.expected IS NULL OR e.version = u.expected) FOR SHARE OF e"
);

/// The types of a list of parameters.
macro_rules! types {
    ($($name:ident)*) => {
        const { &[$(Type::$name),*] }
    };
}

impl Sql {
    /// The types of the statement's parameters, for where it is not prepared.
    pub(super) fn types(self) -> &'static [Type] {
        match self {
            Self::Put => types!(INT8_ARRAY INT8_ARRAY INT4_ARRAY INT2_ARRAY INT2_ARRAY BYTEA_ARRAY BYTEA_ARRAY),
            Self::PutSome => {
                types!(INT8_ARRAY INT8_ARRAY INT4_ARRAY INT2_ARRAY INT2_ARRAY BYTEA_ARRAY BYTEA_ARRAY INT8)
            }
            Self::PutTold => {
                types!(INT8_ARRAY INT8_ARRAY INT4_ARRAY INT2_ARRAY INT2_ARRAY BYTEA_ARRAY BYTEA_ARRAY TEXT_ARRAY)
            }
            Self::PutSomeTold => {
                types!(INT8_ARRAY INT8_ARRAY INT4_ARRAY INT2_ARRAY INT2_ARRAY BYTEA_ARRAY BYTEA_ARRAY INT8 TEXT_ARRAY)
            }
            Self::Update => {
                types!(INT8_ARRAY INT8_ARRAY INT2_ARRAY INT2_ARRAY BYTEA_ARRAY BYTEA_ARRAY INT8_ARRAY)
            }
            Self::UpdateTold => {
                types!(INT8_ARRAY INT8_ARRAY INT2_ARRAY INT2_ARRAY BYTEA_ARRAY BYTEA_ARRAY INT8_ARRAY TEXT_ARRAY)
            }
            Self::Delete => types!(INT8_ARRAY INT2_ARRAY BYTEA_ARRAY BOOL_ARRAY INT8_ARRAY),
            Self::DeleteTold => types!(INT8_ARRAY INT2_ARRAY BYTEA_ARRAY BOOL_ARRAY INT8_ARRAY TEXT_ARRAY),
            Self::Tell => types!(TEXT_ARRAY),
            Self::Check => types!(INT8_ARRAY INT2_ARRAY BYTEA_ARRAY INT8_ARRAY),
            Self::Admit => types!(INT8_ARRAY INT8),
            Self::Lock => types!(INT2_ARRAY BYTEA_ARRAY),
            Self::Load => types!(INT2 BYTEA_ARRAY),
            Self::Page => types!(INT2 INT4 INT8 INT2 BYTEA),
            Self::Slot => types!(INT2 INT4 INT2 BYTEA),
            Self::Sweep => types!(INT2 BYTEA INT8),
            Self::SweepLock => types!(INT8),
            Self::Now | Self::Versions => &[],
        }
    }
}

const LOCK: &str = "SELECT count(*) FROM (SELECT FROM (SELECT unnest($1::smallint[]) AS db, unnest($2::bytea[]) AS key) AS u \
     JOIN cloakroom.entry AS e ON e.db = ANY(ARRAY[u.db]) AND e.key = ANY(ARRAY[u.key]) \
     FOR UPDATE OF e) AS locked";

const LOAD: &str = concat!(
    "SELECT key, kind, expires_at, version, value FROM cloakroom.entry \
     WHERE db = $1::smallint AND key = ANY($2::bytea[]) \
     AND (expires_at IS NULL OR expires_at > ",
    now!(),
    ")"
);

// Marks of deletions (kind 0) are no keys. Null for a key that is not wanted, so that a page always makes progress.
const PAGE: &str = concat!(
    "SELECT slot, CASE WHEN (expires_at IS NULL OR expires_at > ",
    now!(),
    ") AND kind <> 0 AND ($4::smallint IS NULL OR kind = $4) AND substring(key FROM 1 FOR length($5::bytea)) = $5 \
     THEN key END FROM cloakroom.entry WHERE db = $1::smallint AND slot >= $2::integer \
     ORDER BY slot LIMIT $3::bigint"
);

const SLOT: &str = concat!(
    "SELECT slot, CASE WHEN (expires_at IS NULL OR expires_at > ",
    now!(),
    ") AND kind <> 0 AND ($3::smallint IS NULL OR kind = $3) AND substring(key FROM 1 FOR length($4::bytea)) = $4 \
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
     WHERE kind <> 0 AND (expires_at IS NULL OR expires_at > ",
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

/// Whether the server takes no writes; which life of which server it is; and the mark of the session, if it has one. The
/// second is its start, to the microsecond, and its timeline, which a standby changes as it becomes the primary. It is the
/// same on every way to the server, and anybody may ask.
pub(super) const INCARNATION: &str = "SELECT pg_is_in_recovery(), \
     extract(epoch FROM pg_postmaster_start_time())::text || ' ' || CASE WHEN pg_is_in_recovery() THEN 'standby' \
     ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
     coalesce(current_setting('cloakroom.direct', true), '')";

/// See [`crate::store::link::Order`].
pub(super) const ENTER: &str = "SELECT cloakroom.enter($1, $2)";
/// See [`crate::store::link::Order`].
pub(super) const RENEW: &str = "SELECT cloakroom.renew($1, $2)";
/// See [`crate::store::link::Order`].
pub(super) const MEMBERS: &str = "SELECT id FROM cloakroom.node WHERE lease_until > cloakroom.clock()";
/// See [`crate::store::link::Order`].
pub(super) const LEAVE: &str = "DELETE FROM cloakroom.node WHERE id = $1";

/// The settings of sessions, or of a transaction where there are no sessions of our own. Without a timeout, statements may
/// take as long as they like.
fn settings(statement_timeout: Option<Duration>, is_local: bool) -> String {
    let timeout = statement_timeout.map_or(0, |timeout| timeout.as_millis().max(1));
    format!(
        "SELECT set_config(name, value, {is_local}) FROM (VALUES \
         ('search_path', 'pg_catalog'), ('client_min_messages', 'warning'), ('statement_timeout', '{timeout}'), \
         ('idle_in_transaction_session_timeout', '{idle}'), ('default_transaction_isolation', 'read committed'), \
         ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'), ('enable_seqscan', 'off'), \
         ('enable_bitmapscan', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), \
         ('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' \
         ELSE current_setting('synchronous_commit') END)) AS s (name, value)",
        idle = timeout.saturating_mul(2),
    )
}

/// Makes a server process keep the memory of a batch for the next one. glibc gives back what is free at the end of the heap
/// from 128 KiB on, and each batch would fault it in again; but once it has freed a larger piece of its own, it keeps twice
/// that size (mallopt(3), `M_MMAP_THRESHOLD`). So here is one, of 4 MiB, in any session: it leaves nothing behind in it.
const KEEP_MEMORY: &str = "SELECT length(repeat('x', 4194304))";

/// What every session is told and asked first. It takes the settings only if it is our own: if it has `mark`.
pub(super) fn session_setup(statement_timeout: Duration, mark: &str) -> String {
    let settings = settings(Some(statement_timeout), false);
    format!("{KEEP_MEMORY}; {settings} WHERE current_setting('cloakroom.direct', true) = '{mark}'; {INCARNATION}")
}

/// The same settings for one transaction.
pub(super) fn transaction_setup(statement_timeout: Duration) -> String {
    settings(Some(statement_timeout), true)
}

/// What the session of a link is told and asked first; see [`session_setup`].
///
/// `timeout_of_commits`: commits come onto it, which then take no longer than this, and give up early where somebody has
/// locked a row, as heartbeats wait behind them.
pub(super) fn link_setup(mark: &str, timeout_of_commits: Option<Duration>) -> String {
    let is_ours = format!("current_setting('cloakroom.direct', true) = '{mark}'");
    let keep = timeout_of_commits.map_or(String::new(), |_| format!("{KEEP_MEMORY}; "));
    let lock_timeout = timeout_of_commits.map_or(0, |_| HURRY.as_millis());
    let settings = settings(timeout_of_commits, false);
    format!(
        "{keep}{settings} WHERE {is_ours}; \
         SELECT set_config(name, value, false) FROM (VALUES ('lock_timeout', '{lock_timeout}'), \
         ('application_name', current_setting('application_name') || ' link')) AS s (name, value) WHERE {is_ours}; \
         SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout' AND {is_ours}; \
         {INCARNATION}"
    )
}

/// Announces from a link. Nobody misses an announcement that a crash of the server takes with it, so it need not wait for
/// the disk. But where commits wait for a standby it waits, too: a server that was cut off from its standby, and replaced
/// by it, can then prove nothing any more. Only a transaction that writes to the log waits, and to notify is not to write.
///
/// Postgres commits transactions that announce something one after the other, and that is nothing to give up for.
pub(super) const ANNOUNCE: &str = concat!(
    "SELECT set_config('lock_timeout', '0', true), CASE WHEN current_setting('synchronous_standby_names') = '' \
     THEN set_config('synchronous_commit', 'off', true) \
     WHEN current_setting('synchronous_commit') = 'off' THEN set_config('synchronous_commit', 'on', true) END, \
     CASE WHEN current_setting('synchronous_standby_names') <> '' \
     THEN pg_logical_emit_message(true, 'cloakroom', '') END, ",
    tell!("$1")
);

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
