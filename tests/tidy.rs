//! The house rules that the compiler does not know: layers, budgets, headers. Runs with the tests, on the text of files.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its body does")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Who may import whom: a file imports from files of lower rank, and from its own directory (the longest entry that fits
/// a path is its own). A new file or directory of `src` needs a line here.
const RANKS: &[(&str, u32)] = &[
    ("limits", 1),
    ("tasks", 1),
    ("signals", 1),
    ("config/password", 1),
    ("entry", 2),
    ("glob", 2),
    ("resp", 3),
    ("config", 4),
    ("logging", 5),
    ("metrics", 5),
    ("script", 6),
    ("store", 6),
    ("keyspace", 7),
    ("command", 8),
    ("server", 9),
    ("lib", 10),
    ("main", 11),
];

/// What must not be seen from where, though ranks would allow it.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("store", "crate::resp", "a store does not know the protocol"),
    ("store/sqlite", "crate::store::postgres", "the stores do not know each other"),
    ("store/postgres", "crate::store::sqlite", "the stores do not know each other"),
    ("keyspace", "crate::resp", "the keyspace does not know the protocol"),
    ("keyspace", "tokio_postgres", "the keyspace does not know which store it has"),
    ("keyspace", "rusqlite", "the keyspace does not know which store it has"),
    ("command", "tokio::net", "commands never see a socket"),
    ("command", "tokio_postgres", "commands never see SQL"),
    ("command", "rusqlite", "commands never see SQL"),
    ("command", "crate::store::postgres", "commands ask the keyspace"),
    ("command", "crate::store::sqlite", "commands ask the keyspace"),
    ("resp", "tokio", "the protocol is pure: no I/O"),
    ("resp", "std::time", "the protocol is pure: no clock"),
];

/// Not outside of tests.
const BANNED: &[&str] =
    &[".unwrap()", ".unwrap_err()", "println!", "print!(", "eprint!(", "todo!", "unimplemented!", "dbg!"];

/// Lines of a file without its tests.
const FILE_BUDGET: usize = 500;

/// Lines of a function.
const FUNCTION_BUDGET: usize = 70;

/// A file of `src`.
struct Source {
    /// The path below `src`, without `.rs`.
    name: String,
    text: String,
}

impl Source {
    /// Tests, or what only they use, in a file of their own.
    fn is_test(&self) -> bool {
        ["/tests", "_tests", "/testing"].iter().any(|end| self.name.ends_with(end))
    }

    /// The lines before the tests, which come last; a file that is all tests has none.
    fn code(&self) -> Vec<&str> {
        if self.is_test() {
            return Vec::new();
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
        lines[..tests.unwrap_or(lines.len())].to_vec()
    }

    /// The code without comments. A path in a string (`"warn,cloakroom::server=debug"`) would look like an import, but
    /// strings stay: metric names are in them.
    fn bare_code(&self) -> Vec<&str> {
        let without_comment = |line: &&'_ str| !line.trim_start().starts_with("//");
        self.code().into_iter().filter(without_comment).map(|line| line.split(" // ").next().unwrap_or("")).collect()
    }

    /// The module's path: `store/postgres/mod` and `store/postgres` are both `store/postgres`.
    fn module(&self) -> &str {
        self.name.strip_suffix("/mod").unwrap_or(&self.name)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_hidden = name.starts_with('.') && name != ".ci";
        if is_hidden || ["target", "node_modules", "secrets", "__pycache__"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files(&root().join("src"), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    paths.sort();
    let name =
        |path: &Path| path.strip_prefix(root().join("src")).unwrap().with_extension("").to_str().unwrap().to_owned();
    paths.iter().map(|path| Source { name: name(path), text: std::fs::read_to_string(path).unwrap() }).collect()
}

/// Whether `name` is `unit` or in it.
fn is_in(name: &str, unit: &str) -> bool {
    name.strip_prefix(unit).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The rank of a module, and the entry that gave it.
fn rank(module: &str) -> Option<(u32, &'static str)> {
    let fits = RANKS.iter().filter(|(unit, _)| is_in(module, unit));
    fits.max_by_key(|(unit, _)| unit.len()).map(|(unit, rank)| (*rank, *unit))
}

/// The modules that paths beginning with `crate::` (in `main`: `cloakroom::`) and `super::` lead to.
fn imports(source: &Source, modules: &BTreeSet<String>) -> BTreeSet<String> {
    let text = source.bare_code().join("\n");
    let parent = source.module().rsplit_once('/').map_or("", |(parent, _)| parent);
    let mut found = BTreeSet::new();
    for (start, base) in [("crate::", ""), ("cloakroom::", ""), ("super::", parent)] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || "_:\",".contains(c)) {
                continue;
            }
            for path in expand(&text[at + start.len()..]) {
                let mut path: Vec<&str> =
                    base.split('/').chain(path.iter().copied()).filter(|s| !s.is_empty()).collect();
                while !path.is_empty() && !modules.contains(&path.join("/")) {
                    path.pop();
                }
                if !path.is_empty() {
                    found.insert(path.join("/"));
                }
            }
        }
    }
    found.remove(source.module());
    found
}

/// `a::{b::C, d::{E, F}}` as the paths a/b/C, a/d/E, a/d/F.
fn expand(text: &str) -> Vec<Vec<&str>> {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let head: Vec<&str> = text[..end].split("::").filter(|part| !part.is_empty()).collect();
    let Some(group) = text[end..].strip_prefix('{').filter(|_| text[..end].ends_with("::") || end == 0) else {
        return vec![head];
    };
    let mut depth = 0;
    let mut start = 0;
    let mut paths = Vec::new();
    for (at, c) in group.char_indices() {
        let ends = depth == 0 && (c == ',' || c == '}');
        if ends {
            for tail in expand(group[start..at].trim()) {
                paths.push(head.iter().copied().chain(tail).collect());
            }
            start = at + 1;
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    paths
}

/// Name and length in lines of each function that has a body. Relies on rustfmt: a body ends at the indent it began.
fn functions(lines: &[&str]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let mut words = line.trim_start().split(' ').skip_while(|word| {
            matches!(*word, "pub" | "async" | "const" | "unsafe" | "extern" | "\"C\"") || word.starts_with("pub(")
        });
        if words.next() != Some("fn") {
            continue;
        }
        let name = words.next().unwrap_or_default();
        let name = name.split(['(', '<']).next().unwrap_or_default().to_owned();
        let Some(opening) = lines[at..].iter().position(|line| line.ends_with(['{', ';', '}'])) else { continue };
        if !lines[at + opening].ends_with('{') {
            continue;
        }
        let closing = format!("{indent}}}");
        let length = lines[at..].iter().position(|line| *line == closing);
        found.push((name, length.map_or(lines.len() - at, |length| length + 1)));
    }
    found
}

fn assert_clean(faults: &[String]) {
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_file_has_a_rank_and_a_header() {
    let sources = sources();
    let mut faults = Vec::new();
    for source in &sources {
        if rank(source.module()).is_none() {
            faults.push(format!("src/{}.rs has no rank: add a line to RANKS", source.name));
        }
        if !source.text.starts_with("//! ") && !source.is_test() {
            faults.push(format!("src/{}.rs does not say in its first line why it exists (//! …)", source.name));
        }
    }
    for (unit, _) in RANKS {
        if !sources.iter().any(|source| is_in(source.module(), unit)) {
            faults.push(format!("RANKS lists {unit}, which does not exist"));
        }
    }
    assert_clean(&faults);
}

#[test]
fn imports_point_down() {
    let sources = sources();
    let modules: BTreeSet<String> = sources.iter().map(|source| source.module().to_owned()).collect();
    let mut faults = Vec::new();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in &sources {
        let imported = imports(source, &modules);
        let Some((own, unit)) = rank(source.module()) else { continue };
        for target in &imported {
            let Some((theirs, their_unit)) = rank(target) else { continue };
            if theirs >= own && unit != their_unit {
                faults.push(format!("src/{}.rs (rank {own}) imports {target} (rank {theirs})", source.name));
            }
        }
        // A mod.rs has the types that its directory shares, and names its children: that is no cycle to break.
        if !source.name.ends_with("/mod") {
            graph.insert(source.module().to_owned(), imported);
        }
    }
    faults.extend(cycle(&graph).map(|path| format!("an import cycle: {}", path.join(" → "))));
    assert_clean(&faults);
}

/// A cycle in the graph, if there is one.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        node: &'a str,
        graph: &'a BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|seen| *seen == node) {
            return Some(path[start..].iter().chain([&node]).map(|name| (*name).to_owned()).collect());
        }
        if !done.contains(node) {
            path.push(node);
            for next in graph.get(node).into_iter().flatten() {
                if let Some(found) = visit(next, graph, path, done) {
                    return Some(found);
                }
            }
            path.pop();
            done.insert(node);
        }
        None
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|node| visit(node, graph, &mut Vec::new(), &mut done))
}

#[test]
fn layers_do_not_see_what_is_not_theirs() {
    let mut faults = Vec::new();
    for source in sources() {
        let code = source.bare_code().join("\n");
        for (unit, needle, reason) in FORBIDDEN.iter().filter(|(unit, ..)| is_in(source.module(), unit)) {
            let begins = |at: usize| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let ends = |at: usize| !code[at + needle.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
            if code.match_indices(needle).any(|(at, _)| begins(at) && ends(at)) {
                faults.push(format!("src/{}.rs mentions {needle}: {reason} ({unit})", source.name));
            }
        }
    }
    assert_clean(&faults);
}

#[test]
fn budgets_are_kept() {
    let mut faults = Vec::new();
    for source in sources() {
        let code = source.code();
        if code.len() > FILE_BUDGET {
            faults.push(format!(
                "src/{}.rs has {} lines without tests (at most {FILE_BUDGET})",
                source.name,
                code.len()
            ));
        }
        for (name, length) in functions(&code).into_iter().filter(|(_, length)| *length > FUNCTION_BUDGET) {
            faults.push(format!("src/{}.rs: {name} has {length} lines (at most {FUNCTION_BUDGET})", source.name));
        }
    }
    assert_clean(&faults);
}

#[test]
fn nothing_is_left_half_done() {
    let mut faults = Vec::new();
    for source in sources() {
        for line in source.bare_code() {
            for banned in BANNED.iter().filter(|banned| line.contains(**banned)) {
                faults.push(format!("src/{}.rs: {banned} outside of tests: {}", source.name, line.trim()));
            }
        }
    }
    assert_clean(&faults);
}

#[test]
fn metric_names_appear_once() {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let mut faults = Vec::new();
    for source in sources() {
        let code = source.bare_code().join("\n");
        for (at, _) in code.match_indices("\"cloakroom_") {
            let name = code[at + 1..].split('"').next().unwrap();
            if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
                continue;
            }
            if let Some(first) = seen.insert(name.to_owned(), source.name.clone()) {
                faults.push(format!("{name} is in src/{first}.rs and in src/{}.rs", source.name));
            }
        }
    }
    assert_clean(&faults);
}

#[test]
fn text_files_are_clean() {
    let mut paths = Vec::new();
    files(&root(), &mut paths);
    let mut faults = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        if name == "LICENSE" || name == "Cargo.lock" || text.is_empty() {
            continue;
        }
        for (number, line) in (1..).zip(text.lines()) {
            // In the cases, a space may be what a client sends.
            if line.ends_with([' ', '\t']) && !name.starts_with("tests/cases/") {
                faults.push(format!("{name}:{number}: space at the end of the line"));
            }
            // A path of one machine; this file lists them.
            let machine = ["/root/", "/Users/"].iter().find(|path| line.contains(**path));
            if let Some(path) = machine.filter(|_| name != "tests/tidy.rs") {
                faults.push(format!("{name}:{number}: a path of somebody's machine ({path})"));
            }
        }
        if !text.ends_with('\n') {
            faults.push(format!("{name}: no line feed at the end"));
        }
    }
    assert_clean(&faults);
}

/// The scanners above are no parsers; these are the forms that they must understand.
#[test]
fn the_scanners_see_what_they_should() {
    let modules: BTreeSet<String> = ["a", "a/b", "a/c", "d", "e"].map(str::to_owned).into();
    let found = |name: &str, text: &str| {
        let source = Source { name: name.into(), text: text.into() };
        imports(&source, &modules).into_iter().collect::<Vec<_>>().join(" ")
    };
    for (name, text, expected) in [
        ("d", "use crate::a::b::Thing;", "a/b"),
        ("d", "use crate::a::{b::Thing, c::{X, Y}, Z};", "a a/b a/c"),
        ("d", "use crate::{\n    a::b,\n    e,\n};", "a/b e"),
        ("d", "fn f() { crate::e::g(crate::a::Z) }", "a e"),
        ("d", "/// [`crate::e`]\n// crate::e\nfn f() {} // crate::e", ""),
        ("d", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::e::X;\n}", ""),
        ("main", "use cloakroom::e::X;", "e"),
        ("a/b", "use super::c::X;", "a/c"),
        ("a/b", "use super::X;", "a"),
        ("a/mod", "use crate::a::b::X;", "a/b"),
        ("d", "use my_crate::e::X; other::crate::e", ""),
    ] {
        assert_eq!(found(name, text), expected, "{name}: {text}");
    }

    let text = "pub(crate) async fn one(\n    x: u8,\n) -> u8 {\n    x\n}\nfn two() {}\ntrait T {\n    fn three();\n    fn four() {\n    }\n}";
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(functions(&lines), [("one".to_owned(), 5), ("four".to_owned(), 2)]);

    let edges = |pairs: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            graph.entry((*from).into()).or_default().insert((*to).into());
        }
        cycle(&graph).map(|path| path.join(" "))
    };
    assert_eq!(edges(&[("a", "b"), ("b", "c"), ("a", "c")]), None);
    assert_eq!(edges(&[("a", "b"), ("b", "c"), ("c", "b")]).as_deref(), Some("b c b"));
}
