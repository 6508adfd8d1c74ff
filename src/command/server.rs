//! INFO, CONFIG, COMMAND and the like.

/// What commands may know of the server.
pub struct ServerInfo {}
