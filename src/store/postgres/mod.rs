//! The store on Postgres: opens it, and spreads the `Store` trait over the files beside this one.

mod batch;
mod commit;
mod dial;
mod error;
mod lease;
mod link;
mod manager;
mod passfile;
mod pool;
mod read;
mod schema;
mod servers;
mod statement;
mod sweep;
mod taken;
mod tls;
pub mod url;
mod versions;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::config::PostgresConfig;
use crate::entry::{Entry, Group, Key, Outcome, UnixMs};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::link::{Announce, Link};
use crate::store::postgres::error::{Fault, Sent};
use crate::store::postgres::link::Linker;
use crate::store::postgres::pool::Pool;
use crate::store::postgres::versions::Versions;
use crate::store::{PoolState, ScanPage, ScanQuery, Store, SweepCursor, Swept};
use crate::tasks::Tasks;

/// Sessions in the schema `cloakroom` of a Postgres database.
pub struct PostgresStore {
    pool: Pool,
    linker: Linker,
    versions: Arc<Versions>,
    secret: [u8; 16],
}

impl PostgresStore {
    /// Connects, brings the schema up to date, and reads what daemons share.
    ///
    /// A server that cannot be reached (yet) is an error of kind [`StoreErrorKind::Unavailable`], after which the caller
    /// may try again; one that will not have us as we are is [`StoreError::is_permanent`]. A server that takes no writes
    /// is opened if its schema is up to date.
    pub async fn open(config: &PostgresConfig, tasks: &Tasks) -> Result<Self, StoreError> {
        let target = url::parse(&config.url, &|name| std::env::var(name).ok())
            .map_err(|faults| StoreError::permanent(faults.join("; ")))?;
        let linker = Linker::new(config, tasks)?;
        let versions = Arc::new(Versions::none());
        let pool = Pool::open(target, config, tasks, &versions).await.map_err(unopened)?;
        let mut lease = pool.get().await.map_err(unopened)?;
        schema::migrate(&mut lease).await.map_err(unopened)?;
        drop(lease);
        let mut lease = pool.get().await.map_err(unopened)?;
        let secret = schema::hash_secret(&mut lease).await.map_err(unopened)?;
        let reserved = commit::reserve_versions(&lease, &versions).await;
        lease.settle(&reserved);
        match reserved {
            Err(fault) if fault.kind(Sent::Nothing) != StoreErrorKind::ReadOnly => return Err(unopened(fault)),
            _ => {}
        }
        drop(lease);
        Ok(Self { pool, linker, versions, secret })
    }
}

/// The error of opening for a fault.
fn unopened(fault: Fault) -> StoreError {
    if fault.is_permanent() { StoreError::permanent(fault) } else { fault.into_store(Sent::Nothing) }
}

impl Store for PostgresStore {
    fn hash_secret(&self) -> [u8; 16] {
        self.secret
    }

    fn load(&self, keys: Vec<Key>) -> BoxFuture<'_, Result<Vec<Option<Entry>>, StoreError>> {
        Box::pin(async move { read::load(&self.pool, &keys).await })
    }

    fn commit<'a>(
        &'a self,
        batch: &'a [Group],
        announce: Announce<'a>,
    ) -> BoxFuture<'a, Vec<Result<Outcome, StoreError>>> {
        Box::pin(commit::commit(&self.pool, &self.versions, batch, announce))
    }

    fn scan(&self, query: ScanQuery) -> BoxFuture<'_, Result<ScanPage, StoreError>> {
        Box::pin(async move { read::scan(&self.pool, &query).await })
    }

    fn random(&self, db: u8, prefix: Vec<u8>) -> BoxFuture<'_, Result<Option<Box<[u8]>>, StoreError>> {
        Box::pin(read::random(&self.pool, db, prefix))
    }

    fn flush<'a>(
        &'a self,
        db: Option<u8>,
        prefix: Vec<u8>,
        announce: Announce<'a>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(sweep::flush(&self.pool, db, prefix, announce))
    }

    fn count(&self, prefix: Vec<u8>) -> BoxFuture<'_, Result<Vec<(u8, u64, u64)>, StoreError>> {
        Box::pin(read::count(&self.pool, prefix))
    }

    fn sweep(&self, from: Option<SweepCursor>, limit: u32) -> BoxFuture<'_, Result<Swept, StoreError>> {
        Box::pin(sweep::sweep(&self.pool, from, limit))
    }

    fn now(&self) -> BoxFuture<'_, Result<UnixMs, StoreError>> {
        Box::pin(read::now(&self.pool))
    }

    fn link(&self, for_commits: bool) -> BoxFuture<'_, Result<Option<Link>, StoreError>> {
        Box::pin(async move { self.linker.link(&self.pool, for_commits).await.map(Some).map_err(unopened) })
    }

    fn pool(&self) -> PoolState {
        self.pool.state()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.linker.close().await;
            self.pool.close().await;
        })
    }
}
