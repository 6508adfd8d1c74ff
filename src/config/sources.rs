//! Gathers what file, environment and command line give, by setting. It knows which names exist, not which values
//! are right.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::config::fault::{Fault, Source, hint};
use crate::config::flags::Flags;
use crate::config::settings::{self, ENV_PREFIX, SETTINGS, Setting};
use crate::config::value::Given;

/// The password itself, in the environment alone.
pub(super) const PASSWORD_VARIABLE: &str = "CLOAKROOM_PASSWORD";

/// The configuration file's path.
const CONFIG_VARIABLE: &str = "CLOAKROOM_CONFIG";

/// Variables with this prefix belong to the project's tests.
const TEST_PREFIX: &str = "CLOAKROOM_TEST_";

/// The largest configuration file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// One value, and what its source calls it.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) setting: &'static Setting,
    pub(super) source: Source,
    pub(super) name: String,
    pub(super) given: Given,
}

impl Item {
    /// A fault of this value.
    pub(super) fn fault(&self, message: String) -> Fault {
        Fault::new(self.source.clone(), self.name.clone(), message)
    }
}

/// What the environment gives.
#[derive(Debug, Default)]
pub(super) struct Variables {
    pub(super) items: Vec<Item>,
    /// The configuration file, if it is named.
    pub(super) config: Option<PathBuf>,
    /// The password itself.
    pub(super) password: Option<OsString>,
}

/// Sorts the variables that are ours.
pub(super) fn environment(vars: &[(OsString, OsString)], faults: &mut Vec<Fault>) -> Variables {
    let mut found = Variables::default();
    for (name, value) in vars {
        let name = name.to_string_lossy();
        if !name.starts_with(ENV_PREFIX) || name.starts_with(TEST_PREFIX) {
            continue;
        }
        let fault = |message: String| Fault::new(Source::Environment, &*name, message);
        if name == PASSWORD_VARIABLE {
            found.password = Some(value.clone());
        } else if name == CONFIG_VARIABLE {
            found.config = Some(value.into());
        } else if let Some(setting) = SETTINGS.iter().find(|setting| setting.env_name() == name) {
            match value.to_str() {
                Some(text) => found.items.push(Item {
                    setting,
                    source: Source::Environment,
                    name: name.into_owned(),
                    given: Given::Word(text.into()),
                }),
                None => faults.push(fault("is not UTF-8".into())),
            }
        } else if !is_service_link(&name, &value.to_string_lossy()) {
            let known = SETTINGS.iter().map(Setting::env_name);
            let hint = hint(&name, known.chain([PASSWORD_VARIABLE.into(), CONFIG_VARIABLE.into()]));
            faults.push(fault(format!("unknown variable{hint}")));
        }
    }
    found
}

/// What the flags give.
pub(super) fn command_line(flags: &Flags, faults: &mut Vec<Fault>) -> Vec<Item> {
    let mut items = Vec::new();
    for setting in SETTINGS {
        let Some(name) = setting.flag() else { continue };
        let values = match setting.key {
            "listen" => flags.listen.as_slice(),
            "metrics_listen" => flags.metrics_listen.as_slice(),
            _ => flags.store.as_slice(),
        };
        let mut words: Vec<Given> = Vec::with_capacity(values.len());
        for value in values {
            match value.to_str() {
                Some(text) => words.push(Given::Word(text.into())),
                None => faults.push(Fault::new(Source::CommandLine, name, "is not UTF-8")),
            }
        }
        let given = if words.len() > 1 { Some(Given::List(words)) } else { words.pop() };
        items.extend(given.map(|given| Item { setting, source: Source::CommandLine, name: name.into(), given }));
    }
    items
}

/// What the file at `path` gives.
pub(super) fn file(path: &Path, faults: &mut Vec<Fault>) -> Vec<Item> {
    let source = |line| Source::File(path.into(), line);
    let text = match read_limited(path) {
        Ok(text) => text,
        Err(message) => {
            faults.push(Fault::new(source(0), "", message));
            return Vec::new();
        }
    };
    let line_of = |offset: usize| 1 + text.get(..offset).unwrap_or(&text).matches('\n').count();
    let (table, errors) = DeTable::parse_recoverable(&text);
    let broken: Vec<usize> = errors.iter().map(|error| error.span().map_or(0, |span| line_of(span.start))).collect();
    for (error, line) in errors.iter().zip(&broken) {
        faults.push(Fault::new(source(*line), "", error.message()));
    }
    let mut leaves = Vec::new();
    flatten("", table.get_ref(), &mut leaves);
    let mut items = Vec::new();
    for (key, offset, value) in leaves {
        let line = line_of(offset);
        // What the parser made of a broken line would only be a second fault of the same line.
        if broken.contains(&line) {
            continue;
        }
        match settings::find(&key) {
            Some(setting) => items.push(Item { setting, source: source(line), name: key, given: given(value) }),
            None => faults.push(Fault::new(source(line), &key, explain_unknown(&key))),
        }
    }
    items
}

fn explain_unknown(key: &str) -> String {
    if key == "password" {
        return format!("the password may not stand in this file: use password_file, or {PASSWORD_VARIABLE}");
    }
    if SETTINGS.iter().any(|setting| setting.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'))) {
        return format!("expected a table, [{key}]");
    }
    let parent = key.rsplit_once('.').and_then(|(parent, _)| settings::find(parent));
    if let Some(setting) = parent {
        return format!("unknown key: {} is not a table", setting.key);
    }
    format!("unknown key{}", hint(key, SETTINGS.iter().map(|setting| setting.key.to_owned())))
}

/// The leaves of a table: dotted key, where the key stands, value. Tables that are empty vanish.
fn flatten<'a>(prefix: &str, table: &'a DeTable<'_>, leaves: &mut Vec<(String, usize, &'a DeValue<'a>)>) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        let known = settings::find(&key).is_some();
        match value.get_ref() {
            // A table where a value belongs is told as that, not as unknown keys of it.
            DeValue::Table(inner) if !known => flatten(&format!("{key}."), inner, leaves),
            other => leaves.push((key, name.span().start, other)),
        }
    }
}

fn given(value: &DeValue<'_>) -> Given {
    match value {
        DeValue::String(text) => Given::Text(text.clone().into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Given::Other("an integer that is too large"), Given::Integer),
        DeValue::Array(items) => Given::List(items.iter().map(Spanned::get_ref).map(given).collect()),
        DeValue::Float(_) => Given::Other("a float"),
        DeValue::Boolean(_) => Given::Other("a boolean"),
        DeValue::Datetime(_) => Given::Other("a date"),
        DeValue::Table(_) => Given::Other("a table"),
    }
}

fn read_limited(path: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = String::new();
    let file = File::open(path).map_err(cannot)?;
    // A pipe is as good as a file, so the bound is on what is read, not on what the file says of itself.
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(cannot)?;
    if read as u64 > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    Ok(text)
}

/// Whether Kubernetes set this variable for a service called cloakroom, or cloakroom-something: it does so in every
/// pod of the namespace, by the names Docker once had.
fn is_service_link(name: &str, value: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_") {
        return true;
    }
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    if name.ends_with("_PORT") && is_url {
        return true;
    }
    // CLOAKROOM_PORT_6379_TCP, …_TCP_PROTO, …_TCP_PORT, …_TCP_ADDR
    let Some((_, rest)) = name.split_once("_PORT_") else { return false };
    let mut parts = rest.split('_');
    let number = parts.next().is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    let protocol = parts.next().is_some_and(|part| matches!(part, "TCP" | "UDP" | "SCTP"));
    let field = parts.next().is_none_or(|part| matches!(part, "PROTO" | "PORT" | "ADDR"));
    number && protocol && field && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_file(text: &str) -> (Vec<String>, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        let mut faults = Vec::new();
        let items = file(&path, &mut faults);
        let short = |text: String| text.replace(&*path.to_string_lossy(), "F");
        (
            items.iter().map(|item| short(format!("{}:{:?}", item.source, item.given))).collect(),
            faults.iter().map(|fault| short(fault.to_string())).collect(),
        )
    }

    #[test]
    fn files_give_values_with_lines() {
        let (items, faults) = from_file(
            "# c\nlisten = [\"a\", \"b\"]\ncache.max_bytes = 0x10\n[log]\nlevel = 'info'\n[limits]\nmax_clients = 1.5\n",
        );
        assert_eq!(faults, [] as [&str; 0]);
        assert_eq!(
            items,
            ["F:3:Integer(16)", "F:7:Other(\"a float\")", "F:2:List([Text(\"a\"), Text(\"b\")])", "F:5:Text(\"info\")"]
        );
    }

    #[test]
    fn files_tell_every_fault() {
        for (text, expected) in [
            ("lisen = 1", &["F:1: lisen: unknown key; did you mean listen?"] as &[&str]),
            ("a = 1\n[b]\nc = 2", &["F:1: a: unknown key", "F:3: b.c: unknown key"]),
            ("cache = 5", &["F:1: cache: expected a table, [cache]"]),
            ("[cache]\nmax_byte = 5", &["F:2: cache.max_byte: unknown key; did you mean cache.max_bytes?"]),
            (
                "\npassword = 'hunter2'",
                &["F:2: password: the password may not stand in this file: use password_file, or CLOAKROOM_PASSWORD"],
            ),
        ] {
            assert_eq!(from_file(text).1, expected, "{text:?}");
        }
        let (_, faults) = from_file("listen = \nstore = 'x'\nodd = 1\nstore = 'y'\n[log\n");
        assert!(faults.len() >= 4, "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("F:1: ")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("F:3: odd: unknown key")), "{faults:?}");
        let (_, faults) = from_file("password = \"hunter2\nx = hunter2");
        assert!(!faults.is_empty() && !faults.concat().contains("hunter2"), "{faults:?}");
    }

    #[test]
    fn unreadable_files_are_faults() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("none"), dir.path().into()] {
            let mut faults = Vec::new();
            assert!(file(&path, &mut faults).is_empty());
            assert_eq!(faults.len(), 1, "{faults:?}");
        }
        let path = dir.path().join("binary");
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        let mut faults = Vec::new();
        file(&path, &mut faults);
        assert_eq!(faults.len(), 1, "{faults:?}");
    }

    #[test]
    fn the_environment_is_sorted() {
        for (name, value, expected) in [
            ("CLOAKROOM_CACHE_MAX_BYTES", "1", "item"),
            ("CLOAKROOM_CONFIG", "/x", "config"),
            ("CLOAKROOM_PASSWORD", "x", "password"),
            ("CLOAKROOM_TEST_BLESS", "1", "nothing"),
            ("CLOAKROOMS", "1", "nothing"),
            ("PATH", "/bin", "nothing"),
            ("CLOAKROOM_SERVICE_HOST", "10.0.0.1", "nothing"),
            ("CLOAKROOM_SERVICE_PORT", "6379", "nothing"),
            ("CLOAKROOM_SERVICE_PORT_REDIS", "6379", "nothing"),
            ("CLOAKROOM_PORT", "tcp://10.0.0.1:6379", "nothing"),
            ("CLOAKROOM_PORT_6379_TCP", "tcp://10.0.0.1:6379", "nothing"),
            ("CLOAKROOM_PORT_6379_TCP_ADDR", "10.0.0.1", "nothing"),
            ("CLOAKROOM_METRICS_PORT_9380_TCP_PROTO", "tcp", "nothing"),
            ("CLOAKROOM_PORT", "6379", "fault"),
            ("CLOAKROOM_PORT_X_TCP", "x", "fault"),
            ("CLOAKROOM_PORT_1_TCP_ADDR_X", "x", "fault"),
            ("CLOAKROOM_CACHE_MAXBYTES", "1", "fault"),
            ("CLOAKROOM_", "1", "fault"),
            ("CLOAKROOM_cache_max_bytes", "1", "fault"),
        ] {
            let mut faults = Vec::new();
            let found = environment(&[(name.into(), value.into())], &mut faults);
            let what = [
                (!found.items.is_empty(), "item"),
                (found.config.is_some(), "config"),
                (found.password.is_some(), "password"),
                (!faults.is_empty(), "fault"),
                (true, "nothing"),
            ];
            assert_eq!(what.iter().find(|(is, _)| *is).unwrap().1, expected, "{name}");
        }
    }

    #[test]
    fn an_unknown_variable_gets_a_hint_and_keeps_its_value_to_itself() {
        let mut faults = Vec::new();
        environment(&[("CLOAKROOM_PASSWROD".into(), "hunter2".into())], &mut faults);
        let text = faults[0].to_string();
        assert_eq!(text, "environment: CLOAKROOM_PASSWROD: unknown variable; did you mean CLOAKROOM_PASSWORD?");
    }
}
