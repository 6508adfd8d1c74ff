//! What the end-to-end tests share: real servers as child processes, and a client that shows the raw bytes.
//! Nothing here imports the crate under test; the daemon is known only by its binary and its ports.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses a part of this module")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

pub mod client;
pub mod compare;
pub mod daemon;
pub mod faketime;
pub mod faults;
pub mod fleet;
pub mod history;
pub mod http;
pub mod linear;
pub mod load;
pub mod pgbouncer;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod rng;
pub mod soak;
pub mod verdict;
pub mod words;

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a test waits for something that must happen before it fails. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until `question` answers `Some`, and fails the test after [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The program `name` on the path, or a failure that says how to install it.
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: `make test` installs what the tests need"))
}

/// Where `make test` puts what it installs for the tests.
pub fn target_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target")
}
