//! Password files as libpq has them (`~/.pgpass`). Knows nothing of connecting.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Looks up an environment variable.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Whose password is wanted.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// The host's name, or the directory of a unix socket.
    pub(super) host: String,
    /// The port.
    pub(super) port: u16,
    /// The database.
    pub(super) database: String,
    /// The user.
    pub(super) user: String,
}

/// `~/.pgpass`, if there is a home and the file exists.
pub(super) fn default_path(env: Env<'_>) -> Option<PathBuf> {
    env("HOME").map(|home| Path::new(&home).join(".pgpass")).filter(|path| path.exists())
}

/// The file's text; the error names the file and the reason.
///
/// As libpq: a file that its group or others may read is not used.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("password file {}: {error}", path.display());
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("password file {}: it is not a regular file", path.display()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!("password file {}: its permissions must be 0600 or less", path.display()));
    }
    fs::read_to_string(path).map_err(failed)
}

/// The password of the first line of `text` that fits `account`.
pub(super) fn lookup(text: &str, account: &Account) -> Option<String> {
    let port = account.port.to_string();
    let host = if is_default_socket(&account.host) { "localhost" } else { &account.host };
    let wanted = [host, &port, &account.database, &account.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut rest = line.trim_end_matches('\r');
        for wanted in wanted {
            let (field, after) = next_field(rest)?;
            if rest_is_star(rest) || field == wanted {
                rest = after;
            } else {
                return None;
            }
        }
        let password = unescaped(rest);
        (!password.is_empty()).then_some(password)
    })
}

/// libpq looks the default sockets up under this name.
fn is_default_socket(host: &str) -> bool {
    matches!(host, "/var/run/postgresql" | "/tmp" | "/run/postgresql")
}

/// Whether the next field is an unescaped `*` alone.
fn rest_is_star(rest: &str) -> bool {
    rest.starts_with("*:")
}

/// The text up to the next unescaped colon, unescaped, and what follows the colon.
fn next_field(text: &str) -> Option<(String, &str)> {
    let mut escaped = false;
    let end = text.char_indices().find_map(|(at, char)| {
        let ends = char == ':' && !escaped;
        escaped = char == '\\' && !escaped;
        ends.then_some(at)
    })?;
    Some((unescaped(&text[..end]), &text[end + 1..]))
}

/// Without the backslashes that escape something.
fn unescaped(text: &str) -> String {
    let mut chars = text.chars();
    let mut out = String::with_capacity(text.len());
    while let Some(char) = chars.next() {
        match char {
            '\\' => out.extend(chars.next()),
            _ => out.push(char),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(host: &str, port: u16, database: &str, user: &str) -> Account {
        Account { host: host.into(), port, database: database.into(), user: user.into() }
    }

    #[test]
    fn the_first_line_that_fits_is_taken() {
        let text = "# comment\nshort:line\ndb1:5432:app:alice:first\n*:6432:*:*:star\nlocalhost:*:*:bob:bob's\n\
                    [::1]:1:x:y:never\n\\:\\:1:5432:app:carol:a\\:b\\\\c\n*:*:*:dave:\n*:*:*:dave:second";
        let cases = [
            (account("db1", 5432, "app", "alice"), Some("first")),
            (account("db1", 5433, "app", "alice"), None),
            (account("db2", 6432, "other", "alice"), Some("star")),
            (account("/var/run/postgresql", 5432, "app", "bob"), Some("bob's")),
            (account("/elsewhere", 5432, "app", "bob"), None),
            (account("::1", 5432, "app", "carol"), Some("a:b\\c")),
            (account("db1", 1, "x", "dave"), Some("second")),
        ];
        for (account, password) in cases {
            assert_eq!(lookup(text, &account).as_deref(), password, "{account:?}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        assert!(read(&path).is_err());
        fs::write(&path, "*:*:*:*:secret").unwrap();
        for (mode, good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = read(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            assert!(!format!("{:?}", read.err()).contains("secret"));
        }
    }
}
