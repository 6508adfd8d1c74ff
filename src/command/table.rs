//! The one table of what exists. Arity checks, `COMMAND`, metric labels and the README's list derive from it.

use crate::command::spec::Spec;
use crate::command::{counters, expire, keys, object, ranges, scan, strings};

/// The rows, by family. A family keeps its rows beside its handlers.
const FAMILIES: &[&[Spec]] = &[
    strings::COMMANDS,
    counters::COMMANDS,
    ranges::COMMANDS,
    keys::COMMANDS,
    expire::COMMANDS,
    scan::COMMANDS,
    object::COMMANDS,
];

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
    let mut halves = EMPTY;
    let mut at = 0;
    while at < name.len() {
        if name[at] == 0 {
            return None;
        }
        halves[at / 8] |= (name[at].to_ascii_lowercase() as u64) << (at % 8 * 8);
        at += 1;
    }
    Some(halves)
}

/// Where a name is first looked for.
const fn home(folded: Folded) -> usize {
    // Fibonacci hashing: the multiplier spreads the names over the top bits.
    let mixed = (folded[0] ^ folded[1].rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as usize % SLOTS
}
