//! Removing rows in number: a step of the sweeper, and the flush. Decides no pace and no leader beyond the step.

use tokio_postgres::types::{ToSql, Type};

use crate::store::error::StoreError;
use crate::store::link::Announce;
use crate::store::postgres::commit::ids;
use crate::store::postgres::error::{Fault, Sent, unapplied};
use crate::store::postgres::lease::Lease;
use crate::store::postgres::pool::{BULK_TIMEOUT, Pool};
use crate::store::postgres::statement::{FLUSH, FLUSH_ORDERED, Hidden, Sql};
use crate::store::{SweepCursor, Swept};

/// How often a flush is run again after a deadlock with writers.
const MAX_RETRIES: u32 = 8;
/// Whoever holds this advisory lock sweeps ("cloakrm" and 2).
const SWEEP_LOCK: i64 = 0x636c_6f61_6b72_6d02;

/// See [`crate::store::Store::sweep`].
pub(super) async fn sweep(pool: &Pool, from: Option<SweepCursor>, limit: u32) -> Result<Swept, StoreError> {
    let mut lease = pool.get().await.map_err(unapplied)?;
    let time = lease.limit();
    let result = lease.within(time, step(&lease, from, limit)).await;
    // Ends the transaction on a connection that is whole; a failed one is rolled back by it.
    let ended = match &result {
        Err(fault) if fault.ends_connection() => Ok(()),
        _ => lease.within(time, async { Ok(lease.batch_execute("COMMIT").await?) }).await,
    };
    let result = result.and_then(|swept| ended.map(|()| swept));
    lease.settle(&result);
    // Expired rows are absent either way, so an unknown outcome is none.
    result.map_err(unapplied)
}

/// One step, in a transaction that is left open.
async fn step(lease: &Lease, from: Option<SweepCursor>, limit: u32) -> Result<Swept, Fault> {
    let (lock, sweep) = (lease.prepared(Sql::SweepLock).await?, lease.prepared(Sql::Sweep).await?);
    let (begun, leading) = tokio::join!(biased; lease.begin(""), lease.query_one(&lock, &[&SWEEP_LOCK]));
    begun?;
    if !leading?.try_get::<_, bool>(0)? {
        return Ok(Swept::default());
    }
    let (db, key) = from.map_or((-1, Box::default()), |(db, key)| (i16::from(db), key));
    let rows = lease.query_opt(&sweep, &[&db, &Hidden(&*key), &i64::from(limit)]).await?;
    let Some(row) = rows else {
        return Ok(Swept::default());
    };
    let (removed, looked): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    let next = if looked < i64::from(limit) {
        None
    } else {
        let db = u8::try_from(row.try_get::<_, i16>(2)?)
            .map_err(|_| Fault::of_data("a row has a database number out of range"))?;
        Some((db, row.try_get::<_, &[u8]>(3)?.into()))
    };
    Ok(Swept { removed: removed as u64, next })
}

/// See [`crate::store::Store::flush`].
pub(super) async fn flush(
    pool: &Pool,
    db: Option<u8>,
    prefix: Vec<u8>,
    announce: Announce<'_>,
) -> Result<(), StoreError> {
    let told = announce.map(|aboard| (aboard.announcer)(None)).unwrap_or_default();
    let acknowledged = announce.and_then(|aboard| aboard.acknowledged);
    let (db, prefix) = (db.map(i16::from), Hidden(prefix));
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&db, Type::INT2), (&prefix, Type::BYTEA)];
    let mut tries = 0;
    loop {
        let mut lease = pool.get().await.map_err(unapplied)?;
        let work = async {
            let scan = if tries == 0 { "on" } else { "off" };
            let setup = format!(
                "SET LOCAL enable_seqscan = {scan}; SET LOCAL statement_timeout = {}",
                BULK_TIMEOUT.as_millis()
            );
            let tell = async {
                let nothing = told.is_empty();
                if nothing { Ok(0) } else { lease.execute_typed(Sql::Tell.text(), &[(&told, Type::TEXT_ARRAY)]).await }
            };
            let admit = async {
                let Some(acknowledged) = acknowledged else { return Ok(0) };
                let nodes = ids(acknowledged);
                let parameters: [(&(dyn ToSql + Sync), Type); 2] =
                    [(&nodes, Type::INT8_ARRAY), (&acknowledged.until, Type::INT8)];
                lease.execute_typed(Sql::Admit.text(), &parameters).await
            };
            let (begun, admitted, flushed, told, committed) = tokio::join!(biased;
                lease.begin(&setup),
                admit,
                lease.execute_typed(if tries == 0 { FLUSH } else { FLUSH_ORDERED }, &parameters),
                tell,
                lease.batch_execute("COMMIT"),
            );
            begun?;
            admitted?;
            flushed?;
            told?;
            Ok(committed?)
        };
        let result = lease.within(BULK_TIMEOUT + lease.limit(), work).await;
        lease.settle(&result);
        match result {
            Err(fault) if fault.is_retryable() && tries < MAX_RETRIES => tries += 1,
            result => return result.map_err(|fault| fault.into_store(Sent::Commit)),
        }
    }
}
