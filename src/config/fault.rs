//! What is wrong with a configuration: faults, each with where it is, gathered so that all are told at once.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    CommandLine,
    /// An environment variable.
    Environment,
    /// A line of the configuration file (1 is the first).
    File(PathBuf, usize),
    /// The built-in default.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::Environment => f.write_str("environment"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong. Its text is one line, and holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    source: Source,
    name: String,
    message: String,
}

impl Fault {
    /// A fault of what `source` calls `name` (a flag, a variable, a key; empty for the source as a whole).
    pub(super) fn new(source: Source, name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { source, name: name.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { String::new() } else { format!("{}: ", self.name) };
        // Names and messages may repeat what somebody typed: a line feed in it must not begin a new line.
        let text = format!("{}: {name}{}", self.source, self.message).replace(char::is_control, "?");
        f.write_str(&text)
    }
}

/// Everything that is wrong: one line each in `Display`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(
    /// Never empty.
    pub Vec<Fault>,
);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// `; did you mean X?` if one of `known` is close to `name`, else nothing.
pub(super) fn hint(name: &str, known: impl IntoIterator<Item = String>) -> String {
    let allowed = (name.len() / 3).clamp(1, 4);
    known
        .into_iter()
        .map(|candidate| (distance(name, &candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| format!("; did you mean {candidate}?"))
        .unwrap_or_default()
}

/// Levenshtein's distance between two names, by bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (left, right, expected) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("listen", "lisen", 1), ("store", "stroe", 2), ("abc", "xyz", 3)]
        {
            assert_eq!(distance(left, right), expected, "{left} {right}");
            assert_eq!(distance(right, left), expected, "{right} {left}");
        }
    }

    #[test]
    fn hints_name_the_nearest() {
        let known = || ["listen", "metrics_listen", "store"].map(str::to_owned);
        assert_eq!(hint("lisen", known()), "; did you mean listen?");
        assert_eq!(hint("metric_listen", known()), "; did you mean metrics_listen?");
        assert_eq!(hint("colour", known()), "");
    }

    #[test]
    fn a_fault_is_one_line() {
        let fault = Fault::new(Source::File("/etc/c.toml".into(), 3), "a\nb", "bad\r\n\x1b[31m");
        assert_eq!(fault.to_string(), "/etc/c.toml:3: a?b: bad???[31m");
        let faults = Faults(vec![fault.clone(), Fault::new(Source::Environment, "", "odd")]);
        assert_eq!(faults.to_string(), format!("{fault}\nenvironment: odd"));
    }
}
