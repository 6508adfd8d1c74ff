//! Every error text that a client may read, in one closed list. No internal error has a path to the socket.
//!
//! The texts are Redis 7's own where it has one, since clients match on them.

use std::fmt;

/// An error reply, without the leading `-` and the final CRLF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorReply {
    /// A command that does not exist; the name and the start of the arguments, as Redis quotes them.
    UnknownCommand {
        /// The name as sent, cut to 128 bytes.
        name: Vec<u8>,
        /// `'arg' 'arg' ` up to 128 bytes, as Redis 7 prints it.
        args: Vec<u8>,
    },
    /// A subcommand that does not exist.
    UnknownSubcommand {
        /// The subcommand as sent, cut to 128 bytes.
        name: String,
        /// The container's name, in any case; printed in capitals.
        container: &'static str,
    },
    /// Too few or too many arguments; the full name in lower case (`client|kill` for subcommands).
    WrongArity(Cow),
    /// `syntax error`.
    Syntax,
    /// `value is not an integer or out of range`.
    NotInteger,
    /// `value is not a valid float`.
    NotFloat,
    /// `increment or decrement would overflow`.
    Overflow,
    /// `decrement would overflow`.
    DecrementOverflow,
    /// `increment would produce NaN or Infinity`.
    NotFinite,
    /// `offset is out of range`.
    OffsetRange,
    /// A string that would grow over the limit of a value.
    StringTooLong,
    /// `invalid expire time in 'X' command`.
    InvalidExpire(&'static str),
    /// `Operation against a key holding the wrong kind of value`.
    WrongType,
    /// `no such key`.
    NoSuchKey,
    /// `source and destination objects are the same`.
    SameObject,
    /// `DB index is out of range`.
    DbRange,
    /// `invalid DB index`.
    DbIndex,
    /// `invalid cursor`.
    InvalidCursor,
    /// `unknown type name`.
    UnknownType,
    /// `NX and XX, GT or LT options at the same time are not compatible`.
    ExpireNxXxGtLt,
    /// `GT and LT options at the same time are not compatible`.
    ExpireGtLt,
    /// `Unsupported option X`.
    UnsupportedOption(Vec<u8>),
    /// A key longer than the configured limit.
    KeyTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// A value longer than the configured limit.
    ValueTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// `Authentication required.`
    NoAuth,
    /// `NOAUTH HELLO must be called with the client already authenticated, …`.
    NoAuthHello,
    /// `WRONGPASS invalid username-password pair or user is disabled.`
    WrongPass,
    /// `AUTH <password> called without any password configured for the default user. …`.
    NoPasswordSet,
    /// `NOPROTO unsupported protocol version`.
    NoProto,
    /// `Protocol version is not an integer or out of range`.
    ProtoNotInteger,
    /// `DENIED Redis is running in protected mode …`, in our words; then the connection is closed.
    ProtectedMode,
    /// `max number of clients reached`; then the connection is closed.
    MaxClients,
    /// Broken framing: `Protocol error: …`; then the connection is closed.
    Protocol(ProtocolFault),
    /// The store is away.
    Unavailable,
    /// Other daemons may still serve what the write was to replace.
    Unacknowledged,
    /// The connection to the store was lost while it committed.
    UnknownOutcome,
    /// The store has no room left.
    StoreFull,
    /// The store cannot take writes.
    ReadOnly,
    /// The store refused this value.
    Rejected,
    /// The key was deleted a moment ago, and only `NX` may create it now.
    Guarded,
    /// Too many writers changed the key at once.
    Contended,
    /// `EXECABORT Transaction discarded because of previous errors.`
    ExecAbort,
    /// `EXECABORT Transaction discarded because of: X`, for an `EXEC` that was refused itself.
    ExecRefused(Box<ErrorReply>),
    /// A fault of ours; the log has it.
    Internal,
    /// The daemon has not reached its store yet since it started.
    Loading,
    /// A fixed text that belongs to one command alone, with its code (`ERR …`).
    Other(&'static str),
    /// As [`ErrorReply::Other`], where the text quotes the client's own argument (never a key or value).
    Quoted(String),
}

/// A name that is mostly static.
pub type Cow = std::borrow::Cow<'static, str>;

/// How a request broke the framing. Displays as Redis's text after `Protocol error: `.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolFault {
    /// `too big mbulk count string`.
    MultibulkLineTooLong,
    /// `invalid multibulk length`.
    MultibulkLength,
    /// `too big bulk count string`.
    BulkLineTooLong,
    /// `expected '$', got 'X'`.
    ExpectedDollar(u8),
    /// `invalid bulk length`.
    BulkLength,
    /// `too big inline request`.
    InlineTooLong,
    /// `unbalanced quotes in request`.
    UnbalancedQuotes,
    /// A request whose arguments together exceed the limit (Redis drops the client without a word).
    RequestTooLarge,
    /// `unauthenticated multibulk length`.
    UnauthenticatedMultibulkLength,
    /// `unauthenticated bulk length`.
    UnauthenticatedBulkLength,
}

impl fmt::Display for ProtocolFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MultibulkLineTooLong => "too big mbulk count string",
            Self::MultibulkLength => "invalid multibulk length",
            Self::BulkLineTooLong => "too big bulk count string",
            Self::ExpectedDollar(got) => return write!(f, "expected '$', got '{}'", char::from(*got)),
            Self::BulkLength => "invalid bulk length",
            Self::InlineTooLong => "too big inline request",
            Self::UnbalancedQuotes => "unbalanced quotes in request",
            Self::RequestTooLarge => "too big request",
            Self::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            Self::UnauthenticatedBulkLength => "unauthenticated bulk length",
        })
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::UnknownCommand { name, args } => {
                let (name, args) = (String::from_utf8_lossy(name), String::from_utf8_lossy(args));
                return write!(f, "ERR unknown command '{name}', with args beginning with: {args}");
            }
            Self::UnknownSubcommand { name, container } => {
                let container = container.to_ascii_uppercase();
                return write!(f, "ERR unknown subcommand '{name}'. Try {container} HELP.");
            }
            Self::WrongArity(name) => {
                return write!(f, "ERR wrong number of arguments for '{name}' command");
            }
            Self::InvalidExpire(command) => {
                return write!(f, "ERR invalid expire time in '{command}' command");
            }
            Self::UnsupportedOption(option) => {
                return write!(f, "ERR Unsupported option {}", String::from_utf8_lossy(option));
            }
            Self::KeyTooLong { limit } => {
                return write!(f, "ERR key is too long (the limit is {limit} bytes)");
            }
            Self::ValueTooLong { limit } => {
                return write!(f, "ERR value is too long (the limit is {limit} bytes)");
            }
            Self::ExecRefused(why) => {
                let why = why.to_string();
                let why = why.strip_prefix("ERR ").unwrap_or(&why);
                return write!(f, "EXECABORT Transaction discarded because of: {why}");
            }
            Self::Protocol(fault) => return write!(f, "ERR Protocol error: {fault}"),
            Self::Other(text) => text,
            Self::Quoted(text) => text.as_str(),
            _ => self.fixed(),
        };
        f.write_str(text)
    }
}

impl ErrorReply {
    /// The text of the variants that carry no data.
    fn fixed(&self) -> &'static str {
        match self {
            Self::Syntax => "ERR syntax error",
            Self::NotInteger => "ERR value is not an integer or out of range",
            Self::NotFloat => "ERR value is not a valid float",
            Self::Overflow => "ERR increment or decrement would overflow",
            Self::DecrementOverflow => "ERR decrement would overflow",
            Self::NotFinite => "ERR increment would produce NaN or Infinity",
            Self::OffsetRange => "ERR offset is out of range",
            Self::StringTooLong => "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            Self::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Self::NoSuchKey => "ERR no such key",
            Self::SameObject => "ERR source and destination objects are the same",
            Self::DbRange => "ERR DB index is out of range",
            Self::DbIndex => "ERR invalid DB index",
            Self::InvalidCursor => "ERR invalid cursor",
            Self::UnknownType => "ERR unknown type name",
            Self::ExpireNxXxGtLt => "ERR NX and XX, GT or LT options at the same time are not compatible",
            Self::ExpireGtLt => "ERR GT and LT options at the same time are not compatible",
            Self::NoAuth => "NOAUTH Authentication required.",
            Self::NoAuthHello => {
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> \
                 <pass> option can be used to authenticate the client and select the RESP protocol version at the same \
                 time"
            }
            Self::WrongPass => "WRONGPASS invalid username-password pair or user is disabled.",
            Self::NoPasswordSet => {
                "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
                 configuration is correct?"
            }
            Self::NoProto => "NOPROTO unsupported protocol version",
            Self::ProtoNotInteger => "ERR Protocol version is not an integer or out of range",
            Self::ProtectedMode => {
                "DENIED Cloakroom is running in protected mode because no password is set. In this mode connections \
                 are only accepted from the loopback interface and unix sockets. To serve other hosts, set \
                 password_file (or CLOAKROOM_PASSWORD) and restart."
            }
            Self::MaxClients => "ERR max number of clients reached",
            Self::Unavailable => "ERR the session store is not available, try again later",
            Self::Unacknowledged => {
                "ERR other daemons cannot be told of the write, nothing was changed, try again later"
            }
            Self::UnknownOutcome => {
                "ERR the connection to the session store was lost while committing: the write may or may not have \
                 been applied"
            }
            Self::StoreFull => "ERR the session store is full, the write was not applied",
            Self::ReadOnly => "READONLY The session store does not accept writes now.",
            Self::Rejected => "ERR the session store refused this value",
            Self::Guarded => "GUARDED this key was deleted a moment ago; only a write with NX can create it now",
            Self::Contended => "ERR too many concurrent changes of this key, try again",
            Self::ExecAbort => "EXECABORT Transaction discarded because of previous errors.",
            Self::Loading => "LOADING Cloakroom is waiting for its session store",
            // `Internal`; those with data are written by `fmt`.
            _ => "ERR internal error, see the log of the daemon",
        }
    }
}
