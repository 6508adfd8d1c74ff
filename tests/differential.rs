//! The daemon must answer as Redis does: the same requests to both, the raw replies compared.
//!
//! Tables of requests are in `tests/cases`; random sequences come from a seed that is printed and can be replayed with
//! `CLOAKROOM_TEST_SEED`. What may differ is listed in `support/compare.rs`.

mod support;

use support::compare::{MODES, Mode, Pair, Section, Step, other, parse, request};
use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;
use support::process::show;
use support::redis::RedisServer;
use support::rng::Rng;

/// Differences shown before a test gives up.
const SHOWN: usize = 80;
/// Random sequences per store, and requests in each.
const SEQUENCES: usize = 300;
const SEQUENCE_LEN: usize = 40;

#[test]
fn redis_agrees_with_itself() {
    let (one, other) = (RedisServer::start(), RedisServer::start());
    check_everything(Pair { theirs: one.port(), ours: other.port() });
}

#[test]
fn sqlite_answers_as_redis() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    check_everything(Pair { theirs: redis.port(), ours: daemon.port() });
}

#[test]
fn postgres_answers_as_redis() {
    let redis = RedisServer::start();
    let cluster = Cluster::start();
    let daemon = Daemon::start(StoreKind::Postgres(&cluster), &[]);
    check_everything(Pair { theirs: redis.port(), ours: daemon.port() });
}

#[test]
fn password_answers_as_redis() {
    let redis = RedisServer::start_with(&["--requirepass", "sesame"]);
    let daemon = Daemon::start(StoreKind::Sqlite, &[("password", "sesame")]);
    let pair = Pair { theirs: redis.port(), ours: daemon.port() };
    let mut found = Vec::new();
    // Everything is refused before AUTH, so that FLUSHALL between the sections would be, too; they need none.
    for section in parse(include_str!("cases/auth.txt")) {
        for mode in MODES.into_iter().filter(|mode| !mode.resp3) {
            report(&mut found, &section.name, mode, pair.differences(&section.steps, mode));
        }
    }
    finish(&found);
}

#[test]
fn key_prefix_does_not_show() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(StoreKind::Sqlite, &[("key_prefix", "app:*[")]);
    let pair = Pair { theirs: redis.port(), ours: daemon.port() };
    let mut found = Vec::new();
    check_tables(pair, &parse(include_str!("cases/keys.txt")), &[MODES[0]], &mut found);
    finish(&found);
}

/// Commands of newer servers, which Debian's Redis does not know yet.
const NEWER: &[&str] = &["delex", "delifeq"];

/// Every command that the daemon lists must be Redis's: the same arity, keys, and error for a wrong number of arguments.
#[test]
fn command_table_is_redis() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let (mut theirs, mut ours) = (redis.client(), daemon.client());
    let table = ours.value("COMMAND");
    assert!(table.list().len() > 50, "COMMAND lists the commands: {table:?}");
    let mut found = Vec::new();
    let mut steps = Vec::new();
    for row in table.list() {
        let name = row.list().first().and_then(support::client::Value::text).expect("a row begins with the name");
        if NEWER.contains(&name) {
            continue;
        }
        let info = format!("COMMAND INFO {name}");
        let (theirs, ours) = (theirs.value(&info), ours.value(&info));
        // Name, arity, first key, last key, step. The flags are a set of their own.
        let fixed = |value: &support::client::Value| -> Vec<String> {
            let row = value.list().first().map(support::client::Value::list).unwrap_or_default();
            [0, 1, 3, 4, 5].iter().map(|at| format!("{:?}", row.get(*at))).collect()
        };
        if fixed(&theirs) != fixed(&ours) {
            found.push(format!("{info}\n      redis: {:?}\n       ours: {:?}", fixed(&theirs), fixed(&ours)));
        }
        let arity: i64 = row.list()[1].text().and_then(|text| text.parse().ok()).expect("the arity is a number");
        let minimum = usize::try_from(arity.abs()).expect("an arity is small");
        let mut lengths: Vec<usize> = (1..minimum).collect();
        if arity > 0 {
            lengths.extend([minimum + 1, minimum + 3]);
        }
        for length in lengths {
            let mut args = vec![name.as_bytes().to_vec()];
            args.resize(length, b"x".to_vec());
            steps.push(request(args));
        }
    }
    let pair = Pair { theirs: redis.port(), ours: daemon.port() };
    report(&mut found, "arity", MODES[0], pair.differences(&steps, MODES[0]));
    finish(&found);
}

fn check_everything(pair: Pair) {
    let mut found = Vec::new();
    for table in [
        include_str!("cases/strings.txt"),
        include_str!("cases/keys.txt"),
        include_str!("cases/connection.txt"),
        include_str!("cases/transactions.txt"),
        include_str!("cases/scripts.txt"),
        include_str!("cases/hashes.txt"),
    ] {
        check_tables(pair, &parse(table), &MODES, &mut found);
    }
    check_random(pair, &mut found);
    finish(&found);
}

fn check_tables(pair: Pair, sections: &[Section], modes: &[Mode], found: &mut Vec<String>) {
    for section in sections {
        for mode in modes {
            empty(pair);
            report(found, &section.name, *mode, pair.differences(&section.steps, *mode));
        }
    }
}

fn check_random(pair: Pair, found: &mut Vec<String>) {
    let seed = Rng::seed("random sequences");
    let mut rng = Rng::new(seed);
    for number in 0..SEQUENCES {
        let mode = MODES[rng.below(MODES.len())];
        let steps = if number % 3 == 0 {
            random_transactions(&mut rng)
        } else {
            (0..SEQUENCE_LEN).map(|_| request(random_request(&mut rng))).collect()
        };
        empty(pair);
        let differences = pair.differences(&steps, mode);
        if !differences.is_empty() {
            let script: Vec<&str> = steps
                .iter()
                .filter_map(|step| match step {
                    Step::Send { text, .. } | Step::Other { text, .. } => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            show(&format!("sequence {number} of seed {seed} ({mode:?}):\n{}", script.join("\n")));
            report(found, &format!("seed {seed} sequence {number}"), mode, differences);
            return;
        }
    }
}

fn empty(pair: Pair) {
    for port in [pair.theirs, pair.ours] {
        assert_eq!(support::client::Client::connect(port).ask("FLUSHALL"), "+OK\\r\\n");
    }
}

fn report(found: &mut Vec<String>, section: &str, mode: Mode, differences: Vec<String>) {
    let protocol = if mode.resp3 { "RESP3" } else { "RESP2" };
    let flow = if mode.pipelined { "pipelined" } else { "one by one" };
    found.extend(differences.into_iter().map(|text| format!("[{section}, {protocol}, {flow}] {text}")));
}

fn finish(found: &[String]) {
    let shown = found[..found.len().min(SHOWN)].join("\n");
    assert!(found.is_empty(), "{} differences:\n{shown}", found.len());
}

/// Transactions of random requests, with watched keys and a second client that writes between them.
fn random_transactions(rng: &mut Rng) -> Vec<Step> {
    // Replies that are near, or in another order, cannot be compared inside an array; a flush is refused there.
    const OUTSIDE: &[&str] = &["TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME", "KEYS", "FLUSHDB"];
    let words = |line: String| line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    let mut steps = Vec::new();
    for number in 0..SEQUENCE_LEN / 8 {
        let interfere = |rng: &mut Rng, steps: &mut Vec<Step>, may_delete: bool| {
            let key = rng.pick(&["a", "b", "c"]);
            // Values that are new each time: a write of what is there already may be no change here.
            let value = steps.len() + 1000 * number;
            match rng.below(if may_delete { 6 } else { 4 }) {
                0 => steps.push(other(words(format!("SET {key} {value}")))),
                1 => steps.push(other(words(format!("SET {key} {value} EX 5000")))),
                // A key that was absent when it was watched and is absent again counts as unchanged here.
                4 => steps.push(other(words(format!("DEL {key}")))),
                _ => {}
            }
        };
        for _ in 0..rng.below(3) {
            steps.push(request(random_request(rng)));
        }
        if rng.one_in(2) {
            steps.push(request(words(format!("WATCH {} {}", rng.pick(&["a", "b"]), rng.pick(&["b", "c"])))));
            interfere(rng, &mut steps, true);
        }
        steps.push(request(words("MULTI".to_owned())));
        for _ in 0..rng.below(7) {
            let queued = random_request(rng);
            if !OUTSIDE.iter().any(|name| queued[0] == name.as_bytes()) {
                steps.push(request(queued));
            }
        }
        interfere(rng, &mut steps, false);
        steps.push(request(words(if rng.one_in(8) { "DISCARD" } else { "EXEC" }.to_owned())));
    }
    steps.push(request(words("MGET a b c d".to_owned())));
    steps
}
/// What a random request looks like; one letter stands for a key, value, field, number, option and so on.
const FORMS: &[&str] = &[
    "GET k",
    "GET k",
    "SET k v",
    "SET k v",
    "SET k v o",
    "SET k v o o",
    "SET k v o o o",
    "SETEX k s v",
    "PSETEX k m v",
    "SETNX k v",
    "GETSET k v",
    "GETDEL k",
    "GETEX k",
    "GETEX k o",
    "MGET k k k",
    "MSET k v k v",
    "MSETNX k v k v",
    "DEL k",
    "DEL k k",
    "UNLINK k",
    "EXISTS k k",
    "TOUCH k",
    "TYPE k",
    "TTL k",
    "PTTL k",
    "EXPIRETIME k",
    "PEXPIRETIME k",
    "PERSIST k",
    "EXPIRE k s",
    "EXPIRE k s c",
    "EXPIRE k s c c",
    "PEXPIRE k m c",
    "EXPIREAT k 4102444800 c",
    "PEXPIREAT k 4102444800123",
    "INCR k",
    "DECR k",
    "INCRBY k n",
    "DECRBY k n",
    "INCRBYFLOAT k f",
    "APPEND k v",
    "STRLEN k",
    "GETRANGE k r r",
    "SETRANGE k r v",
    "HSET k h v",
    "HSET k h v h v",
    "HMSET k h v h v",
    "HSETNX k h v",
    "HGET k h",
    "HMGET k h h",
    "HGETALL k",
    "HKEYS k",
    "HVALS k",
    "HLEN k",
    "HEXISTS k h",
    "HSTRLEN k h",
    "HDEL k h",
    "HDEL k h h",
    "HINCRBY k h n",
    "HINCRBYFLOAT k h f",
    "HSCAN k 0",
    "RENAME k k",
    "RENAMENX k k",
    "COPY k k",
    "COPY k k REPLACE",
    "COPY k k DB 1 REPLACE",
    "SELECT d",
    "KEYS *",
    "FLUSHDB",
];

/// A request over few keys, so that sequences meet: mostly well-formed, sometimes not. Times are either long past or
/// far away: two servers cannot agree about a moment between. `OBJECT ENCODING` is not among them: in Redis it tells how a
/// value came to be (`APPEND` makes it raw), in the daemon what it is; the tables have the part that is the same.
fn random_request(rng: &mut Rng) -> Vec<Vec<u8>> {
    const KEYS: &[&str] = &["a", "b", "c", "d", "e\u{0}x"];
    const FIELDS: &[&str] = &["f", "g", "h", ""];
    const VALUES: &[&str] =
        &["", "1", "-5", "hello", "3.25", "9223372036854775807", "a longer value than forty-four bytes, to be raw"];
    const NUMBERS: &[&str] = &["0", "1", "-1", "5", "-7", "100", "9223372036854775807", "-9223372036854775808", "x"];
    const OPTIONS: &[&str] =
        &["NX", "XX", "GET", "KEEPTTL", "PERSIST", "EX s", "PX m", "EXAT 4102444800", "PXAT 1", "nope"];
    const CONDITIONS: &[&str] = &["NX", "XX", "GT", "LT"];
    const RANGES: &[&str] = &["0", "1", "3", "-1", "-3", "10", "60", "x"];
    const FLOATS: &[&str] = &["1", "0.5", "-0.25", "3.0e2", "1e15", "x", "inf"];
    let form =
        rng.pick(FORMS).split(' ').flat_map(|word| if word == "o" { rng.pick(OPTIONS) } else { word }.split(' '));
    let form: Vec<&str> = form.collect();
    let mut words: Vec<String> = Vec::new();
    for word in form {
        words.push(match word {
            "k" => rng.pick(KEYS).to_owned(),
            "v" => rng.pick(VALUES).to_owned(),
            "h" => rng.pick(FIELDS).to_owned(),
            "n" => rng.pick(NUMBERS).to_owned(),
            "c" => rng.pick(CONDITIONS).to_owned(),
            "r" => rng.pick(RANGES).to_owned(),
            "f" => rng.pick(FLOATS).to_owned(),
            "d" => rng.pick(&["0", "1"]).to_owned(),
            // Never the same twice: GT and LT would depend on the milliseconds between two requests.
            "s" if rng.one_in(5) => rng.pick(&["0", "-1", "x"]).to_owned(),
            "s" => (1_000 + rng.below(1_000_000_000)).to_string(),
            "m" => (1_000 * (1_000 + rng.below(1_000_000_000))).to_string(),
            literal => literal.to_owned(),
        });
    }
    words.into_iter().map(String::into_bytes).collect()
}
