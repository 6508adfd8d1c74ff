//! Programs whose wall clock is wrong, by Debian's `faketime`.

use std::path::PathBuf;

/// A command that becomes the one appended to it, with the wall clock so many seconds off. The monotonic clock is as it is: the
/// hour was lost before the start.
pub fn wrapper(seconds: i64) -> Vec<String> {
    if seconds == 0 {
        return Vec::new();
    }
    let library = faketime();
    let library = format!("LD_PRELOAD={}", library.display());
    vec!["env".to_owned(), library, format!("FAKETIME={seconds:+}"), "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned()]
}

/// The library that Debian's `faketime` has for programs with threads.
fn faketime() -> PathBuf {
    let library = |root: &str| {
        let machine = std::env::consts::ARCH;
        PathBuf::from(format!("{root}/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"))
    };
    let library = library("/usr/lib");
    assert!(library.exists(), "{} is not installed: `make test` installs it", library.display());
    library
}
