//! The commands: one static table and short handlers by Redis family. No socket and no SQL here.

pub mod args;
pub mod glob;
pub mod keys;
pub mod long_double;
pub mod number;
pub mod request;
pub mod server;
pub mod session;
pub mod spec;
pub mod strings;
pub mod table;
