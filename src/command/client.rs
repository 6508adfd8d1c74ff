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
    handler: crate::command::spec::Handler,
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
    let mut wanted: Option<Vec<u64>> = None;
    match args.get(2) {
        None => {}
        Some(option) if option.eq_ignore_ascii_case(b"type") && args.len() == 4 => {
            if !is_normal_type(&args[3])? {
                wanted = Some(Vec::new());
            }
        }
        Some(option) if option.eq_ignore_ascii_case(b"id") && args.len() > 3 => {
            let ids = args.iter_from(3).map(|id| canonical_i64(id).and_then(|id| u64::try_from(id).ok()));
            let ids: Option<Vec<u64>> = ids.collect();
            wanted = Some(ids.ok_or(ErrorReply::Other("ERR Invalid client ID"))?);
        }
        Some(_) => return Err(ErrorReply::Syntax),
    }
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
