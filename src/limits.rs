//! The bounds of everything that comes from outside, as named constants and the one struct of those that vary.

/// Bounds on one request, told to the parser; they may differ before and after `AUTH`.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Arguments of one request (Redis: 1,048,576).
    pub max_args: usize,
    /// Bytes of one argument (Redis: `proto-max-bulk-len`).
    pub max_bulk: usize,
    /// Bytes of all arguments and framing of one request together.
    pub max_request: usize,
}

/// Bytes of an inline request or of a length line, without which the connection is closed (Redis: 64 KiB).
pub const MAX_LINE: usize = 64 * 1024;

/// The default bounds of a request.
pub const REQUEST: RequestLimits =
    RequestLimits { max_args: 1024 * 1024, max_bulk: 64 * 1024 * 1024, max_request: 128 * 1024 * 1024 };

/// Bytes of a stored key, prefix included. Postgres's btree takes index rows of up to 2,704 bytes.
pub const MAX_KEY: usize = 2048;

/// Bytes of one stored value.
pub const MAX_VALUE: usize = 16 * 1024 * 1024;

/// How often an update is tried again after another writer changed its keys first.
pub const MAX_UPDATE_TRIES: u32 = 64;

/// Commands that one transaction may queue.
pub const MAX_QUEUED: usize = 16 * 1024;

/// Bytes that the commands of one transaction may take.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// Keys that one connection may watch.
pub const MAX_WATCHED: usize = 1024;

/// How much of a large argument a connection makes room for at once, ahead of its bytes.
pub const READ_AHEAD: usize = 1024 * 1024;
