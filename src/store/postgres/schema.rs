//! The schema `cloakroom` and its migrations, which any daemon of a fleet applies at its start. Knows no rows.

use rustls::crypto::ring;
use tokio_postgres::types::Type;

use crate::store::postgres::error::{Fault, Sent};
use crate::store::postgres::lease::Lease;
use crate::store::postgres::statement::Hidden;

/// All migrations in order; the first is number 1. One that was released never changes.
const MIGRATIONS: &[&str] =
    &[include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql"), include_str!("migrations/0003.sql")];

/// Whoever holds this advisory lock migrates ("cloakrm" and 1).
const MIGRATION_LOCK: i64 = 0x636c_6f61_6b72_6d01;

/// How long a migration may take, waiting for another daemon's included.
const MIGRATION_TIMEOUT: std::time::Duration = std::time::Duration::from_mins(2);

/// Brings the schema to this program's version; refuses a newer one. Writes nothing if it is there already.
pub(super) async fn migrate(lease: &mut Lease) -> Result<(), Fault> {
    let limit = lease.limit();
    let result = lease.within(limit, applied(lease)).await;
    lease.settle(&result);
    if missing(result?)? == 0 {
        return Ok(());
    }
    lease.unsettle();
    let result = lease.within(MIGRATION_TIMEOUT, apply(lease)).await;
    if let Err(fault) = &result
        && !fault.ends_connection()
    {
        let _ = lease.within(limit, async { Ok(lease.batch_execute("ROLLBACK").await?) }).await;
    }
    lease.settle(&result);
    if let Err(fault) = &result {
        tracing::debug!(error = %fault, kind = fault.kind(Sent::Nothing).label(), "migration failed");
    }
    result
}

/// The secret that keys hashes; the first daemon on a database draws it.
pub(super) async fn hash_secret(lease: &mut Lease) -> Result<[u8; 16], Fault> {
    let work = async {
        let stored = "SELECT value FROM cloakroom.meta WHERE name = 'hash_secret'";
        let mut row = lease.query_typed_opt(stored, &[]).await?;
        if row.is_none() {
            let mut secret = [0_u8; 16];
            let random = ring::default_provider().secure_random;
            random.fill(&mut secret).map_err(|_| Fault::permanent("the system has no randomness"))?;
            let insert =
                "INSERT INTO cloakroom.meta (name, value) VALUES ('hash_secret', $1) ON CONFLICT (name) DO NOTHING";
            lease.execute_typed(insert, &[(&Hidden(&secret[..]), Type::BYTEA)]).await?;
            row = lease.query_typed_opt(stored, &[]).await?;
        }
        let row = row.ok_or_else(|| Fault::permanent("the hash secret is missing"))?;
        row.try_get::<_, &[u8]>(0)?.try_into().map_err(|_| Fault::permanent("the hash secret is not 16 bytes"))
    };
    let result = lease.within(lease.limit(), work).await;
    lease.settle(&result);
    result
}

// These read the catalogues themselves, as `to_regclass` and its like may answer from the session's cache, which does not
// hear of what others did while we waited for the lock.
const EXISTS_SCHEMA: &str = "SELECT count(*) FROM pg_namespace WHERE nspname = 'cloakroom'";
const EXISTS_MIGRATION: &str = "SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace \
                                WHERE n.nspname = 'cloakroom' AND c.relname = 'migration'";

async fn exists(lease: &Lease, question: &str) -> Result<bool, Fault> {
    Ok(lease.query_typed_one(question, &[]).await?.try_get::<_, i64>(0)? > 0)
}

/// How many migrations the database has.
async fn applied(lease: &Lease) -> Result<i32, Fault> {
    if !exists(lease, EXISTS_MIGRATION).await? {
        return Ok(0);
    }
    let row = lease.query_typed_one("SELECT coalesce(max(number), 0) FROM cloakroom.migration", &[]).await?;
    Ok(row.try_get(0)?)
}

/// How many migrations are to be applied to a database that has `applied`.
fn missing(applied: i32) -> Result<usize, Fault> {
    let known = MIGRATIONS.len();
    known.checked_sub(usize::try_from(applied).unwrap_or(0)).ok_or_else(|| {
        Fault::permanent(&format!(
            "the database's schema is version {applied}, made by a newer cloakroom; this one knows {known}"
        ))
    })
}

/// Applies what is missing, in one transaction, one daemon at a time.
async fn apply(lease: &Lease) -> Result<(), Fault> {
    let timeout = MIGRATION_TIMEOUT.as_millis();
    lease.batch_execute(&format!("BEGIN; SET LOCAL statement_timeout = {timeout}")).await?;
    lease.batch_execute(&format!("SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")).await?;
    let applied = applied(lease).await?;
    let missing = missing(applied)?;
    if applied == 0 {
        // Asked first, as IF NOT EXISTS alone would need the right to create schemas where an administrator made it.
        if !exists(lease, EXISTS_SCHEMA).await? {
            lease.batch_execute("CREATE SCHEMA cloakroom").await?;
        }
        lease
            .batch_execute(
                "CREATE TABLE cloakroom.migration \
                 (number integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())",
            )
            .await?;
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(MIGRATIONS.len() - missing) {
        lease.batch_execute(migration).await?;
        lease.batch_execute(&format!("INSERT INTO cloakroom.migration (number) VALUES ({})", index + 1)).await?;
    }
    lease.batch_execute("COMMIT").await?;
    if missing > 0 {
        tracing::info!(from = applied, to = MIGRATIONS.len(), "schema migrated");
    }
    Ok(())
}
