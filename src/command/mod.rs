//! The commands: one static table and short handlers by Redis family. No socket and no SQL here.

mod access;
pub mod args;
pub mod counters;
pub mod expire;
mod expiry;
pub mod failure;
pub mod glob;
pub mod keys;
pub mod long_double;
pub mod number;
pub mod object;
pub mod ranges;
pub mod request;
pub mod scan;
pub mod server;
pub mod session;
mod set_options;
pub mod spec;
pub mod strings;
pub mod table;
