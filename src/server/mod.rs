//! Sockets: accepting, serving a connection, the side port. Only here and in `lib.rs` are tasks started.

pub mod accept;
pub mod admin;
pub mod bind;
pub mod buffers;
pub mod connection;
pub mod page;
pub mod pending;
pub mod shared;
pub mod tally;
