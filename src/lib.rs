//! Cloakroom: a Redis-protocol session store whose truth is Postgres. `ARCHITECTURE.md` is the map.

pub mod command;
pub mod config;
pub mod entry;
pub mod keyspace;
pub mod limits;
pub mod logging;
pub mod metrics;
pub mod resp;
pub mod server;
pub mod signals;
pub mod store;
pub mod tasks;
