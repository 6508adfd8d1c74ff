//! Rounds of clients and faults on one fleet, each judged when it is over, and the report about many of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::faketime::wrapper;
use super::faults::{Kind, Outage, run, schedule};
use super::fleet::{Fleet, Shape};
use super::history::{Micros, Op};
use super::load::Load;
use super::process::show;
use super::rng::{Rng, SEED_VARIABLE};
use super::verdict::{Fault, faults, worst_staleness};

/// Daemons of a fleet.
const NODES: usize = 3;

/// Clients of each daemon.
const CLIENTS: usize = 4;

/// Keys of a round.
const KEYS: u32 = 4;

/// `coherence.max_staleness` of the fleets.
const MAX_STALENESS: Duration = Duration::from_secs(1);

/// `outage.serve_stale` of the fleets: short, so that its end is reached.
const SERVE_STALE: Duration = Duration::from_secs(3);

/// What the bounds leave to the rounding of clocks to milliseconds. A pause of any process is no excuse: the daemon judges the age of what it
/// serves when it serves it, which is after the client's call.
const ROUNDING: Duration = Duration::from_millis(5);

/// How far apart the daemons' measures of the database's clock may be while answers are slow.
const VAGUE: Duration = Duration::from_millis(150);

/// How long after an outage a daemon may still take the database for unreachable: a connection attempt and a probe.
const NOTICE: Duration = Duration::from_secs(4);

/// The length of a round of the soak.
const SOAK_SECONDS: u64 = 20;

/// What a fleet promises.
#[derive(Clone, Copy)]
pub struct Promise {
    /// What it is called in reports.
    pub name: &'static str,
    /// `coherence.mode`.
    pub mode: &'static str,
    /// How many daemons there are.
    pub nodes: usize,
    /// The age that an answer may have.
    pub stale: Duration,
    /// The age that it may have while the daemon cannot ask the database.
    pub stale_in_outage: Duration,
}

/// What coherence promises by default.
pub const DEFAULT: Promise = Promise {
    name: "default",
    mode: "on",
    nodes: NODES,
    stale: MAX_STALENESS,
    stale_in_outage: Duration::from_secs(MAX_STALENESS.as_secs() + SERVE_STALE.as_secs()),
};

/// What strict mode promises.
pub const STRICT: Promise =
    Promise { name: "strict", mode: "strict", nodes: NODES, stale: Duration::ZERO, stale_in_outage: Duration::ZERO };

/// The default where no other daemon is: who is alone commits on the connection on which it listens.
pub const ALONE: Promise = Promise { name: "alone", nodes: 1, ..DEFAULT };

/// What the soak judges.
const PROMISES: [Promise; 3] = [DEFAULT, STRICT, ALONE];

/// What is wrongly promised of daemons that do not listen.
pub const OFF: Promise = Promise { name: "off", mode: "off", ..DEFAULT };

/// A fleet that rounds are played on.
pub struct Session {
    /// The fleet.
    pub fleet: Fleet,
    promise: Promise,
    rounds: usize,
}

/// One round.
#[derive(Clone, Copy)]
pub struct Round {
    /// Decides the faults and what clients do.
    pub seed: u64,
    /// Whether there are faults.
    pub faults: bool,
    /// How long the clients work.
    pub seconds: u64,
}

/// What a round showed.
pub struct Outcome {
    /// The round's.
    pub seed: u64,
    /// What was promised.
    pub promised: &'static str,
    /// Operations of known outcome.
    pub known: usize,
    /// Operations of unknown outcome.
    pub unknown: usize,
    /// Requests that were refused.
    pub refused: usize,
    /// The faults that happened.
    pub happened: Vec<Kind>,
    /// The age of the stalest answer, in µs.
    pub worst_staleness: Micros,
    /// The same of answers outside of outages.
    pub worst_when_well: Micros,
    /// What was wrong.
    pub faults: Vec<Fault>,
}

impl Session {
    /// Starts a fleet.
    pub fn start(promise: Promise) -> Self {
        let serve_stale = format!("{}s", SERVE_STALE.as_secs());
        let max_staleness = format!("{}s", MAX_STALENESS.as_secs());
        let settings: &[(&str, &str)] = &[
            ("coherence.max_staleness", &max_staleness),
            ("outage.serve_stale", &serve_stale),
            // Without coherence, this bounds the age of what is served; it is to be noticed there.
            ("cache.max_age", "1h"),
        ];
        // Two of the machines have wrong clocks: that must not matter.
        let skews = [0, 3_600, -3_600].map(wrapper);
        let wrappers: Vec<Vec<&str>> = skews.iter().map(|words| words.iter().map(String::as_str).collect()).collect();
        let wrappers: Vec<&[&str]> = wrappers.iter().map(Vec::as_slice).collect();
        let fleet = Fleet::start(Shape { nodes: promise.nodes, mode: promise.mode, settings, wrappers: &wrappers });
        Self { fleet, promise, rounds: 0 }
    }

    /// Plays one round, makes the fleet well again, and judges what the clients were told.
    pub fn round(&mut self, round: Round) -> Outcome {
        self.rounds += 1;
        let mut rng = Rng::new(round.seed);
        let length = Duration::from_secs(round.seconds);
        let planned = if round.faults { schedule(&mut rng, self.promise.nodes, length) } else { Vec::new() };
        let load = Load {
            ports: self.fleet.ports(),
            clients: CLIENTS,
            prefix: format!("{}:{:x}", self.rounds, round.seed),
            keys: KEYS,
            cas: true,
            seed: rng.next(),
        };
        let start = Instant::now();
        let clients = load.start(start);
        let outages = run(&mut self.fleet, &planned, start);
        std::thread::sleep(length.saturating_sub(start.elapsed()));
        let notes = clients.finish();
        self.fleet.wait_until_well();
        let mut ops = notes.ops;
        ops.extend(load.read_all(start));
        let well = self.allow(&mut ops, &outages);
        Outcome {
            seed: round.seed,
            promised: self.promise.name,
            known: ops.iter().filter(|op| op.told != super::history::Told::Nothing).count(),
            unknown: ops.iter().filter(|op| op.told == super::history::Told::Nothing).count(),
            refused: notes.refused,
            happened: planned.iter().map(|fault| fault.kind).collect(),
            worst_staleness: worst_staleness(&ops),
            worst_when_well: worst_staleness(&well),
            faults: faults(&ops, VAGUE.as_micros() as Micros),
        }
    }

    /// Writes at each operation how stale its answer may be; those outside of outages.
    fn allow(&self, ops: &mut [Op], outages: &[Outage]) -> Vec<Op> {
        let micros = |time: Duration| time.as_micros() as Micros;
        // A strict answer is not stale at all: there is nothing to round.
        let bound = |stale: Duration| if stale.is_zero() { 0 } else { micros(stale + ROUNDING) };
        let mut well = Vec::new();
        for op in ops {
            let beside = |outage: &Outage| {
                outage.node == usize::from(op.node) && op.ret >= outage.from && op.call <= outage.to + micros(NOTICE)
            };
            if outages.iter().any(beside) {
                op.stale = bound(self.promise.stale_in_outage);
                if op.changed() {
                    well.push(*op);
                }
            } else {
                op.stale = bound(self.promise.stale);
                well.push(*op);
            }
        }
        well
    }
}

impl Outcome {
    /// Fails with the shortest histories that show what is wrong.
    ///
    /// # Panics
    /// If something is wrong.
    pub fn assert_right(&self) {
        show(&format!(
            "{}: {} operations, {} of unknown outcome, {} refused; stalest answer {} ms; {} faults",
            self.promised,
            self.known + self.unknown,
            self.unknown,
            self.refused,
            self.worst_staleness / 1_000,
            self.happened.len()
        ));
        let texts: Vec<&str> = self.faults.iter().map(|fault| fault.text.as_str()).collect();
        let (promised, seed) = (self.promised, self.seed);
        assert!(texts.is_empty(), "{promised}, {SEED_VARIABLE}={seed}: {:?}\n{}", self.happened, texts.join("\n"));
    }
}

/// Plays rounds for the minutes that `CLOAKROOM_SOAK_MINUTES` says, two fifths of them for each mode and one for a daemon alone, and
/// writes the report. With `CLOAKROOM_SOAK_MODE`, all of them for what is called so; with `CLOAKROOM_SOAK_ROUND`, all of them are the round of that seed.
///
/// # Panics
/// If a round shows a violation: at once, after the report is written.
pub fn soak(seed: u64) {
    let minutes: u64 = std::env::var("CLOAKROOM_SOAK_MINUTES").map_or(1, |text| text.parse().expect("a number"));
    let mut rng = Rng::new(seed);
    let mut outcomes: Vec<Outcome> = Vec::new();
    let start = Instant::now();
    let only = std::env::var("CLOAKROOM_SOAK_MODE").ok();
    let shares = match only.as_deref() {
        None => vec![(DEFAULT, 24), (STRICT, 48), (ALONE, 60)],
        Some(name) => {
            PROMISES.into_iter().filter(|promise| promise.name == name).map(|promise| (promise, 60)).collect()
        }
    };
    for (promise, share) in shares {
        let mut session = Session::start(promise);
        while start.elapsed() < Duration::from_secs(minutes * share) {
            let again = std::env::var("CLOAKROOM_SOAK_ROUND").ok().map(|text| text.parse().expect("a number"));
            let round = Round { seed: again.unwrap_or_else(|| rng.next()), faults: true, seconds: SOAK_SECONDS };
            let outcome = session.round(round);
            show(&format!(
                "{:>5} s  {}  {} operations  {} faults  stalest {} ms  violations {}",
                start.elapsed().as_secs(),
                outcome.promised,
                outcome.known + outcome.unknown,
                outcome.happened.len(),
                outcome.worst_staleness / 1_000,
                outcome.faults.len()
            ));
            let is_right = outcome.faults.is_empty();
            outcomes.push(outcome);
            if !is_right {
                write_report(&outcomes, seed, minutes, start.elapsed());
                outcomes[outcomes.len() - 1].assert_right();
            }
        }
    }
    write_report(&outcomes, seed, minutes, start.elapsed());
}

/// Writes `docs/soak.md`, or where `CLOAKROOM_SOAK_REPORT` says.
fn write_report(outcomes: &[Outcome], seed: u64, minutes: u64, took: Duration) {
    let path = std::env::var_os("CLOAKROOM_SOAK_REPORT")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/soak.md"), PathBuf::from);
    let text = report(outcomes, seed, minutes, took);
    std::fs::write(&path, text).expect("the report can be written");
    show(&format!("the report is in {}", path.display()));
}

fn report(outcomes: &[Outcome], seed: u64, minutes: u64, took: Duration) -> String {
    let mut text = format!(
        "# Soak\n\n`make soak MINUTES={minutes}` writes this file. {NODES} daemons on one Postgres, {CLIENTS} clients each, on {KEYS} keys at \
         a time, do `GET`, `SET`, `SET NX`, `SET IFEQ`, `DEL`, `GETDEL`, `PEXPIRE` and `INCRBY` while faults happen; every {SOAK_SECONDS} s \
         the history of each key is judged (`tests/support/linear.rs`): in strict mode it must be linearizable; by default \
         an answer may be at most `max_staleness` = {} s old, while its daemon cannot ask the database `serve_stale` = {} s \
         more, and never older than what its own daemon acknowledged. A daemon alone is under the default's rule, \
         and commits on the connection on which it listens.\n\n",
        MAX_STALENESS.as_secs(),
        SERVE_STALE.as_secs()
    );
    let of = |promise: Promise| outcomes.iter().filter(|outcome| outcome.promised == promise.name).collect::<Vec<_>>();
    let columns = PROMISES.map(of);
    let line = |first: &str, cells: [String; 3]| format!("| {first} | {} |\n", cells.join(" | "));
    let heads = PROMISES.map(|promise| promise.name.to_owned());
    let rule = "|---|---:|---:|---:|\n";
    text += &(line("", heads.clone()) + rule);
    let mut row = |name: &str, cell: &dyn Fn(&[&Outcome]) -> String| {
        text += &line(name, columns.each_ref().map(|outcomes| cell(outcomes)));
    };
    let sum = |field: fn(&Outcome) -> usize| {
        move |outcomes: &[&Outcome]| outcomes.iter().map(|outcome| field(outcome)).sum::<usize>().to_string()
    };
    let worst = |field: fn(&Outcome) -> Micros| {
        move |outcomes: &[&Outcome]| {
            format!("{:.1} ms", outcomes.iter().map(|outcome| field(outcome)).max().unwrap_or(0) as f64 / 1000.0)
        }
    };
    row("rounds", &|outcomes| outcomes.len().to_string());
    row("operations answered", &sum(|outcome| outcome.known));
    row("operations of unknown outcome", &sum(|outcome| outcome.unknown));
    row("requests refused with an error", &sum(|outcome| outcome.refused));
    row("faults", &sum(|outcome| outcome.happened.len()));
    row("worst staleness seen", &worst(|outcome| outcome.worst_staleness));
    row("the same outside of outages", &worst(|outcome| outcome.worst_when_well));
    row("**violations**", &sum(|outcome| outcome.faults.len()));
    let mut kinds: BTreeMap<Kind, [usize; 3]> = BTreeMap::new();
    for (at, outcomes) in columns.iter().enumerate() {
        for kind in outcomes.iter().flat_map(|outcome| &outcome.happened) {
            kinds.entry(*kind).or_default()[at] += 1;
        }
    }
    text += &("\n".to_owned() + &line("fault", heads) + rule);
    for (kind, counts) in kinds {
        text += &line(&kind.to_string(), counts.map(|count| count.to_string()));
    }
    let _ = writeln!(
        text,
        "\n{}, {} threads, commit {}, {} build, {} s, `{SEED_VARIABLE}={seed}`.",
        said("uname", &["-srm"]),
        std::thread::available_parallelism().map_or(0, usize::from),
        said("git", &["rev-parse", "--short", "HEAD"]),
        if super::daemon::binary().to_string_lossy().contains("release") { "release" } else { "debug" },
        took.as_secs()
    );
    text
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    output.map_or_else(|_| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
