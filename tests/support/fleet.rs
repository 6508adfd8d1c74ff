//! Several daemons on one Postgres, each behind proxies of its own: one for its pool of connections, one for the connection on
//! which it listens to the others. It knows how to start them and to make them well again, and nothing of what they are asked.

use std::time::Duration;

use super::daemon::{Daemon, StoreKind};
use super::postgres::Cluster;
use super::proxy::{Proxy, Weather};
use super::wait_for;

/// A cluster and the daemons that share it.
pub struct Fleet {
    /// Dropped first, so that the daemons end before what they use.
    pub nodes: Vec<Node>,
    /// The one database.
    pub cluster: Cluster,
}

/// One daemon and its ways to Postgres.
pub struct Node {
    /// The daemon itself.
    pub daemon: Daemon,
    /// What its pool's connections pass.
    pub pool: Proxy,
    /// What its listening connection passes; nothing, if the daemon is the only one.
    pub link: Proxy,
}

/// What differs between fleets.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// How many daemons.
    pub nodes: usize,
    /// `coherence.mode`.
    pub mode: &'a str,
    /// Further settings of all daemons.
    pub settings: &'a [(&'a str, &'a str)],
    /// For each of the first daemons, what the daemon's command is appended to: `env NAME=value`.
    pub wrappers: &'a [&'a [&'a str]],
}

impl Fleet {
    /// Starts all of it, and waits until every daemon answers.
    pub fn start(shape: Shape<'_>) -> Self {
        let cluster = Cluster::start();
        let nodes = (0..shape.nodes).map(|number| Node::start(&cluster, shape, number)).collect();
        let fleet = Self { nodes, cluster };
        fleet.wait_until_well();
        fleet
    }

    /// The daemons' ports.
    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.daemon.port()).collect()
    }

    /// Waits until every daemon writes and reads.
    pub fn wait_until_well(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            wait_for(&format!("node {number} is well"), || {
                let (status, _) = node.daemon.page("/readyz");
                let mut client = node.daemon.client();
                (status == 200 && client.ask("SET well 1") == "+OK\\r\\n").then_some(())
            });
        }
    }

    /// Ends the server's side of the connections that now pass these proxies.
    pub fn terminate(&self, proxy: &Proxy) {
        let ports: Vec<String> = proxy.upstream_ports().iter().map(ToString::to_string).collect();
        if !ports.is_empty() {
            let ports = ports.join(",");
            self.cluster.psql(&format!(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE client_port IN ({ports})"
            ));
        }
    }
}

impl Node {
    fn start(cluster: &Cluster, shape: Shape<'_>, number: usize) -> Self {
        let (pool, link) = (Proxy::before(cluster.port()), Proxy::before(cluster.port()));
        let url = |proxy: &Proxy| format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
        let (store, listen) = (url(&pool), url(&link));
        let mut settings = vec![("coherence.mode", shape.mode), ("postgres.connections", "4")];
        // One that is alone goes one way with everything, so that commits go on the connection on which it listens.
        if shape.nodes > 1 {
            settings.push(("coherence.listen_url", &listen));
        }
        settings.extend(shape.settings);
        let wrapper = shape.wrappers.get(number).copied().unwrap_or_default();
        let daemon = Daemon::start_wrapped(StoreKind::Url(&store), &settings, wrapper);
        Self { daemon, pool, link }
    }

    /// Both ways at once.
    pub fn set(&self, weather: Weather) {
        self.pool.set(weather);
        self.link.set(weather);
    }

    /// Stops the daemon's process where it is, for a while: it must not take the time for less than it was.
    pub fn pause(&self, length: Duration) {
        self.daemon.signal("STOP");
        std::thread::sleep(length);
        self.daemon.signal("CONT");
    }
}
