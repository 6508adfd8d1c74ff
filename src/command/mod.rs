//! The commands: one static table and short handlers by Redis family. No socket and no SQL here.

#![expect(clippy::unnecessary_wraps, reason = "all handlers have one type, also those that cannot fail")]

pub mod access;
pub mod client;
pub mod config;
pub mod counters;
pub mod dispatch;
pub mod docs;
pub mod execute;
pub mod expire;
pub mod expiry;
pub mod failure;
pub mod hash_reads;
mod hash_value;
pub mod hashes;
pub mod info;
pub mod keys;
pub mod long_double;
pub mod number;
pub mod object;
pub mod ranges;
pub mod request;
pub mod scan;
pub mod scripting;
pub mod server;
pub mod session;
pub mod set_options;
pub mod spec;
pub mod strings;
pub mod table;
#[cfg(test)]
mod testing;
pub mod transaction;
