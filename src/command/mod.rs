//! The commands: one static table and short handlers by Redis family. No socket and no SQL here.

#![allow(clippy::unnecessary_wraps, reason = "every handler has the one signature of the table")]

pub mod args;
pub mod client;
pub mod config;
pub mod dispatch;
pub mod docs;
pub mod failure;
pub mod glob;
pub mod info;
pub mod keys;
pub mod long_double;
pub mod number;
pub mod request;
pub mod server;
pub mod session;
pub mod spec;
pub mod strings;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
