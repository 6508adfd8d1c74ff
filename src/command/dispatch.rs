//! From a request to its handler: lookup, arity, authentication. It knows no connection: what is answered, it returns.

use crate::command::request::{ClientState, Flow, Request, Step, Transaction};
use crate::command::spec::{Flag, InMulti, Spec, wrong_arity};
use crate::command::table::{self, CommandId};
use crate::command::transaction;
use crate::resp::args::Args;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// How much of an unknown command is quoted back, in bytes.
const QUOTED: usize = 128;

/// A request that may run.
#[derive(Clone, Copy)]
pub struct Resolved {
    /// What metrics count it by; of a subcommand, its container's.
    pub id: CommandId,
    /// Its row; of a subcommand, its own.
    pub spec: &'static Spec,
}

/// A request that may not run.
pub struct Refused {
    /// What metrics count it by, if it exists.
    pub id: Option<CommandId>,
    /// Why.
    pub error: ErrorReply,
    /// Whether the connection must end: this is not a Redis client.
    pub close: bool,
}

/// Finds the row of a request, and checks that it may run, in the order in which Redis does.
///
/// Split from [`run`] for a connection that must know the keys of a request before it starts.
pub fn resolve(args: Args<'_>, authenticated: bool) -> Result<Resolved, Refused> {
    let Some((id, command)) = table::find(&args[0]) else {
        return Err(Refused { id: None, error: unknown(args), close: is_http(&args[0]) });
    };
    let refused = |error| Refused { id: Some(id), error, close: false };
    let (spec, container) = match args.get(1) {
        Some(name) if !command.subcommands.is_empty() => match command.subcommand(name) {
            Some(spec) => (spec, Some(command)),
            None => return Err(refused(unknown_subcommand(name, command))),
        },
        _ => (command, None),
    };
    if !spec.takes(args.len()) {
        return Err(refused(wrong_arity(spec, container)));
    }
    if !authenticated && !spec.has(Flag::NoAuth) {
        return Err(refused(ErrorReply::NoAuth));
    }
    Ok(Resolved { id, spec })
}

/// Runs a request by its row, or queues it for the end of the transaction that the connection is in.
pub fn run(spec: &'static Spec, request: &mut Request<'_>) -> Flow {
    if request.client.transaction.is_open() && spec.in_multi != InMulti::AtOnce {
        return Flow::Done(transaction::queue(spec, request));
    }
    (spec.handler)(request).unwrap_or_else(|error| Flow::Done(Reply::Error(error)))
}

/// Finds the command that a script calls, with what Redis says of one that is none.
pub fn for_script(args: Args<'_>) -> Result<Step, ErrorReply> {
    match resolve(args, true) {
        Ok(resolved) => Ok(Step::of(resolved.spec)),
        Err(Refused { error: ErrorReply::WrongArity(_), .. }) => {
            Err(ErrorReply::Other("ERR Wrong number of args calling Redis command from script"))
        }
        Err(_) => Err(ErrorReply::Other("ERR Unknown Redis command called from script")),
    }
}

/// Answers a request: [`resolve`], then [`run`].
pub fn dispatch(mut request: Request<'_>) -> (Option<CommandId>, Flow) {
    match resolve(request.args, request.client.authenticated) {
        Ok(Resolved { id, spec }) => (Some(id), run(spec, &mut request)),
        Err(refused) => (refused.id, refuse(refused, request.client)),
    }
}

/// Answers a request that may not run; a transaction that the connection is in cannot be executed any more.
pub fn refuse(refused: Refused, client: &mut ClientState) -> Flow {
    let mut error = refused.error;
    if refused.id.is_some_and(|id| table::name(id) == "exec") {
        client.transaction = Transaction::default();
        error = ErrorReply::ExecRefused(Box::new(error));
    }
    client.transaction.fail();
    let reply = Reply::Error(error);
    if refused.close { Flow::Close(reply) } else { Flow::Done(reply) }
}

/// Whether a browser was tricked into talking to this port; what follows could be an attacker's commands.
fn is_http(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:")
}

#[cold]
fn unknown(args: Args<'_>) -> ErrorReply {
    let mut quoted = Vec::new();
    for arg in args.iter_from(1) {
        if quoted.len() >= QUOTED {
            break;
        }
        let room = QUOTED - quoted.len();
        quoted.push(b'\'');
        quoted.extend_from_slice(cut(arg, room));
        quoted.extend_from_slice(b"' ");
    }
    ErrorReply::UnknownCommand { name: cut(&args[0], QUOTED).to_vec(), args: quoted }
}

#[cold]
fn unknown_subcommand(name: &[u8], container: &'static Spec) -> ErrorReply {
    let name = String::from_utf8_lossy(cut(name, QUOTED)).into_owned();
    ErrorReply::UnknownSubcommand { name, container: container.name }
}

/// At most `room` bytes, and none from a zero byte on, where C's strings end.
fn cut(text: &[u8], room: usize) -> &[u8] {
    let text = &text[..text.len().min(room)];
    text.split(|byte| *byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::command::server::tests::server;
    use crate::command::testing::TestClient;

    const NOAUTH: &str = "-NOAUTH Authentication required.\r\n";

    #[test]
    fn refusals_read_as_redis_has_them() {
        let long = "x".repeat(200);
        let cut = &long[..128];
        let mut client = TestClient::connect(&server(None));
        client.check(&[
            ("NOPE", "-ERR unknown command 'NOPE', with args beginning with: \r\n"),
            ("nope a b", "-ERR unknown command 'nope', with args beginning with: 'a' 'b' \r\n"),
            (r#"nope "a\r\nb" c"#, "-ERR unknown command 'nope', with args beginning with: 'a  b' 'c' \r\n"),
            (r#"NOPE "\xff\x00a""#, "-ERR unknown command 'NOPE', with args beginning with: '\u{fffd}' \r\n"),
            ("SENTINEL MASTERS", "-ERR unknown command 'SENTINEL', with args beginning with: 'MASTERS' \r\n"),
            (&long, &format!("-ERR unknown command '{cut}', with args beginning with: \r\n")),
            (&format!("x {long} y"), &format!("-ERR unknown command 'x', with args beginning with: '{cut}' \r\n")),
            ("x 1234567890 2", "-ERR unknown command 'x', with args beginning with: '1234567890' '2' \r\n"),
            ("ECHO", "-ERR wrong number of arguments for 'echo' command\r\n"),
            ("Echo a b", "-ERR wrong number of arguments for 'echo' command\r\n"),
            ("CLIENT", "-ERR wrong number of arguments for 'client' command\r\n"),
            ("CLIENT Foo", "-ERR unknown subcommand 'Foo'. Try CLIENT HELP.\r\n"),
            ("client GetName x", "-ERR wrong number of arguments for 'client|getname' command\r\n"),
            ("COMMAND COUNT x", "-ERR wrong number of arguments for 'command|count' command\r\n"),
            ("POST /", "-ERR unknown command 'POST', with args beginning with: '/' \r\n<EOF>"),
        ]);
    }

    #[test]
    fn arguments_are_quoted_up_to_a_bound() {
        let mut client = TestClient::connect(&server(None));
        let (forty, sixty) = ("a".repeat(40), "b".repeat(60));
        let reply = client.send(&format!("x {forty} {sixty} {sixty} {sixty}"));
        // 43 and 63 bytes with quotes; 22 remain for the third, and then it is enough.
        let expected = format!("'{forty}' '{sixty}' '{}' \r\n", &sixty[..22]);
        assert_eq!(reply, format!("-ERR unknown command 'x', with args beginning with: {expected}"));
    }

    #[test]
    fn before_auth_little_is_allowed() {
        let mut client = TestClient::connect(&server(Some("sesame")));
        client.check(&[
            ("PING", NOAUTH),
            ("NOPE", "-ERR unknown command 'NOPE', with args beginning with: \r\n"),
            ("ECHO", "-ERR wrong number of arguments for 'echo' command\r\n"),
            ("CLIENT ID", NOAUTH),
            ("COMMAND", NOAUTH),
            ("RESET", "+RESET\r\n"),
            ("AUTH x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("PING", NOAUTH),
            ("QUIT now", "+OK\r\n<EOF>"),
            ("AUTH sesame", "+OK\r\n"),
            ("PING", "+PONG\r\n"),
            ("AUTH wrong", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("PING", "+PONG\r\n"),
            ("RESET", "+RESET\r\n"),
            ("PING", NOAUTH),
        ]);
    }
}
