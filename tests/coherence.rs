//! Several daemons on one Postgres: what one changes, the others do not serve; and a daemon that hears nothing trusts nothing.

mod support;

use std::time::{Duration, Instant};

use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;
use support::wait_for;

/// What the daemons promise by default, with room for a busy machine between two commands of a test.
const BOUND: Duration = Duration::from_secs(1);

fn fleet<const N: usize>(cluster: &Cluster, settings: &[(&str, &str)]) -> [Daemon; N] {
    let fleet = std::array::from_fn(|_| Daemon::start(StoreKind::Postgres(cluster), settings));
    fleet.iter().for_each(trusted);
    fleet
}

/// Waits until a daemon uses its cache.
fn trusted(daemon: &Daemon) {
    wait_for("the cache is used", || (info(daemon, "coherence_trusted") == "1").then_some(()));
}

/// A line of `INFO coherence`.
fn info(daemon: &Daemon, field: &str) -> String {
    let text = daemon.client().ask("INFO coherence");
    let found = text.split("\\r\\n").find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("{field} in {text}")).to_owned()
}

/// Waits until `question` is answered so, which the promise says happens within the bound; how long that took.
fn soon(daemon: &Daemon, question: &str, answer: &str) -> Duration {
    let mut client = daemon.client();
    let since = Instant::now();
    wait_for(&format!("{question} answers {answer}"), || (client.ask(question) == answer).then_some(()));
    since.elapsed()
}

/// Hits and misses of the cache, so that a test knows that it tests the cache.
fn hits(daemon: &Daemon) -> f64 {
    daemon.metric("cloakroom_cache_hits_total", &[])
}

#[test]
fn what_one_daemon_changes_the_other_does_not_serve() {
    let cluster = Cluster::start();
    let [a, b] = fleet(&cluster, &[]);
    let (mut on_a, mut on_b) = (a.client(), b.client());
    for (change, question, before, after) in [
        ("SET k new", "GET k", "$3\\r\\nold\\r\\n", "$3\\r\\nnew\\r\\n"),
        ("DEL k", "GET k", "$3\\r\\nold\\r\\n", "$-1\\r\\n"),
        ("UNLINK k", "EXISTS k", ":1\\r\\n", ":0\\r\\n"),
        ("GETDEL k", "GET k", "$3\\r\\nold\\r\\n", "$-1\\r\\n"),
        ("PEXPIREAT k 1", "GET k", "$3\\r\\nold\\r\\n", "$-1\\r\\n"),
        ("APPEND k er", "GET k", "$3\\r\\nold\\r\\n", "$5\\r\\nolder\\r\\n"),
        ("MSET k new other 1", "GET k", "$3\\r\\nold\\r\\n", "$3\\r\\nnew\\r\\n"),
        ("FLUSHALL", "GET k", "$3\\r\\nold\\r\\n", "$-1\\r\\n"),
        ("EXPIRE k 1000", "TTL k", ":-1\\r\\n", ":1000\\r\\n"),
        // A known absence is cached, too.
        ("SETNX absent new", "GET absent", "$-1\\r\\n", "$3\\r\\nnew\\r\\n"),
    ] {
        on_a.ask("SET k old");
        soon(&b, question, before);
        // The first answer may have come before the announcement, which then kept it out of the cache.
        wait_for("an answer from the cache", || {
            let counted = hits(&b);
            assert_eq!(on_b.ask(question), before);
            (hits(&b) > counted).then_some(())
        });
        assert!(!on_a.ask(change).starts_with('-'));
        let took = soon(&b, question, after);
        assert!(took < BOUND * 5, "{change} was seen after {took:?}");
    }
    for (daemon, sent, received) in [(&a, true, false), (&b, false, true)] {
        let count = |name: &str| daemon.metric(&format!("cloakroom_coherence_invalidations_{name}_total"), &[]) > 0.0;
        assert_eq!((count("sent"), count("received")), (sent, received));
    }
    wait_for("a heartbeat of the other", || (info(&a, "coherence_peers") == "1").then_some(()));
}

#[test]
fn a_daemon_that_lost_its_link_reads_through_and_begins_anew() {
    let cluster = Cluster::start();
    let [a, b] = fleet(&cluster, &[]);
    a.client().ask("SET k old");
    soon(&b, "GET k", "$3\\r\\nold\\r\\n");
    let epoch = info(&b, "coherence_epoch");
    let links = "FROM pg_stat_activity WHERE application_name = 'cloakroom link'";
    assert_eq!(cluster.psql(&format!("SELECT count(pg_terminate_backend(pid)) {links}")), "2");
    // What was on the link as it was cut has an unknown outcome.
    soon(&a, "SET k new", "+OK\\r\\n");
    soon(&b, "GET k", "$3\\r\\nnew\\r\\n");
    wait_for("a new epoch", || (info(&b, "coherence_epoch") != epoch).then_some(()));
    trusted(&b);
    assert!(b.log().contains("cache is not used: the link to other daemons was lost"), "{}", b.log());
    a.client().ask("SET k newer");
    soon(&b, "GET k", "$5\\r\\nnewer\\r\\n");
}

#[test]
fn a_daemon_commits_on_its_link_while_it_hears_no_other() {
    let cluster = Cluster::start();
    let writes_on = |name: &str| {
        let of_name = format!("FROM pg_stat_activity WHERE application_name = '{name}'");
        cluster.psql(&format!("SELECT count(*) {of_name} AND query LIKE '%INSERT%'"))
    };
    let [a] = fleet(&cluster, &[]);
    a.client().ask("SET k old");
    assert_eq!(writes_on("cloakroom"), "0");
    let [b] = fleet(&cluster, &[]);
    wait_for("they hear each other", || (info(&a, "coherence_peers") == "1").then_some(()));
    soon(&b, "GET k", "$3\\r\\nold\\r\\n");
    a.client().ask("SET k new");
    assert_eq!(writes_on("cloakroom"), "1");
    soon(&b, "GET k", "$3\\r\\nnew\\r\\n");
}

#[test]
fn the_auditor_finds_what_was_changed_unheard() {
    let cluster = Cluster::start();
    let [daemon] = fleet(&cluster, &[("coherence.max_staleness", "200ms")]);
    daemon.client().ask("SET k old");
    wait_for("audits", || (info(&daemon, "audits") != "0").then_some(()));
    assert_eq!(info(&daemon, "audit_stale"), "0");
    cluster.psql("UPDATE cloakroom.entry SET value = 'new', version = version + 1");
    wait_for("the auditor notices", || (info(&daemon, "audit_stale") != "0").then_some(()));
    assert!(daemon.metric("cloakroom_audit_stale_age_seconds", &[]) > 0.2);
    assert_eq!(daemon.client().ask("GET k"), "$3\\r\\nnew\\r\\n", "what was found is forgotten");
}

#[test]
fn an_administrator_can_say_that_everything_changed() {
    let cluster = Cluster::start();
    let [daemon] = fleet(&cluster, &[]);
    daemon.client().ask("SET k old");
    assert_eq!(daemon.client().ask("GET k"), "$3\\r\\nold\\r\\n");
    cluster.psql("BEGIN; DELETE FROM cloakroom.entry; NOTIFY cloakroom; COMMIT");
    soon(&daemon, "GET k", "$-1\\r\\n");
}

#[test]
fn without_coherence_entries_are_cached_for_a_bounded_time() {
    let cluster = Cluster::start();
    let off = [("coherence.mode", "off"), ("cache.max_age", "200ms")];
    let [a, b] = std::array::from_fn(|_| Daemon::start(StoreKind::Postgres(&cluster), &off));
    a.client().ask("SET k old");
    soon(&b, "GET k", "$3\\r\\nold\\r\\n");
    a.client().ask("DEL k");
    soon(&b, "GET k", "$-1\\r\\n");
    assert_eq!((info(&b, "coherence_state"), info(&b, "coherence_mode")), ("off".to_owned(), "off".to_owned()));
    assert_eq!(cluster.psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cloakroom link'"), "0");
}

const STRICT: &[(&str, &str)] = &[("coherence.mode", "strict")];

/// Waits until a daemon knows of so many others that strict writes wait for.
fn knows(daemon: &Daemon, others: &str) {
    wait_for("the others are known", || (info(daemon, "coherence_members") == others).then_some(()));
}

/// Brings `k` into a daemon's cache with this value.
fn cached(daemon: &Daemon, value: &str) {
    let mut client = daemon.client();
    let answer = format!("${}\\r\\n{value}\\r\\n", value.len());
    wait_for("an answer from the cache", || {
        let counted = hits(daemon);
        (client.ask("GET k") == answer && hits(daemon) > counted).then_some(())
    });
}

#[test]
fn a_strict_write_is_acknowledged_when_no_other_daemon_serves_the_old_value() {
    let cluster = Cluster::start();
    let [a, b, c] = fleet(&cluster, STRICT);
    let (mut on_a, mut on_b, mut on_c) = (a.client(), b.client(), c.client());
    for round in 0..100 {
        let old = format!("old{round}");
        assert_eq!(on_a.ask(&format!("SET k {old}")), "+OK\\r\\n");
        let shown = format!("${}\\r\\n{old}\\r\\n", old.len());
        assert_eq!((on_b.ask("GET k"), on_c.ask("GET k")), (shown.clone(), shown.clone()));
        let (change, answer, gone) = match round % 4 {
            0 => ("DEL k", ":1\\r\\n", "$-1\\r\\n"),
            1 => ("SET k new", "+OK\\r\\n", "$3\\r\\nnew\\r\\n"),
            2 => ("PEXPIREAT k 1", ":1\\r\\n", "$-1\\r\\n"),
            _ => ("FLUSHALL", "+OK\\r\\n", "$-1\\r\\n"),
        };
        let counted = hits(&b);
        assert_eq!(on_b.ask("GET k"), shown);
        assert!(hits(&b) >= counted);
        // Sometimes by a daemon that has it cached itself.
        let writer = if round % 3 == 0 { &mut on_c } else { &mut on_a };
        assert_eq!(writer.ask(change), answer);
        assert_eq!((on_b.ask("GET k"), on_c.ask("GET k")), (gone.to_owned(), gone.to_owned()), "after {change}");
    }
    knows(&a, "2");
    wait_for("all fences are lifted", || {
        [&a, &b, &c].iter().all(|daemon| info(daemon, "coherence_fences") == "0").then_some(())
    });
}

#[test]
fn a_strict_write_outlives_daemons_that_die_stop_and_come() {
    let cluster = Cluster::start();
    let [a, b, mut c] = fleet(&cluster, STRICT);
    a.client().ask("SET k old");
    for daemon in [&b, &c] {
        cached(daemon, "old");
    }
    c.kill9();
    assert_eq!(a.client().ask("SET k newer"), "+OK\\r\\n", "its lease has run out");
    assert_eq!(b.client().ask("GET k"), "$5\\r\\nnewer\\r\\n");

    cached(&b, "newer");
    let mut on_b = b.client();
    b.signal("STOP");
    assert_eq!(a.client().ask("SET k newest"), "+OK\\r\\n");
    b.signal("CONT");
    assert_eq!(on_b.ask("GET k"), "$6\\r\\nnewest\\r\\n", "it does not serve first and notice later");

    let writer = std::thread::spawn({
        let mut client = a.client();
        move || {
            (0..200).map(|number| client.ask(&format!("SET n {number}"))).filter(|reply| reply != "+OK\\r\\n").collect()
        }
    });
    let newcomers: [Daemon; 2] = fleet(&cluster, STRICT);
    let failed: Vec<String> = writer.join().unwrap();
    assert!(failed.is_empty(), "{failed:?}");
    for daemon in newcomers.iter().chain([&b]) {
        assert_eq!(daemon.client().ask("GET n"), "$3\\r\\n199\\r\\n");
    }
}
