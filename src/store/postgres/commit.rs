//! The commit: groups become transactions, and each group gets its own outcome. Knows no SQL text.
//!
//! Groups of one mutation, and those that expect nothing, share transactions ("bulk"): whether one of them applies does
//! not concern the others. A larger group with expectations gets a transaction of its own, which is rolled back if one
//! of them does not hold.
//!
//! **Locks**: a transaction of several statements locks rows statement by statement, so two may wait for each other. The
//! first try waits for a lock only briefly. The next first locks all rows in order of their keys, as do groups that have
//! a transaction of their own.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::entry::{Applied, Change, Expect, Group, Mutation, Outcome, Version};
use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::link::{Acknowledged, Announce};
use crate::store::postgres::batch::{Batch, Checks, Deletes, Keys, Puts, Updates};
use crate::store::postgres::error::{Fault, Sent};
use crate::store::postgres::lease::{Lease, Statement, whole};
use crate::store::postgres::pool::Pool;
use crate::store::postgres::statement::{Hidden, Sql};
use crate::store::postgres::versions::{BLOCK, Versions};

/// Bounds on one bulk transaction, unless a single group is larger.
const MAX_BULK_ROWS: usize = 4096;
/// The same in bytes of keys and values. A message to Postgres may have 1 GiB.
const MAX_BULK_BYTES: usize = 32 * 1024 * 1024;
/// From so many rows on a transaction runs beside others, on a connection of its own. Smaller ones go one behind the other
/// on one connection, where the server need not wait for us in between.
const LARGE_BULK_ROWS: usize = 128;
/// How often a transaction is run again after a deadlock or the like.
const MAX_RETRIES: u32 = 8;
/// What a transaction sets that does not lock its rows in order.
const BRIEF: &str = "SET LOCAL lock_timeout = '20ms'";
/// What one sets that does.
const ORDERED: &str = "";

/// The groups of one transaction, by their numbers.
struct Work {
    groups: Vec<usize>,
    /// Whether one that does not apply must undo the others.
    is_alone: bool,
    retries: u32,
}

/// A failure, and whether the failed work may have been committed.
type Failure = (Fault, Sent);

/// A failure before anything was sent that lasts.
fn nothing(fault: Fault) -> Failure {
    (fault, Sent::Nothing)
}

/// Applies `batch`; see [`crate::store::Store::commit`].
pub(super) async fn commit(
    pool: &Pool,
    versions: &Versions,
    batch: &[Group],
    announce: Announce<'_>,
) -> Vec<Result<Outcome, StoreError>> {
    let mut results: Vec<Option<Result<Outcome, StoreError>>> = batch.iter().map(|_| None).collect();
    let mut queue = plan(batch, &mut results);
    let mut lease = None;
    while let Some(mut work) = queue.pop_front() {
        match Box::pin(run(pool, versions, &mut lease, (batch, announce), &work)).await {
            Ok(outcomes) => {
                for (group, outcome) in work.groups.into_iter().zip(outcomes) {
                    results[group] = Some(Ok(outcome));
                }
            }
            Err((fault, _)) if fault.is_retryable() && work.retries < MAX_RETRIES => {
                work.retries += 1;
                queue.push_front(work);
            }
            Err((fault, _)) if fault.is_of_a_row() && work.groups.len() > 1 => {
                let second = work.groups.split_off(work.groups.len() / 2);
                queue.push_front(Work { groups: second, is_alone: false, retries: 0 });
                queue.push_front(work);
            }
            Err((fault, sent)) => {
                fail(&work.groups, &fault, sent, &mut results);
                if fault.ends_connection() {
                    // The rest would wait for the same server one by one.
                    queue.drain(..).for_each(|work| fail(&work.groups, &fault, Sent::Nothing, &mut results));
                }
            }
        }
    }
    let unanswered = || Err(StoreError::bare(StoreErrorKind::Internal));
    results.into_iter().map(|result| result.unwrap_or_else(unanswered)).collect()
}

/// Gives the groups of a piece of work their error.
fn fail(groups: &[usize], fault: &Fault, sent: Sent, results: &mut [Option<Result<Outcome, StoreError>>]) {
    for &group in groups {
        results[group] = Some(Err(fault.clone().into_store(sent)));
    }
}

/// Distributes groups over transactions; answers those for which there is nothing to do.
fn plan(batch: &[Group], results: &mut [Option<Result<Outcome, StoreError>>]) -> VecDeque<Work> {
    let mut queue = VecDeque::new();
    let mut alone = Vec::new();
    let mut bulk = Vec::new();
    let (mut rows, mut bytes) = (0, 0);
    for (index, group) in batch.iter().enumerate() {
        let size: usize = group.iter().map(bytes_of).sum();
        if group.is_empty() {
            results[index] = Some(Ok(Outcome::Applied(Vec::new())));
        } else if group.len() as i64 > BLOCK {
            results[index] =
                Some(Err(StoreError::new(StoreErrorKind::Rejected, "more mutations than can be numbered")));
        } else if group.len() > 1 && group.iter().any(|mutation| mutation.expect != Expect::Any) {
            alone.push(Work { groups: vec![index], is_alone: true, retries: 0 });
        } else {
            if !bulk.is_empty() && (rows + group.len() > MAX_BULK_ROWS || bytes + size > MAX_BULK_BYTES) {
                queue.push_back(Work { groups: std::mem::take(&mut bulk), is_alone: false, retries: 0 });
                (rows, bytes) = (0, 0);
            }
            bulk.push(index);
            rows += group.len();
            bytes += size;
        }
    }
    if !bulk.is_empty() {
        queue.push_back(Work { groups: bulk, is_alone: false, retries: 0 });
    }
    queue.extend(alone);
    queue
}

/// What a mutation weighs on the wire, about.
fn bytes_of(mutation: &Mutation) -> usize {
    let value = match &mutation.change {
        Change::Put { value, .. } => value.len(),
        Change::Expire(_) | Change::Delete | Change::Keep => 0,
    };
    mutation.key.name().len() + value + 48
}

/// Runs one transaction on the leased connection, or on a new lease; the outcomes of its groups.
async fn run(
    pool: &Pool,
    versions: &Versions,
    slot: &mut Option<Lease>,
    (batch, announce): (&[Group], Announce<'_>),
    work: &Work,
) -> Result<Vec<Outcome>, Failure> {
    let mutations: Vec<&Mutation> = work.groups.iter().flat_map(|&group| &batch[group]).collect();
    // Who has met a lock, and waits for it now, does so where nobody else waits with it.
    let hurried = work.retries == 0 && announce.is_some_and(|aboard| aboard.is_alone);
    let fits =
        |lease: &Lease| lease.lasts() && (lease.is_exclusive || !work.is_alone) && (hurried || !lease.is_hurried());
    let mut lease = match slot.take().filter(fits) {
        Some(mut lease) => {
            lease.unsettle();
            lease
        }
        None if work.is_alone || mutations.len() >= LARGE_BULK_ROWS => pool.get().await.map_err(nothing)?,
        None => pool.get_behind(hurried).await.map_err(nothing)?,
    };
    let result = attempt(&lease, versions, &mutations, announce, work).await;
    let fault = result.as_ref().err();
    if !fault.is_some_and(|(fault, _)| fault.ends_connection()) {
        lease.settle(&Ok(()));
        // A server that went read-only under a URL that demands another.
        if fault.is_some_and(|(fault, sent)| lease.must_write() && fault.kind(*sent) == StoreErrorKind::ReadOnly) {
            lease.retire();
        } else {
            *slot = Some(lease);
        }
    }
    let mut applied = result?.into_iter();
    let outcome_of = |group: &usize| {
        let applied: Vec<Option<Applied>> = applied.by_ref().take(batch[*group].len()).collect();
        let applied: Option<Vec<Applied>> = applied.into_iter().collect();
        applied.map_or(Outcome::Conflict, Outcome::Applied)
    };
    Ok(work.groups.iter().map(outcome_of).collect())
}

/// Runs one transaction; what was applied, by mutation. An error leaves no transaction open, if the connection lives.
async fn attempt(
    lease: &Lease,
    versions: &Versions,
    mutations: &[&Mutation],
    announce: Announce<'_>,
    work: &Work,
) -> Result<Vec<Option<Applied>>, Failure> {
    let limit = lease.limit();
    let first = lease.within(limit, first_version(lease, versions, mutations.len() as i64)).await.map_err(nothing)?;
    let mut rows = Batch::new(mutations, first);
    let ordered = work.is_alone || work.retries > 0;
    let told = announce.map(|aboard| {
        let changed = mutations.iter().filter(|mutation| !matches!(mutation.change, Change::Keep));
        let hashes: Vec<u64> = changed.map(|mutation| mutation.key.hash()).collect();
        (aboard.announcer)(Some(&hashes))
    });
    let acknowledged = announce.and_then(|aboard| aboard.acknowledged);
    let preparing = Statements::prepare(lease, &rows, (told.unwrap_or_default(), acknowledged), ordered);
    let prepared = lease.within(limit, preparing).await.map_err(nothing)?;
    if work.is_alone {
        run_alone(lease, &prepared, &mut rows, limit).await?;
    } else {
        run_bulk(lease, &prepared, &mut rows, limit).await?;
    }
    Ok(rows.applied())
}

/// The first of `count` versions in a row.
async fn first_version(lease: &Lease, versions: &Versions, count: i64) -> Result<i64, Fault> {
    loop {
        if let Some(taken) = versions.take(count) {
            return Ok(taken.start);
        }
        reserve_versions(lease, versions).await?;
    }
}

/// Reserves a block of versions.
pub(super) async fn reserve_versions(lease: &Lease, versions: &Versions) -> Result<(), Fault> {
    let statement = lease.prepared(Sql::Versions).await?;
    versions.reserve(lease.query_one(&statement, &[]).await?.try_get(0)?);
    Ok(())
}

/// All statements in one go: alone if there is only one, else in a transaction that is sent whole.
async fn run_bulk(lease: &Lease, prepared: &Statements, rows: &mut Batch<'_>, limit: Duration) -> Result<(), Failure> {
    let work = async {
        if prepared.count() == 1 && prepared.admit.is_none() && lease.has_session() {
            return prepared.run(lease, rows).await;
        }
        // Polled in this order, so sent in this order. A COMMIT after a failure is a ROLLBACK that does not complain,
        // hence each answer is looked at.
        let is_ordered = prepared.lock.is_some() || prepared.count() == 1;
        let settings = if is_ordered { ORDERED } else { BRIEF };
        let transaction = async {
            tokio::join!(biased;
                lease.begin(settings),
                prepared.run(lease, rows),
                lease.batch_execute("COMMIT"),
            )
        };
        let (begun, done, committed) = whole(&lease.connection().sending, Box::pin(transaction)).await;
        if let Err(error) = begun {
            // What followed may have run, each statement by itself.
            return Err(Fault::away(&format!("BEGIN failed: {error}")));
        }
        done?;
        Ok(committed?)
    };
    lease.within(limit, work).await.map_err(|fault| (fault, Sent::Commit))
}

/// A transaction that commits only if everything applied.
async fn run_alone(lease: &Lease, prepared: &Statements, rows: &mut Batch<'_>, limit: Duration) -> Result<(), Failure> {
    let work = async {
        let (begun, done) = tokio::join!(biased; lease.begin(ORDERED), prepared.run(lease, rows));
        if let Err(error) = begun {
            return Err((Fault::away(&format!("BEGIN failed: {error}")), Sent::Commit));
        }
        done.map_err(nothing)
    };
    let done = timeout(limit, work).await.unwrap_or_else(|_| Err(nothing(Fault::late())));
    if done.is_ok() && rows.is_complete() {
        let commit = async { Ok(lease.batch_execute("COMMIT").await?) };
        return lease.within(limit, commit).await.map_err(|fault| (fault, Sent::Commit));
    }
    if done.as_ref().err().is_some_and(|(fault, _)| fault.ends_connection()) {
        return done;
    }
    lease.within(limit, async { Ok(lease.batch_execute("ROLLBACK").await?) }).await.map_err(nothing)?;
    done
}

/// The statements that a transaction needs.
struct Statements {
    /// With the daemons that have acknowledged.
    admit: Option<(Statement, Acknowledged)>,
    lock: Option<Statement>,
    put: Option<Statement>,
    update: Option<Statement>,
    delete: Option<Statement>,
    check: Option<Statement>,
    /// Where no single statement does it itself.
    tell: Option<Statement>,
    /// What is announced.
    told: Vec<String>,
}

impl Statements {
    /// Prepares them; `ordered`: if there are several, one that locks all rows goes first.
    async fn prepare(
        lease: &Lease,
        rows: &Batch<'_>,
        (told, acknowledged): (Vec<String>, Option<&Acknowledged>),
        ordered: bool,
    ) -> Result<Self, Fault> {
        let (puts, updates, deletes, checks) = (&rows.puts.key, &rows.updates.key, &rows.deletes.key, &rows.checks.key);
        let needs = [puts, updates, deletes, checks].map(|keys| !keys.is_empty());
        let several = needs.iter().filter(|needed| **needed).count() > 1;
        let [has_puts, has_updates, has_deletes, has_checks] = needs;
        let itself = !several && !told.is_empty();
        let put = match (rows.first_absent().is_some(), itself) {
            (false, false) => Sql::Put,
            (false, true) => Sql::PutTold,
            (true, false) => Sql::PutSome,
            (true, true) => Sql::PutSomeTold,
        };
        let (update, delete) = if itself { (Sql::UpdateTold, Sql::DeleteTold) } else { (Sql::Update, Sql::Delete) };
        Ok(Self {
            admit: match acknowledged {
                Some(acknowledged) => Some((lease.prepared(Sql::Admit).await?, acknowledged.clone())),
                None => None,
            },
            lock: if several && ordered { Some(lease.prepared(Sql::Lock).await?) } else { None },
            put: if has_puts { Some(lease.prepared(put).await?) } else { None },
            update: if has_updates { Some(lease.prepared(update).await?) } else { None },
            delete: if has_deletes { Some(lease.prepared(delete).await?) } else { None },
            check: if has_checks { Some(lease.prepared(Sql::Check).await?) } else { None },
            tell: if several && !told.is_empty() { Some(lease.prepared(Sql::Tell).await?) } else { None },
            told,
        })
    }

    fn count(&self) -> usize {
        [&self.lock, &self.put, &self.update, &self.delete, &self.check, &self.tell].into_iter().flatten().count()
    }

    /// Sends them all at once, and notes in `rows` what was applied.
    async fn run(&self, lease: &Lease, rows: &mut Batch<'_>) -> Result<(), Fault> {
        let first_absent = rows.first_absent();
        let keys = std::mem::take(&mut rows.keys);
        let (puts, updates) = (std::mem::take(&mut rows.puts), std::mem::take(&mut rows.updates));
        let (deletes, checks) = (std::mem::take(&mut rows.deletes), std::mem::take(&mut rows.checks));
        // What a statement announces itself, as its last parameter.
        let told = (self.tell.is_none() && !self.told.is_empty()).then_some(&self.told);
        let (admit, lock, put, update, delete, check, tell) = tokio::join!(biased;
            OptionFuture::from(self.admit.as_ref().map(|(statement, who)| Box::pin(admit(lease, statement, who)))),
            OptionFuture::from(self.lock.as_ref().map(|statement| Box::pin(lock(lease, statement, keys)))),
            OptionFuture::from(self.put.as_ref().map(|statement| put(lease, statement, puts, first_absent, told))),
            OptionFuture::from(self.update.as_ref().map(|statement| update(lease, statement, updates, told))),
            OptionFuture::from(self.delete.as_ref().map(|statement| delete(lease, statement, deletes, told))),
            OptionFuture::from(self.check.as_ref().map(|statement| Box::pin(check(lease, statement, checks)))),
            OptionFuture::from(self.tell.as_ref().map(|statement| Box::pin(tell(lease, statement, &self.told)))),
        );
        // The first that failed says why; those after it only that the transaction has failed.
        let (admit, lock) = (admit.transpose(), lock.transpose());
        let (put, update) = (put.transpose(), update.transpose());
        let (delete, check, tell) = (delete.transpose(), check.transpose(), tell.transpose());
        let faults = [
            admit.as_ref().err(),
            lock.as_ref().err(),
            put.as_ref().err(),
            update.as_ref().err(),
            delete.as_ref().err(),
            check.as_ref().err(),
            tell.as_ref().err(),
        ];
        if let Some(fault) = faults.into_iter().flatten().find(|fault| !fault.is_echo()) {
            return Err(fault.clone());
        }
        admit?;
        lock?;
        tell?;
        for version in [put?, update?, check?].into_iter().flatten().flatten() {
            rows.note(version, false);
        }
        for (version, existed) in delete?.into_iter().flatten() {
            rows.note(version, existed);
        }
        Ok(())
    }
}

type Parameters<'a> = Vec<&'a (dyn ToSql + Sync)>;

async fn lock(lease: &Lease, statement: &Statement, keys: Keys<'_>) -> Result<(), Fault> {
    lease.execute(statement, &[&keys.db, &Hidden(keys.key)]).await?;
    Ok(())
}

/// Nodes as the database has them.
pub(super) fn ids(acknowledged: &Acknowledged) -> Vec<i64> {
    acknowledged.nodes.iter().map(|node| *node as i64).collect()
}

async fn admit(lease: &Lease, statement: &Statement, who: &Acknowledged) -> Result<(), Fault> {
    lease.execute(statement, &[&ids(who), &who.until]).await?;
    Ok(())
}

async fn tell(lease: &Lease, statement: &Statement, told: &Vec<String>) -> Result<(), Fault> {
    lease.execute(statement, &[told]).await?;
    Ok(())
}

/// The versions of those applied; nothing if all are blind.
async fn put(
    lease: &Lease,
    statement: &Statement,
    rows: Puts<'_>,
    first_absent: Option<Version>,
    told: Option<&Vec<String>>,
) -> Result<Vec<Version>, Fault> {
    let Puts { version, expires_at, slot, db, kind, key, value } = rows;
    let (key, value) = (Hidden(key), Hidden(value));
    let mut parameters: Parameters<'_> = vec![&version, &expires_at, &slot, &db, &kind, &key, &value];
    parameters.extend(first_absent.as_ref().map(|version| version as &(dyn ToSql + Sync)));
    parameters.extend(told.map(|told| told as &(dyn ToSql + Sync)));
    if first_absent.is_none() {
        lease.execute(statement, &parameters).await?;
        return Ok(Vec::new());
    }
    versions_of(&lease.query(statement, &parameters).await?)
}

async fn update(
    lease: &Lease,
    statement: &Statement,
    rows: Updates<'_>,
    told: Option<&Vec<String>>,
) -> Result<Vec<Version>, Fault> {
    let Updates { version, expires_at, db, kind, key, value, expected } = rows;
    let (key, value) = (Hidden(key), Hidden(value));
    let mut parameters: Parameters<'_> = vec![&version, &expires_at, &db, &kind, &key, &value, &expected];
    parameters.extend(told.map(|told| told as &(dyn ToSql + Sync)));
    versions_of(&lease.query(statement, &parameters).await?)
}

async fn delete(
    lease: &Lease,
    statement: &Statement,
    rows: Deletes<'_>,
    told: Option<&Vec<String>>,
) -> Result<Vec<(Version, bool)>, Fault> {
    let Deletes { version, db, key, must_exist, expected } = rows;
    let key = Hidden(key);
    let mut parameters: Parameters<'_> = vec![&version, &db, &key, &must_exist, &expected];
    parameters.extend(told.map(|told| told as &(dyn ToSql + Sync)));
    let mut applied = Vec::new();
    for row in lease.query(statement, &parameters).await? {
        // A row without a version is from the announcement.
        if let Some(version) = row.try_get(0)? {
            applied.push((version, row.try_get(1)?));
        }
    }
    Ok(applied)
}

/// The versions in the rows of an answer; a row without one is from the announcement.
fn versions_of(rows: &[Row]) -> Result<Vec<Version>, Fault> {
    rows.iter().filter_map(|row| row.try_get(0).map_err(Fault::from).transpose()).collect()
}

/// The versions of the mutations whose rows are as they must be; those rows stay so until the commit.
async fn check(lease: &Lease, statement: &Statement, rows: Checks<'_>) -> Result<Vec<Version>, Fault> {
    let Checks { version, db, key, expected } = rows;
    let key = Hidden(key);
    let held = lease.query(statement, &[&version, &db, &key, &expected]).await?;
    held.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
