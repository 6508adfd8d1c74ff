//! The Redis serialization protocol, as pure functions of bytes: no I/O, no clock, no store.

pub mod args;
pub mod encode;
pub mod error;
pub mod parse;
pub mod reply;
mod words;
