//! What goes wrong in a fleet, when, and for how long: chosen by a seed, done to a running fleet, undone again.
//! It knows nothing of what clients do meanwhile.

use std::fmt;
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::history::Micros;
use super::proxy::Weather;
use super::rng::Rng;

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A daemon's pool of connections has this weather.
    Pool(Sky),
    /// A daemon's listening connection has it.
    Link(Sky),
    /// Both have it.
    Both(Sky),
    /// A daemon is killed, and started again later.
    DaemonKilled,
    /// A daemon's process is stopped, and goes on later as if nothing had been.
    DaemonPaused,
    /// Postgres is killed, and started again later.
    PostgresKilled,
    /// Postgres is restarted as an administrator would.
    PostgresRestarted,
    /// All of Postgres's processes are stopped, and go on later.
    PostgresFrozen,
    /// Postgres ends the connection on which a daemon listens.
    LinkTerminated,
    /// Postgres ends all of a daemon's pool of connections.
    PoolTerminated,
}

/// Bad weather, in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sky {
    /// Every piece comes later.
    Slow,
    /// Nothing passes.
    Stalled,
    /// No answer passes.
    Deaf,
    /// Connections are closed.
    Cut,
}

/// All kinds, each as likely as it is often here.
const KINDS: &[Kind] = &[
    Kind::Pool(Sky::Slow),
    Kind::Pool(Sky::Stalled),
    Kind::Pool(Sky::Deaf),
    Kind::Pool(Sky::Cut),
    Kind::Link(Sky::Slow),
    Kind::Link(Sky::Stalled),
    Kind::Link(Sky::Stalled),
    Kind::Link(Sky::Deaf),
    Kind::Link(Sky::Cut),
    Kind::Both(Sky::Slow),
    Kind::Both(Sky::Stalled),
    Kind::Both(Sky::Deaf),
    Kind::Both(Sky::Cut),
    Kind::DaemonKilled,
    Kind::DaemonPaused,
    Kind::DaemonPaused,
    Kind::PostgresKilled,
    Kind::PostgresRestarted,
    Kind::PostgresFrozen,
    Kind::LinkTerminated,
    Kind::PoolTerminated,
];

/// The longest fault, mostly. Longer than the daemon waits for a connection.
const LONGEST_MS: usize = 2_600;

/// The longest of the few that outlast all bounds on staleness, and what the daemon waits for a statement; shorter than clients wait.
const LONGEST_OF_ALL_MS: usize = 7_000;

/// The longest time without a fault between two.
const LONGEST_REST_MS: usize = 500;

/// How late a piece comes in slow weather, at most.
const SLOWEST_MS: usize = 60;

/// One fault.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What happens.
    pub kind: Kind,
    /// To which daemon, if it happens to one.
    pub node: usize,
    /// From when, since the start.
    pub from: Duration,
    /// For how long.
    pub lasts: Duration,
    /// How late a piece comes, in slow weather.
    late: Duration,
}

/// A time in which a daemon could not ask the database.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Which daemon.
    pub node: usize,
    /// From when.
    pub from: Micros,
    /// Until when.
    pub to: Micros,
}

impl Kind {
    /// Whether it happens on a way of its own to what listens.
    fn is_of_link(self) -> bool {
        matches!(self, Self::Link(_) | Self::LinkTerminated)
    }

    fn hits_all(self) -> bool {
        matches!(self, Self::PostgresKilled | Self::PostgresRestarted | Self::PostgresFrozen)
    }

    /// Whether the daemons that it happens to cannot ask the database.
    fn is_outage(self) -> bool {
        match self {
            Self::Pool(sky) | Self::Both(sky) => sky != Sky::Slow,
            Self::Link(_) | Self::LinkTerminated | Self::DaemonKilled | Self::DaemonPaused => false,
            Self::PoolTerminated | Self::PostgresKilled | Self::PostgresRestarted | Self::PostgresFrozen => true,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, sky) = match self {
            Self::Pool(sky) => ("pool's connections", sky),
            Self::Link(sky) => ("listening connection", sky),
            Self::Both(sky) => ("all connections of a daemon", sky),
            Self::DaemonKilled => return f.write_str("daemon killed and started again"),
            Self::DaemonPaused => return f.write_str("daemon's process paused"),
            Self::PostgresKilled => return f.write_str("Postgres killed and started again"),
            Self::PostgresRestarted => return f.write_str("Postgres restarted"),
            Self::PostgresFrozen => return f.write_str("Postgres paused"),
            Self::LinkTerminated => return f.write_str("listening connection ended by Postgres"),
            Self::PoolTerminated => return f.write_str("pool's connections ended by Postgres"),
        };
        let what = match sky {
            Sky::Slow => "slowed",
            Sky::Stalled => "stalled",
            Sky::Deaf => "stalled towards the daemon only",
            Sky::Cut => "cut",
        };
        write!(f, "{who} {what}")
    }
}

/// Faults for `length`, in order of their beginning. Two may overlap if they happen to different daemons. One that is alone
/// has only one way to the database.
pub fn schedule(rng: &mut Rng, nodes: usize, length: Duration) -> Vec<Fault> {
    let ms = |count: usize| Duration::from_millis(count as u64);
    let kinds: Vec<Kind> = KINDS.iter().copied().filter(|kind| nodes > 1 || !kind.is_of_link()).collect();
    let mut faults: Vec<Fault> = Vec::new();
    let mut from = ms(300 + rng.below(700));
    let mut last_ends = Duration::ZERO;
    loop {
        let kind = kinds[rng.below(kinds.len())];
        let longest = if rng.one_in(6) { LONGEST_OF_ALL_MS } else { LONGEST_MS };
        let (node, lasts) = (rng.below(nodes), ms(200 + rng.below(longest - 200)));
        let (late, rest, early) =
            (ms(5 + rng.below(SLOWEST_MS - 5)), ms(50 + rng.below(LONGEST_REST_MS)), rng.one_in(3));
        let overlaps = early && faults.last().is_some_and(|last| !last.kind.hits_all() && last.node != node);
        if !overlaps || kind.hits_all() {
            from = from.max(last_ends) + rest;
        } else {
            from += rest;
        }
        if from + lasts > length {
            return faults;
        }
        faults.push(Fault { kind, node, from, lasts, late });
        last_ends = last_ends.max(from + lasts);
    }
}

/// Does all of it to the fleet, as planned from `start` on; the times in which daemons could not ask the database, in µs since
/// `start`.
pub fn run(fleet: &mut Fleet, faults: &[Fault], start: Instant) -> Vec<Outage> {
    let mut moments: Vec<(Duration, usize, bool)> = Vec::new();
    for (number, fault) in faults.iter().enumerate() {
        moments.push((fault.from, number, true));
        moments.push((fault.from + fault.lasts, number, false));
    }
    moments.sort_unstable();
    let now = || start.elapsed().as_micros() as Micros;
    let mut began = vec![0; faults.len()];
    let mut outages = Vec::new();
    for (time, number, begins) in moments {
        std::thread::sleep(time.saturating_sub(start.elapsed()));
        let fault = &faults[number];
        if begins {
            began[number] = now();
            fault.begin(fleet);
        } else {
            fault.end(fleet);
            if fault.kind.is_outage() {
                let nodes = if fault.kind.hits_all() { 0..fleet.nodes.len() } else { fault.node..fault.node + 1 };
                outages.extend(nodes.map(|node| Outage { node, from: began[number], to: now() }));
            }
        }
    }
    outages
}

impl Fault {
    fn weather(&self, sky: Sky) -> Weather {
        match sky {
            Sky::Slow => Weather::Slow(self.late),
            Sky::Stalled => Weather::Stalled,
            Sky::Deaf => Weather::Deaf,
            Sky::Cut => Weather::Cut,
        }
    }

    fn begin(&self, fleet: &mut Fleet) {
        let node = &mut fleet.nodes[self.node];
        match self.kind {
            Kind::Pool(sky) => node.pool.set(self.weather(sky)),
            Kind::Link(sky) => node.link.set(self.weather(sky)),
            Kind::Both(sky) => node.set(self.weather(sky)),
            Kind::DaemonKilled => node.daemon.kill9(),
            Kind::DaemonPaused => node.daemon.signal("STOP"),
            Kind::PostgresKilled => fleet.cluster.kill9(),
            Kind::PostgresRestarted => fleet.cluster.stop(),
            Kind::PostgresFrozen => fleet.cluster.freeze(),
            Kind::LinkTerminated => fleet.terminate(&fleet.nodes[self.node].link),
            Kind::PoolTerminated => fleet.terminate(&fleet.nodes[self.node].pool),
        }
    }

    fn end(&self, fleet: &mut Fleet) {
        let node = &mut fleet.nodes[self.node];
        match self.kind {
            Kind::Pool(_) => node.pool.set(Weather::Clear),
            Kind::Link(_) => node.link.set(Weather::Clear),
            Kind::Both(_) => node.set(Weather::Clear),
            Kind::DaemonKilled => node.daemon.start_again(),
            Kind::DaemonPaused => node.daemon.signal("CONT"),
            Kind::PostgresKilled | Kind::PostgresRestarted => fleet.cluster.run(),
            Kind::PostgresFrozen => fleet.cluster.thaw(),
            Kind::LinkTerminated | Kind::PoolTerminated => {}
        }
    }
}
