//! The connection's own state: HELLO, AUTH, SELECT and the like. They touch no key.

use crate::command::number::{canonical_i64, database};
use crate::command::request::{ClientState, Flow, Handled, ReplyMode, Request, Transaction};
use crate::command::server::{COMPATIBLE_VERSION, ClientDetails, ServerInfo};
use crate::command::spec::{Flag, InMulti, Spec};
use crate::resp::error::ErrorReply;
use crate::resp::reply::{Protocol, Reply};

/// Rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "hello",
        arity: -1,
        flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy],
        group: "connection",
        since: "6.0.0",
        summary: "Handshake with the server: protocol version, authentication and name",
        in_multi: InMulti::Refused,
        handler: hello,
        ..Spec::BASE
    },
    Spec {
        name: "auth",
        arity: -2,
        flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy],
        group: "connection",
        since: "1.0.0",
        summary: "Authenticate to the server",
        handler: auth,
        ..Spec::BASE
    },
    Spec {
        name: "quit",
        arity: -1,
        flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy],
        group: "connection",
        since: "1.0.0",
        summary: "Close the connection",
        in_multi: InMulti::AtOnce,
        handler: quit,
        ..Spec::BASE
    },
    Spec {
        name: "reset",
        arity: 1,
        flags: &[Flag::NoScript, Flag::Loading, Flag::Stale, Flag::Fast, Flag::NoAuth, Flag::AllowBusy],
        group: "connection",
        since: "6.2.0",
        summary: "Reset the connection",
        in_multi: InMulti::AtOnce,
        handler: reset,
        ..Spec::BASE
    },
    Spec {
        name: "ping",
        arity: -1,
        flags: &[Flag::Fast],
        group: "connection",
        since: "1.0.0",
        summary: "Ping the server",
        handler: ping,
        ..Spec::BASE
    },
    Spec {
        name: "echo",
        arity: 2,
        flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
        group: "connection",
        since: "1.0.0",
        summary: "Echo the given string",
        handler: echo,
        ..Spec::BASE
    },
    Spec {
        name: "select",
        arity: 2,
        flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
        group: "connection",
        since: "1.0.0",
        summary: "Change the selected database for the current connection",
        handler: select,
        ..Spec::BASE
    },
    Spec {
        name: "readonly",
        arity: 1,
        flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
        group: "cluster",
        since: "3.0.0",
        summary: "Enable read queries for a connection to a cluster replica node (there is no cluster)",
        handler: no_cluster,
        ..Spec::BASE
    },
    Spec {
        name: "readwrite",
        arity: 1,
        flags: &[Flag::Loading, Flag::Stale, Flag::Fast],
        group: "cluster",
        since: "3.0.0",
        summary: "Disable read queries for a connection to a cluster replica node (there is no cluster)",
        handler: no_cluster,
        ..Spec::BASE
    },
    Spec {
        name: "cluster",
        arity: -2,
        flags: &[Flag::Stale],
        group: "cluster",
        since: "3.0.0",
        summary: "Cluster commands (there is no cluster)",
        handler: no_cluster,
        ..Spec::BASE
    },
];

/// Bytes of a client's or library's name.
const MAX_NAME: usize = 4096;

/// A name that a client gives itself, if it is one; `complaint` otherwise.
pub(crate) fn checked_name(name: &[u8], complaint: &'static str) -> Result<String, ErrorReply> {
    if name.len() > MAX_NAME {
        return Err(ErrorReply::Other("ERR names of clients are limited to 4096 bytes."));
    }
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err(ErrorReply::Other(complaint));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// What Redis says of a client's name that it does not take.
pub(crate) const BAD_NAME: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

/// Shows others what the client now says of itself.
pub(crate) fn publish(client: &ClientState, server: &ServerInfo) {
    if let Some(summary) = server.clients.get(client.id) {
        summary.set_details(ClientDetails {
            db: client.db,
            protocol: client.protocol,
            name: client.name.clone(),
            lib_name: client.lib_name.clone(),
            lib_ver: client.lib_ver.clone(),
            no_evict: client.no_evict,
        });
    }
}

fn hello(request: &mut Request<'_>) -> Handled {
    let args = request.args;
    let protocol = match args.get(1).map(canonical_i64) {
        None => None,
        Some(Some(2)) => Some(Protocol::Resp2),
        Some(Some(3)) => Some(Protocol::Resp3),
        Some(Some(_)) => return Err(ErrorReply::NoProto),
        Some(None) => return Err(ErrorReply::ProtoNotInteger),
    };
    // As in Redis, an option takes effect even if a later one is refused.
    let mut options = args.iter_from(2);
    while let Some(option) = options.next() {
        if option.eq_ignore_ascii_case(b"auth") && options.len() >= 2 {
            let (user, password) = (options.next().unwrap_or_default(), options.next().unwrap_or_default());
            authenticate(request, user, password)?;
        } else if option.eq_ignore_ascii_case(b"setname")
            && let Some(name) = options.next()
        {
            request.client.name = checked_name(name, BAD_NAME)?;
            publish(request.client, request.server);
        } else {
            let option = String::from_utf8_lossy(option);
            return Err(ErrorReply::Quoted(format!("ERR Syntax error in HELLO option '{option}'")));
        }
    }
    if !request.client.authenticated {
        return Err(ErrorReply::NoAuthHello);
    }
    if let Some(protocol) = protocol {
        request.client.protocol = protocol;
        publish(request.client, request.server);
    }
    let field = |name: &str, value: Reply| (Reply::bulk(name), value);
    Ok(Flow::Done(Reply::Map(vec![
        field("server", Reply::bulk("redis")),
        field("version", Reply::bulk(COMPATIBLE_VERSION)),
        field("proto", Reply::Int(request.client.protocol as i64)),
        field("id", Reply::Int(request.client.id as i64)),
        field("mode", Reply::bulk("standalone")),
        field("role", Reply::bulk("master")),
        field("modules", Reply::Array(Vec::new())),
    ])))
}

fn auth(request: &mut Request<'_>) -> Handled {
    let args = request.args;
    match args.len() {
        2 if !request.server.needs_auth() => return Err(ErrorReply::NoPasswordSet),
        2 => authenticate(request, b"default", &args[1])?,
        3 => authenticate(request, &args[1], &args[2])?,
        _ => return Err(ErrorReply::Syntax),
    }
    Ok(Flow::Done(Reply::OK))
}

/// There is one user, `default`; without a configured password it takes any, as in Redis.
fn authenticate(request: &mut Request<'_>, user: &[u8], password: &[u8]) -> Result<(), ErrorReply> {
    if user != b"default" || !request.server.is_password(password) {
        return Err(ErrorReply::WrongPass);
    }
    request.client.authenticated = true;
    Ok(())
}

fn quit(_: &mut Request<'_>) -> Handled {
    Ok(Flow::Close(Reply::OK))
}

fn reset(request: &mut Request<'_>) -> Handled {
    let client = &mut *request.client;
    client.authenticated = !request.server.needs_auth();
    client.protocol = Protocol::Resp2;
    client.db = 0;
    client.name.clear();
    client.replies = ReplyMode::On;
    client.transaction = Transaction::default();
    publish(client, request.server);
    Ok(Flow::Done(Reply::Simple("RESET".into())))
}

fn ping(request: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(match request.args.len() {
        1 => Reply::Simple("PONG".into()),
        2 => Reply::bulk(&request.args[1]),
        _ => return Err(ErrorReply::WrongArity("ping".into())),
    }))
}

fn echo(request: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(Reply::bulk(&request.args[1])))
}

fn select(request: &mut Request<'_>) -> Handled {
    request.client.db = database(&request.args[1])?;
    publish(request.client, request.server);
    Ok(Flow::Done(Reply::OK))
}

fn no_cluster(_: &mut Request<'_>) -> Handled {
    Err(ErrorReply::Other("ERR This instance has cluster support disabled"))
}

#[cfg(test)]
mod tests {
    use crate::command::request::ReplyMode;
    use crate::command::server::tests::server;
    use crate::command::testing::TestClient;
    use crate::resp::reply::Protocol;

    const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    const NOT_YET: &str = "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH \
                           <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                           version at the same time\r\n";

    fn greeting(protocol: u8) -> String {
        let head = if protocol == 2 { "*14" } else { "%7" };
        format!(
            "{head}\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:{protocol}\r\n\
             $2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
        )
    }

    #[test]
    fn hello_answers_as_redis_does() {
        let (two, three) = (greeting(2), greeting(3));
        let mut client = TestClient::connect(&server(None));
        client.check(&[
            ("HELLO", &two),
            ("HELLO 3", &three),
            ("HELLO", &three),
            ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
            ("HELLO 1", "-NOPROTO unsupported protocol version\r\n"),
            ("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n"),
            ("HELLO 03", "-ERR Protocol version is not an integer or out of range\r\n"),
            ("HELLO 99999999999999999999", "-ERR Protocol version is not an integer or out of range\r\n"),
            ("HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'\r\n"),
            ("HELLO 3 AUTH default", "-ERR Syntax error in HELLO option 'AUTH'\r\n"),
            ("HELLO 3 SETNAME", "-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
            ("HELLO 3 AUTH default x", &three),
            ("HELLO 3 AUTH bob x", WRONG),
            ("HELLO 3 SETNAME 'a b'", "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"),
            ("HELLO 2 SETNAME nm", &two),
            ("CLIENT GETNAME", "$2\r\nnm\r\n"),
            ("HELLO 2 SETNAME x AUTH bob y", WRONG),
            ("CLIENT GETNAME", "$1\r\nx\r\n"),
            ("HELLO 2 SETNAME ''", &two),
            ("CLIENT GETNAME", "$-1\r\n"),
        ]);
    }

    #[test]
    fn hello_authenticates() {
        let (two, three) = (greeting(2), greeting(3));
        let mut client = TestClient::connect(&server(Some("sesame")));
        client.check(&[
            ("HELLO", NOT_YET),
            ("HELLO 3", NOT_YET),
            ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
            ("HELLO 3 AUTH default x", WRONG),
            ("HELLO 3 AUTH bob sesame", WRONG),
            (
                "HELLO 3 AUTH default sesame SETNAME 'a b'",
                "-ERR Client names cannot contain spaces, newlines or special characters.\r\n",
            ),
            ("HELLO", &two),
            ("RESET", "+RESET\r\n"),
            ("HELLO 3 SETNAME nm AUTH default sesame", &three),
            ("HELLO 2", &two),
        ]);
    }

    #[test]
    fn auth_answers_as_redis_does() {
        let without = "-ERR AUTH <password> called without any password configured for the default user. Are you sure \
                       your configuration is correct?\r\n";
        TestClient::connect(&server(None)).check(&[
            ("AUTH x", without),
            ("AUTH default x", "+OK\r\n"),
            ("AUTH bob x", WRONG),
            ("AUTH a b c", "-ERR syntax error\r\n"),
            ("AUTH", "-ERR wrong number of arguments for 'auth' command\r\n"),
        ]);
        TestClient::connect(&server(Some("sesame"))).check(&[
            ("AUTH default x", WRONG),
            ("AUTH bob sesame", WRONG),
            ("AUTH DEFAULT sesame", WRONG),
            ("AUTH sesam", WRONG),
            ("AUTH ''", WRONG),
            ("AUTH default sesame", "+OK\r\n"),
        ]);
    }

    #[test]
    fn the_rest_answers_as_redis_does() {
        let mut client = TestClient::connect(&server(None));
        let range = "-ERR DB index is out of range\r\n";
        client.check(&[
            ("PING", "+PONG\r\n"),
            ("ping a", "$1\r\na\r\n"),
            ("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
            ("ECHO a", "$1\r\na\r\n"),
            ("SELECT 16", range),
            ("SELECT -1", range),
            ("SELECT x", "-ERR value is not an integer or out of range\r\n"),
            ("SELECT 15", "+OK\r\n"),
            ("SELECT 256", range),
            ("READONLY", "-ERR This instance has cluster support disabled\r\n"),
            ("CLUSTER INFO", "-ERR This instance has cluster support disabled\r\n"),
            ("CLUSTER", "-ERR wrong number of arguments for 'cluster' command\r\n"),
            ("QUIT a b", "+OK\r\n<EOF>"),
        ]);
        assert_eq!(client.state.db, 15);
    }

    #[test]
    fn reset_forgets_the_connection() {
        let mut client = TestClient::connect(&server(None));
        for line in ["HELLO 3 SETNAME nm", "SELECT 4", "CLIENT REPLY OFF"] {
            client.send(line);
        }
        assert_eq!(client.send("RESET"), "+RESET\r\n");
        let state = &client.state;
        assert_eq!((state.protocol, state.db, state.replies), (Protocol::Resp2, 0, ReplyMode::On));
        assert!(state.name.is_empty() && state.authenticated);
    }
}
