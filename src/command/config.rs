//! CONFIG: the settings that clients ask for, from what this server really does. Nothing can be changed at run time,
//! and nothing secret is shown.

use crate::command::client::help_lines;
use crate::command::request::{Flow, Handled, Handler, Request};
use crate::command::server::ServerInfo;
use crate::command::spec::{Flag, Spec};
use crate::config::Listen;
use crate::entry::DATABASES;
use crate::glob;
use crate::limits;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// Rows of the table.
pub const COMMANDS: &[Spec] = &[Spec {
    name: "config",
    arity: -2,
    group: "server",
    since: "2.0.0",
    summary: "A container for server configuration commands",
    subcommands: &[
        row("get", -3, ADMIN, "2.0.0", "Get the values of configuration parameters", get),
        row(
            "help",
            2,
            &[Flag::Loading, Flag::Stale],
            "5.0.0",
            "Show helpful text about the different subcommands",
            help,
        ),
        row("resetstat", 2, ADMIN, "2.0.0", "Reset the stats returned by INFO", reset_stat),
        row("rewrite", 2, ADMIN, "2.8.0", "Rewrite the configuration file (refused: it is never written)", rewrite),
        row("set", -4, ADMIN, "2.0.0", "Set configuration parameters (refused: they are set in the file)", set),
    ],
    ..Spec::BASE
}];

const ADMIN: &[Flag] = &[Flag::Admin, Flag::NoScript, Flag::Loading, Flag::Stale];

const fn row(
    name: &'static str,
    arity: i32,
    flags: &'static [Flag],
    since: &'static str,
    summary: &'static str,
    handler: Handler,
) -> Spec {
    Spec { name, arity, flags, group: "server", since, summary, handler, ..Spec::BASE }
}

const HELP: &[&str] = &[
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern>",
    "    Return parameters matching the glob-like <pattern> and their values.",
    "RESETSTAT",
    "    Reset statistics reported by the INFO command.",
    "HELP",
    "    Prints this help.",
];

/// The parameters by Redis's names, and ours.
fn parameters(server: &ServerInfo) -> Vec<(&'static str, String)> {
    let (settings, protected) = (&server.settings, !server.needs_auth());
    let text = str::to_owned;
    let tcp =
        || settings.listening.iter().filter_map(|listen| if let Listen::Tcp(at) = listen { Some(at) } else { None });
    let unix = settings.listening.iter().find_map(|listen| match listen {
        Listen::Unix(path) => Some(path.display().to_string()),
        Listen::Tcp(_) => None,
    });
    vec![
        ("appendonly", text("no")),
        ("bind", tcp().map(|at| at.ip().to_string()).collect::<Vec<_>>().join(" ")),
        ("cache-max-bytes", settings.cache_max_bytes.to_string()),
        ("client-query-buffer-limit", limits::REQUEST.max_request.to_string()),
        ("cluster-enabled", text("no")),
        ("databases", DATABASES.to_string()),
        ("maxclients", settings.max_clients.to_string()),
        // Redis's are about the data, which the store holds: there is no bound at which data would be dropped.
        ("maxmemory", text("0")),
        ("maxmemory-policy", text("noeviction")),
        ("max-value-bytes", settings.max_value_bytes.to_string()),
        ("notify-keyspace-events", String::new()),
        ("port", tcp().next().map_or(0, std::net::SocketAddr::port).to_string()),
        ("proto-max-bulk-len", limits::REQUEST.max_bulk.to_string()),
        ("protected-mode", text(if protected { "yes" } else { "no" })),
        ("save", String::new()),
        ("timeout", text("0")),
        ("unixsocket", unix.unwrap_or_default()),
    ]
}

fn get(request: &mut Request<'_>) -> Handled {
    let args = request.args;
    let wanted = |name: &str| args.iter_from(2).any(|pattern| glob::matches(pattern, name.as_bytes(), true));
    let found = parameters(request.server).into_iter().filter(|(name, _)| wanted(name));
    Ok(Flow::Done(Reply::Map(found.map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect())))
}

fn set(request: &mut Request<'_>) -> Handled {
    if !request.args.len().is_multiple_of(2) {
        return Err(ErrorReply::Syntax);
    }
    let known = parameters(request.server);
    let is_known = |name: &[u8]| known.iter().any(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
    let names = || request.args.iter_from(2).step_by(2);
    let Some(name) = names().find(|name| !is_known(name)) else {
        let name = String::from_utf8_lossy(&request.args[2]);
        return Err(ErrorReply::Quoted(format!(
            "ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config"
        )));
    };
    let name = String::from_utf8_lossy(name);
    Err(ErrorReply::Quoted(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'")))
}

fn reset_stat(request: &mut Request<'_>) -> Handled {
    request.server.reset_counts(&request.keyspace.figures());
    Ok(Flow::Done(Reply::OK))
}

fn rewrite(_: &mut Request<'_>) -> Handled {
    Err(ErrorReply::Other("ERR The configuration file is never rewritten: edit it and restart"))
}

fn help(_: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(help_lines(HELP)))
}

#[cfg(test)]
mod tests {
    use crate::command::server::tests::server;
    use crate::command::testing::TestClient;

    #[test]
    fn parameters_are_real_and_read_only() {
        let mut client = TestClient::connect(&server(None));
        let immutable = |name: &str| {
            format!("-ERR CONFIG SET failed (possibly related to argument '{name}') - can't set immutable config\r\n")
        };
        client.check(&[
            ("CONFIG GET databases", "*2\r\n$9\r\ndatabases\r\n$2\r\n16\r\n"),
            ("CONFIG GET SAVE save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
            ("CONFIG GET nope", "*0\r\n"),
            ("CONFIG GET maxclients por[t]", "*4\r\n$10\r\nmaxclients\r\n$3\r\n100\r\n$4\r\nport\r\n$4\r\n7000\r\n"),
            ("CONFIG GET unix*", "*2\r\n$10\r\nunixsocket\r\n$19\r\n/run/cloakroom.sock\r\n"),
            ("CONFIG GET", "-ERR wrong number of arguments for 'config|get' command\r\n"),
            ("CONFIG SET foo", "-ERR wrong number of arguments for 'config|set' command\r\n"),
            ("CONFIG SET foo bar", "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'\r\n"),
            ("CONFIG SET databases 5", &immutable("databases")),
            ("CONFIG SET save '' nope 1", "-ERR Unknown option or number of arguments for CONFIG SET - 'nope'\r\n"),
            ("CONFIG SET maxmemory 0 foo", "-ERR syntax error\r\n"),
            ("CONFIG REWRITE", "-ERR The configuration file is never rewritten: edit it and restart\r\n"),
            ("CONFIG FOO", "-ERR unknown subcommand 'FOO'. Try CONFIG HELP.\r\n"),
        ]);
    }

    #[test]
    fn the_password_is_not_shown() {
        let mut client = TestClient::connect(&server(Some("sesame")));
        client.send("AUTH sesame");
        let all = client.send("CONFIG GET *");
        assert!(all.contains("maxclients") && !all.contains("sesame") && !all.contains("pass"), "{all}");
    }
}
