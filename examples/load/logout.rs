//! How long a session that one server deleted is still served by another: both have it in their caches, one deletes it,
//! the other is asked until it says nil.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::options::LogoutOptions;
use crate::template::{Shape, Template};

/// Keys written, and read by the other server, before the first of them is deleted.
const GROUP: u64 = 500;

/// What a server needs to take in what another one wrote.
const SETTLE: Duration = Duration::from_millis(200);

/// A session served for so long after its deletion will always be.
const GIVE_UP: Duration = Duration::from_secs(10);

struct Client {
    reader: BufReader<TcpStream>,
    shape: Shape,
    out: Vec<u8>,
}

/// Deletes the keys one by one; the result as a line of JSON.
///
/// # Errors
/// If a server cannot be reached or answers what it must not.
pub(crate) fn run(options: &LogoutOptions) -> Result<String, Box<dyn Error>> {
    let [mut own, mut other] =
        [Client::open(options.port, options.shape.shape())?, Client::open(options.other, options.shape.shape())?];
    let set = Template::parse("SET {key} {same} EX 3600")?;
    let get = Template::parse("GET {key}")?;
    let del = Template::parse("DEL {key}")?;
    let mut histogram = Histogram::new();
    let (mut served, mut at_once) = (0_u64, 0_u64);
    for first in (0..options.rounds).step_by(GROUP as usize) {
        let keys = first..(first + GROUP).min(options.rounds);
        for key in keys.clone() {
            own.expect(&set, key, "+OK")?;
        }
        std::thread::sleep(SETTLE);
        // Twice: the first read fills the cache.
        for key in keys.clone().chain(keys.clone()) {
            if !other.has(&get, key)? {
                return Err("the other server does not know a key that was written".into());
            }
        }
        for key in keys {
            own.expect(&del, key, ":1")?;
            let deleted = Instant::now();
            let mut asked = 0_u64;
            while other.has(&get, key)? {
                asked += 1;
                if deleted.elapsed() > GIVE_UP {
                    return Err("a deleted key is served on and on".into());
                }
            }
            histogram.record(u64::try_from(deleted.elapsed().as_nanos())?);
            served += asked;
            at_once += u64::from(asked == 0);
        }
    }
    let mut line = String::new();
    write!(line, "{{\"rounds\": {}, {}, ", histogram.total(), histogram.json())?;
    write!(line, "\"refused_at_once\": {at_once}, \"stale_reads\": {served}}}")?;
    Ok(line)
}

impl Client {
    fn open(port: u16, shape: Shape) -> io::Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(GIVE_UP))?;
        Ok(Self { reader: BufReader::new(socket), shape, out: Vec::new() })
    }

    fn ask(&mut self, template: &Template, key: u64) -> io::Result<String> {
        self.out.clear();
        template.encode(&mut self.out, &self.shape, key, 0);
        self.reader.get_mut().write_all(&self.out)?;
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn expect(&mut self, template: &Template, key: u64, expected: &str) -> io::Result<()> {
        let line = self.ask(template, key)?;
        if line == expected { Ok(()) } else { Err(io::Error::other(format!("{expected} expected, not {line}"))) }
    }

    /// Whether the server has a value for the key.
    fn has(&mut self, get: &Template, key: u64) -> io::Result<bool> {
        let line = self.ask(get, key)?;
        if line == "$-1" || line == "_" {
            return Ok(false);
        }
        let length = line.strip_prefix('$').and_then(|length| length.parse::<usize>().ok());
        let mut body = vec![0; length.ok_or_else(|| io::Error::other(format!("a value expected, not {line}")))? + 2];
        self.reader.read_exact(&mut body)?;
        Ok(true)
    }
}
