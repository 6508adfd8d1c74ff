//! What a command answers, before it is known in which protocol version it will be written.

use std::borrow::Cow;

use crate::entry::Value;
use crate::resp::error::ErrorReply;

/// The protocol version of a connection, changed by `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, what every connection starts with.
    #[default]
    Resp2 = 2,
    /// RESP3.
    Resp3 = 3,
}

/// One reply.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A simple string; must not contain CR or LF.
    Simple(Cow<'static, str>),
    /// An error.
    Error(ErrorReply),
    /// An integer.
    Int(i64),
    /// A bulk string that shares a stored value.
    Value(Value),
    /// A bulk string made for this reply.
    Bulk(Vec<u8>),
    /// A human-readable bulk string; a verbatim string (`txt`) in RESP3.
    Text(String),
    /// No value: `$-1` in RESP2, `_` in RESP3.
    Null,
    /// No array: `*-1` in RESP2, `_` in RESP3.
    NullArray,
    /// A floating-point number: a bulk string in RESP2.
    Double(f64),
    /// An array.
    Array(Vec<Reply>),
    /// A map: a flat array of keys and values in RESP2.
    Map(Vec<(Reply, Reply)>),
    /// A set: an array in RESP2.
    Set(Vec<Reply>),
}

impl Reply {
    /// `+OK`.
    pub const OK: Self = Self::Simple(Cow::Borrowed("OK"));

    /// A bulk string of these bytes.
    pub fn bulk(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bulk(bytes.into())
    }
}

impl From<ErrorReply> for Reply {
    fn from(error: ErrorReply) -> Self {
        Self::Error(error)
    }
}
