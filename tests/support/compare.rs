//! Sends the same requests to two servers and tells where the raw replies differ.
//! The rules for replies that may differ are all in [`rule`]; everything else must be the same bytes.

use std::time::Duration;

use super::PATIENCE;
use super::client::{Client, Ended, decode, encode, shown};
use super::words::{split, unescape};

/// How far apart two answers about remaining milliseconds may be: the servers are asked one after the other.
const SLACK_MS: i64 = 5_000;
/// The same in seconds: a rounding may fall on either side.
const SLACK_S: i64 = 5;

/// What two replies to one request must have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Every byte.
    Same,
    /// The same elements in any order.
    SameSet,
    /// Positive integers at most this far apart; anything else exactly.
    Near(i64),
    /// The same type of reply: ids, free text, random choices. Errors and nulls exactly.
    SameType,
    /// Every byte, but a fault of the language is only told at the same place: Luau words it in its own way.
    Script,
    /// The handshake: all but the version and the connection's id.
    Hello,
}

/// The rule for a request. Redis fixes every reply that is not listed here.
pub fn rule(args: &[Vec<u8>]) -> Rule {
    let word =
        |at: usize| args.get(at).map(|arg| String::from_utf8_lossy(arg).to_ascii_uppercase()).unwrap_or_default();
    match (word(0).as_str(), word(1).as_str()) {
        ("TTL" | "EXPIRETIME", _) => Rule::Near(SLACK_S),
        ("PTTL" | "PEXPIRETIME", _) => Rule::Near(SLACK_MS),
        ("KEYS", _) => Rule::SameSet,
        ("EVAL" | "EVAL_RO" | "SCRIPT", _) => Rule::Script,
        ("HELLO", _) => Rule::Hello,
        ("HRANDFIELD" | "RANDOMKEY" | "INFO" | "MEMORY", _) | ("CLIENT", "ID" | "INFO" | "LIST") => Rule::SameType,
        _ => Rule::Same,
    }
}

/// What came back for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// These bytes.
    Reply(Vec<u8>),
    /// The connection was closed instead.
    Closed,
    /// Nothing, for very long.
    Silent,
}

impl Outcome {
    /// For people.
    pub fn shown(&self) -> String {
        match self {
            Self::Reply(bytes) => shown(bytes),
            Self::Closed => "(closed)".to_owned(),
            Self::Silent => "(no reply)".to_owned(),
        }
    }
}

/// Whether two outcomes agree under a rule.
pub fn agree(rule: Rule, theirs: &Outcome, ours: &Outcome) -> bool {
    let (Outcome::Reply(theirs), Outcome::Reply(ours)) = (theirs, ours) else { return theirs == ours };
    if theirs == ours {
        return true;
    }
    match rule {
        Rule::Same => false,
        Rule::SameSet => sorted(theirs) == sorted(ours),
        Rule::Near(slack) => match (integer(theirs), integer(ours)) {
            (Some(a), Some(b)) => a > 0 && b > 0 && (a - b).abs() <= slack,
            _ => false,
        },
        Rule::SameType => {
            let kind = |bytes: &[u8]| (bytes.first().copied(), bytes.get(1) == Some(&b'-'));
            kind(theirs) == kind(ours) && theirs.first() != Some(&b'-')
        }
        Rule::Script => match (place_of_fault(theirs), place_of_fault(ours)) {
            (Some(theirs), Some(ours)) => theirs == ours,
            _ => false,
        },
        Rule::Hello => without_identity(theirs) == without_identity(ours),
    }
}

/// One line of a table of requests.
#[derive(Clone, Debug)]
pub enum Step {
    /// A request, as an array of bulk strings or in another form; the arguments choose the rule.
    Send {
        /// What is sent.
        bytes: Vec<u8>,
        /// The arguments, if the form is an ordinary request.
        args: Vec<Vec<u8>>,
        /// The line in the table.
        text: String,
    },
    /// A request on a second connection.
    Other {
        /// What is sent.
        bytes: Vec<u8>,
        /// The arguments.
        args: Vec<Vec<u8>>,
        /// The line in the table.
        text: String,
    },
    /// A `SCAN` with these arguments, to its end: the same set of keys.
    Scan(Vec<Vec<u8>>),
    /// A pause.
    Sleep(Duration),
}

/// A part of a table: runs on empty servers and fresh connections.
pub struct Section {
    /// Its name.
    pub name: String,
    /// Its lines.
    pub steps: Vec<Step>,
}

/// Reads a table.
pub fn parse(text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if let Some(name) = line.strip_prefix("## ") {
            sections.push(Section { name: name.to_owned(), steps: Vec::new() });
        } else if !line.starts_with("# ") {
            sections.last_mut().expect("a table begins with a section").steps.push(step(line));
        }
    }
    sections
}

/// A request as a step.
pub fn request(args: Vec<Vec<u8>>) -> Step {
    let text = args.iter().map(|arg| format!("\"{}\"", shown(arg))).collect::<Vec<_>>().join(" ");
    Step::Send { bytes: encode(&args), args, text }
}

/// A request on the second connection as a step.
pub fn other(args: Vec<Vec<u8>>) -> Step {
    let text = args.iter().map(|arg| format!("\"{}\"", shown(arg))).collect::<Vec<_>>().join(" ");
    Step::Other { bytes: encode(&args), args, text: format!("@other {text}") }
}

fn step(line: &str) -> Step {
    let text = line.to_owned();
    if let Some(rest) = line.strip_prefix("@inline ") {
        return Step::Send { bytes: format!("{rest}\r\n").into_bytes(), args: Vec::new(), text };
    }
    if let Some(rest) = line.strip_prefix("@raw ") {
        let quoted = rest.trim().trim_start_matches('"').trim_end_matches('"');
        return Step::Send { bytes: unescape(quoted), args: Vec::new(), text };
    }
    if let Some(rest) = line.strip_prefix("@other ") {
        return other(split(rest));
    }
    if let Some(rest) = line.strip_prefix("@scan") {
        return Step::Scan(split(rest));
    }
    if let Some(rest) = line.strip_prefix("@sleep ") {
        return Step::Sleep(Duration::from_millis(rest.trim().parse().expect("milliseconds")));
    }
    let args = split(line);
    Step::Send { bytes: encode(&args), args, text }
}

/// How requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// After `HELLO 3`.
    pub resp3: bool,
    /// Many requests before the first reply is read.
    pub pipelined: bool,
}

/// Every way to send.
pub const MODES: [Mode; 4] = [
    Mode { resp3: false, pipelined: false },
    Mode { resp3: true, pipelined: false },
    Mode { resp3: false, pipelined: true },
    Mode { resp3: true, pipelined: true },
];

/// A pair of servers, by port: the real one and the one under test.
#[derive(Clone, Copy)]
pub struct Pair {
    /// Redis.
    pub theirs: u16,
    /// The daemon.
    pub ours: u16,
}

impl Pair {
    /// Runs steps against both, and returns a line for every difference.
    pub fn differences(self, steps: &[Step], mode: Mode) -> Vec<String> {
        let mut links = [Link::open(self.theirs, mode), Link::open(self.ours, mode)];
        let mut found = Vec::new();
        let mut rest = steps;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest, mode));
            rest = after;
            let [theirs, ours] = links.each_mut().map(|link| link.run(batch));
            for (step, (theirs, ours)) in batch.iter().zip(theirs.iter().zip(&ours)) {
                let (rule, text) = match step {
                    Step::Send { args, text, .. } | Step::Other { args, text, .. } => (rule(args), text.as_str()),
                    Step::Scan(_) => (Rule::Same, "(a whole SCAN)"),
                    Step::Sleep(_) => continue,
                };
                if !agree(rule, theirs, ours) {
                    let (theirs, ours) = (theirs.shown(), ours.shown());
                    found.push(format!("{text}\n      redis: {theirs}\n       ours: {ours}"));
                }
            }
        }
        found
    }
}

/// How many steps go out before the replies are read. A request that ends the connection ends its batch, since what
/// is sent after it may or may not be reset.
fn batch_len(steps: &[Step], mode: Mode) -> usize {
    let alone = |step: &Step| !matches!(step, Step::Send { .. });
    let ends = |step: &Step| match step {
        Step::Send { bytes, .. } => bytes.to_ascii_uppercase().windows(4).any(|window| window == b"QUIT"),
        _ => true,
    };
    if !mode.pipelined || alone(&steps[0]) {
        return 1;
    }
    let sends = steps.iter().take_while(|step| !alone(step)).count();
    steps[..sends].iter().position(ends).map_or(sends, |at| at + 1)
}

/// A connection that is made anew when the server closes it.
struct Link {
    port: u16,
    mode: Mode,
    client: Client,
    other: Option<Client>,
}

impl Link {
    fn open(port: u16, mode: Mode) -> Self {
        Self { port, mode, client: greet(port, mode), other: None }
    }

    fn run(&mut self, batch: &[Step]) -> Vec<Outcome> {
        match batch {
            [Step::Scan(args)] => return vec![self.scan(args)],
            [Step::Other { bytes, .. }] => {
                let other = self.other.get_or_insert_with(|| greet(self.port, self.mode));
                other.send(bytes);
                return vec![Outcome::Reply(other.reply())];
            }
            [Step::Sleep(pause)] => {
                std::thread::sleep(*pause);
                return vec![Outcome::Closed];
            }
            _ => {}
        }
        let bytes: Vec<u8> = batch
            .iter()
            .flat_map(|step| match step {
                Step::Send { bytes, .. } => bytes.as_slice(),
                _ => &[],
            })
            .copied()
            .collect();
        let mut outcomes = Vec::with_capacity(batch.len());
        // A connection that was closed without a word shows when something is sent on it.
        if self.client.try_send(&bytes).is_err() {
            self.client = greet(self.port, self.mode);
            return vec![Outcome::Closed; batch.len()];
        }
        for _ in batch {
            match self.client.next_reply(PATIENCE) {
                Ok(bytes) => outcomes.push(Outcome::Reply(bytes)),
                Err(ended) => {
                    outcomes.push(if ended == Ended::Closed { Outcome::Closed } else { Outcome::Silent });
                    outcomes.resize(batch.len(), Outcome::Closed);
                    self.client = greet(self.port, self.mode);
                    break;
                }
            }
        }
        outcomes
    }

    fn scan(&mut self, args: &[Vec<u8>]) -> Outcome {
        let mut cursor = b"0".to_vec();
        let mut keys = Vec::new();
        for _ in 0..10_000 {
            let mut request = vec![b"SCAN".to_vec(), cursor];
            request.extend_from_slice(args);
            self.client.send(&encode(&request));
            let bytes = self.client.reply();
            let reply = decode(&bytes);
            let [next, page] = reply.list() else { return Outcome::Reply(bytes) };
            keys.extend(page.list().iter().map(|key| format!("{key:?}")));
            cursor = next.text().unwrap_or_default().as_bytes().to_vec();
            if cursor == b"0" {
                keys.sort();
                // Redis may name a key twice.
                keys.dedup();
                return Outcome::Reply(keys.join(" ").into_bytes());
            }
        }
        Outcome::Silent
    }
}

fn greet(port: u16, mode: Mode) -> Client {
    let mut client = Client::connect(port);
    if mode.resp3 {
        // With a password this is refused on both sides, and the test goes on in RESP2.
        client.line("HELLO 3");
    }
    client
}

fn integer(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.strip_prefix(':')?.trim_end().parse().ok()
}

/// Of an error that the language itself has found: what stands before its text, and the script and line after it.
fn place_of_fault(reply: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(reply).into_owned();
    let is_of_language = [": attempt to ", "Error compiling script"].iter().any(|begin| text.contains(begin));
    let place = text.find("user_script:").filter(|_| text.starts_with('-') && is_of_language)?;
    let end = place + text[place..].find(": ")?;
    let script = text.find(" script: ").map_or("", |at| &text[at..]);
    Some((text[..end].to_owned(), script.to_owned()))
}

fn sorted(bytes: &[u8]) -> (Option<u8>, Vec<String>) {
    let mut elements: Vec<String> = decode(bytes).list().iter().map(|element| format!("{element:?}")).collect();
    elements.sort();
    (bytes.first().copied(), elements)
}

/// The handshake's reply with the version's and the id's values cut out.
fn without_identity(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut lines: Vec<&str> = text.split("\r\n").collect();
    for (name, values) in [("version", 2), ("id", 1)] {
        if let Some(at) = lines.iter().position(|line| *line == name) {
            lines.drain((at + 1)..(at + 1 + values).min(lines.len()));
        }
    }
    lines.join("\r\n")
}
