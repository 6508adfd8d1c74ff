//! Turns one given value into what it means: sizes, times, addresses. Pure; it does not know which setting or source
//! the value belongs to, and what it says of a fault never repeats a value that may be a secret.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::{CoherenceMode, Listen, LogFormat};

/// Bytes of a path that a unix socket may have (`sun_path`, less its closing zero).
const MAX_SOCKET_PATH: usize = 107;

/// Patterns of keys, each of which every write is compared with.
const MAX_PATTERNS: usize = 64;

/// Bytes of such a pattern.
const MAX_PATTERN: usize = 512;

/// A value as a source gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Without a type: a flag, an environment variable, a default.
    Word(String),
    /// A string of the file.
    Text(String),
    /// An integer of the file.
    Integer(i64),
    /// An array of the file.
    List(Vec<Given>),
    /// Something of the file that no setting takes: its type in words.
    Other(&'static str),
}

/// Which store a value names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreChoice {
    /// The embedded store in this file.
    Sqlite(PathBuf),
    /// Postgres at this URL.
    Postgres(String),
}

impl Given {
    /// The value if it is text, or untyped.
    pub(super) fn text(&self) -> Result<&str, String> {
        match self {
            Self::Word(text) | Self::Text(text) => Ok(text),
            other => Err(format!("expected a string, got {}", other.kind())),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Word(_) | Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::List(_) => "an array",
            Self::Other(kind) => kind,
        }
    }
}

/// Some addresses to listen on, each once.
pub(super) fn listeners(given: &Given) -> Result<Vec<Listen>, String> {
    let parts: Vec<&str> = match given {
        Given::Word(text) => text.split(',').map(str::trim).collect(),
        Given::List(items) => items.iter().map(Given::text).collect::<Result<_, _>>()?,
        other => vec![other.text()?],
    };
    if parts.is_empty() {
        return Err("expected at least one address".into());
    }
    let mut listeners: Vec<Listen> = Vec::with_capacity(parts.len());
    for part in parts {
        let listener = listen(part)?;
        let ephemeral = matches!(&listener, Listen::Tcp(address) if address.port() == 0);
        if listeners.contains(&listener) && !ephemeral {
            return Err(format!("{} is listed twice", quote(part)));
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Some patterns of keys.
pub(super) fn patterns(given: &Given) -> Result<Vec<Vec<u8>>, String> {
    let parts: Vec<&str> = match given {
        Given::Word(text) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect(),
        Given::List(items) => items.iter().map(Given::text).collect::<Result<_, _>>()?,
        other => vec![other.text()?],
    };
    if parts.len() > MAX_PATTERNS {
        return Err(format!("at most {MAX_PATTERNS} patterns are possible"));
    }
    if parts.iter().any(|part| part.is_empty() || part.len() > MAX_PATTERN) {
        return Err(format!("a pattern has from 1 to {MAX_PATTERN} bytes"));
    }
    Ok(parts.into_iter().map(|part| part.as_bytes().to_vec()).collect())
}

/// An address, or none for `off`.
pub(super) fn address_or_off(given: &Given) -> Result<Option<SocketAddr>, String> {
    match given.text()? {
        "off" => Ok(None),
        text => tcp(text).map(Some).ok_or_else(|| format!("{} is neither IP:port nor \"off\"", quote(text))),
    }
}

/// A store. The value may hold a password, so no message repeats it.
pub(super) fn store(given: &Given) -> Result<StoreChoice, String> {
    let text = given.text()?;
    if let Some(path) = text.strip_prefix("sqlite:") {
        return match path {
            "" => Err("sqlite: needs the path of a file".into()),
            ":memory:" => Err("the embedded store keeps a file; it has no store in memory".into()),
            path if path.starts_with("//") && !path.starts_with("///") => {
                Err("write sqlite:/path/to/file.db, without a host".into())
            }
            path => Ok(StoreChoice::Sqlite(path.into())),
        };
    }
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(StoreChoice::Postgres(text.into()));
    }
    Err("expected sqlite:PATH or postgres://…".into())
}

/// Text of at most `max` bytes.
pub(super) fn short_text(given: &Given, max: usize) -> Result<String, String> {
    let text = given.text()?;
    if text.len() > max {
        return Err(format!("is {} bytes long; at most {max} are possible", text.len()));
    }
    Ok(text.into())
}

/// A file's path; whether there is such a file is not asked.
pub(super) fn file(given: &Given) -> Result<PathBuf, String> {
    match given.text()? {
        "" => Err("expected the path of a file".into()),
        path => Ok(path.into()),
    }
}

/// A number of bytes.
pub(super) fn bytes(given: &Given, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let expected = || "expected a number of bytes, or one with kB, MB, GB, TB, KiB, MiB, GiB or TiB".to_owned();
    let bytes = match given {
        Given::Integer(number) => u64::try_from(*number).map_err(|_| "must not be negative".to_owned())?,
        Given::Word(text) | Given::Text(text) => {
            let (number, unit) = split_unit(text).ok_or_else(expected)?;
            let factor: u64 = match unit {
                "" | "B" => 1,
                "kB" | "KB" => 1000,
                "MB" => 1_000_000,
                "GB" => 1_000_000_000,
                "TB" => 1_000_000_000_000,
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                "TiB" => 1 << 40,
                _ => return Err(format!("unknown unit {}: {}", quote(unit), expected())),
            };
            number.checked_mul(factor).ok_or("is too large")?
        }
        other => return Err(format!("{}, got {}", expected(), other.kind())),
    };
    if range.contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("must be from {} to {}", show_bytes(*range.start()), show_bytes(*range.end())))
}

/// A plain count.
pub(super) fn count(given: &Given, range: &RangeInclusive<u32>) -> Result<u32, String> {
    let number = match given {
        Given::Integer(number) => *number,
        Given::Word(text) => text.parse().map_err(|_| format!("expected a number, got {}", quote(text)))?,
        other => return Err(format!("expected an integer, got {}", other.kind())),
    };
    u32::try_from(number)
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("must be from {} to {}", range.start(), range.end()))
}

/// A length of time.
pub(super) fn duration(given: &Given, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let expected = "expected a time with its unit, like \"500ms\", \"1s\", \"5m\" or \"1h\"";
    let (Given::Word(text) | Given::Text(text)) = given else {
        return Err(format!("{expected}, got {}", given.kind()));
    };
    let (number, unit) = split_unit(text).ok_or(expected)?;
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3600).map(Duration::from_secs),
        _ => return Err(expected.into()),
    };
    duration
        .filter(|duration| range.contains(duration))
        .ok_or_else(|| format!("must be from {} to {}", show_duration(*range.start()), show_duration(*range.end())))
}

/// A Postgres URL. The value may hold a password, so no message repeats it.
pub(super) fn postgres_url(given: &Given) -> Result<String, String> {
    match store(given) {
        Ok(StoreChoice::Postgres(url)) => Ok(url),
        _ => Err("expected postgres://…".into()),
    }
}

/// How caches are kept current.
pub(super) fn coherence_mode(given: &Given) -> Result<CoherenceMode, String> {
    match given.text()? {
        "on" => Ok(CoherenceMode::On),
        "off" => Ok(CoherenceMode::Off),
        "strict" => Ok(CoherenceMode::Strict),
        other => Err(format!("{} is neither \"on\" nor \"off\" nor \"strict\"", quote(other))),
    }
}

/// The look of log lines.
pub(super) fn log_format(given: &Given) -> Result<LogFormat, String> {
    match given.text()? {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        other => Err(format!("{} is neither \"text\" nor \"json\"", quote(other))),
    }
}

/// A level, or `target=level` directives separated by commas; returned without spaces. A bare target, which
/// `tracing` takes as "everything of it", is refused: it is a misspelt level. So are filters by field, which would
/// outrank the cap that [`crate::logging`] puts on some targets.
pub(super) fn log_filter(given: &Given) -> Result<String, String> {
    let directives: Vec<&str> = given.text()?.split(',').map(str::trim).collect();
    for directive in &directives {
        let (target, level) = directive.rsplit_once('=').unwrap_or(("", directive));
        if !["off", "error", "warn", "info", "debug", "trace"].contains(&level) {
            return Err(format!("{} is not a level: off, error, warn, info, debug, trace", quote(level)));
        }
        if target.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')) {
            return Err(format!("{} is not the path of a module", quote(target)));
        }
    }
    Ok(directives.join(","))
}

/// `256MiB` for a number of bytes that has such a short form.
pub(super) fn show_bytes(bytes: u64) -> String {
    [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// `60s`, `10ms`: the longest unit that needs no fraction, but minutes only where seconds are many.
pub(super) fn show_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    match (seconds, millis) {
        (_, 1..) => format!("{}ms", duration.as_millis()),
        (1.., 0) if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        (61.., 0) if seconds % 60 == 0 => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// `text` as it may be repeated in a message: in the wrong setting it may be a URL with a password, or anything.
fn quote(text: &str) -> String {
    if text.len() > 64 || text.contains('@') { "the value".into() } else { format!("{text:?}") }
}

fn listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.len() {
            0 => Err("unix: needs the path of a socket".into()),
            1..=MAX_SOCKET_PATH => Ok(Listen::Unix(path.into())),
            _ => Err(format!("a unix socket's path has at most {MAX_SOCKET_PATH} bytes")),
        };
    }
    tcp(text).map(Listen::Tcp).ok_or_else(|| {
        format!("{} is neither IP:port (127.0.0.1:6379, 0.0.0.0:6379, [::1]:6379) nor unix:/path", quote(text))
    })
}

/// `IP:port`. Of names only `localhost` is taken: a listener must not depend on a resolver.
fn tcp(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some((Ipv4Addr::LOCALHOST, port.parse::<u16>().ok()?).into());
    }
    text.parse().ok()
}

/// `256MiB` as 256 and `MiB`.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str) -> Given {
        Given::Word(text.into())
    }

    #[test]
    fn bytes_are_read() {
        let all = 0..=u64::MAX;
        for (text, expected) in [
            ("0", Some(0)),
            ("1024", Some(1024)),
            ("256MiB", Some(256 << 20)),
            ("1GB", Some(1_000_000_000)),
            ("1 GiB", Some(1 << 30)),
            ("7kB", Some(7000)),
            ("16777215TiB", Some(16_777_215 << 40)),
            ("16777216TiB", None),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5GiB", None),
            ("256mb", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(bytes(&word(text), &all).ok(), expected, "{text:?}");
            assert_eq!(bytes(&Given::Text(text.into()), &all).ok(), expected, "{text:?}");
        }
        assert_eq!(bytes(&Given::Integer(5), &all), Ok(5));
        assert!(bytes(&Given::Integer(-5), &all).is_err());
        assert!(bytes(&Given::Other("a boolean"), &all).unwrap_err().contains("a boolean"));
        assert_eq!(bytes(&word("1"), &(1024..=1 << 20)), Err("must be from 1KiB to 1MiB".into()));
    }

    #[test]
    fn durations_are_read() {
        let range = Duration::ZERO..=Duration::from_hours(24);
        for (text, millis) in [
            ("500ms", Some(500)),
            ("1s", Some(1000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("0s", Some(0)),
            ("60 s", Some(60_000)),
            ("60", None),
            ("", None),
            ("1d", None),
            ("-1s", None),
            ("1.5s", None),
            ("25h", None),
            ("9999999999999999999h", None),
        ] {
            assert_eq!(duration(&word(text), &range).ok(), millis.map(Duration::from_millis), "{text:?}");
        }
        assert!(duration(&Given::Integer(5), &range).unwrap_err().contains("unit"));
        assert_eq!(duration(&word("25h"), &range), Err("must be from 0s to 24h".into()));
    }

    #[test]
    fn shown_values_read_back() {
        for bytes_in in [0, 1, 1000, 1024, 256 << 20, 3 << 30, u64::MAX] {
            assert_eq!(bytes(&word(&show_bytes(bytes_in)), &(0..=u64::MAX)), Ok(bytes_in));
        }
        for millis in [0, 1, 500, 1000, 1500, 60_000, 90_000, 120_000, 3_600_000] {
            let range = Duration::ZERO..=Duration::MAX;
            let duration_in = Duration::from_millis(millis);
            assert_eq!(duration(&word(&show_duration(duration_in)), &range), Ok(duration_in));
        }
        assert_eq!(show_duration(Duration::from_mins(1)), "60s");
        assert_eq!(show_bytes(256 << 20), "256MiB");
    }

    #[test]
    fn counts_are_read() {
        for (given, expected) in [
            (word("8"), Some(8)),
            (word("0"), None),
            (word("101"), None),
            (word("eight"), None),
            (word("8.0"), None),
            (Given::Integer(100), Some(100)),
            (Given::Integer(-1), None),
            (Given::Integer(i64::MAX), None),
            (Given::Text("8".into()), None),
            (Given::Other("a float"), None),
        ] {
            assert_eq!(count(&given, &(1..=100)).ok(), expected, "{given:?}");
        }
    }

    #[test]
    fn listeners_are_read() {
        let show = |given: &Given| listeners(given).map(|list| format!("{list:?}")).ok();
        for (text, expected) in [
            ("127.0.0.1:6379", Some("[Tcp(127.0.0.1:6379)]")),
            ("localhost:1", Some("[Tcp(127.0.0.1:1)]")),
            ("[::1]:6379, unix:/run/s", Some("[Tcp([::1]:6379), Unix(\"/run/s\")]")),
            ("127.0.0.1:0,127.0.0.1:0", Some("[Tcp(127.0.0.1:0), Tcp(127.0.0.1:0)]")),
            ("127.0.0.1:1,127.0.0.1:1", None),
            ("127.0.0.1", None),
            (":6379", None),
            ("::1:6379:", None),
            ("127.0.0.1:65536", None),
            ("example.com:6379", None),
            ("unix:", None),
            ("", None),
            ("127.0.0.1:1,", None),
        ] {
            assert_eq!(show(&word(text)).as_deref(), expected, "{text:?}");
        }
        let list = Given::List(vec![Given::Text("127.0.0.1:1".into()), Given::Text("unix:/s".into())]);
        assert_eq!(show(&list).as_deref(), Some("[Tcp(127.0.0.1:1), Unix(\"/s\")]"));
        assert!(listeners(&Given::List(vec![])).is_err());
        assert!(listeners(&Given::List(vec![Given::Integer(6379)])).unwrap_err().contains("an integer"));
        assert!(listeners(&word(&format!("unix:/{}", "x".repeat(107)))).is_err());
        assert!(listeners(&Given::Text("127.0.0.1:1,127.0.0.1:2".into())).is_err());
    }

    #[test]
    fn metrics_can_be_off() {
        assert_eq!(address_or_off(&word("off")), Ok(None));
        assert_eq!(address_or_off(&word("127.0.0.1:9380")), Ok(Some(([127, 0, 0, 1], 9380).into())));
        assert!(address_or_off(&word("unix:/x")).is_err());
        assert!(address_or_off(&Given::Other("a boolean")).is_err());
    }

    #[test]
    fn stores_are_read_and_never_repeated() {
        for (text, expected) in [
            ("sqlite:/a/b.db", Some(StoreChoice::Sqlite("/a/b.db".into()))),
            ("sqlite:b.db", Some(StoreChoice::Sqlite("b.db".into()))),
            ("sqlite:///a/b.db", Some(StoreChoice::Sqlite("///a/b.db".into()))),
            ("postgres://h/d", Some(StoreChoice::Postgres("postgres://h/d".into()))),
            ("postgresql:///d", Some(StoreChoice::Postgres("postgresql:///d".into()))),
            ("sqlite:", None),
            ("sqlite::memory:", None),
            ("sqlite://host/b.db", None),
            ("mysql://u:hunter2@h/d", None),
            ("hunter2", None),
            ("", None),
        ] {
            let read = store(&word(text));
            assert!(!read.as_ref().is_err_and(|message| message.contains("hunter2")), "{text:?}");
            assert_eq!(read.ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_url_in_the_wrong_place_is_not_repeated() {
        let given = word("postgres://u:hunter2@h/d");
        for message in [
            listeners(&given).unwrap_err(),
            address_or_off(&given).unwrap_err(),
            bytes(&given, &(0..=9)).unwrap_err(),
            count(&given, &(0..=9)).unwrap_err(),
            duration(&given, &(Duration::ZERO..=Duration::MAX)).unwrap_err(),
            log_format(&given).unwrap_err(),
            log_filter(&given).unwrap_err(),
        ] {
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn levels_are_read() {
        for (text, good) in [
            ("info", true),
            ("off", true),
            ("DEBUG", false),
            ("tokio_postgres[{parameters}]=trace", false),
            ("a=b=info", false),
            ("warn,cloakroom=debug", true),
            ("warn, cloakroom::server=trace", true),
            ("verbose", false),
            ("warn,cloakroom", false),
            ("cloakroom=loud", false),
            ("", false),
            ("3", false),
            ("info,", false),
        ] {
            assert_eq!(log_filter(&word(text)).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn texts_are_bounded() {
        assert_eq!(short_text(&word("app:"), 4), Ok("app:".into()));
        assert!(short_text(&word("apps:"), 4).is_err());
        assert!(short_text(&Given::Integer(1), 4).is_err());
        assert!(file(&word("")).is_err());
        assert_eq!(log_format(&word("json")), Ok(LogFormat::Json));
        assert!(log_format(&word("xml")).is_err());
    }
}
