//! What the Rust clients share: where the server is, how long a session lives, and the line that says what a program is.

use std::net::TcpListener;

use serde_json::{Value, json};

/// The life of a session, in seconds.
pub const TTL: i64 = 1800;

/// The server's address.
pub fn address() -> (String, u16) {
    let host = std::env::var("REDIS_HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let port = std::env::var("REDIS_PORT").expect("REDIS_PORT is set");
    (host, port.parse().expect("a port"))
}

/// The version of a package, as it is locked.
pub fn version(package: &str) -> String {
    versions(package).pop().unwrap_or_else(|| panic!("{package} is locked"))
}

/// All versions of a package that are locked, the newest last.
pub fn versions(package: &str) -> Vec<String> {
    let name = format!("name = \"{package}\"");
    let lines: Vec<&str> = include_str!("../Cargo.lock").lines().collect();
    let versions = lines.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1].split('"').nth(1));
    versions.map(|version| version.expect("a version follows a name").to_owned()).collect()
}

/// A listener on a free port.
pub fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.set_nonblocking(true).expect("a listener can be asynchronous");
    listener
}

/// Says what serves here.
pub fn say(about: Value, packages: &[&str], listener: &TcpListener) {
    let versions: Vec<String> = packages.iter().map(|package| format!("{package} {}", version(package))).collect();
    let mut line = json!({ "ttl": TTL, "keys": "*", "version": versions.join(", ") });
    line["http"] = listener.local_addr().expect("it is bound").port().into();
    for (field, value) in about.as_object().expect("an object") {
        line[field] = value.clone();
    }
    println!("{line}");
}
