//! INFO and the small commands about the whole server: ROLE, TIME, DBSIZE, FLUSHDB, FLUSHALL, MODULE LIST.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_util::FutureExt;

use crate::command::request::{Flow, Handled, Request};
use crate::command::server::{COMPATIBLE_VERSION, VERSION};
use crate::command::spec::{Flag, InMulti, Spec};
use crate::config::Listen;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// Rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "info",
        arity: -1,
        flags: &[Flag::Loading, Flag::Stale],
        group: "server",
        since: "1.0.0",
        summary: "Get information and statistics about the server",
        handler: info,
        ..Spec::BASE
    },
    Spec {
        name: "role",
        arity: 1,
        flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast],
        group: "server",
        since: "2.8.12",
        summary: "Return the role of the instance in the context of replication",
        handler: role,
        ..Spec::BASE
    },
    Spec {
        name: "time",
        arity: 1,
        flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
        group: "server",
        since: "2.6.0",
        summary: "Return the current server time",
        handler: time,
        ..Spec::BASE
    },
    Spec {
        name: "dbsize",
        arity: 1,
        flags: &[Flag::ReadOnly, Flag::Fast],
        group: "server",
        since: "1.0.0",
        summary: "Return the number of keys in the selected database",
        handler: dbsize,
        ..Spec::BASE
    },
    Spec {
        name: "flushdb",
        arity: -1,
        flags: &[Flag::Write],
        group: "server",
        since: "1.0.0",
        summary: "Remove all keys from the current database",
        in_multi: InMulti::Refused,
        handler: flush_db,
        ..Spec::BASE
    },
    Spec {
        name: "flushall",
        arity: -1,
        flags: &[Flag::Write],
        group: "server",
        since: "1.0.0",
        summary: "Remove all keys from all databases",
        in_multi: InMulti::Refused,
        handler: flush_all,
        ..Spec::BASE
    },
    Spec {
        name: "module",
        arity: -2,
        group: "server",
        since: "4.0.0",
        summary: "A container for module commands",
        subcommands: &[Spec {
            name: "list",
            arity: 2,
            flags: &[Flag::Admin, Flag::NoScript],
            group: "server",
            since: "4.0.0",
            summary: "List all modules loaded by the server (there are none)",
            handler: module_list,
            ..Spec::BASE
        }],
        ..Spec::BASE
    },
];

/// A line of INFO.
type Field = (Cow<'static, str>, String);

/// The lines of one section, its title aside.
type Section = fn(&Request<'_>) -> Vec<Field>;

/// The sections in the order in which they are printed; all of them belong to the default.
const SECTIONS: &[(&str, Section)] = &[
    ("Server", server),
    ("Clients", clients),
    ("Memory", memory),
    ("Persistence", persistence),
    ("Stats", stats),
    ("Replication", replication),
    ("Modules", |_| Vec::new()),
    ("Cluster", |_| vec![field("cluster_enabled", 0)]),
    ("Keyspace", keyspace),
    ("Cloakroom", cloakroom),
    ("Coherence", coherence),
];

fn info(request: &mut Request<'_>) -> Handled {
    let args = request.args;
    let wanted = |title: &str| {
        let means = |section: &[u8]| {
            [title, "default", "all", "everything"].iter().any(|one| section.eq_ignore_ascii_case(one.as_bytes()))
        };
        args.len() == 1 || args.iter_from(1).any(means)
    };
    let sections = SECTIONS.iter().filter(|(title, _)| wanted(title)).map(|(title, fields)| {
        let lines = fields(request).into_iter().map(|(name, value)| format!("{name}:{value}\r\n"));
        format!("# {title}\r\n{}", lines.collect::<String>())
    });
    let sections: Vec<_> = sections.collect();
    Ok(Flow::Done(Reply::Text(sections.join("\r\n"))))
}

#[expect(clippy::needless_pass_by_value, reason = "most values are numbers or made for the field")]
fn field(name: &'static str, value: impl ToString) -> Field {
    (Cow::Borrowed(name), value.to_string())
}

fn server(request: &Request<'_>) -> Vec<Field> {
    let uptime = request.server.uptime().as_secs();
    let port = request.server.settings.listening.iter().find_map(|listen| match listen {
        Listen::Tcp(at) => Some(at.port()),
        Listen::Unix(_) => None,
    });
    vec![
        field("redis_version", COMPATIBLE_VERSION),
        field("redis_mode", "standalone"),
        field("os", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        field("arch_bits", usize::BITS),
        field("process_id", std::process::id()),
        field("tcp_port", port.unwrap_or(0)),
        field("server_time_usec", request.now * 1000),
        field("uptime_in_seconds", uptime),
        field("uptime_in_days", uptime / 86_400),
    ]
}

fn clients(request: &Request<'_>) -> Vec<Field> {
    vec![
        field("connected_clients", request.server.clients.count()),
        field("cluster_connections", 0),
        field("maxclients", request.server.settings.max_clients),
        field("blocked_clients", 0),
        field("tracking_clients", 0),
    ]
}

fn memory(_: &Request<'_>) -> Vec<Field> {
    let Memory { resident, peak } = process_memory();
    vec![
        field("used_memory", resident),
        field("used_memory_human", human(resident)),
        field("used_memory_rss", resident),
        field("used_memory_rss_human", human(resident)),
        field("used_memory_peak", peak),
        field("used_memory_peak_human", human(peak)),
        field("maxmemory", 0),
        field("maxmemory_human", human(0)),
        field("maxmemory_policy", "noeviction"),
    ]
}

fn persistence(_: &Request<'_>) -> Vec<Field> {
    ["loading", "async_loading", "rdb_bgsave_in_progress", "aof_enabled", "aof_rewrite_in_progress"]
        .map(|name| field(name, 0))
        .to_vec()
}

fn stats(request: &Request<'_>) -> Vec<Field> {
    let counts = request.server.counts(&request.keyspace.figures());
    vec![
        field("total_connections_received", counts.connections),
        field("total_commands_processed", counts.commands),
        field("rejected_connections", counts.rejected),
        field("expired_keys", counts.expired),
        // What leaves the cache for room is not lost, so it is not what Redis calls evicted: see the last section.
        field("evicted_keys", 0),
        field("evicted_clients", 0),
        field("keyspace_hits", counts.hits),
        field("keyspace_misses", counts.misses),
        field("pubsub_channels", 0),
        field("pubsub_patterns", 0),
    ]
}

fn replication(_: &Request<'_>) -> Vec<Field> {
    vec![field("role", "master"), field("connected_slaves", 0)]
}

fn keyspace(request: &Request<'_>) -> Vec<Field> {
    let counts = request.keyspace.last_count().into_iter();
    counts
        .map(|(db, keys, expires)| (Cow::Owned(format!("db{db}")), format!("keys={keys},expires={expires},avg_ttl=0")))
        .collect()
}

fn cloakroom(request: &Request<'_>) -> Vec<Field> {
    let figures = request.keyspace.figures();
    let counts = request.server.counts(&figures);
    vec![
        field("cloakroom_version", VERSION),
        field("store", request.server.settings.store),
        field("store_up", u8::from(figures.store_up)),
        field("cache_entries", figures.cache_entries),
        field("cache_bytes", figures.cache_bytes),
        field("cache_max_bytes", figures.cache_max_bytes),
        field("cache_room_bytes", figures.cache_room),
        field("cache_hits", counts.hits),
        field("cache_misses", counts.misses),
        field("cache_evictions", counts.evicted),
        field("writes_elided", counts.elided),
    ]
}

fn coherence(request: &Request<'_>) -> Vec<Field> {
    let figures = request.keyspace.coherence();
    let staleness = figures.staleness.map_or(-1, |age| age.as_millis() as i64);
    vec![
        field("coherence_mode", figures.mode),
        field("coherence_state", figures.state.label()),
        field("coherence_trusted", u8::from(figures.covered)),
        field("coherence_epoch", figures.epoch),
        field("coherence_staleness_ms", staleness),
        field("coherence_node", format!("{:016x}", figures.node)),
        field("coherence_peers", figures.peers),
        field("coherence_members", figures.members),
        field("coherence_fences", figures.fences),
        field("coherence_invalidations_sent", figures.sent),
        field("coherence_invalidations_received", figures.received),
        field("coherence_tokens_killed", figures.killed),
        field("audits", request.keyspace.stats().audits.load(Relaxed)),
        field("audit_stale", request.keyspace.stats().audits_stale.load(Relaxed)),
        field("outage_serving_stale", u8::from(!figures.covered && figures.covered_by_outage)),
        field("outage_stale_reads", figures.stale),
    ]
}

/// Memory of this process in bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Memory {
    resident: u64,
    peak: u64,
}

/// From procfs, which is memory and does not block; zeros where there is none.
fn process_memory() -> Memory {
    std::fs::read_to_string("/proc/self/status").map(|status| parse_status(&status)).unwrap_or_default()
}

fn parse_status(status: &str) -> Memory {
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    };
    Memory { resident: bytes("VmRSS:").unwrap_or(0), peak: bytes("VmHWM:").unwrap_or(0) }
}

/// A size as Redis prints it for people.
fn human(bytes: u64) -> String {
    const UNITS: [(u64, char); 4] = [(1 << 40, 'T'), (1 << 30, 'G'), (1 << 20, 'M'), (1 << 10, 'K')];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        None => format!("{bytes}B"),
        Some((unit, letter)) => format!("{:.2}{letter}", bytes as f64 / *unit as f64),
    }
}

fn role(_: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(Reply::Array(vec![Reply::bulk("master"), Reply::Int(0), Reply::Array(Vec::new())])))
}

/// The store's clock, in milliseconds: it is the one that decides what has expired.
fn time(request: &mut Request<'_>) -> Handled {
    let (seconds, micros) = (request.now.div_euclid(1000), request.now.rem_euclid(1000) * 1000);
    Ok(Flow::Done(Reply::Array(vec![Reply::bulk(seconds.to_string()), Reply::bulk(micros.to_string())])))
}

fn dbsize(request: &mut Request<'_>) -> Handled {
    let db = request.client.db;
    let count = Arc::clone(request.keyspace).count();
    let reply = count.map(move |counted| match counted {
        Ok(counts) => Reply::Int(counts.iter().find(|(one, ..)| *one == db).map_or(0, |(_, keys, _)| *keys as i64)),
        Err(error) => ErrorReply::from(error).into(),
    });
    Ok(Flow::Wait(reply.boxed()))
}

fn flush_db(request: &mut Request<'_>) -> Handled {
    let db = request.client.db;
    flush(request, Some(db))
}

fn flush_all(request: &mut Request<'_>) -> Handled {
    flush(request, None)
}

/// `ASYNC` and `SYNC` mean the same here: the reply comes when it is committed.
fn flush(request: &mut Request<'_>, db: Option<u8>) -> Handled {
    let known = |mode: &[u8]| mode.eq_ignore_ascii_case(b"async") || mode.eq_ignore_ascii_case(b"sync");
    if request.args.len() > 2 || request.args.get(1).is_some_and(|mode| !known(mode)) {
        return Err(ErrorReply::Syntax);
    }
    let flushed = request.keyspace.flush(db);
    let reply = flushed.map(|flushed| flushed.map_or_else(|error| ErrorReply::from(error).into(), |()| Reply::OK));
    Ok(Flow::Wait(reply.boxed()))
}

fn module_list(_: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(Reply::Array(Vec::new())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::server::tests::server;
    use crate::command::testing::TestClient;

    #[test]
    fn sections_are_chosen_and_ordered() {
        let mut client = TestClient::connect(&server(None));
        client.send("HELLO 3");
        client.check(&[
            ("INFO nope", "=4\r\ntxt:\r\n"),
            ("INFO MODULES", "=15\r\ntxt:# Modules\r\n\r\n"),
            ("INFO cluster nope", "=34\r\ntxt:# Cluster\r\ncluster_enabled:0\r\n\r\n"),
        ]);
        let info = client.send("INFO persistence Server clients server");
        let titles: Vec<_> = info.lines().filter(|line| line.contains("# ")).collect();
        assert_eq!(titles, ["txt:# Server", "# Clients", "# Persistence"]);
        for line in
            ["redis_version:7.2.4", "redis_mode:standalone", "tcp_port:7000", "connected_clients:1", "loading:0"]
        {
            assert!(info.contains(&format!("\r\n{line}\r\n")), "{line} in {info}");
        }
        assert!(info.contains("\r\n\r\n# Clients\r\n"), "a blank line between sections: {info}");
        let memory = client.send("INFO memory");
        assert!(memory.contains("maxmemory:0\r\n") && !memory.contains("used_memory:0\r\n"), "{memory}");
    }

    #[test]
    fn small_commands_answer_as_redis_does() {
        TestClient::connect(&server(None)).check(&[
            ("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            ("TIME", "*2\r\n$2\r\n15\r\n$1\r\n0\r\n"),
            ("MODULE LIST", "*0\r\n"),
            ("MODULE LOAD x", "-ERR unknown subcommand 'LOAD'. Try MODULE HELP.\r\n"),
            ("FLUSHDB x", "-ERR syntax error\r\n"),
            ("FLUSHALL SYNC x", "-ERR syntax error\r\n"),
            ("DBSIZE x", "-ERR wrong number of arguments for 'dbsize' command\r\n"),
        ]);
    }

    #[test]
    fn memory_is_read_from_procfs() {
        let status = "Name:\tcloakroom\nVmHWM:\t   10 kB\nVmRSS:\t    8 kB\n";
        assert_eq!(parse_status(status), Memory { resident: 8192, peak: 10240 });
        assert_eq!(parse_status("VmRSS:\tmuch\n"), Memory::default());
    }

    #[test]
    fn sizes_are_printed_as_redis_does() {
        for (bytes, text) in
            [(0, "0B"), (1023, "1023B"), (1536, "1.50K"), (1_313_560, "1.25M"), (25_276_502_016, "23.54G")]
        {
            assert_eq!(human(bytes), text);
        }
    }
}
