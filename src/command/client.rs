//! The CLIENT subcommands: who is connected, and what a client says of itself.

use crate::command::number::canonical_i64;
use crate::command::request::{ClientState, Flow, Handled, ReplyMode, Request};
use crate::command::server::{ClientDetails, ClientSummary, ServerInfo};
use crate::command::session::{BAD_NAME, checked_name, publish};
use crate::command::spec::{Flag, Spec};
use crate::entry::UnixMs;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// Rows of the table.
pub const COMMANDS: &[Spec] = &[Spec {
    name: "client",
    arity: -2,
    group: "connection",
    since: "2.4.0",
    summary: "A container for client connection commands",
    subcommands: SUBCOMMANDS,
    ..Spec::BASE
}];

const USUAL: &[Flag] = &[Flag::NoScript, Flag::Loading, Flag::Stale];
const ADMIN: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale];

const SUBCOMMANDS: &[Spec] = &[
    row("getname", 2, USUAL, "2.6.9", "Get the current connection name", get_name),
    row("help", 2, &[Flag::Loading, Flag::Stale], "5.0.0", "Show helpful text about the different subcommands", help),
    row("id", 2, USUAL, "5.0.0", "Returns the client ID for the current connection", id),
    row("info", 2, USUAL, "6.2.0", "Returns information about the current client connection", info),
    row("kill", -3, ADMIN, "2.4.0", "Kill the connection of a client", kill),
    row("list", -2, ADMIN, "2.4.0", "Get the list of client connections", list),
    row("no-evict", 3, ADMIN, "7.0.0", "Set client eviction mode for the current connection", no_evict),
    row("reply", 3, USUAL, "3.2.0", "Instruct the server whether to reply to commands", reply),
    row("setinfo", 4, USUAL, "7.2.0", "Set client or connection specific info", set_info),
    row("setname", 3, USUAL, "2.6.9", "Set the current connection name", set_name),
];

const fn row(
    name: &'static str,
    arity: i32,
    flags: &'static [Flag],
    since: &'static str,
    summary: &'static str,
    handler: crate::command::request::Handler,
) -> Spec {
    Spec { name, arity, flags, group: "connection", since, summary, handler, ..Spec::BASE }
}

const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Return the name of the current connection.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "KILL <ip:port>",
    "    Kill connection made from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Kill connections. Options are:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made from the specified address",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "      Kill connections made to specified local address",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Kill connections by type.",
    "    * USER <username>",
    "      Kill connections authenticated by <username>.",
    "    * SKIPME (YES|NO)",
    "      Skip killing current connection (default: yes).",
    "LIST [options ...]",
    "    Return information about client connections. Options:",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Return clients of specified type.",
    "REPLY (ON|OFF|SKIP)",
    "    Control the replies sent to the current connection.",
    "SETINFO (LIB-NAME|LIB-VER) <value>",
    "    Set the name or version of the client's library.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "NO-EVICT (ON|OFF)",
    "    Protect current client connection from eviction.",
    "HELP",
    "    Prints this help.",
];

fn help(_: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(help_lines(HELP)))
}

/// A help text as Redis sends it.
pub(crate) fn help_lines(lines: &'static [&'static str]) -> Reply {
    Reply::Array(lines.iter().map(|line| Reply::Simple((*line).into())).collect())
}

fn get_name(request: &mut Request<'_>) -> Handled {
    let name = &request.client.name;
    Ok(Flow::Done(if name.is_empty() { Reply::Null } else { Reply::bulk(name.as_str()) }))
}

fn set_name(request: &mut Request<'_>) -> Handled {
    request.client.name = checked_name(&request.args[2], BAD_NAME)?;
    publish(request.client, request.server);
    Ok(Flow::Done(Reply::OK))
}

fn set_info(request: &mut Request<'_>) -> Handled {
    let (attribute, value) = (&request.args[2], &request.args[3]);
    if attribute.eq_ignore_ascii_case(b"lib-name") {
        request.client.lib_name =
            checked_name(value, "ERR lib-name cannot contain spaces, newlines or special characters.")?;
    } else if attribute.eq_ignore_ascii_case(b"lib-ver") {
        request.client.lib_ver =
            checked_name(value, "ERR lib-ver cannot contain spaces, newlines or special characters.")?;
    } else {
        let attribute = String::from_utf8_lossy(attribute);
        return Err(ErrorReply::Quoted(format!("ERR Unrecognized option '{attribute}'")));
    }
    publish(request.client, request.server);
    Ok(Flow::Done(Reply::OK))
}

fn id(request: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(Reply::Int(request.client.id as i64)))
}

/// Clients are never evicted for their memory here, so the promise is kept by doing nothing.
fn no_evict(request: &mut Request<'_>) -> Handled {
    let mode = &request.args[2];
    request.client.no_evict = match mode {
        _ if mode.eq_ignore_ascii_case(b"on") => true,
        _ if mode.eq_ignore_ascii_case(b"off") => false,
        _ => return Err(ErrorReply::Syntax),
    };
    publish(request.client, request.server);
    Ok(Flow::Done(Reply::OK))
}

/// The connection drops the reply of a command that leaves `replies` other than `On`, and of the one after `SkipNext`.
fn reply(request: &mut Request<'_>) -> Handled {
    let mode = &request.args[2];
    let replies = &mut request.client.replies;
    if mode.eq_ignore_ascii_case(b"on") {
        *replies = ReplyMode::On;
    } else if mode.eq_ignore_ascii_case(b"off") {
        *replies = ReplyMode::Off;
    } else if mode.eq_ignore_ascii_case(b"skip") {
        if *replies != ReplyMode::Off {
            *replies = ReplyMode::SkipNext;
        }
    } else {
        return Err(ErrorReply::Syntax);
    }
    Ok(Flow::Done(Reply::OK))
}

fn info(request: &mut Request<'_>) -> Handled {
    let client = &*request.client;
    let mut line = String::new();
    if let Some(summary) = request.server.clients.get(client.id) {
        line = describe(&summary, request.now, request.server, Some("client|info"));
    }
    Ok(Flow::Done(Reply::Text(line)))
}

fn list(request: &mut Request<'_>) -> Handled {
    let args = request.args;
    let wanted: Option<Vec<u64>> = match args.get(2) {
        None => None,
        Some(option) if option.eq_ignore_ascii_case(b"type") && args.len() == 4 => {
            if is_normal_type(&args[3])? {
                None
            } else {
                Some(Vec::new())
            }
        }
        Some(option) if option.eq_ignore_ascii_case(b"id") && args.len() > 3 => {
            let ids = args.iter_from(3).map(|id| canonical_i64(id).and_then(|id| u64::try_from(id).ok()));
            let ids: Option<Vec<u64>> = ids.collect();
            Some(ids.ok_or(ErrorReply::Other("ERR Invalid client ID"))?)
        }
        Some(_) => return Err(ErrorReply::Syntax),
    };
    let clients = match wanted {
        None => request.server.clients.all(),
        Some(ids) => ids.into_iter().filter_map(|id| request.server.clients.get(id)).collect(),
    };
    let own = request.client.id;
    let lines = clients.iter().map(|client| {
        let command = (client.id == own).then_some("client|list");
        describe(client, request.now, request.server, command)
    });
    Ok(Flow::Done(Reply::Text(lines.collect())))
}

/// Whether a `TYPE` option means the only type there is here.
fn is_normal_type(name: &[u8]) -> Result<bool, ErrorReply> {
    if name.eq_ignore_ascii_case(b"normal") {
        return Ok(true);
    }
    if [&b"master"[..], b"replica", b"slave", b"pubsub"].iter().any(|other| name.eq_ignore_ascii_case(other)) {
        return Ok(false);
    }
    Err(ErrorReply::Quoted(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(name))))
}

/// One line of `CLIENT LIST`. Fields of Redis that would be made up here (buffer sizes, descriptors) are left out.
/// `command` is what the asking client itself is doing.
fn describe(client: &ClientSummary, now: UnixMs, server: &ServerInfo, command: Option<&str>) -> String {
    let ClientDetails { db, protocol, name, lib_name, lib_ver, no_evict } = client.details();
    let seconds = |since: UnixMs| (now - since).max(0) / 1000;
    let age = seconds(client.connected_at);
    let idle = if command.is_some() { 0 } else { seconds(client.last_seen()) };
    let command = command
        .or_else(|| client.last_command().and_then(|place| server.settings.command_names.get(place).copied()))
        .unwrap_or("NULL");
    let unix = if client.addr.starts_with('/') { "U" } else { "" };
    let flags = match (unix, no_evict) {
        ("", false) => "N".to_owned(),
        (unix, evict) => format!("{unix}{}", if evict { "e" } else { "" }),
    };
    format!(
        "id={} addr={} laddr={} name={name} age={age} idle={idle} flags={flags} db={db} sub=0 psub=0 ssub=0 multi=-1 \
         cmd={command} user=default redir=-1 resp={} lib-name={lib_name} lib-ver={lib_ver}\n",
        client.id, client.addr, client.laddr, protocol as u8,
    )
}

/// Which connections `CLIENT KILL` means.
struct Filter<'a> {
    id: Option<u64>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    /// A type or user that no client has was named.
    nobody: bool,
    skip_me: bool,
}

impl Filter<'_> {
    fn takes(&self, client: &ClientSummary, own: &ClientState) -> bool {
        !self.nobody
            && self.id.is_none_or(|id| id == client.id)
            && self.addr.is_none_or(|addr| addr == client.addr.as_bytes())
            && self.laddr.is_none_or(|laddr| laddr == client.laddr.as_bytes())
            && !(self.skip_me && client.id == own.id)
    }
}

fn kill(request: &mut Request<'_>) -> Handled {
    let by_address = request.args.len() == 3;
    let filter = if by_address {
        let addr = request.args.get(2);
        Filter { id: None, addr, laddr: None, nobody: false, skip_me: false }
    } else {
        kill_filter(request)?
    };
    let (mut killed, mut own) = (0, false);
    for client in request.server.clients.all() {
        if filter.takes(&client, request.client) {
            killed += 1;
            if client.id == request.client.id {
                own = true;
            } else {
                client.kill();
            }
        }
    }
    let reply = match (by_address, killed) {
        (true, 0) => return Err(ErrorReply::Other("ERR No such client")),
        (true, _) => Reply::OK,
        (false, _) => Reply::Int(killed),
    };
    Ok(if own { Flow::Close(reply) } else { Flow::Done(reply) })
}

fn kill_filter<'a>(request: &Request<'a>) -> Result<Filter<'a>, ErrorReply> {
    let mut filter = Filter { id: None, addr: None, laddr: None, nobody: false, skip_me: true };
    let mut options = request.args.iter_from(2);
    while let Some(option) = options.next() {
        let value = options.next().ok_or(ErrorReply::Syntax)?;
        if option.eq_ignore_ascii_case(b"id") {
            let id = canonical_i64(value).and_then(|id| u64::try_from(id).ok()).filter(|id| *id > 0);
            filter.id = Some(id.ok_or(ErrorReply::Other("ERR client-id should be greater than 0"))?);
        } else if option.eq_ignore_ascii_case(b"addr") {
            filter.addr = Some(value);
        } else if option.eq_ignore_ascii_case(b"laddr") {
            filter.laddr = Some(value);
        } else if option.eq_ignore_ascii_case(b"type") {
            filter.nobody |= !is_normal_type(value)?;
        } else if option.eq_ignore_ascii_case(b"user") {
            if value != b"default" {
                return Err(ErrorReply::Quoted(format!("ERR No such user '{}'", String::from_utf8_lossy(value))));
            }
        } else if option.eq_ignore_ascii_case(b"skipme") {
            filter.skip_me = match value {
                _ if value.eq_ignore_ascii_case(b"yes") => true,
                _ if value.eq_ignore_ascii_case(b"no") => false,
                _ => return Err(ErrorReply::Syntax),
            };
        } else {
            return Err(ErrorReply::Syntax);
        }
    }
    Ok(filter)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::command::request::ReplyMode;
    use crate::command::server::tests::server;
    use crate::command::testing::TestClient;

    #[test]
    fn a_client_tells_of_itself() {
        let bad = "-ERR Client names cannot contain spaces, newlines or special characters.\r\n";
        let mut client = TestClient::connect(&server(None));
        client.check(&[
            ("CLIENT ID", ":1\r\n"),
            ("CLIENT GETNAME", "$-1\r\n"),
            ("CLIENT SETNAME 'a b'", bad),
            ("CLIENT SETNAME \u{e9}", bad),
            ("CLIENT SETNAME ok", "+OK\r\n"),
            ("CLIENT GETNAME", "$2\r\nok\r\n"),
            ("CLIENT SETINFO LIB-NAME 'redis-py(x)'", "+OK\r\n"),
            ("CLIENT SETINFO lib-ver 8.1", "+OK\r\n"),
            ("CLIENT SETINFO lib-ver 'a b'", "-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n"),
            ("CLIENT SETINFO foo x", "-ERR Unrecognized option 'foo'\r\n"),
            ("CLIENT NO-EVICT x", "-ERR syntax error\r\n"),
            ("CLIENT NO-EVICT ON", "+OK\r\n"),
            ("CLIENT TRACKING ON", "-ERR unknown subcommand 'TRACKING'. Try CLIENT HELP.\r\n"),
            ("CLIENT MAINT_NOTIFICATIONS ON", "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n"),
        ]);
        client.send("HELLO 3");
        client.send("SELECT 2");
        let line = "id=1 addr=127.0.0.1:5000 laddr=127.0.0.1:7000 name=ok age=5 idle=0 flags=e db=2 sub=0 psub=0 ssub=0 \
                    multi=-1 cmd=client|info user=default redir=-1 resp=3 lib-name=redis-py(x) lib-ver=8.1\n";
        assert_eq!(client.send("CLIENT INFO"), format!("={}\r\ntxt:{line}\r\n", line.len() + 4));
        let long = "x".repeat(4097);
        let reply = client.send(&format!("CLIENT SETNAME {long}"));
        assert_eq!(reply, "-ERR names of clients are limited to 4096 bytes.\r\n");
    }

    #[test]
    fn clients_are_listed() {
        let server = server(None);
        let mut first = TestClient::connect(&server);
        let mut second = TestClient::connect(&server);
        second.send("PING");
        let listed = first.send("CLIENT LIST");
        assert!(listed.contains("id=1 ") && listed.contains(" cmd=client|list "), "{listed}");
        assert!(listed.contains("id=2 ") && listed.contains(" flags=N "), "{listed}");
        let one = first.send("CLIENT LIST ID 2 99");
        assert!(one.contains("id=2 ") && !one.contains("id=1 "), "{one}");
        assert_eq!(first.send("CLIENT LIST TYPE normal"), listed);
        first.check(&[
            ("CLIENT LIST ID 98 99", "$0\r\n\r\n"),
            ("CLIENT LIST TYPE replica", "$0\r\n\r\n"),
            ("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'\r\n"),
            ("CLIENT LIST ID x", "-ERR Invalid client ID\r\n"),
            ("CLIENT LIST ID", "-ERR syntax error\r\n"),
            ("CLIENT LIST TYPE", "-ERR syntax error\r\n"),
            ("CLIENT LIST foo bar", "-ERR syntax error\r\n"),
        ]);
        drop(second);
        assert!(!first.send("CLIENT LIST").contains("id=2 "));
    }

    #[test]
    fn clients_are_killed() {
        let server = server(None);
        let mut killer = TestClient::connect(&server);
        let victims: Vec<_> = (0..3).map(|_| TestClient::connect(&server)).collect();
        killer.check(&[
            ("CLIENT KILL x", "-ERR No such client\r\n"),
            ("CLIENT KILL ID", "-ERR No such client\r\n"),
            ("CLIENT KILL ID x", "-ERR client-id should be greater than 0\r\n"),
            ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n"),
            ("CLIENT KILL ID 99", ":0\r\n"),
            ("CLIENT KILL ID 2 ADDR 127.0.0.1:1", ":0\r\n"),
            ("CLIENT KILL ADDR x SKIPME maybe", "-ERR syntax error\r\n"),
            ("CLIENT KILL FOO bar", "-ERR syntax error\r\n"),
            ("CLIENT KILL ID 2 ADDR", "-ERR syntax error\r\n"),
            ("CLIENT KILL TYPE foo", "-ERR Unknown client type 'foo'\r\n"),
            ("CLIENT KILL TYPE master", ":0\r\n"),
            ("CLIENT KILL USER x", "-ERR No such user 'x'\r\n"),
            ("CLIENT KILL ID 1", ":0\r\n"),
        ]);
        assert!(!victims.iter().any(|victim| victim.closing.is_cancelled()));
        assert_eq!(killer.send("CLIENT KILL ID 3"), ":1\r\n");
        assert_eq!(
            victims.iter().map(|victim| victim.closing.is_cancelled()).collect::<Vec<_>>(),
            [false, true, false]
        );
        assert_eq!(killer.send("CLIENT KILL LADDR 127.0.0.1:7000 USER default"), ":3\r\n");
        assert!(victims.iter().all(|victim| victim.closing.is_cancelled()));
        assert_eq!(killer.send("CLIENT KILL ID 1 SKIPME no"), ":1\r\n<EOF>");
        assert_eq!(killer.send("CLIENT KILL 127.0.0.1:5000"), "+OK\r\n<EOF>");
        assert!(!killer.closing.is_cancelled(), "its own connection ends after the reply");
        assert_eq!(Arc::strong_count(&server), 1 + 2 * 4, "nothing else keeps the server");
    }

    #[test]
    fn replies_can_be_switched_off() {
        let mut client = TestClient::connect(&server(None));
        for (mode, expected) in [
            ("SKIP", ReplyMode::SkipNext),
            ("ON", ReplyMode::On),
            ("off", ReplyMode::Off),
            ("SKIP", ReplyMode::Off),
            ("on", ReplyMode::On),
        ] {
            client.send(&format!("CLIENT REPLY {mode}"));
            assert_eq!(client.state.replies, expected, "{mode}");
        }
        assert_eq!(client.send("CLIENT REPLY x"), "-ERR syntax error\r\n");
    }

    #[test]
    fn help_is_made_of_simple_strings() {
        let help = TestClient::connect(&server(None)).send("CLIENT HELP");
        assert!(help.starts_with("*35\r\n+CLIENT <subcommand> "), "{help}");
        assert!(help.ends_with("+HELP\r\n+    Prints this help.\r\n"), "{help}");
    }
}
