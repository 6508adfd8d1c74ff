//! Through a transaction pooler: reads and writes work, nothing is left behind in its sessions, and the cache is used only
//! with a way around it for the link.

mod support;

use support::daemon::{Daemon, StoreKind};
use support::pgbouncer::{PgBouncer, psql};
use support::postgres::Cluster;
use support::wait_for;

/// A daemon whose store is behind the pooler.
fn behind(pooler: &PgBouncer, settings: &[(&str, &str)]) -> Daemon {
    Daemon::start(StoreKind::Url(&pooler.url_of("postgres")), settings)
}

/// A line of `INFO coherence`.
fn info(daemon: &Daemon, field: &str) -> String {
    let text = daemon.client().ask("INFO coherence");
    let found = text.split("\\r\\n").find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("{field} in {text}")).to_owned()
}

fn hits(daemon: &Daemon) -> u64 {
    daemon.metric("cloakroom_cache_hits_total", &[]) as u64
}

#[test]
fn without_a_way_around_the_cache_stays_off() {
    let cluster = Cluster::start();
    let pooler = PgBouncer::start(&cluster);
    let daemon = behind(&pooler, &[]);
    let mut client = daemon.client();
    for (line, reply) in [
        ("SET k 1 EX 1000", "+OK\\r\\n"),
        ("SET k 2 NX", "$-1\\r\\n"),
        ("SET k 2 XX GET", "$1\\r\\n1\\r\\n"),
        ("INCR n", ":1\\r\\n"),
        ("INCR n", ":2\\r\\n"),
        ("MSET a 1 b 2", "+OK\\r\\n"),
        ("MSETNX b 3 c 4", ":0\\r\\n"),
        ("MGET k a b c", "*4\\r\\n$1\\r\\n2\\r\\n$1\\r\\n1\\r\\n$1\\r\\n2\\r\\n$-1\\r\\n"),
        ("RENAME a z", "+OK\\r\\n"),
        ("GETDEL z", "$1\\r\\n1\\r\\n"),
        ("EXPIRE n 100", ":1\\r\\n"),
        ("DBSIZE", ":3\\r\\n"),
        ("DEL b n nothing", ":2\\r\\n"),
        ("SCAN 0", "*2\\r\\n$1\\r\\n0\\r\\n*1\\r\\n$1\\r\\nk\\r\\n"),
        ("FLUSHALL", "+OK\\r\\n"),
        ("GET k", "$-1\\r\\n"),
    ] {
        assert_eq!(client.ask(line), reply, "{line}");
    }
    wait_for("the pooler is found", || (info(&daemon, "coherence_state") == "unheard").then_some(()));
    assert_eq!(info(&daemon, "coherence_trusted"), "0");
    assert!(daemon.log().contains("coherence.listen_url"), "{}", daemon.log());
    assert!(daemon.log().contains("behind a pooler"), "{}", daemon.log());
    // What somebody else changes is seen at once.
    client.ask("SET k old");
    assert_eq!(client.ask("GET k"), "$3\\r\\nold\\r\\n");
    cluster.psql("UPDATE cloakroom.entry SET value = 'new'");
    assert_eq!(client.ask("GET k"), "$3\\r\\nnew\\r\\n");
    assert_eq!(hits(&daemon), 0, "nothing came from the cache");
    // The pooler's sessions are as they were: others use them, too.
    let shows = "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN \
                 ('search_path', 'synchronous_commit', 'statement_timeout', 'enable_seqscan', 'lock_timeout')";
    for _ in 0..10 {
        assert_eq!(psql(&pooler, shows), cluster.psql(shows));
    }
    let listens = "SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'";
    assert_eq!(cluster.psql(listens), "0", "no session of the pooler's was made to listen");
}

#[test]
fn with_a_way_around_for_the_link_the_cache_is_used() {
    let cluster = Cluster::start();
    let pooler = PgBouncer::start(&cluster);
    let direct = cluster.url();
    let settings = [("coherence.listen_url", direct.as_str())];
    let [a, b] = std::array::from_fn(|_| behind(&pooler, &settings));
    // One that is not behind the pooler at all.
    let c = Daemon::start(StoreKind::Postgres(&cluster), &[]);
    for daemon in [&a, &b, &c] {
        wait_for("the cache is used", || (info(daemon, "coherence_trusted") == "1").then_some(()));
    }
    for (writer, reader) in [(&a, &b), (&b, &c), (&c, &a)] {
        writer.client().ask("SET k old");
        let mut client = reader.client();
        wait_for("the write is seen", || (client.ask("GET k") == "$3\\r\\nold\\r\\n").then_some(()));
        let counted = hits(reader);
        wait_for("a hit", || {
            client.ask("GET k");
            (hits(reader) > counted).then_some(())
        });
        writer.client().ask("DEL k");
        wait_for("the delete is seen", || (client.ask("GET k") == "$-1\\r\\n").then_some(()));
    }
    wait_for("all are heard", || (info(&a, "coherence_peers") == "2").then_some(()));
    let epochs: Vec<String> = [&a, &b, &c].map(|daemon| info(daemon, "coherence_epoch")).into();
    assert_eq!(epochs, ["1", "1", "1"], "pool and link agree on the server, whichever way they take");
}

#[test]
fn a_pooler_that_dies_and_comes_back_is_used_again() {
    let cluster = Cluster::start();
    let mut pooler = PgBouncer::start(&cluster);
    let direct = cluster.url();
    let settings = [("coherence.listen_url", direct.as_str()), ("postgres.connect_timeout", "500ms")];
    let daemon = behind(&pooler, &settings);
    let mut client = daemon.client();
    assert_eq!(client.ask("SET k 1"), "+OK\\r\\n");
    for _ in 0..3 {
        pooler.kill9();
        let reply = client.ask("SET k 2");
        assert!(reply.starts_with('-'), "{reply}");
        pooler.run();
        wait_for("writes again", || (client.ask("SET k 3") == "+OK\\r\\n").then_some(()));
        assert_eq!(client.ask("GET k"), "$1\\r\\n3\\r\\n");
    }
}

/// A pooler may be told to leave out what it does not know.
#[test]
fn a_pooler_that_drops_the_mark_is_found_as_well() {
    let cluster = Cluster::start();
    let pooler = PgBouncer::start_with(&cluster, "ignore_startup_parameters = options");
    let daemon = behind(&pooler, &[]);
    assert_eq!(daemon.client().ask("SET k 1"), "+OK\\r\\n");
    assert_eq!(daemon.client().ask("GET k"), "$1\\r\\n1\\r\\n");
    wait_for("the pooler is found", || (info(&daemon, "coherence_state") == "unheard").then_some(()));
    assert_eq!(psql(&pooler, "SHOW search_path"), "\"$user\", public");
}

/// The same promise as without a pooler, where sessions can be told to keep it.
#[test]
fn what_is_acknowledged_through_a_pooler_survives_a_lazy_server() {
    let mut cluster = Cluster::start_with(&[("synchronous_commit", "off"), ("wal_writer_delay", "10s")]);
    let pooler = PgBouncer::start(&cluster);
    let daemon = behind(&pooler, &[("postgres.connect_timeout", "500ms")]);
    let mut client = daemon.client();
    for round in 0..5 {
        for number in 0..20 {
            assert_eq!(client.ask(&format!("SET k:{round}:{number} 1")), "+OK\\r\\n");
            assert_eq!(client.ask(&format!("MSET m:{round}:{number} 1 n:{round}:{number} 1")), "+OK\\r\\n");
        }
        cluster.kill9();
        cluster.run();
        let all = (round + 1) * 60;
        wait_for("reads again", || client.ask("DBSIZE").starts_with(':').then_some(()));
        assert_eq!(client.ask("DBSIZE"), format!(":{all}\\r\\n"), "round {round}");
        wait_for("writes again", || (client.ask("SET x 1") == "+OK\\r\\n").then_some(()));
        client.ask("DEL x");
    }
}
