//! Clients that do random things to few keys of a fleet and write down what they were told, errors and silence included.
//! They judge nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::client::{Client, encode};
use super::history::{Action, Micros, NEVER, Op, Told};
use super::rng::Rng;

/// How long a client waits for a reply: longer than any fault, and than what the daemon waits for the store.
const PATIENCE: Duration = Duration::from_secs(12);

/// The longest pause of a client between two requests, in µs.
const LONGEST_PAUSE: usize = 6_000;

/// A time to live that ends within the test, in ms.
const SHORT_TTL: std::ops::Range<usize> = 400..2_500;

/// One that does not.
const LONG_TTL: &str = "86400000";

/// For how long the same daemons change a key, while the others only read it, by the key's number: else what a daemon failed to
/// hear of would soon be hidden by a change of its own.
const TURNS: [Duration; 3] = [Duration::from_millis(700), Duration::from_millis(2_500), Duration::from_secs(6)];

/// What the clients do.
#[derive(Clone)]
pub struct Load {
    /// The ports of the daemons.
    pub ports: Vec<u16>,
    /// Clients of each daemon.
    pub clients: usize,
    /// Before the number of a key in its name.
    pub prefix: String,
    /// How many keys.
    pub keys: u32,
    /// Whether `SET … IFEQ` is used.
    pub cas: bool,
    /// Decides what they do.
    pub seed: u64,
}

/// Clients at work.
pub struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Notes>>,
}

/// What was written down.
#[derive(Clone, Default)]
pub struct Notes {
    /// What was answered, or may have been done.
    pub ops: Vec<Op>,
    /// Requests that were refused: they were not done.
    pub refused: usize,
}

impl Load {
    /// Starts the clients. Times are counted from `start`.
    pub fn start(&self, start: Instant) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let mut rng = Rng::new(self.seed);
        let threads = (0..self.ports.len() * self.clients).map(|number| {
            let worker = Worker {
                load: self.clone(),
                node: number % self.ports.len(),
                only_reads: number < self.ports.len(),
                rng: Rng::new(rng.next()),
                start,
                seen: vec![0; self.keys as usize],
                notes: Notes::default(),
            };
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || worker.work(&stop))
        });
        Clients { threads: threads.collect(), stop }
    }

    /// Reads every key from every daemon.
    pub fn read_all(&self, start: Instant) -> Vec<Op> {
        let mut ops = Vec::new();
        for node in 0..self.ports.len() {
            let mut client = Client::connect(self.ports[node]);
            for key in 0..self.keys {
                let call = micros(start);
                client.send(&request(&self.name(key), Action::Get));
                let told = told(Action::Get, &client.reply()).expect("a fleet that is well answers");
                ops.push(Op { key, node: node as u8, call, ret: micros(start), stale: 0, action: Action::Get, told });
            }
        }
        ops
    }

    fn name(&self, key: u32) -> String {
        format!("{}:{key}", self.prefix)
    }
}

impl Clients {
    /// Lets the clients finish what they wait for; what they wrote down.
    pub fn finish(self) -> Notes {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Notes::default();
        for thread in self.threads {
            let notes = thread.join().expect("clients do not panic");
            all.ops.extend(notes.ops);
            all.refused += notes.refused;
        }
        all
    }
}

struct Worker {
    load: Load,
    node: usize,
    /// One client of each daemon is never held up by a write of its own.
    only_reads: bool,
    rng: Rng,
    start: Instant,
    /// The value last seen of each key.
    seen: Vec<i64>,
    notes: Notes,
}

impl Worker {
    fn work(mut self, stop: &AtomicBool) -> Notes {
        let addr = SocketAddr::from(([127, 0, 0, 1], self.load.ports[self.node]));
        while !stop.load(Ordering::Relaxed) {
            let Ok(mut client) = Client::try_connect(addr) else {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            while !stop.load(Ordering::Relaxed) && self.ask(&mut client) {
                std::thread::sleep(Duration::from_micros(self.rng.below(LONGEST_PAUSE) as u64));
            }
        }
        self.notes
    }

    /// One request; false if the connection is of no more use.
    fn ask(&mut self, client: &mut Client) -> bool {
        let key = self.rng.below(self.load.keys as usize) as u32;
        let action =
            if !self.only_reads && self.may_change(key) { self.choose(self.seen[key as usize]) } else { Action::Get };
        let call = micros(self.start);
        let sent = client.try_send(&request(&self.load.name(key), action));
        let reply = sent.ok().and_then(|()| client.next_reply(PATIENCE).ok());
        let end = micros(self.start);
        let told = match &reply {
            None => Some(Told::Nothing),
            Some(reply) => told(action, reply),
        };
        let Some(told) = told else {
            self.notes.refused += 1;
            // What is away will not be back at once.
            std::thread::sleep(Duration::from_millis(2));
            return true;
        };
        if let Told::Value(Some(value)) = told {
            self.seen[key as usize] = value;
        }
        let ret = if told == Told::Nothing { NEVER } else { end };
        // A read that was not answered has no effect.
        if told != Told::Nothing || action != Action::Get {
            self.notes.ops.push(Op { key, node: self.node as u8, call, ret, stale: 0, action, told });
        }
        reply.is_some()
    }

    /// Whether it is this daemon's turn: that of one of them, mostly, and sometimes of any.
    fn may_change(&self, key: u32) -> bool {
        let turn = self.start.elapsed().as_millis() / TURNS[key as usize % TURNS.len()].as_millis();
        let mut chance = Rng::new(self.load.seed ^ u64::from(key) << 32 ^ turn as u64);
        let whose = chance.below(self.load.ports.len() + 1);
        whose == self.node || whose == self.load.ports.len()
    }

    fn choose(&mut self, seen: i64) -> Action {
        let rng = &mut self.rng;
        // Values are unique, with near certainty, and leave room for sums.
        let value = 1 + (rng.next() >> 24) as i64;
        let ms = SHORT_TTL.start + rng.below(SHORT_TTL.len());
        let ttl = rng.one_in(3).then_some(ms as Micros * 1_000);
        match rng.below(100) {
            0..50 => Action::Get,
            50..62 => Action::Set(value, ttl),
            62..72 => Action::SetNx(value, ttl),
            72..82 => Action::Del,
            82..85 => Action::GetDel,
            85..90 => Action::Expire(ttl),
            90..95 if self.load.cas => Action::Cas(seen, value),
            _ => Action::IncrBy(1 + (rng.next() >> 34) as i64),
        }
    }
}

fn micros(start: Instant) -> Micros {
    start.elapsed().as_micros() as Micros
}

fn request(key: &str, action: Action) -> Vec<u8> {
    let ms = |ttl: Micros| (ttl / 1_000).to_string();
    let set = |value: i64, options: &[&str], ttl: Option<Micros>| {
        let (value, ttl) = (value.to_string(), ttl.map(ms));
        let mut words = vec!["SET", key, &value];
        words.extend(options);
        words.extend(ttl.iter().flat_map(|ttl| ["PX", ttl.as_str()]));
        encode(&words)
    };
    match action {
        Action::Get => encode(&["GET", key]),
        Action::Set(value, ttl) => set(value, &[], ttl),
        Action::SetNx(value, ttl) => set(value, &["NX"], ttl),
        Action::Cas(old, new) => set(new, &["IFEQ", &old.to_string()], None),
        Action::Del => encode(&["DEL", key]),
        Action::GetDel => encode(&["GETDEL", key]),
        Action::Expire(ttl) => encode(&["PEXPIRE", key, &ttl.map_or(LONG_TTL.to_owned(), ms)]),
        Action::IncrBy(by) => encode(&["INCRBY", key, &by.to_string()]),
    }
}

/// What a reply says; none if it says for certain that nothing was done.
///
/// # Panics
/// If it is no reply to such a request.
fn told(action: Action, reply: &[u8]) -> Option<Told> {
    let text = String::from_utf8_lossy(reply);
    let lines: Vec<&str> = text.split("\r\n").collect();
    let number = |text: &str| text.parse::<i64>().expect("values are numbers");
    match (reply.first(), action) {
        (Some(b'-'), _) => {
            let certain =
                ["-ERR the session store is not available", "-ERR too many concurrent", "-READONLY", "-LOADING"];
            let refused = action == Action::Get || certain.iter().any(|start| text.starts_with(start));
            (!refused).then_some(Told::Nothing)
        }
        (Some(b'+'), _) => Some(Told::Done(true)),
        (Some(b':'), Action::IncrBy(_)) => Some(Told::Value(Some(number(&lines[0][1..])))),
        (Some(b':'), _) => Some(Told::Done(lines[0] != ":0")),
        (Some(b'$'), Action::Get | Action::GetDel) if lines[0] == "$-1" => Some(Told::Value(None)),
        (Some(b'$'), Action::Get | Action::GetDel) => Some(Told::Value(Some(number(lines[1])))),
        (Some(b'$'), Action::SetNx(..) | Action::Cas(..)) if lines[0] == "$-1" => Some(Told::Done(false)),
        _ => panic!("{action:?} was answered {}", text.escape_debug()),
    }
}
