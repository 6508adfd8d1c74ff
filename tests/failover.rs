//! A primary and its synchronous standby: the primary dies, the standby is promoted, and the daemons go on by themselves,
//! with nothing lost and nothing stale.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use support::client::Client;
use support::daemon::{Daemon, StoreKind};
use support::pgbouncer::PgBouncer;
use support::postgres::Cluster;
use support::wait_for;

/// Waits that a test would feel are shortened.
const IMPATIENT: &[(&str, &str)] = &[("postgres.connect_timeout", "1s"), ("postgres.statement_timeout", "3s")];

/// Both servers, of which the one that takes writes is wanted.
fn either(first: &Cluster, second: &Cluster) -> String {
    let (first, second) = (first.port(), second.port());
    format!("postgres://postgres@127.0.0.1:{first},127.0.0.1:{second}/postgres?target_session_attrs=read-write")
}

/// A line of `INFO coherence`.
fn info(daemon: &Daemon, field: &str) -> String {
    let text = daemon.client().ask("INFO coherence");
    let found = text.split("\\r\\n").find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("{field} in {text}")).to_owned()
}

fn trusted(daemon: &Daemon) {
    wait_for("the cache is used", || (info(daemon, "coherence_trusted") == "1").then_some(()));
}

/// Writers with keys of their own, which note what was acknowledged.
struct Load {
    acknowledged: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    writers: Vec<JoinHandle<(String, usize, usize)>>,
}

impl Load {
    fn start(daemons: &[&Daemon]) -> Self {
        let (acknowledged, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let writers = daemons.iter().flat_map(|daemon| [daemon.port(); 3]).enumerate().map(|(number, port)| {
            let (count, stop) = (Arc::clone(&acknowledged), Arc::clone(&stop));
            std::thread::spawn(move || {
                let key = format!("writer:{number}");
                let mut client = Client::connect(port);
                let (mut last, mut sent) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    sent += 1;
                    if client.ask(&format!("SET {key} {sent} EX 1000")) == "+OK\\r\\n" {
                        last = sent;
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
                (key, last, sent)
            })
        });
        Self { writers: writers.collect(), acknowledged, stop }
    }

    /// Waits for `more` further acknowledged writes.
    fn wait_for(&self, more: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        wait_for("acknowledged writes", || (self.acknowledged.load(Ordering::Relaxed) >= goal).then_some(()));
    }

    /// Ends the load; each daemon must show each writer's last acknowledged write, or one that was sent after it.
    fn check(self, daemons: &[&Daemon]) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            let (key, last, sent) = writer.join().expect("writers do not panic");
            for daemon in daemons {
                let reply = daemon.client().ask(&format!("GET {key}"));
                let found = reply.split("\\r\\n").nth(1).and_then(|text| text.parse::<usize>().ok());
                let found = found.unwrap_or_else(|| panic!("{key} is lost: {reply}"));
                assert!((last..=sent).contains(&found), "{key}: acknowledged {last}, found {found}, sent {sent}");
            }
        }
    }
}

#[test]
fn a_promotion_loses_nothing_that_was_acknowledged() {
    let mut first = Cluster::start();
    let second = Cluster::start_standby(&first);
    let url = either(&first, &second);
    let [a, b] = std::array::from_fn(|_| Daemon::start(StoreKind::Url(&url), IMPATIENT));
    [&a, &b].into_iter().for_each(trusted);
    let epochs = [&a, &b].map(|daemon| info(daemon, "coherence_epoch"));
    let mut on_a = a.client();
    assert_eq!(on_a.ask("SET k old"), "+OK\\r\\n");
    wait_for("both have it", || (b.client().ask("GET k") == "$3\\r\\nold\\r\\n").then_some(()));

    let load = Load::start(&[&a, &b]);
    load.wait_for(500);
    first.kill9();
    wait_for("writes are refused", || a.client().ask("SET refused 1").starts_with('-').then_some(()));
    second.promote();
    // The first thing that happens there, and nobody is linked yet, or it is heard.
    second.psql("BEGIN; UPDATE cloakroom.entry SET value = 'new' WHERE key = 'k'; NOTIFY cloakroom; COMMIT");
    load.wait_for(500);
    load.check(&[&a, &b]);

    for (daemon, before) in [&a, &b].into_iter().zip(epochs) {
        trusted(daemon);
        assert_ne!(info(daemon, "coherence_epoch"), before, "the cache has begun anew");
        assert_eq!(daemon.client().ask("GET k"), "$3\\r\\nnew\\r\\n", "nothing of the time before is served");
    }
    // And the two still hear each other.
    assert_eq!(on_a.ask("DEL k"), ":1\\r\\n");
    wait_for("the delete is seen", || (b.client().ask("GET k") == "$-1\\r\\n").then_some(()));
}

/// The old primary hangs: its connections stay open, and it accepts more.
#[test]
fn a_primary_that_hangs_is_left() {
    let first = Cluster::start();
    let second = Cluster::start_standby(&first);
    let daemon = Daemon::start(StoreKind::Url(&either(&first, &second)), IMPATIENT);
    trusted(&daemon);
    let load = Load::start(&[&daemon]);
    load.wait_for(100);
    first.freeze();
    second.promote();
    load.wait_for(100);
    load.check(&[&daemon]);
    trusted(&daemon);
    first.thaw();
}

/// The old primary lives on, cut off from its standby. Nothing that it still says proves anything.
#[test]
fn a_primary_that_lost_its_standby_proves_nothing() {
    let mut first = Cluster::start();
    let second = Cluster::start_standby(&first);
    let stays = Daemon::start(StoreKind::Url(&either(&first, &second)), IMPATIENT);
    trusted(&stays);
    assert_eq!(stays.client().ask("SET k old"), "+OK\\r\\n");
    assert_eq!(stays.client().ask("GET k"), "$3\\r\\nold\\r\\n");
    second.promote();
    let moved = Daemon::start(StoreKind::Url(&second.url()), IMPATIENT);
    assert_eq!(moved.client().ask("SET k new"), "+OK\\r\\n");
    wait_for("the cache is not used", || (info(&stays, "coherence_trusted") == "0").then_some(()));
    // A write there is acknowledged by nobody.
    assert!(stays.client().ask("SET k other").starts_with('-'));
    assert_eq!(info(&stays, "coherence_trusted"), "0");
    first.kill9();
    wait_for("the new value", || (stays.client().ask("GET k") == "$3\\r\\nnew\\r\\n").then_some(()));
    trusted(&stays);
    assert_eq!(moved.client().ask("DEL k"), ":1\\r\\n");
    wait_for("the delete is seen", || (stays.client().ask("GET k") == "$-1\\r\\n").then_some(()));
}

/// A pooler keeps its clients' connections when it turns to another server.
#[test]
fn a_pooler_that_turns_to_the_new_primary_begins_a_new_epoch() {
    let mut first = Cluster::start();
    let pooler = PgBouncer::start(&first);
    let second = Cluster::start_standby(&first);
    let links = either(&first, &second);
    let settings = [IMPATIENT, &[("coherence.listen_url", links.as_str())]].concat();
    let daemon = Daemon::start(StoreKind::Url(&pooler.url_of("postgres")), &settings);
    trusted(&daemon);
    let epoch = info(&daemon, "coherence_epoch");
    assert_eq!(daemon.client().ask("SET k old"), "+OK\\r\\n");
    let load = Load::start(&[&daemon]);
    load.wait_for(100);
    first.kill9();
    second.promote();
    pooler.lead_to(&first, &second);
    load.wait_for(100);
    load.check(&[&daemon]);
    trusted(&daemon);
    assert_ne!(info(&daemon, "coherence_epoch"), epoch);
    second.psql("BEGIN; UPDATE cloakroom.entry SET value = 'new' WHERE key = 'k'; NOTIFY cloakroom; COMMIT");
    wait_for("the new value", || (daemon.client().ask("GET k") == "$3\\r\\nnew\\r\\n").then_some(()));
}

/// The pooler leads to one server and the link to another: no cache, as neither knows of the other's commits.
#[test]
fn a_pooler_that_leads_elsewhere_than_the_link_leaves_the_cache_off() {
    let first = Cluster::start();
    let pooler = PgBouncer::start(&first);
    let other = Cluster::start();
    let link = other.url();
    trusted(&Daemon::start(StoreKind::Url(&link), &[]));
    let settings = [("coherence.listen_url", link.as_str())];
    let daemon = Daemon::start(StoreKind::Url(&pooler.url_of("postgres")), &settings);
    let mut client = daemon.client();
    assert_eq!(client.ask("SET k 0"), "+OK\\r\\n");
    for round in 1..20 {
        first.psql(&format!("UPDATE cloakroom.entry SET value = '{round}'"));
        let length = round.to_string().len();
        let expected = format!("${length}\\r\\n{round}\\r\\n");
        // Where disks are slow, a refusal may come first, but nothing old.
        let answer = wait_for("an answer", || Some(client.ask("GET k")).filter(|reply| !reply.starts_with('-')));
        assert_eq!(answer, expected, "not from the cache");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(daemon.log().contains("another postgres server"), "{}", daemon.log());
}

#[test]
fn a_standby_as_the_only_host_serves_reads_without_a_cache() {
    let first = Cluster::start();
    let second = Cluster::start_standby(&first);
    let primary = Daemon::start(StoreKind::Url(&first.url()), IMPATIENT);
    assert_eq!(primary.client().ask("SET k 1"), "+OK\\r\\n");
    let daemon = Daemon::start(StoreKind::Url(&second.url()), IMPATIENT);
    let mut client = daemon.client();
    wait_for("it has come over", || (client.ask("GET k") == "$1\\r\\n1\\r\\n").then_some(()));
    wait_for("the standby is known", || (info(&daemon, "coherence_state") == "standby").then_some(()));
    assert_eq!(info(&daemon, "coherence_trusted"), "0");
    assert!(daemon.log().contains("no server takes writes"), "{}", daemon.log());
    for line in ["SET k 2", "DEL k", "EXPIRE k 1000", "INCR k", "FLUSHALL"] {
        let reply = client.ask(line);
        assert!(reply.starts_with("-READONLY"), "{line}: {reply}");
    }
    primary.client().ask("SET k 3");
    wait_for("the change has come over", || (client.ask("GET k") == "$1\\r\\n3\\r\\n").then_some(()));
    assert_eq!(daemon.metric("cloakroom_cache_hits_total", &[]) as u64, 0, "nothing came from the cache");
    drop(primary);
    // Nothing has to be restarted when it becomes the primary.
    second.promote();
    wait_for("writes", || (client.ask("SET k 4") == "+OK\\r\\n").then_some(()));
    trusted(&daemon);
    assert_eq!(client.ask("GET k"), "$1\\r\\n4\\r\\n");
}
