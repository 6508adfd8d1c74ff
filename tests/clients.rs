//! Real clients against the real daemon: the matrix of session back ends, client libraries and tools.
//!
//! Its result is `docs/clients.md`, which must be what the run says (`CLOAKROOM_TEST_BLESS=1` writes it). `CLIENT=word` runs
//! the rows whose script and arguments contain the word; `CLOAKROOM_TEST_AGAINST=redis` points them at a real Redis instead, to
//! see that they use it as it should be used.

#![allow(unreachable_pub, reason = "the parts of this test are modules of one binary")]

mod support;

#[path = "clients/app.rs"]
mod app;
#[path = "clients/browser.rs"]
mod browser;
#[path = "clients/drive.rs"]
mod drive;
#[path = "clients/replay.rs"]
mod replay;
#[path = "clients/report.rs"]
mod report;
#[path = "clients/server.rs"]
mod server;
#[path = "clients/tools.rs"]
mod tools;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use app::{About, App, Runs, run_to_end};
use report::{Part, Row};
use server::Server;
use support::daemon::StoreKind;
use support::postgres::Cluster;
use support::process::show;

/// How many rows run at once. Most of their time they wait: for an interpreter to start, for a key to expire.
const SIDE_BY_SIDE: usize = 4;
/// What the server asks the client libraries for. Without a space, which fred cannot send.
const PASSWORD: &str = "open-sesame";

/// How a row is run.
#[derive(Clone, Copy)]
enum How {
    /// A web application that a visitor goes through.
    Visit(Runs),
    /// A program that does its checks itself.
    Alone(Runs),
    /// Commands of a client that cannot be installed.
    Replay(&'static str, &'static str),
    /// A tool that is used from here.
    Here(&'static str, fn(&Server) -> About),
}

/// A row of the matrix.
#[derive(Clone, Copy)]
struct Entry {
    part: Part,
    how: How,
}

impl Entry {
    /// What the row is called by.
    fn line(&self) -> &'static str {
        match self.how {
            How::Visit(runs) | How::Alone(runs) => runs.line(),
            How::Here(name, _) | How::Replay(name, _) => name,
        }
    }
}

const fn sessions(runs: Runs) -> Entry {
    Entry { part: Part::Sessions, how: How::Visit(runs) }
}

const fn library(runs: Runs) -> Entry {
    Entry { part: Part::Libraries, how: How::Alone(runs) }
}

const fn beside(runs: Runs) -> Entry {
    Entry { part: Part::Beside, how: How::Alone(runs) }
}

const fn replayed(name: &'static str, text: &'static str) -> Entry {
    Entry { part: Part::Replayed, how: How::Replay(name, text) }
}

const fn used(name: &'static str, check: fn(&Server) -> About) -> Entry {
    Entry { part: Part::Tools, how: How::Here(name, check) }
}

/// phpredis, told by settings of PHP where the server is.
const PHPREDIS: &str = "phpredis_session.php session.save_handler=redis session.save_path=tcp://127.0.0.1:PORT \
                        session.use_strict_mode=1 session.gc_maxlifetime=1800";

const PHPREDIS_LOCKED: &str = "phpredis_session.php session.save_handler=redis session.save_path=tcp://127.0.0.1:PORT \
                               session.use_strict_mode=1 session.gc_maxlifetime=1800 redis.session.locking_enabled=1 \
                               redis.session.lock_retries=2000 redis.session.lock_wait_time=5000";

const MATRIX: &[Entry] = &[
    sessions(Runs::Python("venv", "django_sessions.py cache")),
    sessions(Runs::Python("venv", "django_sessions.py cached_db")),
    sessions(Runs::Python("venv", "django_sessions.py async")),
    sessions(Runs::Python("venv", "django_sessions.py django-redis")),
    sessions(Runs::Python("venv", "flask_session_app.py")),
    sessions(Runs::Python("venv", "starsessions_app.py")),
    sessions(Runs::Python("venv", "litestar_app.py")),
    sessions(Runs::Python("venv", "litestar_app.py renew")),
    sessions(Runs::Node("express_app.cjs redis")),
    sessions(Runs::Node("express_app.cjs redis5")),
    sessions(Runs::Node("express_app.cjs ioredis")),
    sessions(Runs::Node("koa_app.cjs")),
    sessions(Runs::Node("fastify_app.cjs")),
    sessions(Runs::Node("better_auth_app.mjs")),
    sessions(Runs::PhpServer(PHPREDIS)),
    sessions(Runs::PhpServer(PHPREDIS_LOCKED)),
    sessions(Runs::PhpServer("predis_session.php session.use_strict_mode=1")),
    sessions(Runs::PhpServer("symfony_session.php session.use_strict_mode=1")),
    sessions(Runs::PhpServer("laravel_session.php")),
    sessions(Runs::PhpServer("laravel_session.php app.lock=1")),
    sessions(Runs::Ruby("redis_rack_app.rb")),
    sessions(Runs::Ruby("rails_app.rb")),
    sessions(Runs::Go("redistore")),
    sessions(Runs::Rust("tower_sessions_app")),
    sessions(Runs::Rust("actix_session_app")),
    beside(Runs::Python("venv", "django_cache.py django")),
    beside(Runs::Python("venv", "django_cache.py django-redis")),
    beside(Runs::Python("venv", "locks.py")),
    beside(Runs::Python("venv-redis-4", "locks.py")),
    beside(Runs::Php("laravel_cache.php")),
    beside(Runs::Node("better_auth_storage.mjs")),
    library(Runs::Python("venv", "redis_py.py")),
    library(Runs::Python("venv-redis-6", "redis_py.py")),
    library(Runs::Python("venv-redis-5", "redis_py.py")),
    library(Runs::Python("venv-redis-4", "redis_py.py")),
    library(Runs::Node("node_redis.cjs redis")),
    library(Runs::Node("node_redis.cjs redis5")),
    library(Runs::Node("node_redis.cjs redis4")),
    library(Runs::Node("ioredis.cjs ioredis")),
    library(Runs::Node("ioredis.cjs ioredis5")),
    library(Runs::Rust("redis_rs")),
    library(Runs::Rust("fred_client")),
    library(Runs::Php("library.php phpredis")),
    library(Runs::Php("library.php predis")),
    library(Runs::Ruby("redis_rb.rb")),
    library(Runs::Go("redigo")),
    library(Runs::C("hiredis")),
    used("redis-cli", tools::redis_cli),
    used("redis-benchmark", tools::redis_benchmark),
    used("prometheus-redis-exporter", tools::exporter),
    replayed("replay spring_session", include_str!("clients/replay/spring_session.txt")),
    replayed("replay aspnet_core", include_str!("clients/replay/aspnet_core.txt")),
    replayed("replay scs", include_str!("clients/replay/scs.txt")),
    replayed("replay oauth2_proxy", include_str!("clients/replay/oauth2_proxy.txt")),
    replayed("replay magento", include_str!("clients/replay/magento.txt")),
    replayed("replay redisson_tomcat", include_str!("clients/replay/redisson_tomcat.txt")),
];

#[test]
fn the_matrix_on_postgres() {
    let cluster = Cluster::start();
    let entries = chosen();
    let rows = run_all(&entries, |number, password| {
        let database = format!("row{number}");
        cluster.create_database(&database);
        Server::start(store(StoreKind::Database(&cluster, &database)), password)
    });
    if entries.len() == MATRIX.len() && !is_redis() {
        check_page(&report::page(&rows));
    }
}

#[test]
fn the_matrix_on_sqlite() {
    run_all(&chosen(), |_, password| Server::start(store(StoreKind::Sqlite), password));
}

/// The rows that `CLIENT` names, all of them without it.
fn chosen() -> Vec<Entry> {
    let only = std::env::var("CLIENT").ok();
    let is_named = |entry: &Entry| only.as_ref().is_none_or(|word| entry.line().contains(word.as_str()));
    MATRIX.iter().copied().filter(is_named).collect()
}

fn is_redis() -> bool {
    std::env::var("CLOAKROOM_TEST_AGAINST").is_ok_and(|server| server == "redis")
}

fn store(kind: StoreKind<'_>) -> Option<StoreKind<'_>> {
    (!is_redis()).then_some(kind)
}

/// Runs rows side by side, each against a server of its own, and fails with the names of those that failed.
fn run_all(entries: &[Entry], start: impl Fn(usize, Option<&str>) -> Server + Sync) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let rows: Mutex<Vec<(usize, Option<Row>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(entry) = entries.get(number) else { return };
                    let row = catch_unwind(AssertUnwindSafe(|| run(entry, &|password| start(number, password))));
                    rows.lock().expect("no row panics here").push((number, row.ok()));
                }
            });
        }
    });
    let mut rows = rows.into_inner().expect("no row panics here");
    rows.sort_by_key(|(number, _)| *number);
    let failed: Vec<&str> =
        rows.iter().filter(|(_, row)| row.is_none()).map(|(number, _)| entries[*number].line()).collect();
    assert!(failed.is_empty(), "these clients failed, for the reasons above: {failed:#?}");
    rows.into_iter().filter_map(|(_, row)| row).collect()
}

/// Runs one row, and prints the line that says what it did.
fn run(entry: &Entry, start: &dyn Fn(Option<&str>) -> Server) -> Row {
    let (about, exercised) = match entry.how {
        How::Visit(runs) => {
            let mut server = start(None);
            let app = App::start(runs, server.port());
            (app.about.clone(), drive::drive(&app, &mut server))
        }
        How::Alone(runs) => {
            let server = start(Some(PASSWORD));
            let about = run_to_end(runs, server.port(), PASSWORD);
            (about.clone(), about.list("exercised"))
        }
        How::Replay(_, text) => {
            let about = replay::replay(text, &start(None));
            (about.clone(), about.list("exercised"))
        }
        How::Here(_, check) => {
            let about = check(&start(Some(PASSWORD)));
            (about.clone(), about.list("exercised"))
        }
    };
    assert!(!exercised.is_empty(), "{} did nothing", entry.line());
    show(&format!("{} ({}): {}", about.text("name"), about.text("version"), exercised.join(", ")));
    Row { part: entry.part, about, exercised }
}

/// The page must be what the run says.
fn check_page(page: &str) {
    if std::env::var_os("CLOAKROOM_TEST_BLESS").is_some() {
        std::fs::write(report::path(), page).expect("the page can be written");
        return;
    }
    let there = std::fs::read_to_string(report::path()).unwrap_or_default();
    for (line, (ours, theirs)) in page.lines().zip(there.lines()).enumerate() {
        assert_eq!(theirs, ours, "docs/clients.md is not what the run says (line {}): `make clients`", line + 1);
    }
    assert_eq!(there, page, "docs/clients.md is not what the run says: `make clients` writes it");
}
