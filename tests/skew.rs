//! A daemon whose machine's clock is an hour off changes nothing in when sessions expire: their time is the database's.

mod support;

use std::time::Instant;

use support::client::{Client, Value};
use support::daemon::Daemon;
use support::faketime::wrapper;
use support::fleet::{Fleet, Shape};
use support::history::{Action, Op, Told};
use support::linear::{Verdict, judge};
use support::wait_for;

/// An hour fast, an hour slow, right.
const SKEWS: [i64; 3] = [3_600, -3_600, 0];

/// How far apart the daemons' measures of the database's clock may be, in µs.
const VAGUE: u64 = 100_000;

/// A time to live in ms.
const TTL: u64 = 1_500;

#[test]
fn clocks_an_hour_off_change_nothing_in_when_sessions_expire() {
    let skews = SKEWS.map(wrapper);
    let wrappers: Vec<Vec<&str>> = skews.iter().map(|words| words.iter().map(String::as_str).collect()).collect();
    let wrappers: Vec<&[&str]> = wrappers.iter().map(Vec::as_slice).collect();
    // Often, so that a daemon whose clock is fast had every occasion to sweep out what lives.
    let settings = &[("sweeper.interval", "50ms")];
    let fleet = Fleet::start(Shape { nodes: SKEWS.len(), mode: "on", settings, wrappers: &wrappers });
    for (node, skew) in fleet.nodes.iter().zip(SKEWS) {
        assert_clock_is_off(&fleet, &node.daemon, skew);
    }
    let mut clients: Vec<Client> = fleet.nodes.iter().map(|node| node.daemon.client()).collect();
    for (writer, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask(&format!("SET lives:{writer} v EX 1800")), "+OK\\r\\n");
        assert_eq!(client.ask(&format!("SET ends:{writer} v EX 1")), "+OK\\r\\n");
    }
    for (writer, how) in
        [(0, How::Relative), (1, How::Relative), (0, How::Absolute), (1, How::Absolute), (0, How::Expire)]
    {
        check_expiry(&fleet, &mut clients, writer, how);
    }
    // The sweeper of each daemon went over the table by now; what ended is gone from it, what lives is there.
    for (node, skew) in fleet.nodes.iter().zip(SKEWS) {
        wait_for(&format!("the sweeper of the daemon that is {skew} s off"), || {
            (node.daemon.metric("cloakroom_sweeper_passes_total", &[]) >= 3.0).then_some(())
        });
    }
    let rows = |names: &str| {
        let sql = format!("SELECT count(*) FROM cloakroom.entry WHERE encode(key, 'escape') LIKE '{names}:%'");
        fleet.cluster.psql(&sql)
    };
    wait_for("what ended is swept out", || (rows("ends") == "0").then_some(()));
    assert_eq!(rows("lives"), "3", "what lives is not swept out");
    for client in &mut clients {
        for writer in 0..SKEWS.len() {
            assert_eq!(client.ask(&format!("GET lives:{writer}")), "$1\\r\\nv\\r\\n");
        }
    }
}

/// How a session gets its expiry.
#[derive(Clone, Copy, Debug)]
enum How {
    Relative,
    Absolute,
    Expire,
}

/// Sets a short session at one daemon and asks all of them until it has ended for all.
fn check_expiry(fleet: &Fleet, clients: &mut [Client], writer: usize, how: How) {
    let name = format!("short:{writer}:{how:?}");
    let start = Instant::now();
    let now = || start.elapsed().as_micros() as u64;
    let mut ops = Vec::new();
    let mut note = |node: usize, call: u64, action: Action, told: Told| {
        ops.push(Op { key: 0, node: node as u8, call, ret: now(), stale: 0, action, told });
    };
    let ttl = Some(TTL * 1_000);
    if matches!(how, How::Expire) {
        let call = now();
        assert_eq!(clients[writer].ask(&format!("SET {name} 1 EX 1800")), "+OK\\r\\n");
        note(writer, call, Action::Set(1, None), Told::Done(true));
        let call = now();
        assert_eq!(clients[writer].ask(&format!("PEXPIRE {name} {TTL}")), ":1\\r\\n");
        note(writer, call, Action::Expire(ttl), Told::Done(true));
    } else {
        let call = now();
        let at = match how {
            How::Absolute => format!("PXAT {}", database_ms(fleet) + TTL),
            _ => format!("PX {TTL}"),
        };
        assert_eq!(clients[writer].ask(&format!("SET {name} 1 {at}")), "+OK\\r\\n");
        note(writer, call, Action::Set(1, ttl), Told::Done(true));
    }
    let times: Vec<Value> = clients.iter_mut().map(|client| client.value(&format!("PEXPIRETIME {name}"))).collect();
    assert!(times.iter().all(|time| *time == times[0]), "{name} ends at different times: {times:?}");
    let mut ended = 0;
    while ended < clients.len() {
        ended = 0;
        for (node, client) in clients.iter_mut().enumerate() {
            let call = now();
            let value = client.value(&format!("GET {name}")).text().map(|text| text.parse().expect("a number"));
            ended += usize::from(value.is_none());
            note(node, call, Action::Get, Told::Value(value));
        }
        assert!(now() < 30_000_000, "{name} does not end");
    }
    let first = ops.iter().find(|op| op.told == Told::Value(None)).copied();
    assert_eq!(judge(&ops, VAGUE), Verdict::Fits, "{name} ended first in {first:?}");
}

/// The daemon says in its log what it takes for the time.
fn assert_clock_is_off(fleet: &Fleet, daemon: &Daemon, seconds: i64) {
    let log = daemon.log();
    let stamp = log.split_whitespace().next().expect("the daemon logs its start");
    let off = fleet.cluster.psql(&format!("SELECT round(extract(epoch FROM timestamptz '{stamp}' - now()))"));
    let off: i64 = off.parse().expect("a number");
    assert!((off - seconds).abs() < 600, "the daemon's clock is {off} s off, and should be {seconds}");
}

fn database_ms(fleet: &Fleet) -> u64 {
    let text = fleet.cluster.psql("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)");
    text.parse().expect("a number")
}
