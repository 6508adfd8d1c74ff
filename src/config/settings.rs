//! The one table of settings: what can be configured, in which unit, with which default. The check of the file, the
//! names of environment variables, `--help` and `config/cloakroom.toml` derive from it. It knows no source and no type.

use std::fmt::Write as _;

/// What is written before the names of environment variables.
pub const ENV_PREFIX: &str = "CLOAKROOM_";

/// What a value must look like, in words and for the generated file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Addresses to listen on: one, or a list (in the environment: separated by commas).
    Listeners,
    /// `IP:port`, or `off`.
    Address,
    /// `sqlite:PATH` or `postgres://…`.
    Store,
    /// `postgres://…`.
    Postgres,
    /// Free text.
    Text,
    /// A file's path.
    File,
    /// A number of bytes: an integer, or text as `"256MiB"`, `"1GB"`.
    Bytes,
    /// A plain count.
    Count,
    /// A time with its unit: `"500ms"`, `"1s"`, `"5m"`, `"1h"`.
    Duration,
    /// Patterns of keys: one, or a list (in the environment: separated by commas).
    Patterns,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A level, or levels by target.
    LogFilter,
}

/// One thing that can be set.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The dotted name in the file.
    pub key: &'static str,
    /// What a value looks like.
    pub unit: Unit,
    /// The default as one would write it in the environment; `None` if there is none, or it depends on the machine.
    pub default: Option<&'static str>,
    /// The default in words, where `default` is `None`.
    pub default_words: &'static str,
    /// What it does, in lines for the file.
    pub doc: &'static [&'static str],
}

/// Every setting, in the order of the file: keys of one table stand together.
pub static SETTINGS: &[Setting] = &[
    setting(
        "listen",
        Unit::Listeners,
        "127.0.0.1:6379",
        &[
            "Where to accept Redis clients: IP:port (127.0.0.1:6379, [::1]:6379) or unix:/path; one, or a list.",
            "Without a password only clients on this machine are served (protected mode).",
        ],
    ),
    setting(
        "metrics_listen",
        Unit::Address,
        "127.0.0.1:9380",
        &["Where to serve /metrics, /livez and /readyz: IP:port, or \"off\"."],
    ),
    Setting {
        key: "store",
        unit: Unit::Store,
        default: None,
        default_words: "sqlite:cloakroom.db in the state directory ($STATE_DIRECTORY, or $XDG_STATE_HOME/cloakroom, or ~/.local/state/cloakroom)",
        doc: &[
            "Which store keeps the truth: sqlite:/path/to/file.db, or a Postgres URL as libpq takes it",
            "(postgres://user@host/database). A URL with a password in it is better given as CLOAKROOM_STORE.",
        ],
    },
    setting(
        "key_prefix",
        Unit::Text,
        "",
        &["Put before every key in the store, so that several services may share one table."],
    ),
    Setting {
        key: "password_file",
        unit: Unit::File,
        default: None,
        default_words: "no password: protected mode",
        doc: &[
            "The file that holds the password of AUTH; one newline at its end is not part of it. Read again at SIGHUP.",
            "Instead of a file, the environment may hold the password itself: CLOAKROOM_PASSWORD.",
        ],
    },
    setting(
        "touch_slack",
        Unit::Duration,
        "60s",
        &[
            "How far the committed expiry of a session may lag behind what clients are told: EXPIRE to a later time, or SET",
            "of the value that is there, is then answered from memory. At most 5 % of the time to live, and nothing below",
            "5 minutes, are lost to a crash. \"0s\": every touch is committed before it is answered.",
        ],
    ),
    setting(
        "workers",
        Unit::Count,
        "0",
        &[
            "Threads that serve clients. 0: half of the processors, so that the application or Postgres beside it has room;",
            "on a machine of its own, as many as there are processors.",
        ],
    ),
    setting("cache.max_bytes", Unit::Bytes, "256MiB", &["Bound on the memory of the cache."]),
    setting(
        "cache.max_age",
        Unit::Duration,
        "1s",
        &[
            "With coherence \"off\" on Postgres: how long what is cached may be used, as others may have changed it;",
            "0s: for ever, which is right if this is the only daemon on its database.",
        ],
    ),
    setting(
        "coherence.mode",
        Unit::Choice(&["on", "off", "strict"]),
        "on",
        &[
            "How the caches of several daemons on one Postgres are kept current. \"on\": a write of one is seen by the others",
            "within max_staleness, typically within a millisecond. \"strict\": it is acknowledged when no other serves the old",
            "value any more. \"off\": they do not hear of each other, see cache.max_age. SQLite has one daemon and needs none.",
        ],
    ),
    setting(
        "coherence.max_staleness",
        Unit::Duration,
        "1s",
        &[
            "What is cached is used only while it is proven to be no older than this; then the database is asked. The same on",
            "every daemon of a fleet.",
        ],
    ),
    Setting {
        key: "coherence.listen_url",
        unit: Unit::Postgres,
        default: None,
        default_words: "the store's URL",
        doc: &[
            "A Postgres URL for the one connection on which daemons hear of each other, where the store's URL leads through a",
            "pooler of transactions (PgBouncer), which does not pass notifications on.",
        ],
    },
    setting(
        "outage.serve_stale",
        Unit::Duration,
        "30s",
        &[
            "While Postgres cannot be reached, for how long (beyond max_staleness) what is cached is still used; 0s: never.",
            "Writes are errors all the while. In strict mode it is as if this were 0s.",
        ],
    ),
    setting(
        "logout_guard.patterns",
        Unit::Patterns,
        "",
        &[
            "Keys whose deletion is guarded, as patterns of KEYS (without key_prefix): [\"session:*\"]. For a while after a DEL of",
            "such a key, SET without NX, EXPIRE and whatever else would bring it back are refused, on every daemon: a slow",
            "request that began before the logout does not undo it. Every daemon on one database needs the same patterns.",
        ],
    ),
    setting(
        "logout_guard.window",
        Unit::Duration,
        "30s",
        &["How long a deletion is guarded: longer than the slowest request takes."],
    ),
    setting("log.format", Unit::Choice(&["text", "json"]), "text", &["How log lines on standard error look."]),
    setting(
        "log.level",
        Unit::LogFilter,
        "info",
        &[
            "off, error, warn, info, debug or trace; or levels by target: \"warn,cloakroom::server=debug\".",
            "Read again at SIGHUP.",
        ],
    ),
    setting("limits.max_clients", Unit::Count, "10000", &["Connections served at once; more are told so and closed."]),
    setting("limits.max_value_bytes", Unit::Bytes, "16MiB", &["The largest value that can be stored."]),
    setting(
        "sweeper.interval",
        Unit::Duration,
        "60s",
        &["The pause between two passes that remove expired sessions from the store."],
    ),
    setting(
        "scripts.time_limit",
        Unit::Duration,
        "5s",
        &["How long a Lua script may take; one that takes more is stopped, and what it did is undone."],
    ),
    setting("scripts.memory_limit", Unit::Bytes, "64MiB", &["How much memory a Lua script may take."]),
    setting(
        "shutdown.timeout",
        Unit::Duration,
        "10s",
        &["How long connections may finish what they began when the daemon is told to stop."],
    ),
    setting("postgres.connections", Unit::Count, "8", &["Connections in the pool."]),
    setting(
        "postgres.connect_timeout",
        Unit::Duration,
        "2s",
        &["How long to wait for a connection, be it a new one or a free one of the pool."],
    ),
    setting("postgres.statement_timeout", Unit::Duration, "5s", &["How long a statement may take."]),
];

impl Setting {
    /// The name of its environment variable: `cache.max_bytes` is `CLOAKROOM_CACHE_MAX_BYTES`.
    #[must_use]
    pub fn env_name(&self) -> String {
        format!("{ENV_PREFIX}{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// The flag that sets it, if there is one.
    #[must_use]
    pub fn flag(&self) -> Option<&'static str> {
        match self.key {
            "listen" => Some("--listen"),
            "metrics_listen" => Some("--metrics-listen"),
            "store" => Some("--store"),
            _ => None,
        }
    }

    /// The default for people.
    #[must_use]
    pub fn default_text(&self) -> &'static str {
        match self.default {
            Some("") => "empty",
            Some(text) => text,
            None => self.default_words,
        }
    }
}

/// The setting with this dotted key.
#[must_use]
pub fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The commented file `config/cloakroom.toml`: every key with its default and unit.
#[must_use]
pub fn example_file() -> String {
    let mut text = String::from(
        "# Cloakroom's configuration. Every key is listed with its default; remove the \"# \" before a key to set it.\n\
         # Flags win over environment variables, which win over this file. `cloakroom --check-config` checks it all.\n\
         # This file is generated from src/config/settings.rs; a test keeps them the same.\n",
    );
    let mut table = "";
    for setting in SETTINGS {
        let (section, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        text.push('\n');
        if section != table {
            let _ = writeln!(text, "[{section}]");
            table = section;
        }
        for line in setting.doc {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "# Unit: {}. Environment: {}.", setting.unit.words(), setting.env_name());
        let _ = match setting.default {
            Some(default) => writeln!(text, "# {name} = {}", setting.unit.toml(default)),
            None => writeln!(text, "# Default: {}.\n# {name} = \"…\"", setting.default_words),
        };
    }
    text
}

/// The part of `--help` that lists what has no flag of its own, and the names in the environment.
#[must_use]
pub fn help_text() -> String {
    let mut text = String::from("Settings (key in the file, environment variable, unit, default):\n");
    for setting in SETTINGS {
        let _ = writeln!(
            text,
            "  {:<27} {}\n  {:<27} {}; default {}",
            setting.key,
            setting.env_name(),
            "",
            setting.unit.words(),
            setting.default_text()
        );
    }
    text.push_str(
        "  (no key)                    CLOAKROOM_PASSWORD\n\
         \x20                             the password itself, instead of password_file\n\n\
         Flags win over the environment, the environment over the file.\n\
         The file is --config, else CLOAKROOM_CONFIG, else /etc/cloakroom/cloakroom.toml if it exists.\n\n\
         Signals: TERM and INT stop (again: at once), HUP reads password and log level again.\n\
         Exit codes: 0 stopped when told to, 64 wrong configuration, 70 internal fault, 74 cannot listen or read.",
    );
    text
}

impl Unit {
    /// What a value looks like, in a few words.
    #[must_use]
    pub fn words(self) -> String {
        match self {
            Self::Listeners => "IP:port or unix:/path, one or a list".into(),
            Self::Address => "IP:port or off".into(),
            Self::Store => "sqlite:PATH or postgres://…".into(),
            Self::Postgres => "postgres://…".into(),
            Self::Text => "text".into(),
            Self::File => "path of a file".into(),
            Self::Bytes => "bytes, or with KiB, MiB, GiB, kB, MB, GB".into(),
            Self::Count => "a number".into(),
            Self::Duration => "time with its unit: ms, s, m, h".into(),
            Self::Patterns => "patterns as of KEYS, a list".into(),
            Self::Choice(words) => words.join(" or "),
            Self::LogFilter => "level, or target=level,…".into(),
        }
    }

    /// `text` as a TOML value.
    fn toml(self, text: &str) -> String {
        match self {
            Self::Count => text.into(),
            Self::Patterns if text.is_empty() => "[]".into(),
            Self::Listeners | Self::Patterns => format!("[\"{text}\"]"),
            _ => format!("\"{text}\""),
        }
    }
}

const fn setting(key: &'static str, unit: Unit, default: &'static str, doc: &'static [&'static str]) -> Setting {
    Setting { key, unit, default: Some(default), default_words: "", doc }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Run with `CLOAKROOM_TEST_BLESS=1` to write the file anew.
    #[test]
    fn the_file_in_the_repository_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/cloakroom.toml");
        if std::env::var_os("CLOAKROOM_TEST_BLESS").is_some() {
            std::fs::write(path, example_file()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), example_file());
    }

    #[test]
    fn keys_are_unique_and_tables_are_contiguous() {
        let mut seen: Vec<&str> = Vec::new();
        for setting in SETTINGS {
            let section = setting.key.split_once('.').map_or("", |(section, _)| section);
            assert!(seen.last() == Some(&section) || !seen.contains(&section), "[{section}] appears twice");
            seen.push(section);
            assert_eq!(SETTINGS.iter().filter(|other| other.env_name() == setting.env_name()).count(), 1);
            assert_eq!(setting.default.is_some(), setting.default_words.is_empty(), "{}", setting.key);
            assert!(!setting.doc.is_empty());
        }
    }

    #[test]
    fn environment_names_follow_from_keys() {
        let names: Vec<String> = SETTINGS.iter().map(Setting::env_name).collect();
        assert!(names.contains(&"CLOAKROOM_LISTEN".to_owned()));
        assert!(names.contains(&"CLOAKROOM_CACHE_MAX_BYTES".to_owned()));
        assert!(names.contains(&"CLOAKROOM_LOG_FORMAT".to_owned()));
    }
}
