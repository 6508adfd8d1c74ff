//! COMMAND's answers, drawn from rows of the table that its caller passes in.

use crate::command::spec::{Flag, KeySpec, Spec};
use crate::glob;
use crate::resp::args::Args;
use crate::resp::error::{Cow, ErrorReply};
use crate::resp::reply::Reply;

/// The rows that a reply is drawn from.
pub type Rows = [&'static Spec];

/// `COMMAND HELP`.
pub const HELP: &[&str] = &[
    "COMMAND <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "(no subcommand)",
    "    Return details about all Redis commands.",
    "COUNT",
    "    Return the total number of commands in this Redis server.",
    "LIST",
    "    Return a list of all commands in this Redis server.",
    "INFO [<command-name> ...]",
    "    Return details about multiple Redis commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "DOCS [<command-name> ...]",
    "    Return documentation details about multiple Redis commands.",
    "    If no command names are given, documentation details for all",
    "    commands are returned.",
    "GETKEYS <full-command>",
    "    Return the keys from a full Redis command.",
    "HELP",
    "    Prints this help.",
];

/// `COMMAND INFO`: the commands named by the arguments from `first` on, or all.
#[must_use]
pub fn info(rows: &Rows, args: Args<'_>, first: usize) -> Reply {
    if args.len() == first {
        return Reply::Array(rows.iter().map(|spec| describe(spec, None)).collect());
    }
    let one = |name| find(rows, name).map_or(Reply::Null, |(spec, container)| describe(spec, container));
    Reply::Array(args.iter_from(first).map(one).collect())
}

/// `COMMAND DOCS`: as [`info`], for people; names that do not exist are left out.
#[must_use]
pub fn docs(rows: &Rows, args: Args<'_>) -> Reply {
    if args.len() == 2 {
        return Reply::Map(rows.iter().map(|spec| document(spec, None)).collect());
    }
    let found = args.iter_from(2).filter_map(|name| find(rows, name));
    Reply::Map(found.map(|(spec, container)| document(spec, container)).collect())
}

/// `COMMAND LIST [FILTERBY MODULE|ACLCAT|PATTERN x]`.
pub fn list(rows: &Rows, args: Args<'_>) -> Result<Reply, ErrorReply> {
    let names = |keep: &dyn Fn(&Spec, &str) -> bool| {
        let mut found = Vec::new();
        for spec in rows {
            let subcommands = spec.subcommands.iter().map(|one| (one, full_name(one, Some(spec))));
            let all = std::iter::once((*spec, full_name(spec, None))).chain(subcommands);
            found.extend(all.filter(|(spec, name)| keep(spec, name)).map(|(_, name)| Reply::bulk(name.as_bytes())));
        }
        Ok(Reply::Array(found))
    };
    let [filter_by, filter, value] = [2, 3, 4].map(|at| args.get(at).unwrap_or_default());
    match args.len() {
        2 => Ok(Reply::Array(rows.iter().map(|spec| Reply::bulk(spec.name)).collect())),
        5 if !filter_by.eq_ignore_ascii_case(b"filterby") => Err(ErrorReply::Syntax),
        5 if filter.eq_ignore_ascii_case(b"module") => Ok(Reply::Array(Vec::new())),
        5 if filter.eq_ignore_ascii_case(b"pattern") => names(&|_, name| glob::matches(value, name.as_bytes(), true)),
        5 if filter.eq_ignore_ascii_case(b"aclcat") => {
            names(&|spec, _| categories(spec).iter().any(|one| one.as_bytes()[1..].eq_ignore_ascii_case(value)))
        }
        _ => Err(ErrorReply::Syntax),
    }
}

/// `COMMAND GETKEYS`: the keys of the command that begins at argument 2.
pub fn get_keys(rows: &Rows, args: Args<'_>) -> Result<Reply, ErrorReply> {
    let inner = args.skip(2);
    let found = rows.iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(&inner[0]));
    let spec = found.and_then(|spec| match inner.get(1) {
        Some(name) if !spec.subcommands.is_empty() => spec.subcommand(name),
        _ => Some(*spec),
    });
    let spec = spec.ok_or(ErrorReply::Other("ERR Invalid command specified"))?;
    if spec.keys == KeySpec::NONE {
        return Err(ErrorReply::Other("ERR The command has no key arguments"));
    }
    if !spec.takes(inner.len()) {
        return Err(ErrorReply::Other("ERR Invalid number of arguments specified for command"));
    }
    Ok(Reply::Array(spec.keys_of(inner).map(Reply::bulk).collect()))
}

/// `name` or `container|name`.
fn find(rows: &Rows, name: &[u8]) -> Option<(&'static Spec, Option<&'static Spec>)> {
    let mut parts = name.splitn(2, |byte| *byte == b'|');
    let (first, second) = (parts.next().unwrap_or_default(), parts.next());
    let spec = rows.iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(first))?;
    match second {
        None => Some((spec, None)),
        Some(second) => spec.subcommand(second).map(|subcommand| (subcommand, Some(*spec))),
    }
}

fn full_name(spec: &Spec, container: Option<&Spec>) -> Cow {
    container.map_or(Cow::Borrowed(spec.name), |container| Cow::Owned(format!("{}|{}", container.name, spec.name)))
}

fn bulk(text: &str) -> Reply {
    Reply::bulk(text)
}

fn status(text: &'static str) -> Reply {
    Reply::Simple(text.into())
}

fn describe(spec: &Spec, container: Option<&Spec>) -> Reply {
    let KeySpec { first, last, step } = spec.keys;
    let nested = spec.subcommands.iter().map(|subcommand| describe(subcommand, Some(spec)));
    let tips = Reply::Set(Vec::new());
    let key_specs = if first == 0 { Vec::new() } else { vec![key_spec(spec)] };
    // The subcommands are an array where there are some, and an empty set where not, as in Redis.
    let subcommands = if spec.subcommands.is_empty() { Reply::Set(Vec::new()) } else { Reply::Array(nested.collect()) };
    Reply::Array(vec![
        bulk(&full_name(spec, container)),
        Reply::Int(i64::from(spec.arity)),
        Reply::Set(spec.flags.iter().map(|flag| status(flag.name())).collect()),
        Reply::Int(i64::from(first)),
        Reply::Int(i64::from(last)),
        Reply::Int(i64::from(step)),
        Reply::Set(categories(spec).into_iter().map(status).collect()),
        tips,
        Reply::Set(key_specs),
        subcommands,
    ])
}

/// Where the keys are, in the form that superseded the three numbers. What the command does with them is told no
/// finer than reading (`RO`) or possibly changing (`RW`).
fn key_spec(spec: &Spec) -> Reply {
    let KeySpec { first, last, step } = spec.keys;
    let map = |kind: &str, fields: Vec<(Reply, Reply)>| {
        Reply::Map(vec![(bulk("type"), bulk(kind)), (bulk("spec"), Reply::Map(fields))])
    };
    let int = |name: &str, value: i32| (bulk(name), Reply::Int(i64::from(value)));
    let access = if spec.has(Flag::Write) { "RW" } else { "RO" };
    let last = if last < 0 { last } else { last - first };
    Reply::Map(vec![
        (bulk("flags"), Reply::Set(vec![status(access)])),
        (bulk("begin_search"), map("index", vec![int("index", first)])),
        (bulk("find_keys"), map("range", vec![int("lastkey", last), int("keystep", step), int("limit", 0)])),
    ])
}

/// ACL categories in Redis's order, as far as flags and group imply them.
fn categories(spec: &Spec) -> Vec<&'static str> {
    let group = |name| spec.group == name && spec.subcommands.is_empty();
    [
        ("@keyspace", group("generic") || spec.touches_everything()),
        ("@read", spec.has(Flag::ReadOnly)),
        ("@write", spec.has(Flag::Write)),
        ("@string", group("string")),
        ("@admin", spec.has(Flag::Admin)),
        ("@fast", spec.has(Flag::Fast)),
        ("@slow", !spec.has(Flag::Fast)),
        ("@dangerous", spec.has(Flag::Admin)),
        ("@connection", group("connection")),
    ]
    .into_iter()
    .filter_map(|(name, applies)| applies.then_some(name))
    .collect()
}

fn document(spec: &Spec, container: Option<&Spec>) -> (Reply, Reply) {
    let mut fields = vec![
        (bulk("summary"), bulk(spec.summary)),
        (bulk("since"), bulk(spec.since)),
        (bulk("group"), bulk(spec.group)),
    ];
    if !spec.subcommands.is_empty() {
        let nested = spec.subcommands.iter().map(|subcommand| document(subcommand, Some(spec)));
        fields.push((bulk("subcommands"), Reply::Map(nested.collect())));
    }
    (bulk(&full_name(spec, container)), Reply::Map(fields))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::server::tests::server;
    use crate::command::table;
    use crate::command::testing::TestClient;

    #[test]
    fn command_answers_as_redis_does() {
        let mut client = TestClient::connect(&server(None));
        client.check(&[
            ("COMMAND COUNT", &format!(":{}\r\n", table::count())),
            ("COMMAND FOO", "-ERR unknown subcommand 'FOO'. Try COMMAND HELP.\r\n"),
            (
                "COMMAND INFO nope Echo",
                "*2\r\n$-1\r\n*10\r\n$4\r\necho\r\n:2\r\n*3\r\n+loading\r\n+stale\r\n+fast\r\n:0\r\n:0\r\n:0\r\n\
                 *2\r\n+@fast\r\n+@connection\r\n*0\r\n*0\r\n*0\r\n",
            ),
            (
                "COMMAND INFO config|get client|foo",
                "*2\r\n*10\r\n$10\r\nconfig|get\r\n:-3\r\n*4\r\n+admin\r\n+noscript\r\n+loading\r\n+stale\r\n:0\r\n:0\r\n\
                 :0\r\n*3\r\n+@admin\r\n+@slow\r\n+@dangerous\r\n*0\r\n*0\r\n*0\r\n$-1\r\n",
            ),
            ("COMMAND DOCS nope", "*0\r\n"),
            (
                "COMMAND DOCS client|id",
                "*2\r\n$9\r\nclient|id\r\n*6\r\n$7\r\nsummary\r\n$48\r\nReturns the client ID for the current \
                 connection\r\n$5\r\nsince\r\n$5\r\n5.0.0\r\n$5\r\ngroup\r\n$10\r\nconnection\r\n",
            ),
            ("COMMAND LIST x", "-ERR syntax error\r\n"),
            ("COMMAND LIST FILTERBY", "-ERR syntax error\r\n"),
            ("COMMAND LIST FILTERBY FOO x", "-ERR syntax error\r\n"),
            ("COMMAND LIST FILTERBY MODULE x", "*0\r\n"),
            ("COMMAND LIST FILTERBY ACLCAT foo", "*0\r\n"),
            ("COMMAND LIST FILTERBY PATTERN ech*", "*1\r\n$4\r\necho\r\n"),
            ("COMMAND LIST FILTERBY PATTERN client|id", "*1\r\n$9\r\nclient|id\r\n"),
            ("COMMAND GETKEYS PING", "-ERR wrong number of arguments for 'command|getkeys' command\r\n"),
            ("COMMAND GETKEYS PING x", "-ERR The command has no key arguments\r\n"),
            ("COMMAND GETKEYS CONFIG GET x", "-ERR The command has no key arguments\r\n"),
            ("COMMAND GETKEYS NOPE x", "-ERR Invalid command specified\r\n"),
            ("COMMAND GETKEYS CLIENT NOPE", "-ERR Invalid command specified\r\n"),
        ]);
    }

    #[test]
    fn all_commands_are_described() {
        let mut client = TestClient::connect(&server(None));
        client.send("HELLO 3");
        let head = format!("*{}\r\n*10\r\n$5\r\nhello\r\n:-1\r\n~6\r\n+noscript\r\n", table::count());
        for line in ["COMMAND", "COMMAND INFO"] {
            let reply = client.send(line);
            assert!(reply.starts_with(&head), "{line}: {reply}");
        }
        let docs = client.send("COMMAND DOCS");
        assert!(docs.starts_with(&format!("%{}\r\n$5\r\nhello\r\n%3\r\n", table::count())), "{docs}");
        let container = client.send("COMMAND DOCS module");
        assert!(container.contains("$11\r\nsubcommands\r\n%1\r\n$11\r\nmodule|list\r\n%3\r\n"), "{container}");
    }

    /// Rows with keys, whatever the table has.
    static ROWS: [&Spec; 2] = [
        &Spec {
            name: "read",
            arity: 2,
            flags: &[Flag::ReadOnly, Flag::Fast],
            keys: KeySpec::ONE,
            group: "string",
            ..Spec::BASE
        },
        &Spec { name: "pairs", arity: -3, flags: &[Flag::Write], keys: KeySpec::PAIRS, group: "string", ..Spec::BASE },
    ];

    /// Encodes a reply about [`ROWS`] to a request of these words.
    fn about(words: &str, reply: impl Fn(&Rows, Args<'_>) -> Result<Reply, ErrorReply>) -> String {
        let mut start = 0;
        let ranges: Vec<_> = words
            .split(' ')
            .map(|word| {
                let range = start..start + word.len();
                start = range.end + 1;
                range
            })
            .collect();
        let reply = reply(&ROWS, Args::new(words.as_bytes(), &ranges)).unwrap_or_else(Reply::Error);
        let mut out = bytes::BytesMut::new();
        crate::resp::encode::encode(&reply, crate::resp::reply::Protocol::Resp3, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn keys_are_told() {
        for (words, reply) in [
            ("command getkeys Read k", "*1\r\n$1\r\nk\r\n"),
            ("command getkeys PAIRS a 1 b 2", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
            ("command getkeys read a b", "-ERR Invalid number of arguments specified for command\r\n"),
        ] {
            assert_eq!(about(words, get_keys), reply, "{words}");
        }
    }

    #[test]
    fn key_specs_are_as_redis_has_them() {
        let spec = |access: &str, last: i32, step: i32| {
            format!(
                "~1\r\n%3\r\n$5\r\nflags\r\n~1\r\n+{access}\r\n$12\r\nbegin_search\r\n%2\r\n$4\r\ntype\r\n$5\r\nindex\r\n\
                 $4\r\nspec\r\n%1\r\n$5\r\nindex\r\n:1\r\n$9\r\nfind_keys\r\n%2\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\n\
                 spec\r\n%3\r\n$7\r\nlastkey\r\n:{last}\r\n$7\r\nkeystep\r\n:{step}\r\n$5\r\nlimit\r\n:0\r\n~0\r\n"
            )
        };
        let read = "*10\r\n$4\r\nread\r\n:2\r\n~2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n~3\r\n+@read\r\n+@string\r\n\
                    +@fast\r\n~0\r\n";
        let pairs = "*10\r\n$5\r\npairs\r\n:-3\r\n~1\r\n+write\r\n:1\r\n:-1\r\n:2\r\n~3\r\n+@write\r\n+@string\r\n\
                     +@slow\r\n~0\r\n";
        let expected = format!("*2\r\n{read}{}{pairs}{}", spec("RO", 0, 1), spec("RW", -1, 2));
        assert_eq!(about("command info", |rows, args| Ok(info(rows, args, 2))), expected);
    }
}
