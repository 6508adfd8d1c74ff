//! From arguments, environment and file to the checked configuration, or to every fault in them.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::fault::{Fault, Faults, Source};
use crate::config::flags::{self, Parsed};
use crate::config::password::{self, Password};
use crate::config::settings::SETTINGS;
use crate::config::sources::{self, Item, PASSWORD_VARIABLE};
use crate::config::value::{self, Given, StoreChoice};
use crate::config::{CoherenceConfig, Config, PostgresConfig, SqliteConfig, StoreConfig};
use crate::limits;

/// The file that is read if no other is named and it exists.
pub const DEFAULT_FILE: &str = "/etc/cloakroom/cloakroom.toml";

/// The name of the embedded store's file in the state directory.
pub const SQLITE_FILE: &str = "cloakroom.db";

/// What the process was started with. Tests make their own.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Arguments, without the program's name.
    pub args: Vec<OsString>,
    /// The environment.
    pub vars: Vec<(OsString, OsString)>,
    /// The file that is read if no other is named and it exists.
    pub default_file: PathBuf,
    /// Says what is wrong with a Postgres URL, one fault each, without repeating a secret. Whoever keeps the sessions in
    /// Postgres knows; this layer does not.
    pub check_postgres: fn(&str) -> Result<(), Vec<String>>,
}

/// What the process was asked to do.
#[derive(Debug)]
pub enum Ask {
    /// To print this text.
    Text(String),
    /// To serve, or (with `check_only`) to say what it would serve.
    Serve(Box<Loaded>),
}

/// A checked configuration and what belongs beside it.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Only to be checked and shown.
    pub check_only: bool,
    /// Things that work but should not be so; for the log, once there is one.
    pub warnings: Vec<String>,
}

impl Inputs {
    /// Those of this process.
    #[must_use]
    pub fn of_process(check_postgres: fn(&str) -> Result<(), Vec<String>>) -> Self {
        Self {
            args: std::env::args_os().skip(1).collect(),
            vars: std::env::vars_os().collect(),
            default_file: DEFAULT_FILE.into(),
            check_postgres,
        }
    }

    fn var(&self, name: &str) -> Option<&OsStr> {
        self.vars.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_os_str())
    }
}

/// Reads and checks everything. Files are read (configuration, password); nothing is created, bound or connected.
///
/// # Errors
/// Every fault of every source, also of values that another source outranks.
pub fn load(inputs: &Inputs) -> Result<Ask, Faults> {
    let (flags, mut faults) = match flags::parse(inputs.args.iter().cloned()) {
        Parsed::Text(text) => return Ok(Ask::Text(text)),
        Parsed::Flags(flags, faults) => (flags, faults),
    };
    let variables = sources::environment(&inputs.vars, &mut faults);
    // In order of rank: the first item of a setting wins.
    let mut items = sources::command_line(&flags, &mut faults);
    items.extend(variables.items);
    let named = flags.config.map(PathBuf::from).or(variables.config);
    let path = named.or_else(|| inputs.default_file.exists().then(|| inputs.default_file.clone()));
    if let Some(path) = &path {
        items.extend(sources::file(path, &mut faults));
    }

    let mut picker = Picker::new(items, faults);
    let config = check(&mut picker, inputs, variables.password.as_deref());
    let Picker { mut faults, warnings, .. } = picker;
    match config {
        Some(config) if faults.is_empty() => {
            Ok(Ask::Serve(Box::new(Loaded { config, check_only: flags.check_config, warnings })))
        }
        _ => {
            // Two sources may notice the same thing; once is enough.
            faults.dedup();
            Err(Faults(faults))
        }
    }
}

/// Checks every setting before it gives up on any: the `?` come after the last pick.
fn check(picker: &mut Picker, inputs: &Inputs, password: Option<&OsStr>) -> Option<Config> {
    let listen = picker.pick("listen", value::listeners);
    let metrics_listen = picker.pick("metrics_listen", value::address_or_off);
    let store = picker.store(inputs);
    let key_prefix = picker.pick("key_prefix", |given| value::short_text(given, limits::MAX_KEY / 2));
    let password_file = picker.given("password_file", value::file);
    let password = picker.password(password_file.as_ref(), password);
    let touch_slack = picker.duration("touch_slack", 0, 3600);
    let workers = picker.count("workers", 0..=1024);
    let guarded = picker.pick("logout_guard.patterns", value::patterns);
    let guard_window = picker.duration("logout_guard.window", 1000, 3600);
    let cache_max_bytes = picker.bytes("cache.max_bytes", 1 << 20..=1 << 50);
    let max_age = picker.duration("cache.max_age", 0, 24 * 3600);
    let mode = picker.pick("coherence.mode", value::coherence_mode);
    let max_staleness = picker.duration("coherence.max_staleness", 50, 60);
    let listen_url = picker.postgres_url("coherence.listen_url", inputs);
    let serve_stale = picker.duration("outage.serve_stale", 0, 24 * 3600);
    let log_format = picker.pick("log.format", value::log_format);
    let log_level = picker.pick("log.level", value::log_filter);
    let max_clients = picker.count("limits.max_clients", 1..=1_000_000);
    let max_value_bytes = picker.bytes("limits.max_value_bytes", 1..=limits::REQUEST.max_bulk as u64);
    let sweeper_interval = picker.duration("sweeper.interval", 10, 24 * 3600);
    let script_time_limit = picker.duration("scripts.time_limit", 1, 300);
    let script_memory_limit = picker.bytes("scripts.memory_limit", 1 << 20..=1 << 32);
    let shutdown_timeout = picker.duration("shutdown.timeout", 0, 3600);
    let connections = picker.count("postgres.connections", 1..=1000);
    let connect_timeout = picker.duration("postgres.connect_timeout", 10, 300);
    let statement_timeout = picker.duration("postgres.statement_timeout", 10, 300);

    let (connections, connect_timeout, statement_timeout) = (connections?, connect_timeout?, statement_timeout?);
    Some(Config {
        listen: listen?,
        metrics_listen: metrics_listen?,
        store: match store? {
            StoreChoice::Sqlite(path) => StoreConfig::Sqlite(SqliteConfig { path }),
            StoreChoice::Postgres(url) => StoreConfig::Postgres(PostgresConfig {
                url,
                listen_url,
                connections,
                connect_timeout,
                statement_timeout,
            }),
        },
        key_prefix: key_prefix?.into_bytes(),
        password,
        touch_slack: touch_slack?,
        workers: workers?,
        guarded: guarded?,
        guard_window: guard_window?,
        cache_max_bytes: cache_max_bytes?,
        coherence: CoherenceConfig {
            mode: mode?,
            max_staleness: max_staleness?,
            serve_stale: serve_stale?,
            max_age: max_age.map(|age| (!age.is_zero()).then_some(age))?,
        },
        max_clients: max_clients?,
        max_value_bytes: usize::try_from(max_value_bytes?).ok()?,
        sweeper_interval: sweeper_interval?,
        script_time_limit: script_time_limit?,
        script_memory_limit: usize::try_from(script_memory_limit?).ok()?,
        shutdown_timeout: shutdown_timeout?,
        log_format: log_format?,
        log_level: log_level?,
    })
}

/// Hands out settings one by one, and gathers the faults of all their values.
struct Picker {
    items: HashMap<&'static str, Vec<Item>>,
    faults: Vec<Fault>,
    warnings: Vec<String>,
}

impl Picker {
    fn new(items: Vec<Item>, faults: Vec<Fault>) -> Self {
        let mut by_key: HashMap<&'static str, Vec<Item>> = HashMap::new();
        for item in items {
            by_key.entry(item.setting.key).or_default().push(item);
        }
        Self { items: by_key, faults, warnings: Vec::new() }
    }

    /// The value that wins, and where it stands, if any was given; all given values are checked.
    fn given<T>(&mut self, key: &str, read: impl Fn(&Given) -> Result<T, String>) -> Option<(T, Item)> {
        let mut first = None;
        for (rank, item) in self.items.remove(key).unwrap_or_default().into_iter().enumerate() {
            match read(&item.given) {
                Ok(value) if rank == 0 => first = Some((value, item)),
                Ok(_) => {}
                Err(message) => self.faults.push(item.fault(message)),
            }
        }
        first
    }

    /// The value that wins, else the default. Nothing if the default was not to be used because of a fault.
    fn pick<T>(&mut self, key: &str, read: impl Fn(&Given) -> Result<T, String>) -> Option<T> {
        if self.items.contains_key(key) {
            return self.given(key, read).map(|(value, _)| value);
        }
        let default = SETTINGS.iter().find(|setting| setting.key == key)?.default?;
        read(&Given::Word(default.into())).ok()
    }

    fn bytes(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        self.pick(key, |given| value::bytes(given, &range))
    }

    fn count(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        self.pick(key, |given| value::count(given, &range))
    }

    fn duration(&mut self, key: &str, min_millis: u64, max_seconds: u64) -> Option<Duration> {
        let range = Duration::from_millis(min_millis)..=Duration::from_secs(max_seconds);
        self.pick(key, |given| value::duration(given, &range))
    }

    /// A Postgres URL that can be used, if one was given.
    fn postgres_url(&mut self, key: &str, inputs: &Inputs) -> Option<String> {
        let (url, item) = self.given(key, value::postgres_url)?;
        let faults = (inputs.check_postgres)(&url).err().unwrap_or_default();
        self.faults.extend(faults.into_iter().map(|fault| item.fault(fault)));
        Some(url)
    }

    /// The store that was named, else the file in the state directory.
    fn store(&mut self, inputs: &Inputs) -> Option<StoreChoice> {
        if self.items.contains_key("store") {
            let (store, item) = self.given("store", value::store)?;
            if let StoreChoice::Postgres(url) = &store {
                let faults = (inputs.check_postgres)(url).err().unwrap_or_default();
                self.faults.extend(faults.into_iter().map(|fault| item.fault(fault)));
            }
            return Some(store);
        }
        let path = state_directory(inputs).map(|directory| directory.join(SQLITE_FILE));
        if path.is_none() {
            let message = "there is no state directory, as HOME is not set: name a store";
            self.faults.push(Fault::new(Source::Default, "store", message));
        }
        path.map(StoreChoice::Sqlite)
    }

    /// The password of the environment, or of the file, whichever was named by the higher source.
    fn password(&mut self, file: Option<&(PathBuf, Item)>, variable: Option<&OsStr>) -> Option<Password> {
        let in_environment = |message| Fault::new(Source::Environment, PASSWORD_VARIABLE, message);
        let from_variable = variable.and_then(|text| {
            let password = Password::new(text.as_bytes());
            if password.is_none() {
                self.faults.push(in_environment("is empty: unset it to serve without a password"));
            }
            password
        });
        let Some((path, item)) = file else { return from_variable };
        if from_variable.is_some() && item.source == Source::Environment {
            self.faults.push(in_environment("is set beside CLOAKROOM_PASSWORD_FILE: only one can be"));
        }
        // The file is read even where the variable wins: a fault of it is a fault.
        let from_file = self.password_file(path, item);
        from_variable.or(from_file)
    }

    fn password_file(&mut self, path: &Path, item: &Item) -> Option<Password> {
        if password::is_public(path) {
            self.warnings.push(format!("the password file {} can be read by everybody", path.display()));
        }
        match password::read(path) {
            Ok(password) => Some(password),
            Err(message) => {
                self.faults.push(item.fault(format!("{} {message}", path.display())));
                None
            }
        }
    }
}

/// Where state goes: systemd's `StateDirectory`, else where the XDG base directories put the user's.
fn state_directory(inputs: &Inputs) -> Option<PathBuf> {
    if let Some(list) = inputs.var("STATE_DIRECTORY") {
        // systemd separates several by colons.
        let first = list.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
        return Some(PathBuf::from(OsStr::from_bytes(first)));
    }
    let absolute = |name| inputs.var(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))?;
    Some(base.join("cloakroom"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::show::effective;

    /// Loads from a command line, variables and the text of a file.
    fn loaded(line: &str, vars: &[(&str, &str)], file: &str) -> Result<Loaded, Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, file).unwrap();
        let mut inputs = Inputs {
            args: line.split_whitespace().map(OsString::from).collect(),
            vars: vars.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            default_file: path.clone(),
            check_postgres: |url| if url.contains("bad") { Err(vec!["one".into(), "two".into()]) } else { Ok(()) },
        };
        if !vars.iter().any(|(name, _)| *name == "HOME") {
            inputs.vars.push(("HOME".into(), "/home/u".into()));
        }
        match load(&inputs) {
            Ok(Ask::Serve(loaded)) => Ok(*loaded),
            Ok(Ask::Text(text)) => panic!("{text}"),
            Err(faults) => {
                Err(faults.0.iter().map(|fault| fault.to_string().replace(&*path.to_string_lossy(), "F")).collect())
            }
        }
    }

    fn shown(loaded: &Loaded, key: &str) -> String {
        effective(&loaded.config).into_iter().find(|(name, _)| *name == key).unwrap().1
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let defaults = loaded("", &[], "").unwrap();
        let postgres = loaded("--store postgres://h/d", &[], "").unwrap();
        for setting in SETTINGS {
            let defaults = if setting.key.starts_with("postgres.") { &postgres } else { &defaults };
            if let Some(default) = setting.default {
                assert_eq!(shown(defaults, setting.key), default, "{}", setting.key);
            }
        }
        assert_eq!(shown(&defaults, "store"), "sqlite:/home/u/.local/state/cloakroom/cloakroom.db");
        assert!(defaults.config.password.is_none());
        assert_eq!(defaults.config.max_value_bytes, limits::MAX_VALUE);
    }

    /// A setting that nothing reads would be silently without effect.
    #[test]
    fn every_setting_is_checked() {
        for setting in SETTINGS {
            let table = format!("{} = true", setting.key);
            let faults = loaded("", &[], &table).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].starts_with(&format!("F:1: {}: ", setting.key)), "{faults:?}");
        }
    }

    #[test]
    fn flags_outrank_variables_and_those_the_file() {
        let file = "listen = '127.0.0.1:1'\nmetrics_listen = '127.0.0.1:1'\nstore = 'sqlite:/1'\n[log]\nlevel = 'warn'";
        let vars = [("CLOAKROOM_LISTEN", "127.0.0.1:2"), ("CLOAKROOM_STORE", "sqlite:/2")];
        let three = loaded("--listen 127.0.0.1:3 --listen unix:/3", &vars, file).unwrap();
        assert_eq!(shown(&three, "listen"), "127.0.0.1:3, unix:/3");
        assert_eq!(shown(&three, "store"), "sqlite:/2");
        assert_eq!(shown(&three, "metrics_listen"), "127.0.0.1:1");
        assert_eq!(shown(&three, "log.level"), "warn");
    }

    #[test]
    fn faults_of_all_sources_come_together() {
        let faults = loaded(
            "--bogus --store ftp://x",
            &[("CLOAKROOM_CACHE_MAX_BYTES", "lots"), ("CLOAKROOM_LOG_LVL", "info"), ("CLOAKROOM_STORE", "ftp://y")],
            "lisen = 1\nstore = 'ftp://z'\n[limits]\nmax_clients = 0\n[sweeper]\ninterval = '60'",
        )
        .unwrap_err();
        for expected in [
            "command line: --bogus: unknown option",
            "command line: --store: expected sqlite:PATH",
            "environment: CLOAKROOM_CACHE_MAX_BYTES: expected a number of bytes",
            "environment: CLOAKROOM_LOG_LVL: unknown variable",
            "environment: CLOAKROOM_STORE: expected sqlite:PATH",
            "F:1: lisen: unknown key",
            "F:2: store: expected sqlite:PATH",
            "F:4: limits.max_clients: must be from 1 to 1000000",
            "F:6: sweeper.interval: expected a time with its unit",
        ] {
            assert_eq!(faults.iter().filter(|fault| fault.starts_with(expected)).count(), 1, "{expected}: {faults:#?}");
        }
        assert_eq!(faults.len(), 9, "{faults:#?}");
    }

    #[test]
    fn a_postgres_url_is_checked_by_who_knows_it() {
        assert!(loaded("--store postgres://good/d", &[], "").is_ok());
        assert_eq!(
            loaded("--store postgres://bad/d", &[("CLOAKROOM_STORE", "postgres://good/d")], "").unwrap_err(),
            ["command line: --store: one", "command line: --store: two"]
        );
    }

    #[test]
    fn the_state_directory_follows_systemd_then_xdg() {
        for (vars, expected) in [
            (&[("STATE_DIRECTORY", "/var/lib/cloakroom")][..], "/var/lib/cloakroom/cloakroom.db"),
            (&[("STATE_DIRECTORY", "/a:/b"), ("XDG_STATE_HOME", "/c")], "/a/cloakroom.db"),
            (&[("XDG_STATE_HOME", "/c")], "/c/cloakroom/cloakroom.db"),
            (&[("XDG_STATE_HOME", "relative")], "/home/u/.local/state/cloakroom/cloakroom.db"),
        ] {
            assert_eq!(shown(&loaded("", vars, "").unwrap(), "store"), format!("sqlite:{expected}"));
        }
        assert!(loaded("", &[("HOME", "")], "").unwrap_err()[0].starts_with("default: store: "));
        assert!(loaded("--store sqlite:/x", &[("HOME", "")], "").is_ok());
    }

    #[test]
    fn passwords_come_from_one_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, "from-file\n").unwrap();
        let path = path.to_str().unwrap();
        let file = format!("password_file = '{path}'");
        let password = |vars: &[(&str, &str)], file: &str| loaded("", vars, file).map(|l| l.config.password.unwrap());

        assert!(password(&[], &file).unwrap().matches(b"from-file"));
        assert!(password(&[("CLOAKROOM_PASSWORD_FILE", path)], "").unwrap().matches(b"from-file"));
        assert!(password(&[("CLOAKROOM_PASSWORD", "env")], &file).unwrap().matches(b"env"));
        for (vars, file, expected) in [
            (&[("CLOAKROOM_PASSWORD", "env"), ("CLOAKROOM_PASSWORD_FILE", path)][..], "", "is set beside"),
            (&[("CLOAKROOM_PASSWORD", "")], "", "is empty"),
            (&[], "password = 'hunter2'", "may not stand in this file"),
            (&[], "password_file = '/nonexistent/p'", "cannot be read"),
            (&[("CLOAKROOM_PASSWORD", "env")], "password_file = '/nonexistent/p'", "cannot be read"),
        ] {
            let faults = password(vars, file).unwrap_err();
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(expected) && !faults[0].contains("hunter2"), "{faults:?}");
        }
    }

    #[test]
    fn a_public_password_file_is_warned_of() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        std::fs::write(&path, "x").unwrap();
        for (mode, warnings) in [(0o600, 0), (0o644, 1)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let loaded = loaded("", &[("CLOAKROOM_PASSWORD_FILE", path.to_str().unwrap())], "").unwrap();
            assert_eq!(loaded.warnings.len(), warnings, "{mode:o}");
        }
    }

    #[test]
    fn the_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1"), dir.path().join("2"));
        std::fs::write(&one, "key_prefix = 'one'").unwrap();
        std::fs::write(&two, "key_prefix = 'two'").unwrap();
        let (one, two) = (one.to_str().unwrap(), two.to_str().unwrap());
        let prefix = |line: &str, vars: &[(&str, &str)]| {
            loaded(line, vars, "key_prefix = 'default'").map(|loaded| loaded.config.key_prefix)
        };
        assert_eq!(prefix("", &[]).unwrap(), b"default");
        assert_eq!(prefix("", &[("CLOAKROOM_CONFIG", one)]).unwrap(), b"one");
        assert_eq!(prefix(&format!("--config {two}"), &[("CLOAKROOM_CONFIG", one)]).unwrap(), b"two");
        assert_eq!(prefix("--config /nonexistent", &[]).unwrap_err().len(), 1);
        assert_eq!(prefix("--config=", &[]).unwrap_err().len(), 1);
    }

    #[test]
    fn the_example_file_with_every_key_set_is_taken() {
        let example = crate::config::settings::example_file();
        let set: Vec<&str> = example
            .lines()
            .map(|line| {
                line.strip_prefix("# ").filter(|rest| rest.contains(" = ") && !rest.contains('…')).unwrap_or(line)
            })
            .collect();
        let set = set.join("\n");
        let defaults = SETTINGS.iter().filter(|setting| setting.default.is_some()).count();
        assert_eq!(set.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).count(), defaults);
        let from_file = loaded("", &[], &set).unwrap();
        assert_eq!(effective(&from_file.config), effective(&loaded("", &[], "").unwrap().config));
        // So does the file as it is, with everything commented out.
        assert!(loaded("", &[], &example).is_ok());
    }
}
