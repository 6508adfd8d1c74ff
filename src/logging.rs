//! Log lines on standard error: their look, their level, and the hook that logs panics. It knows no part of the daemon.

use std::fs;
use std::io::IsTerminal as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::level_filters::LevelFilter;
use tracing::{Subscriber, error};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::LogFormat;

/// Targets whose finer levels hold secrets, whatever `log.level` says: at debug, `tokio_postgres` prints the bound
/// parameters of statements, which are session ids and sessions; below info, `rustls` may print keys' material.
const CAPPED: [&str; 2] = ["tokio_postgres", "rustls"];

/// The finest level of the capped targets.
const CAP: LevelFilter = LevelFilter::INFO;

/// Why logging cannot be set up or changed.
#[derive(Debug)]
pub enum LoggingError {
    /// The level is not one that the configuration would have let through.
    Level(tracing_subscriber::filter::ParseError),
    /// Something else has set up logging in this process.
    Taken(tracing_subscriber::util::TryInitError),
    /// Logging is gone.
    Gone(reload::Error),
}

impl std::fmt::Display for LoggingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Level(_) => "the log level cannot be read",
            Self::Taken(_) => "logging has been set up before",
            Self::Gone(_) => "logging has ended",
        })
    }
}

impl std::error::Error for LoggingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Level(error) => Some(error),
            Self::Taken(error) => Some(error),
            Self::Gone(error) => Some(error),
        }
    }
}

/// Changes the level while the daemon runs.
#[derive(Clone, Debug)]
pub struct LogControl {
    filter: reload::Handle<Targets, Registry>,
}

impl LogControl {
    /// Uses `level`, as `log.level` has it, from now on.
    ///
    /// # Errors
    /// The level cannot be read; the old one stays.
    pub fn set_level(&self, level: &str) -> Result<(), LoggingError> {
        let filter = capped(level)?;
        self.filter.reload(filter).map_err(LoggingError::Gone)
    }
}

/// Starts logging to standard error, for the whole process, once.
///
/// # Errors
/// The level cannot be read, or logging was started before.
pub fn init(format: LogFormat, level: &str) -> Result<LogControl, LoggingError> {
    let look = Look {
        format,
        // The journal keeps the time itself.
        time: !stderr_is_journal(),
        colours: std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let (subscriber, control) = subscriber(look, std::io::stderr);
    subscriber.try_init().map_err(LoggingError::Taken)?;
    control.set_level(level)?;
    Ok(control)
}

/// Logs every panic from now on: where and what it said, not a trace, and not more of its payload. Returns the count.
#[must_use]
pub fn install_panic_hook() -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    std::panic::set_hook(Box::new(move |info| {
        counter.fetch_add(1, Ordering::Relaxed);
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let said = info.payload_as_str().unwrap_or("(not text)");
        let thread = std::thread::current();
        error!(location, said, thread = thread.name().unwrap_or_default(), "panicked");
    }));
    count
}

#[derive(Clone, Copy, Debug)]
struct Look {
    format: LogFormat,
    time: bool,
    colours: bool,
}

/// A subscriber that writes everything until its level is set. It begins with the finest level because the bridge from
/// the `log` crate keeps, for good, the finest level that it sees at the start.
fn subscriber<W>(look: Look, writer: W) -> (impl Subscriber + Send + Sync, LogControl)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(Targets::new().with_default(LevelFilter::TRACE));
    let layer = fmt::layer().with_writer(writer).with_ansi(look.colours);
    let layer = match (look.format, look.time) {
        (LogFormat::Json, _) => layer.json().flatten_event(true).with_current_span(false).boxed(),
        (LogFormat::Text, true) => layer.boxed(),
        (LogFormat::Text, false) => layer.without_time().boxed(),
    };
    (tracing_subscriber::registry().with(filter).with(layer), LogControl { filter: handle })
}

/// The filter that `level` describes, but never finer than [`CAP`] for the [`CAPPED`] targets and what is in them.
fn capped(level: &str) -> Result<Targets, LoggingError> {
    let asked: Targets = level.parse().map_err(LoggingError::Level)?;
    let is_in = |target: &str| CAPPED.iter().any(|capped| target.starts_with(capped));
    let mut filter = Targets::new().with_default(asked.default_level().unwrap_or(LevelFilter::OFF));
    for (target, level) in &asked {
        filter = filter.with_target(target, if is_in(target) { level.min(CAP) } else { level });
    }
    // The most specific directive wins: those for the capped targets themselves, unless they were given.
    for target in CAPPED {
        if !asked.iter().any(|(given, _)| given == target) {
            let inherited = asked
                .iter()
                .filter(|(given, _)| target.starts_with(given))
                .max_by_key(|(given, _)| given.len())
                .map(|(_, level)| level)
                .or(asked.default_level());
            filter = filter.with_target(target, inherited.unwrap_or(LevelFilter::OFF).min(CAP));
        }
    }
    Ok(filter)
}

/// Whether standard error goes to systemd's journal: it says so by the device and inode of the stream.
fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fs::metadata("/proc/self/fd/2").is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use tracing::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is written while `run` runs.
    fn written(format: LogFormat, level: &str, run: impl FnOnce(&LogControl)) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let (subscriber, control) = subscriber(Look { format, time: true, colours: false }, move || writer.clone());
        control.set_level(level).unwrap();
        tracing::subscriber::with_default(subscriber, || run(&control));
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn statements_are_never_logged_with_their_parameters() {
        for level in [
            "trace",
            "debug",
            "tokio_postgres=trace",
            "tokio_postgres::query=trace",
            "tokio=trace",
            "tokio_postgres=debug,tokio_postgres::query=debug,trace",
            "off,tokio_postgr=trace",
            "=trace",
        ] {
            let filter = capped(level).unwrap();
            for target in ["tokio_postgres", "tokio_postgres::query", "tokio_postgres::connection", "rustls::conn"] {
                for finer in [Level::DEBUG, Level::TRACE] {
                    assert!(!filter.would_enable(target, &finer), "{level}: {target} at {finer}");
                }
            }
        }
        let text = written(LogFormat::Text, "trace", |_| {
            tracing::debug!(target: "tokio_postgres::query", "hunter2");
            tracing::info!(target: "tokio_postgres::connection", "a notice");
        });
        assert!(text.contains("a notice") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn levels_below_the_cap_are_kept() {
        for (level, target, at, enabled) in [
            ("warn", "tokio_postgres", Level::INFO, false),
            ("warn", "tokio_postgres", Level::WARN, true),
            ("error,tokio_postgres=info", "tokio_postgres", Level::INFO, true),
            ("info,tokio=error", "tokio_postgres", Level::WARN, false),
            ("info,tokio_postgres::query=off", "tokio_postgres::query", Level::ERROR, false),
            ("debug", "cloakroom::server", Level::DEBUG, true),
            ("warn,cloakroom::server=debug", "cloakroom::server::connection", Level::DEBUG, true),
            ("warn,cloakroom::server=debug", "cloakroom::store", Level::INFO, false),
            ("cloakroom=info", "hyper", Level::ERROR, false),
            ("off", "cloakroom", Level::ERROR, false),
        ] {
            assert_eq!(capped(level).unwrap().would_enable(target, &at), enabled, "{level}: {target} at {at}");
        }
    }

    #[test]
    fn the_level_can_change() {
        let text = written(LogFormat::Text, "warn", |control| {
            tracing::info!("first");
            control.set_level("info").unwrap();
            tracing::info!("second");
            assert!(control.set_level("loud=louder").is_err());
            tracing::info!("third");
        });
        assert!(!text.contains("first") && text.contains("second") && text.contains("third"), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = written(LogFormat::Json, "info", |_| {
            tracing::info!(listeners = 2, "line one\nline two");
            tracing::warn!("again");
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            lines[0].contains(r#""message":"line one\nline two""#) && lines[0].contains(r#""listeners":2"#),
            "{text}"
        );
        assert!(lines[0].contains("\"timestamp\":\"20") && lines[0].contains("Z\""), "{text}");
        assert!(lines.iter().all(|line| line.starts_with('{') && line.ends_with('}')), "{text}");
    }
}
