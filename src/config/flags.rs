//! The command line: what was asked, and every fault in it. It does not judge values.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser};

use crate::config::fault::{Fault, Source};
use crate::config::settings;

/// A session store that speaks the Redis protocol and keeps the truth in Postgres, or in a file (SQLite).
#[derive(Debug, Default, Parser)]
#[command(name = "cloakroom", version, max_term_width = 120)]
pub(super) struct Flags {
    /// The configuration file
    #[arg(long, value_name = "FILE", overrides_with = "config")]
    pub(super) config: Option<OsString>,
    /// Where to accept Redis clients
    #[arg(long, value_name = "ADDR", help = LISTEN_HELP)]
    pub(super) listen: Vec<OsString>,
    /// Where to serve /metrics, /livez and /readyz: IP:port, or off [default: 127.0.0.1:9380]
    #[arg(long, value_name = "ADDR", overrides_with = "metrics_listen")]
    pub(super) metrics_listen: Option<OsString>,
    /// The store: sqlite:PATH or postgres://… [default: a file in the state directory]
    #[arg(long, value_name = "URL", overrides_with = "store")]
    pub(super) store: Option<OsString>,
    /// Check the configuration, print what it amounts to, and stop
    #[arg(long, overrides_with = "check_config")]
    pub(super) check_config: bool,
}

/// Kept out of the doc comment, which would take `unix:/path` for a link.
const LISTEN_HELP: &str =
    "Where to accept Redis clients: IP:port or unix:/path; may be given several times [default: 127.0.0.1:6379]";

/// What the command line amounts to.
pub(super) enum Parsed {
    /// Flags, as far as they could be read, and what was wrong with the rest.
    Flags(Flags, Vec<Fault>),
    /// Only this text was asked for (`--help`, `--version`).
    Text(String),
}

/// Reads the arguments after the program's name. Goes on after a fault, so that all are found.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> Parsed {
    let mut args: Vec<(usize, OsString)> = (1..).zip(args).collect();
    let mut faults = Vec::new();
    loop {
        let command = Flags::command().after_help(settings::help_text()).no_binary_name(true);
        let words = args.iter().map(|(_, arg)| arg);
        let error = match command.try_get_matches_from(words).and_then(|matches| Flags::from_arg_matches(&matches)) {
            Ok(flags) => return Parsed::Flags(flags, faults),
            Err(error) => error,
        };
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return Parsed::Text(error.render().to_string());
        }
        let (fault, place) = explain(&error, &args);
        faults.push(fault);
        // Each turn takes the argument at fault away, so the loop ends.
        match place {
            Some(place) => drop(args.remove(place)),
            None => return Parsed::Flags(Flags::default(), faults),
        }
    }
}

/// The fault that clap found, and which argument to leave out to look for more.
///
/// Of an argument that is not an option only its number is told: it may be a password in the wrong place.
fn explain(error: &clap::Error, args: &[(usize, OsString)]) -> (Fault, Option<usize>) {
    let name = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) => name.split([' ', '=']).next().unwrap_or_default(),
        _ => "",
    };
    let named = |index: &usize| {
        let arg = args[*index].1.to_string_lossy();
        arg.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let lacks_value =
        |index: &usize| args.get(index + 1).is_none_or(|(_, next)| next.to_string_lossy().starts_with("--"));
    let mut places = (0..args.len()).filter(named);
    let place = match error.kind() {
        ErrorKind::InvalidValue => places.find(lacks_value),
        _ => places.next(),
    };
    let suggestion = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(flag)) => format!("; did you mean {flag}?"),
        _ => String::new(),
    };
    let (name, message) = match error.kind() {
        ErrorKind::UnknownArgument if !name.starts_with('-') => {
            let number = place.map_or(0, |place| args[place].0);
            (format!("argument {number}"), "only options are taken, as --name value".into())
        }
        ErrorKind::UnknownArgument => (option_name(name), format!("unknown option{suggestion}")),
        ErrorKind::InvalidValue => (option_name(name), "needs a value".into()),
        ErrorKind::TooManyValues => (option_name(name), "takes no value".into()),
        kind => (option_name(name), kind.as_str().unwrap_or("cannot be read").into()),
    };
    (Fault::new(Source::CommandLine, name, message), place)
}

/// The part of an argument that can be the name of an option.
fn option_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-' || *c == '_').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(line: &str) -> Vec<String> {
        match parse(line.split_whitespace().map(OsString::from)) {
            Parsed::Flags(_, faults) => faults.iter().map(ToString::to_string).collect(),
            Parsed::Text(text) => vec![text],
        }
    }

    #[test]
    fn faults_are_told_all_at_once() {
        for (line, expected) in [
            ("", &[] as &[&str]),
            ("--listen 127.0.0.1:1 --listen unix:/s --store=sqlite:x --check-config", &[]),
            ("--store a --store b --check-config --check-config", &[]),
            (
                "--lisen x",
                &[
                    "--lisen: unknown option; did you mean --listen?",
                    "argument 2: only options are taken, as --name value",
                ],
            ),
            ("hunter2 --store", &["argument 1: only options are taken, as --name value", "--store: needs a value"]),
            ("--password=hunter2", &["--password: unknown option"]),
            ("--url:postgres://u:hunter2@h", &["--url: unknown option"]),
            ("--store --check-config --bogus", &["--store: needs a value", "--bogus: unknown option"]),
            ("--store x --store --config", &["--store: needs a value", "--config: needs a value"]),
            ("--check-config=yes", &["--check-config: takes no value"]),
            ("-x", &["-x: unknown option"]),
            (
                "-- a a",
                &[
                    "argument 2: only options are taken, as --name value",
                    "argument 3: only options are taken, as --name value",
                ],
            ),
        ] {
            let mut found = faults(line);
            let mut expected: Vec<String> = expected.iter().map(|fault| format!("command line: {fault}")).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{line:?}");
        }
    }

    #[test]
    fn what_can_be_read_is_kept_beside_a_fault() {
        let args = ["--bogus", "--listen", "a", "--listen=b", "--check-config"].map(OsString::from);
        let Parsed::Flags(flags, faults) = parse(args) else { panic!("no text was asked for") };
        assert_eq!(flags.listen, ["a", "b"]);
        assert!(flags.check_config);
        assert_eq!(faults.len(), 1);
    }

    #[test]
    fn help_lists_every_setting() {
        let help = faults("--help").concat();
        for setting in settings::SETTINGS {
            assert!(help.contains(setting.key), "{}", setting.key);
            assert!(help.contains(&setting.env_name()), "{}", setting.key);
            assert!(help.contains(setting.default_text()), "{}", setting.key);
            assert!(setting.flag().is_none_or(|flag| help.contains(flag)), "{}", setting.key);
        }
        assert!(faults("--version").concat().contains(env!("CARGO_PKG_VERSION")));
    }
}
