//! Everything that only reads: entries by key, pages of keys, counts, the clock. Changes nothing.

use std::collections::HashMap;
use std::ops::ControlFlow;

use futures_util::future::try_join_all;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::entry::{Entry, Key, Kind, UnixMs};
use crate::store::error::StoreError;
use crate::store::page::{self, Cut, Rows};
use crate::store::postgres::error::{Fault, unapplied};
use crate::store::postgres::lease::Lease;
use crate::store::postgres::pool::{BULK_TIMEOUT, Pool};
use crate::store::postgres::statement::{COUNT, Hidden, Sql};
use crate::store::{ScanPage, ScanQuery};

/// See [`crate::store::Store::load`].
pub(super) async fn load(pool: &Pool, keys: &[Key]) -> Result<Vec<Option<Entry>>, StoreError> {
    let mut by_db: HashMap<u8, HashMap<&[u8], Vec<usize>>> = HashMap::new();
    for (index, key) in keys.iter().enumerate() {
        by_db.entry(key.db()).or_default().entry(key.name()).or_default().push(index);
    }
    let mut entries = vec![None; keys.len()];
    if keys.is_empty() {
        return Ok(entries);
    }
    let mut lease = pool.get().await.map_err(unapplied)?;
    let limit = lease.limit();
    let work = async {
        let statement = lease.prepared(Sql::Load).await?;
        let (lease, statement) = (&lease, &statement);
        let queries = by_db.iter().map(async |(db, names)| {
            let wanted = Hidden(names.keys().copied().collect::<Vec<_>>());
            Ok::<_, Fault>((*db, lease.query(statement, &[&i16::from(*db), &wanted]).await?))
        });
        lease.read(try_join_all(queries)).await
    };
    let result = lease.within(limit, work).await;
    lease.settle(&result);
    for (db, rows) in result.map_err(unapplied)? {
        for row in rows {
            let (name, entry) = entry_of(&row).map_err(unapplied)?;
            for &index in by_db.get(&db).and_then(|names| names.get(name)).into_iter().flatten() {
                entries[index] = Some(entry.clone());
            }
        }
    }
    Ok(entries)
}

/// The entry in a row of [`Sql::Load`], and its key.
fn entry_of(row: &Row) -> Result<(&[u8], Entry), Fault> {
    let kind = Kind::from_code(row.try_get(1)?)
        .ok_or_else(|| Fault::of_data("a row has a kind that this version does not know"))?;
    let value: &[u8] = row.try_get(4)?;
    let entry = Entry { kind, value: value.into(), expires_at: row.try_get(2)?, version: row.try_get(3)? };
    Ok((row.try_get(0)?, entry))
}

/// See [`crate::store::Store::scan`].
pub(super) async fn scan(pool: &Pool, query: &ScanQuery) -> Result<ScanPage, StoreError> {
    let Ok(from) = i32::try_from(query.cursor) else {
        // Beyond the last slot: nothing is there.
        return Ok(ScanPage::default());
    };
    let mut lease = pool.get().await.map_err(unapplied)?;
    let limit = lease.limit();
    let result = lease.within(limit, page_from(&lease, query, from)).await;
    lease.settle(&result);
    result.map_err(unapplied)
}

/// The page that begins at the slot `from`.
async fn page_from(lease: &Lease, query: &ScanQuery, from: i32) -> Result<ScanPage, Fault> {
    let db = i16::from(query.db);
    let kind = query.kind.map(Kind::code);
    let prefix = Hidden(query.prefix.as_slice());
    let statement = lease.prepared(Sql::Page).await?;
    let rows = lease.query(&statement, &[&db, &from, &page::rows_for(query.limit), &kind, &prefix]).await?;
    let (names, next) = match page::cut(slots_of(&rows)?, query.limit) {
        Cut::Page(names, next) => (names, next),
        Cut::WholeSlot(slot) => {
            let statement = lease.prepared(Sql::Slot).await?;
            let rows = lease.query(&statement, &[&db, &slot, &kind, &prefix]).await?;
            (page::names(slots_of(&rows)?), page::after(slot))
        }
    };
    Ok(ScanPage { names, next })
}

fn slots_of(rows: &[Row]) -> Result<Rows, Fault> {
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get::<_, Option<&[u8]>>(1)?.map(Box::from)))).collect()
}

/// See [`crate::store::Store::random`].
pub(super) async fn random(pool: &Pool, db: u8, prefix: Vec<u8>) -> Result<Option<Box<[u8]>>, StoreError> {
    let mut lease = pool.get().await.map_err(unapplied)?;
    let mut search = page::RandomSearch::new(db, prefix);
    loop {
        let query = search.query();
        let from = i32::try_from(query.cursor).unwrap_or(0);
        let result = lease.within(lease.limit(), page_from(&lease, query, from)).await;
        if result.is_err() {
            lease.settle(&result);
        }
        if let ControlFlow::Break(found) = search.next(result.map_err(unapplied)?) {
            lease.settle(&Ok(()));
            return Ok(found);
        }
    }
}

/// See [`crate::store::Store::count`].
pub(super) async fn count(pool: &Pool, prefix: Vec<u8>) -> Result<Vec<(u8, u64, u64)>, StoreError> {
    let mut lease = pool.get().await.map_err(unapplied)?;
    let work = async {
        let setup =
            format!("SET LOCAL enable_seqscan = on; SET LOCAL statement_timeout = {}", BULK_TIMEOUT.as_millis());
        let prefix = Hidden(prefix);
        let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&prefix, Type::BYTEA)];
        // All sent at once. If the count fails, COMMIT still ends the transaction.
        let (begun, counted, ended) = tokio::join!(biased;
            lease.begin(&setup),
            lease.query_typed(COUNT, &parameters),
            lease.batch_execute("COMMIT"),
        );
        begun?;
        let counted = counted?;
        ended?;
        counted
            .iter()
            .map(|row| {
                let db = u8::try_from(row.try_get::<_, i16>(0)?)
                    .map_err(|_| Fault::of_data("a row has a database number out of range"))?;
                Ok((db, row.try_get::<_, i64>(1)? as u64, row.try_get::<_, i64>(2)? as u64))
            })
            .collect()
    };
    let result = lease.within(BULK_TIMEOUT + lease.limit(), work).await;
    lease.settle(&result);
    result.map_err(unapplied)
}

/// See [`crate::store::Store::now`].
pub(super) async fn now(pool: &Pool) -> Result<UnixMs, StoreError> {
    let mut lease = pool.get().await.map_err(unapplied)?;
    let limit = lease.limit();
    let work = async {
        let statement = lease.prepared(Sql::Now).await?;
        Ok(lease.query_one(&statement, &[]).await?.try_get(0)?)
    };
    let result = lease.within(limit, work).await;
    lease.settle(&result);
    result.map_err(unapplied)
}
