//! The one table of what exists. Arity checks, `COMMAND`, metric labels and the README's list derive from it.

use crate::command::request::{Flow, Handled, Handler, Request};
use crate::command::spec::{Flag, Spec};
use crate::command::{
    client, config, counters, docs, expire, hash_reads, hashes, info, keys, object, ranges, scan, scripting, session,
    strings, transaction,
};
use crate::resp::reply::Reply;

/// The rows, by family. A family keeps its rows beside its handlers.
const FAMILIES: &[&[Spec]] = &[
    session::COMMANDS,
    client::COMMANDS,
    config::COMMANDS,
    info::COMMANDS,
    COMMANDS,
    strings::COMMANDS,
    counters::COMMANDS,
    ranges::COMMANDS,
    hashes::COMMANDS,
    hash_reads::COMMANDS,
    keys::COMMANDS,
    expire::COMMANDS,
    scan::COMMANDS,
    object::COMMANDS,
    transaction::COMMANDS,
    scripting::COMMANDS,
];

/// The one command that is about this table.
const COMMANDS: &[Spec] = &[Spec {
    name: "command",
    arity: -1,
    flags: ABOUT,
    group: "server",
    since: "2.8.13",
    summary: "Get array of Redis command details",
    handler: command,
    subcommands: &[
        row("count", 2, "2.8.13", "Get total number of Redis commands", command_count),
        row("docs", -2, "7.0.0", "Get array of specific Redis command documentation", command_docs),
        row("getkeys", -4, "2.8.13", "Extract keys given a full Redis command", command_get_keys),
        row("help", 2, "5.0.0", "Show helpful text about the different subcommands", command_help),
        row("info", -2, "2.8.13", "Get array of specific Redis command details", command_info),
        row("list", -2, "7.0.0", "Get an array of Redis command names", command_list),
    ],
    ..Spec::BASE
}];

const ABOUT: &[Flag] = &[Flag::Loading, Flag::Stale];

const fn row(name: &'static str, arity: i32, since: &'static str, summary: &'static str, handler: Handler) -> Spec {
    Spec { name, arity, flags: ABOUT, group: "server", since, summary, handler, ..Spec::BASE }
}

/// A command's place in the table, from 0 to [`count`] - 1; what metrics count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandId(u16);

impl CommandId {
    /// The place as an index.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How many commands there are.
#[must_use]
pub const fn count() -> usize {
    COUNT
}

/// The row of a command.
#[must_use]
pub fn spec(id: CommandId) -> &'static Spec {
    TABLE[id.index()]
}

/// The command's name in lower case: its metric label.
#[must_use]
pub fn name(id: CommandId) -> &'static str {
    spec(id).name
}

/// The names of all commands, by [`CommandId`].
#[must_use]
pub fn names() -> &'static [&'static str; COUNT] {
    &NAMES
}

/// All rows, by [`CommandId`].
#[must_use]
pub fn all() -> &'static [&'static Spec; COUNT] {
    &TABLE
}

/// The command that a client calls `name`, in any case of letters. Allocates nothing.
#[must_use]
pub fn find(name: &[u8]) -> Option<(CommandId, &'static Spec)> {
    let folded = fold(name)?;
    let mut slot = home(folded);
    loop {
        let (key, id) = INDEX[slot];
        if key == folded {
            return Some((CommandId(id), TABLE[usize::from(id)]));
        }
        if key == EMPTY {
            return None;
        }
        slot = (slot + 1) % SLOTS;
    }
}

fn command(request: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(docs::info(all(), request.args, 1)))
}

fn command_count(_: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(Reply::Int(count() as i64)))
}

fn command_docs(request: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(docs::docs(all(), request.args)))
}

fn command_get_keys(request: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(docs::get_keys(all(), request.args)?))
}

fn command_help(_: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(client::help_lines(docs::HELP)))
}

fn command_info(request: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(docs::info(all(), request.args, 2)))
}

fn command_list(request: &mut Request<'_>) -> Handled {
    Ok(Flow::Done(docs::list(all(), request.args)?))
}

const COUNT: usize = {
    let (mut total, mut family) = (0, 0);
    while family < FAMILIES.len() {
        total += FAMILIES[family].len();
        family += 1;
    }
    total
};

static TABLE: [&Spec; COUNT] = {
    let mut table = [&Spec::BASE; COUNT];
    let (mut next, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            table[next] = &FAMILIES[family][row];
            next += 1;
            row += 1;
        }
        family += 1;
    }
    table
};

static NAMES: [&str; COUNT] = {
    let mut names = [""; COUNT];
    let mut at = 0;
    while at < COUNT {
        names[at] = TABLE[at].name;
        at += 1;
    }
    names
};

/// The longest name that can be looked up.
const MAX_NAME: usize = 16;

/// Places of the hash index: a power of two, at most a quarter of it used, so that a lookup mostly looks once.
const SLOTS: usize = (COUNT * 4 + 1).next_power_of_two();

/// A name in lower case, padded with zeros.
type Folded = [u64; 2];

const EMPTY: Folded = [0, 0];

/// An open-addressing index by folded name, made at compile time. A clash of names shows in a test.
static INDEX: [(Folded, u16); SLOTS] = {
    let mut index = [(EMPTY, 0); SLOTS];
    let mut id = 0;
    while id < COUNT {
        let Some(folded) = fold(NAMES[id].as_bytes()) else { panic!("a command's name cannot be looked up") };
        let mut slot = home(folded);
        while index[slot].0[0] != 0 {
            slot = (slot + 1) % SLOTS;
        }
        index[slot] = (folded, id as u16);
        id += 1;
    }
    index
};

/// `None` for what can be no command's name: empty, too long, or with a zero byte (which pads here).
const fn fold(name: &[u8]) -> Option<Folded> {
    if name.is_empty() || name.len() > MAX_NAME {
        return None;
    }
    let (mut halves, mut at, mut zero) = (EMPTY, 0, false);
    while at < name.len() {
        zero |= name[at] == 0;
        halves[at / 8] |= (name[at] as u64) << (at % 8 * 8);
        at += 1;
    }
    if zero { None } else { Some([lower(halves[0]), lower(halves[1])]) }
}

/// Eight bytes at once with their ASCII capitals made small. Additions of 7-bit numbers cannot spill into a neighbour.
const fn lower(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let low = bytes & (0x7F * EACH);
    let from_a = low + (0x80 - b'A' as u64) * EACH;
    let after_z = low + (0x7F - b'Z' as u64) * EACH;
    let capital = from_a & !after_z & !bytes & (0x80 * EACH);
    bytes | (capital >> 2)
}

/// Where a name is first looked for.
const fn home(folded: Folded) -> usize {
    // Fibonacci hashing: the multiplier spreads the names over the top bits.
    let mixed = (folded[0] ^ folded[1].rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::command::spec::KeySpec;

    /// Every row with its full name, subcommands included.
    fn rows() -> Vec<(String, &'static Spec)> {
        let mut rows = Vec::new();
        for spec in all() {
            rows.push((spec.name.to_owned(), *spec));
            rows.extend(spec.subcommands.iter().map(|one| (format!("{}|{}", spec.name, one.name), one)));
        }
        rows
    }

    #[test]
    fn every_row_is_whole() {
        let mut seen = HashSet::new();
        for (name, spec) in rows() {
            assert!(seen.insert(name.clone()), "{name} is there twice");
            assert!(
                !spec.name.is_empty() && spec.name.bytes().all(|byte| !byte.is_ascii_uppercase()),
                "name of {name}"
            );
            assert!(spec.arity != 0 && spec.arity.abs() < 10, "arity of {name}");
            assert!(!spec.group.is_empty() && !spec.since.is_empty() && !spec.summary.is_empty(), "words of {name}");
            assert!(!(spec.has(Flag::Write) && spec.has(Flag::ReadOnly)), "{name} cannot both write and only read");
            let flags: HashSet<_> = spec.flags.iter().map(|flag| flag.name()).collect();
            assert_eq!(flags.len(), spec.flags.len(), "{name} repeats a flag");
            if !spec.subcommands.is_empty() {
                assert!(spec.arity == -2 || name == "command", "{name} must ask for a subcommand");
                assert!(spec.keys == KeySpec::NONE, "the keys of {name} belong to its subcommands");
            }
            if spec.keys != KeySpec::NONE {
                assert!(spec.keys.step > 0 && spec.keys.first > 0, "keys of {name}");
                assert!(spec.arity.abs() > spec.keys.first, "{name} may lack its first key");
                let flagged = spec.has(Flag::Write) || spec.has(Flag::ReadOnly) || name == "watch";
                assert!(flagged, "{name} has keys: does it write?");
            }
        }
    }

    #[test]
    fn subcommands_count_their_container() {
        for spec in all() {
            for subcommand in spec.subcommands {
                assert!(subcommand.arity.abs() >= 2, "arity of {} {}", spec.name, subcommand.name);
            }
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        for (place, expected) in names().iter().enumerate() {
            let mixed: String = expected
                .chars()
                .enumerate()
                .map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c })
                .collect();
            let (id, found) = find(mixed.as_bytes()).expect("every name is found");
            assert_eq!((id.index(), found.name, name(id)), (place, *expected, *expected));
        }
        assert_eq!((all().len(), names().len()), (count(), count()));
    }

    #[test]
    fn nothing_else_is_found() {
        let near: Vec<Vec<u8>> = names()
            .iter()
            .flat_map(|name| [format!("{name}\0"), format!("{name}x"), name[1..].to_owned()])
            .map(String::into_bytes)
            .collect();
        let odd: [&[u8]; 5] = [b"", b"\0", b"pin\xc7", b"averyverylongnamethatisnone", b"$4"];
        for name in near.iter().map(Vec::as_slice).chain(odd) {
            let expected = names().iter().any(|known| known.as_bytes() == name);
            assert_eq!(find(name).is_some(), expected, "{:?}", String::from_utf8_lossy(name));
        }
    }
}
