//! Broken, hostile and merely odd bytes: the daemon answers as Redis does, closes where Redis closes, stays alive and
//! stays small. Where the daemon is stricter than Redis on purpose, a test of its own says so.

mod support;

use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use support::client::{Client, encode, shown};
use support::daemon::{Daemon, StoreKind};
use support::process::{rss_kib, show};
use support::redis::RedisServer;
use support::rng::Rng;
use support::wait_for;

/// How long to look whether a connection that must stay open is closed. A longer look finds more; it never fails by
/// chance.
const LOOK: Duration = Duration::from_millis(50);
/// Resident memory that no hostile client may push the daemon over, in KiB.
const MAX_RSS_KIB: u64 = 512 * 1024;
/// Random inputs of each sort.
const FUZZ_INPUTS: usize = 8_000;

/// What happens to the connection after the replies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Open,
    Closed,
}
use After::{Closed, Open};

/// Bytes and what becomes of the connection; the replies are whatever Redis says.
const CASES: &[(&str, &[u8], After)] = &[
    ("empty lines", b"\r\n\r\n\n\r\nPING\r\n", Open),
    ("blanks", b"   \r\nPING\r\n", Open),
    ("no arguments", b"*0\r\n*1\r\n$4\r\nPING\r\n", Open),
    ("null array", b"*-1\r\n*1\r\n$4\r\nPING\r\n", Open),
    ("negative multibulk", b"*-10\r\nPING\r\n", Open),
    ("multibulk over 32 bits", b"*3000000000\r\n", Closed),
    ("multibulk over 64 bits", b"*99999999999999999999\r\n", Closed),
    ("multibulk not a number", b"*abc\r\n", Closed),
    ("multibulk empty", b"*\r\n", Closed),
    ("multibulk with plus", b"*+1\r\n$4\r\nPING\r\n", Closed),
    ("multibulk with leading blank", b"* 1\r\n$4\r\nPING\r\n", Closed),
    ("multibulk with trailing blank", b"*1 \r\n$4\r\nPING\r\n", Closed),
    ("multibulk with leading zero", b"*01\r\n$4\r\nPING\r\n", Closed),
    ("multibulk fraction", b"*1.0\r\n", Closed),
    ("multibulk minus zero", b"*-0\r\n", Closed),
    ("bulk negative", b"*1\r\n$-10\r\n", Closed),
    ("bulk null", b"*1\r\n$-1\r\n", Closed),
    ("bulk huge", b"*1\r\n$2000000000\r\n", Closed),
    ("bulk over 64 bits", b"*1\r\n$99999999999999999999\r\n", Closed),
    ("bulk not a number", b"*1\r\n$blabla\r\n", Closed),
    ("bulk empty", b"*1\r\n$\r\n", Closed),
    ("bulk with plus", b"*1\r\n$+4\r\nPING\r\n", Closed),
    ("bulk with leading zero", b"*1\r\n$04\r\nPING\r\n", Closed),
    ("bulk with blank", b"*1\r\n$4 \r\nPING\r\n", Closed),
    ("not a bulk", b"*1\r\nfoo\r\n", Closed),
    ("an integer for a bulk", b"*1\r\n:1\r\n", Closed),
    ("a simple string for a bulk", b"*1\r\n+PING\r\n", Closed),
    ("a nested array", b"*1\r\n*1\r\n$4\r\nPING\r\n", Closed),
    ("a line end for a bulk", b"*1\r\n\r\n", Closed),
    ("a high byte for a bulk", b"*1\r\n\xff\r\n", Closed),
    ("second argument broken", b"*2\r\n$3\r\nGET\r\nfoo\r\n", Closed),
    ("second length broken", b"*2\r\n$3\r\nGET\r\n$x\r\n", Closed),
    ("too short a length", b"*2\r\n$3\r\nGET\r\n$1\r\nabcdef\r\n", Open),
    ("a reply sent to us", b"+OK\r\n:1\r\n$-1\r\n", Open),
    ("RESP3 types sent to us", b"%1\r\n_\r\n#t\r\n~1\r\n", Open),
    ("length line in two parts", b"*1\r\n$4\r\nPI", Open),
    ("only a star", b"*", Open),
    ("only a dollar", b"*1\r\n$", Open),
    ("only a carriage return", b"\r", Open),
    ("half a line", b"PING", Open),
    ("bulk without its line end", b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n", Open),
    ("good before bad", b"*1\r\n$4\r\nPING\r\nPING\r\n*x\r\n", Closed),
    ("good after bad", b"*x\r\n*1\r\n$4\r\nPING\r\n", Closed),
    ("unbalanced double quotes", b"PING \"abc\r\n", Closed),
    ("unbalanced single quotes", b"PING 'abc\r\n", Closed),
    ("text after double quotes", b"PING \"abc\"d\r\n", Closed),
    ("text after single quotes", b"PING 'abc'd\r\n", Closed),
    ("quotes within a word", b"PING a\"b\r\n", Closed),
    ("quoted within a word", b"PING a\"b c\"\r\n", Open),
    ("escapes", b"PING \"\\x41\\n\\r\\t\\b\\a\\\\\\\"\\q\\xzz\"\r\n", Open),
    ("escapes in single quotes", b"PING 'a\\'b\\n'\r\n", Open),
    ("empty quoted", b"PING \"\"\r\n", Open),
    ("tabs and more between", b"PING\t \tx\r\n", Open),
    ("line feed alone", b"PING\nPING\n", Open),
    ("unknown with control characters", b"*2\r\n$4\r\nFO\r\n\r\n$3\r\na\r\n\r\n", Open),
    ("unknown with high bytes", b"*2\r\n$3\r\n\xff\xfe\xfd\r\n$2\r\n\xe2\x28\r\n", Open),
    ("unknown inline", b"FOOBAR 1 2 3\r\n", Open),
    ("command name with a space", b"*1\r\n$5\r\nPING \r\n", Open),
    ("empty command", b"*1\r\n$0\r\n\r\n", Open),
    ("empty command with arguments", b"*3\r\n$0\r\n\r\n$1\r\na\r\n$0\r\n\r\n", Open),
    ("quit", b"QUIT\r\n", Closed),
    ("quit in capitals and small", b"*1\r\n$4\r\nqUiT\r\n", Closed),
    ("after quit nothing", b"PING\r\nQUIT\r\nPING\r\n", Closed),
];

/// The tables say what Redis does, and comparing finds nothing where nothing is.
#[test]
fn redis_agrees_with_itself() {
    let (one, other) = (RedisServer::start(), RedisServer::start());
    check_odd_bytes(one.port(), other.port());
    check_random_bytes(one.port(), other.port());
}

#[test]
fn odd_bytes_are_answered_as_redis_does() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    check_odd_bytes(redis.port(), daemon.port());
    assert_eq!(daemon.client().ask("PING"), "+PONG\\r\\n");
}

#[test]
fn random_bytes_are_answered_as_redis_does() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    check_random_bytes(redis.port(), daemon.port());
    assert_eq!(daemon.client().ask("PING"), "+PONG\\r\\n");
    assert!(rss_kib(daemon.pid()) < MAX_RSS_KIB, "{} KiB", rss_kib(daemon.pid()));
}

fn check_odd_bytes(redis: u16, daemon: u16) {
    let mut found = Vec::new();
    let long = |head: &[u8], fill: u8, total: usize| [head, &vec![fill; total - head.len()]].concat();
    // Just over the limit, so that nothing stays unread: closing on unread bytes resets the connection.
    let mut cases: Vec<(String, Vec<u8>, After)> = vec![
        ("inline too long".into(), long(b"", b'x', 65_537), Closed),
        ("multibulk line too long".into(), long(b"*", b'1', 65_537), Closed),
        ("bulk line too long".into(), [b"*1\r\n".as_slice(), &long(b"$", b'1', 65_537)].concat(), Closed),
        ("inline long".into(), [long(b"PING ", b'x', 60_000), b"\r\n".to_vec()].concat(), Open),
        ("MSET with 20000 arguments".into(), mset(10_000), Open),
    ];
    cases.extend(CASES.iter().map(|(name, bytes, after)| ((*name).to_owned(), bytes.to_vec(), *after)));
    for (name, bytes, after) in &cases {
        let theirs = exchange(redis, bytes);
        let ours = exchange(daemon, bytes);
        if theirs != ours {
            found.push(format!("{name}: redis {theirs}\n      ours {ours}"));
            continue;
        }
        for (server, port) in [("redis", redis), ("ours", daemon)] {
            if let Some(fault) = wrong_ending(port, bytes, theirs.as_bytes(), *after) {
                found.push(format!("{name}: {server} {fault}"));
            }
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

fn check_random_bytes(redis: u16, daemon: u16) {
    let seed = Rng::seed("random bytes");
    let mut rng = Rng::new(seed);
    let mut found = Vec::new();
    let known = commands(daemon);
    let foreign: Vec<String> = commands(redis).into_iter().filter(|name| !known.contains(name)).collect();
    for number in 0..FUZZ_INPUTS {
        let input = if rng.one_in(3) { noise(&mut rng) } else { mutated(&mut rng) };
        // A mutation may hit upon a command that only Redis has (an `h` before DEL).
        let text = String::from_utf8_lossy(&input).to_ascii_lowercase();
        if foreign.iter().any(|name| text.contains(name)) {
            continue;
        }
        let (theirs, ours) = (exchange(redis, &input), exchange(daemon, &input));
        if theirs != ours {
            found.push(format!("input {number}: {}\n      redis {theirs}\n      ours {ours}", shown(&input)));
        }
    }
    assert!(found.is_empty(), "seed {seed}: {} differences:\n{}", found.len(), found[..found.len().min(20)].join("\n"));
}

#[test]
fn http_is_cut_off_as_redis_does() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    for request in ["POST / HTTP/1.1\r\n", "Host: 127.0.0.1\r\n"] {
        assert_eq!(
            exchange(daemon.port(), request.as_bytes()),
            exchange(redis.port(), request.as_bytes()),
            "{request}"
        );
        let mut client = daemon.client();
        client.send(request.as_bytes());
        assert_eq!(client.read_to_close(), Ok(Vec::new()), "{request} closes without a word");
    }
}

/// Lengths that are promised but never sent must not cost memory, and nesting must not cost stack.
#[test]
fn promises_cost_nothing() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let nested = b"*1\r\n".repeat(200_000);
    let promises: Vec<&[u8]> = vec![
        &nested,
        b"*2147483647\r\n",
        b"*1048576\r\n",
        b"*1048576\r\n$1\r\n",
        b"*1\r\n$67108864\r\n",
        b"*1\r\n$536870912\r\n",
        b"*1000\r\n$60000000\r\nabc",
    ];
    let mut open = Vec::new();
    for _ in 0..40 {
        for promise in &promises {
            let mut client = daemon.client();
            // A server that has closed already may reset the rest.
            let _ = client.try_send(promise);
            open.push(client);
        }
    }
    assert_eq!(daemon.client().ask("PING"), "+PONG\\r\\n");
    assert!(rss_kib(daemon.pid()) < MAX_RSS_KIB, "{} KiB", rss_kib(daemon.pid()));
}

#[test]
fn bytes_one_at_a_time() {
    let redis = RedisServer::start();
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let request = [
        encode(&["SET", "a", "x\r\ny"]),
        encode(&["GET", "a"]),
        b"PING \"two words\"\r\n".to_vec(),
        b"\r\n*0\r\n".to_vec(),
        encode(&["NOPE", "arg"]),
        encode(&["DEL", "a", "b"]),
        b"*1\r\nx\r\n".to_vec(),
    ]
    .concat();
    let dribble = |port| {
        let mut client = Client::connect(port);
        for byte in &request {
            client.send(&[*byte]);
        }
        client.read_to_close().map(|bytes| shown(&bytes))
    };
    assert_eq!(dribble(daemon.port()), dribble(redis.port()));
}

/// A bulk that comes in many small reads must not be scanned from its beginning again and again.
#[test]
fn a_large_value_in_small_pieces() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let value = vec![b'v'; 4 * 1024 * 1024];
    let mut client = daemon.client();
    for piece in encode(&[b"SET".as_slice(), b"big", &value]).chunks(1024) {
        client.send(piece);
    }
    assert_eq!(shown(&client.reply()), "+OK\\r\\n");
    assert_eq!(client.ask("STRLEN big"), ":4194304\\r\\n");
}

#[test]
fn a_huge_pipeline() {
    const REQUESTS: usize = 100_000;
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let mut client = daemon.client();
    assert_eq!(client.ask("SET a 1"), "+OK\\r\\n");
    let mut writer = client.stream().try_clone().expect("a socket can be cloned");
    let sender = std::thread::spawn(move || {
        let one = [encode(&["GET", "a"]), encode(&["PING"])].concat();
        std::io::Write::write_all(&mut writer, &one.repeat(REQUESTS))
    });
    let expected = b"$1\r\n1\r\n+PONG\r\n".repeat(REQUESTS);
    assert!(client.read_exact(expected.len()) == Ok(expected), "every reply comes, in order");
    sender.join().expect("the sender does not panic").expect("everything is taken");
}

#[test]
fn a_client_that_never_reads() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let mut other = daemon.client();
    let value = vec![b'v'; 1024 * 1024];
    assert_eq!(shown(&other.call(&[b"SET", b"big", &value])), "+OK\\r\\n");
    let silent: Vec<Client> = (0..4)
        .map(|_| {
            let mut client = daemon.client();
            // Four gigabytes of replies.
            client.send(&encode(&["GET", "big"]).repeat(1000));
            client
        })
        .collect();
    for _ in 0..200 {
        assert_eq!(other.ask("PING"), "+PONG\\r\\n");
    }
    assert!(rss_kib(daemon.pid()) < MAX_RSS_KIB, "{} KiB", rss_kib(daemon.pid()));
    drop(silent);
    assert_eq!(other.ask("STRLEN big"), ":1048576\\r\\n");
}

#[test]
fn too_large_is_an_error_and_the_connection_goes_on() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[("limits.max_value_bytes", "1000")]);
    let mut client = daemon.client();
    let long_key = vec![b'k'; 2049];
    let requests: Vec<Vec<&[u8]>> = vec![
        vec![b"SET", b"a", &[b'v'; 1001]],
        vec![b"SETEX", b"a", b"100", &[b'v'; 1001]],
        vec![b"GETSET", b"a", &[b'v'; 1001]],
        vec![b"MSET", b"b", b"1", b"a", &[b'v'; 1001]],
        vec![b"APPEND", b"full", b"x"],
        vec![b"SETRANGE", b"full", b"1000", b"x"],
        vec![b"SETRANGE", b"a", b"100000", b"x"],
        vec![b"SET", &long_key, b"v"],
        vec![b"GET", &long_key],
        vec![b"RENAME", b"full", &long_key],
    ];
    assert_eq!(shown(&client.call(&[b"SET", b"full", &[b'v'; 1000]])), "+OK\\r\\n");
    for request in requests {
        let reply = client.call(&request);
        let name = shown(request[0]);
        assert!(reply.starts_with(b"-ERR "), "{name}: {}", shown(&reply[..reply.len().min(200)]));
        assert!(!reply.windows(3).any(|window| window == b"kkk" || window == b"vvv"), "{name} shows no key or value");
    }
    assert_eq!(client.ask("MGET a b"), "*2\\r\\n$-1\\r\\n$-1\\r\\n");
    assert_eq!(client.ask("STRLEN full"), ":1000\\r\\n");
}

#[test]
fn too_many_clients() {
    let redis = RedisServer::start_with(&["--maxclients", "10"]);
    let daemon = Daemon::start(StoreKind::Sqlite, &[("limits.max_clients", "10")]);
    for port in [redis.port(), daemon.port()] {
        let mut held: Vec<Client> = (0..10).map(|_| Client::connect(port)).collect();
        for client in &mut held {
            assert_eq!(client.ask("PING"), "+PONG\\r\\n");
        }
        let refused = Client::connect(port).read_to_close();
        assert_eq!(refused, Ok(b"-ERR max number of clients reached\r\n".to_vec()));
        drop(held.pop());
        wait_for("a place is free again", || {
            let mut client = Client::connect(port);
            client.try_send(b"PING\r\n").ok()?;
            (client.next_reply(support::PATIENCE) == Ok(b"+PONG\r\n".to_vec())).then_some(())
        });
    }
}

#[test]
fn connections_that_come_and_go() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    for round in 0..300 {
        let mut client = daemon.client();
        match round % 3 {
            0 => {}
            1 => client.send(b"*2\r\n$3\r\nGET\r\n$10\r\nab"),
            _ => client.send(&encode(&["SET", "a", "1"])),
        }
    }
    assert_eq!(daemon.client().ask("PING"), "+PONG\\r\\n");
    wait_for("the connections are counted down again", || {
        let gauge = daemon.page("/metrics").1;
        let line = gauge.lines().find(|line| line.starts_with("cloakroom_connections") && !line.contains("total"))?;
        (line.rsplit(' ').next()?.parse::<f64>().ok()? < 3.0).then_some(())
    });
}

/// Half a connection is enough to be answered: what was sent before the end is executed.
#[test]
fn half_closed_clients_are_answered() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let requests = [encode(&["SET", "a", "1"]), encode(&["INCR", "a"]), encode(&["GET", "a"])].concat();
    assert_eq!(exchange(daemon.port(), &requests), "+OK\\r\\n:2\\r\\n$1\\r\\n2\\r\\n");
}

#[test]
fn other_hosts_need_a_password() {
    let Some(outside) = second_address() else {
        show("skipped: this machine has no address besides loopback, so that nothing can come from outside");
        return;
    };
    let open = Daemon::start(StoreKind::Sqlite, &[("listen", "0.0.0.0:0")]);
    let mut client = Client::try_connect(SocketAddr::new(outside, open.port())).expect("the port is open");
    let said = client.read_to_close().expect("the daemon closes");
    assert!(said.starts_with(b"-DENIED "), "{}", shown(&said));
    assert_eq!(open.client().ask("PING"), "+PONG\\r\\n");

    let locked = Daemon::start(StoreKind::Sqlite, &[("listen", "0.0.0.0:0"), ("password", "sesame")]);
    let mut client = Client::try_connect(SocketAddr::new(outside, locked.port())).expect("the port is open");
    assert_eq!(client.ask("GET a"), "-NOAUTH Authentication required.\\r\\n");
    assert_eq!(client.ask("AUTH sesame"), "+OK\\r\\n");
    assert_eq!(client.ask("GET a"), "$-1\\r\\n");
}

#[test]
fn unix_sockets_are_served() {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let path = dir.path().join("cloakroom.sock");
    let listen = format!("127.0.0.1:0,unix:{}", path.display());
    let mut daemon = Daemon::start(StoreKind::Sqlite, &[("listen", &listen)]);
    let mut socket = std::os::unix::net::UnixStream::connect(&path).expect("the socket is there");
    std::io::Write::write_all(&mut socket, b"PING\r\n").expect("the daemon reads");
    let mut reply = [0; 7];
    socket.read_exact(&mut reply).expect("the daemon answers");
    assert_eq!(&reply, b"+PONG\r\n");
    // A socket file that a killed daemon left behind is no hindrance.
    daemon.kill9();
    daemon.start_again();
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
}

/// The names of a server's commands, in lower case.
fn commands(port: u16) -> Vec<String> {
    let table = Client::connect(port).value("COMMAND");
    let names: Vec<String> =
        table.list().iter().filter_map(|row| row.list().first()?.text().map(str::to_owned)).collect();
    assert!(names.len() > 50, "COMMAND lists the commands");
    names
}

/// Everything that a server says to these bytes, if nothing more is sent.
fn exchange(port: u16, bytes: &[u8]) -> String {
    let mut client = Client::connect(port);
    if client.try_send(bytes).is_ok() {
        client.finish_sending();
    }
    match client.read_to_close() {
        Ok(bytes) => shown(&bytes),
        Err(ended) => format!("({ended:?})"),
    }
}

/// Sends the bytes, leaves the connection open, and says what is wrong with what the server does then.
fn wrong_ending(port: u16, bytes: &[u8], replies: &[u8], after: After) -> Option<String> {
    let mut client = Client::connect(port);
    client.try_send(bytes).ok()?;
    let len = support::words::unescape(std::str::from_utf8(replies).ok()?).len();
    if let Err(ended) = client.read_exact(len) {
        return Some(format!("does not answer ({ended:?})"));
    }
    match after {
        Closed if !client.is_closed(support::PATIENCE) => Some("does not close".to_owned()),
        Open if client.is_closed(LOOK) => Some("closes".to_owned()),
        _ => None,
    }
}

fn mset(pairs: usize) -> Vec<u8> {
    let mut args = vec![b"MSET".to_vec()];
    for number in 0..pairs {
        args.extend([format!("key:{number}").into_bytes(), b"v".to_vec()]);
    }
    encode(&args)
}

fn noise(rng: &mut Rng) -> Vec<u8> {
    let len = 1 + rng.below(200);
    let alphabet: &[u8] = b"*$+-:0123456789\r\n\r\n\r\n \"'\\xPINGgetabc\xff\x80\x01";
    (0..len).map(|_| alphabet[rng.below(alphabet.len())]).collect()
}

/// A few good requests with something wrong in them.
fn mutated(rng: &mut Rng) -> Vec<u8> {
    const GOOD: &[&[&str]] = &[
        &["PING"],
        &["GET", "a"],
        &["SET", "a", "some value"],
        &["SET", "b", "1", "NX", "EX", "100"],
        &["MGET", "a", "b", "c"],
        &["INCR", "n"],
        &["DEL", "a", "b"],
        &["ECHO", "\u{e9}\r\n*1\r\n$4\r\nPING\r\n"],
        &["EXPIRE", "a", "1000", "GT"],
        &["STRLEN", "a"],
    ];
    let mut bytes = Vec::new();
    for _ in 0..=rng.below(3) {
        let request = GOOD[rng.below(GOOD.len())];
        if rng.one_in(4) && !request[0].starts_with("ECHO") {
            bytes.extend_from_slice(request.join(" ").as_bytes());
            bytes.extend_from_slice(b"\r\n");
        } else {
            bytes.extend_from_slice(&encode(request));
        }
    }
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
        match rng.below(6) {
            // No zero bytes: Redis's C strings end there, and what it does then is its own accident.
            0 => bytes[at] = 1 + rng.below(255) as u8,
            1 => bytes[at] = b"0123456789-*$\r\n"[rng.below(15)],
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            3 => bytes.insert(at, 1 + rng.below(255) as u8),
            4 if at > 0 => bytes.truncate(at),
            _ => {
                let slice = bytes[at..bytes.len().min(at + 1 + rng.below(12))].to_vec();
                bytes.splice(at..at, slice);
            }
        }
    }
    bytes
}

/// An address of this machine that is not loopback, if there is one. No packet is sent to find it.
fn second_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}
