//! `docs/clients.md`, made from what the clients said and did. It knows no client.

use std::path::PathBuf;

use super::app::About;

/// Under which heading a row is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An application with sessions.
    Sessions,
    /// What applications keep beside their sessions: caches, locks, counters.
    Beside,
    /// A client library by itself.
    Libraries,
    /// A tool that people point at Redis.
    Tools,
    /// Known by its commands only.
    Replayed,
}

const PARTS: [(Part, &str, &str); 5] = [
    (
        Part::Sessions,
        "Session back ends",
        "A small application with each of them serves over HTTP; a visitor goes through the life of a session, and the keys in\n\
         Cloakroom are looked at after each step.",
    ),
    (Part::Beside, "Beside sessions", "Caches, locks and counters that the same applications keep in the same server."),
    (
        Part::Libraries,
        "Client libraries",
        "Each connects with its defaults, with a password, a name and a database number, and is refused with a wrong password;\n\
         then it does what session back ends do.",
    ),
    (Part::Tools, "Tools", "What operators point at Redis."),
    (
        Part::Replayed,
        "Replayed",
        "These cannot be installed from the registries that the tests may use. The commands that they send are sent as they\n\
         would be, and every reply is compared with that of a real Redis.",
    ),
];

/// A row of the table.
pub struct Row {
    /// Its part.
    pub part: Part,
    /// What the client said.
    pub about: About,
    /// What passed.
    pub exercised: Vec<String>,
}

const HEAD: &str = "# Clients

What has been run against Cloakroom, and how. This page is written by `tests/clients.rs` from its own run (`make clients`), and the
test fails when it is no longer true. All of it runs on Postgres and on SQLite. The address in the configuration is that of
Cloakroom in place of Redis's.";

/// The whole page.
pub fn page(rows: &[Row]) -> String {
    let mut lines = vec![HEAD.to_owned()];
    for (part, title, intro) in PARTS {
        let mut rows = rows.iter().filter(|row| row.part == part).peekable();
        if rows.peek().is_none() {
            continue;
        }
        let last = if part == Part::Tools { "how" } else { "configuration" };
        lines.push(format!(
            "\n## {title}\n\n{intro}\n\n| client | version tested | exercised | {last} |\n|---|---|---|---|"
        ));
        lines.extend(rows.map(line));
    }
    lines.join("\n") + "\n"
}

fn line(row: &Row) -> String {
    let (name, version) = (row.about.text("name"), row.about.text("version"));
    let config: Vec<String> = row.about.text("config").lines().map(code).collect();
    format!("| {name} | {version} | {} | {} |", row.exercised.join(", "), config.join("<br>"))
}

/// Where the page is.
pub fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs").join("clients.md")
}

/// A line of configuration in a cell of a table.
fn code(line: &str) -> String {
    let line = line.trim().replace('|', "\\|");
    if line.contains('`') { format!("`` {line} ``") } else { format!("`{line}`") }
}
