//! The password of `AUTH`: compared in constant time, never printed.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use subtle::ConstantTimeEq;

/// The largest password, in bytes: more is a wrong file.
const MAX_PASSWORD: u64 = 4096;

/// A password.
#[derive(Clone)]
pub struct Password {
    bytes: Box<[u8]>,
}

impl Password {
    /// A password of these bytes; `None` if there are none.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self { bytes: bytes.into() })
    }

    /// Whether `given` is the password. Takes the same time wherever they differ; only the length shows.
    #[must_use]
    pub fn matches(&self, given: &[u8]) -> bool {
        self.bytes.ct_eq(given).into()
    }
}

/// The bytes of the password in a file: all of it, less one newline at the end.
///
/// # Errors
/// What is wrong with the file, without its content: it cannot be read, is empty, or is larger than a password.
pub(super) fn read(path: &Path) -> Result<Password, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(MAX_PASSWORD + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_PASSWORD {
        return Err(format!("is larger than {MAX_PASSWORD} bytes"));
    }
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    Password::new(text).ok_or_else(|| "holds no password".into())
}

/// Whether everybody on the machine may read the file. Not asked of what a container engine mounts as a secret: that is
/// readable to all in the container, which is this process.
pub(super) fn is_public(path: &Path) -> bool {
    !path.starts_with("/run/secrets")
        && std::fs::metadata(path)
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o004 != 0)
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_compare() {
        let password = Password::new(b"hunter2").unwrap();
        for (given, matches) in
            [("hunter2", true), ("hunter", false), ("hunter22", false), ("Hunter2", false), ("", false)]
        {
            assert_eq!(password.matches(given.as_bytes()), matches, "{given}");
        }
        assert!(Password::new(b"").is_none());
        assert!(!format!("{password:?}").contains("hunter2"));
    }

    #[test]
    fn files_are_read_less_one_newline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        for (content, expected) in [
            (&b"hunter2"[..], Some(&b"hunter2"[..])),
            (b"hunter2\n", Some(b"hunter2")),
            (b"hunter2\r\n", Some(b"hunter2")),
            (b"hunter2\n\n", Some(b"hunter2\n")),
            (b" p\xff ", Some(b" p\xff ")),
            (b"", None),
            (b"\n", None),
            (&[b'x'; 4097], None),
        ] {
            std::fs::write(&path, content).unwrap();
            let read = read(&path);
            assert_eq!(read.is_ok(), expected.is_some(), "{content:?}");
            assert!(expected.is_none_or(|bytes| read.unwrap().matches(bytes)), "{content:?}");
        }
        assert!(read(&dir.path().join("none")).is_err());
    }

    #[test]
    fn a_public_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, "x").unwrap();
        for (mode, public) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_public(&path), public, "{mode:o}");
        }
    }
}
