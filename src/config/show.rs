//! The effective configuration as text, without its secrets: for `--check-config` and the banner in the log.

use std::fmt;

use crate::config::value::{show_bytes, show_duration};
use crate::config::{CoherenceMode, Config, Listen, LogFormat, PostgresConfig, StoreConfig};

/// Every setting and what it amounts to, in the table's order. Settings of a store that is not used are left out.
#[must_use]
pub fn effective(config: &Config) -> Vec<(&'static str, String)> {
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let mut shown = vec![
        ("listen", listen.join(", ")),
        ("metrics_listen", config.metrics_listen.map_or_else(|| "off".into(), |address| address.to_string())),
        ("store", config.store.to_string()),
        ("key_prefix", String::from_utf8_lossy(&config.key_prefix).into_owned()),
        ("password", if config.password.is_some() { "set".into() } else { "none (protected mode)".into() }),
        ("touch_slack", show_duration(config.touch_slack)),
        ("workers", config.workers.to_string()),
        ("cache.max_bytes", show_bytes(config.cache_max_bytes)),
        ("cache.max_age", show_duration(config.coherence.max_age.unwrap_or_default())),
        ("coherence.mode", config.coherence.mode.to_string()),
        ("coherence.max_staleness", show_duration(config.coherence.max_staleness)),
        ("outage.serve_stale", show_duration(config.coherence.serve_stale)),
        ("logout_guard.patterns", patterns(&config.guarded)),
        ("logout_guard.window", show_duration(config.guard_window)),
        ("log.format", config.log_format.to_string()),
        ("log.level", config.log_level.clone()),
        ("limits.max_clients", config.max_clients.to_string()),
        ("limits.max_value_bytes", show_bytes(config.max_value_bytes as u64)),
        ("sweeper.interval", show_duration(config.sweeper_interval)),
        ("scripts.time_limit", show_duration(config.script_time_limit)),
        ("scripts.memory_limit", show_bytes(config.script_memory_limit as u64)),
        ("shutdown.timeout", show_duration(config.shutdown_timeout)),
    ];
    if let StoreConfig::Postgres(postgres) = &config.store {
        let listen_url = postgres.listen_url.as_ref().map(|url| format!("postgres://{}", place(url).unwrap_or("…")));
        shown.extend(listen_url.map(|url| ("coherence.listen_url", url)));
        shown.extend([
            ("postgres.connections", postgres.connections.to_string()),
            ("postgres.connect_timeout", show_duration(postgres.connect_timeout)),
            ("postgres.statement_timeout", show_duration(postgres.statement_timeout)),
        ]);
    }
    shown
}

fn patterns(patterns: &[Vec<u8>]) -> String {
    let shown: Vec<_> = patterns.iter().map(|pattern| String::from_utf8_lossy(pattern)).collect();
    shown.join(", ")
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for CoherenceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Strict => "strict",
        })
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// Where the store is, without user, password and options.
impl fmt::Display for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(sqlite) => write!(f, "sqlite:{}", sqlite.path.display()),
            Self::Postgres(PostgresConfig { url, .. }) => write!(f, "postgres://{}", place(url).unwrap_or("…")),
        }
    }
}

/// `host:port,…/database` of a Postgres URL, if it can be told from everything that may be secret. A password with
/// characters that belong escaped makes the URL ambiguous; then nothing is shown.
fn place(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let place = match rest.rsplit_once('@') {
        Some((user, place)) => (!user.contains(['/', '?', '#'])).then_some(place)?,
        None => rest,
    };
    let place = place.split('?').next()?;
    let (hosts, _) = place.split_once('/').unwrap_or((place, ""));
    // Without an @ a colon is only good before a port: "user:password" would be a mistake, and must not be shown.
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let good = hosts.split(',').all(|host| match host.rsplit_once(':') {
        Some((_, rest)) if !rest.ends_with(']') => is_port(rest),
        _ => true,
    });
    good.then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_secrets() {
        for (url, shown) in [
            ("postgres://u:hunter2@h:5432/d?sslmode=require", Some("h:5432/d")),
            ("postgres://h/d", Some("h/d")),
            (
                "postgres://u@h1:1,h2:2,[::1]:3,[::2]/d?target_session_attrs=read-write",
                Some("h1:1,h2:2,[::1]:3,[::2]/d"),
            ),
            ("postgres:///d?host=/run/postgresql&password=hunter2", Some("/d")),
            ("postgres://u@%2Frun%2Fpostgresql/d", Some("%2Frun%2Fpostgresql/d")),
            ("postgres://u:hun@ter2@h/d", Some("h/d")),
            ("postgres://u:hunter2/x@h/d", None),
            ("postgres://u:hunter2?x@h/d", None),
            ("postgres://h/d?password=hun@ter2", None),
            ("postgres://u:hunter2", None),
            ("postgres://u:hunter2/d", None),
        ] {
            assert_eq!(place(url), shown, "{url}");
            assert!(!place(url).unwrap_or_default().contains("ter2"), "{url}");
        }
    }
}
