//! The commands that list keys: `SCAN` page by page, `KEYS` all that match; and what `HSCAN` shares with them.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use crate::command::access::later;
use crate::command::number::{cursor, integer};
use crate::command::request::{Flow, Handled, Request};
use crate::command::spec::{Flag, Spec};
use crate::entry::Kind;
use crate::glob;
use crate::keyspace::Keyspace;
use crate::keyspace::stage::Stage;
use crate::resp::args::Args;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;

/// The rows of this family.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "scan",
        arity: -2,
        flags: &[Flag::ReadOnly],
        group: "generic",
        since: "2.8.0",
        summary: "Incrementally iterate the keys space",
        handler: scan,
        ..Spec::BASE
    },
    Spec {
        name: "keys",
        arity: 2,
        flags: &[Flag::ReadOnly],
        group: "generic",
        since: "1.0.0",
        summary: "Find all keys matching the given pattern",
        handler: keys,
        ..Spec::BASE
    },
];

/// Keys that one page of `SCAN` looks at unless told otherwise.
const DEFAULT_COUNT: u32 = 10;
/// Keys that one page of `SCAN` looks at, at most: a larger `COUNT` is allowed, and met over several pages.
const MAX_COUNT: u32 = 10_000;
/// Keys that `KEYS` looks at in one go.
const KEYS_PAGE: u32 = 1_000;
/// Bytes of names that `KEYS` answers with, at most.
const MAX_KEYS_BYTES: usize = 64 * 1024 * 1024;
/// What a name costs in the bound above on top of its bytes.
const NAME_OVERHEAD: usize = 64;

fn scan(request: &mut Request<'_>) -> Handled {
    let cursor = cursor(&request.args[1])?;
    let ScanOptions { pattern, count, wanted } = ScanOptions::parse(request.args, Scanned::Keys)?;
    let kind = match wanted {
        Wanted::All => None,
        Wanted::Only(kind) => Some(kind),
        Wanted::Nothing => return Ok(Flow::Done(page_reply(0, vec![]))),
    };
    // A cursor that no page ever gave: nothing is left to see.
    let Ok(cursor) = u32::try_from(cursor) else { return Ok(Flow::Done(page_reply(0, vec![]))) };
    let (keyspace, db, stage) = (request.keyspace.clone(), request.client.db, request.stage.cloned());
    Ok(later(async move {
        let mut page = keyspace.scan(db, cursor, count, kind).await?;
        if let Some(stage) = &stage {
            overlay(&mut page.names, stage, &keyspace, db);
            if page.cursor == 0 {
                // A key may be named twice.
                page.names.extend(made(stage, &keyspace, db, kind));
            }
        }
        Ok(page_reply(page.cursor, page.names.into_iter().filter(|name| pattern.matches(name)).collect()))
    }))
}

fn keys(request: &mut Request<'_>) -> Handled {
    let pattern = Pattern::new(&request.args[1])?;
    let (keyspace, db, stage) = (request.keyspace.clone(), request.client.db, request.stage.cloned());
    Ok(later(async move {
        let (mut cursor, mut bytes, mut names) = (0, 0, Vec::new());
        let mut fresh = stage.as_ref().map(|stage| made(stage, &keyspace, db, None)).unwrap_or_default();
        loop {
            let mut page = keyspace.scan(db, cursor, KEYS_PAGE, None).await?;
            if let Some(stage) = &stage {
                overlay(&mut page.names, stage, &keyspace, db);
                for name in &page.names {
                    fresh.remove(name);
                }
                if page.cursor == 0 {
                    page.names.extend(std::mem::take(&mut fresh));
                }
            }
            for name in page.names.into_iter().filter(|name| pattern.matches(name)) {
                bytes += name.len() + NAME_OVERHEAD;
                names.push(Reply::Bulk(name));
            }
            if bytes > MAX_KEYS_BYTES {
                return Err(ErrorReply::Other("ERR too many keys match for one reply, use SCAN"));
            }
            if page.cursor == 0 {
                return Ok(Reply::Array(names));
            }
            cursor = page.cursor;
        }
    }))
}

/// Takes away what the transaction has deleted.
fn overlay(names: &mut Vec<Vec<u8>>, stage: &Mutex<Stage>, keyspace: &Keyspace, db: u8) {
    let stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
    names.retain(|name| keyspace.key(db, name).is_ok_and(|key| stage.made(&key) != Some(false)));
}

/// The names of what the transaction has put.
fn made(stage: &Mutex<Stage>, keyspace: &Keyspace, db: u8, kind: Option<Kind>) -> HashSet<Vec<u8>> {
    let stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = stage.changed(db).filter(|(_, made)| kind.is_none_or(|kind| kind == *made));
    wanted.map(|(key, _)| keyspace.name_of(key).to_vec()).collect()
}

fn page_reply(cursor: u32, names: Vec<Vec<u8>>) -> Reply {
    let names = names.into_iter().map(Reply::Bulk).collect();
    Reply::Array(vec![Reply::bulk(cursor.to_string()), Reply::Array(names)])
}

/// The options of `SCAN`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ScanOptions {
    /// `MATCH`.
    pub(super) pattern: Pattern,
    count: u32,
    wanted: Wanted,
}

/// What is scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scanned {
    /// The keys of a database.
    Keys,
    /// The fields of a hash, whose key stands before the cursor.
    Fields,
}

impl ScanOptions {
    /// Parses the arguments behind the cursor. An option may come again, and the last one counts.
    pub(super) fn parse(args: Args<'_>, scanned: Scanned) -> Result<Self, ErrorReply> {
        let mut options = Self { pattern: Pattern::ALL, count: DEFAULT_COUNT, wanted: Wanted::All };
        let mut rest = args.iter_from(if scanned == Scanned::Keys { 2 } else { 3 });
        while let Some(option) = rest.next() {
            let argument = rest.next().ok_or(ErrorReply::Syntax)?;
            match option.to_ascii_lowercase().as_slice() {
                b"match" => options.pattern = Pattern::new(argument)?,
                b"count" => options.count = count(argument)?,
                b"type" if scanned == Scanned::Keys => options.wanted = Wanted::named(argument),
                _ => return Err(ErrorReply::Syntax),
            }
        }
        Ok(options)
    }
}

fn count(argument: &[u8]) -> Result<u32, ErrorReply> {
    let count = integer(argument)?;
    if count < 1 {
        return Err(ErrorReply::Syntax);
    }
    Ok(u32::try_from(count).map_or(MAX_COUNT, |count| count.min(MAX_COUNT)))
}

/// The option `TYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Only(Kind),
    /// A type that no entry has. Redis lets any name pass.
    Nothing,
}

impl Wanted {
    fn named(name: &[u8]) -> Self {
        let mut kinds = Kind::ALL.into_iter();
        kinds.find(|kind| name.eq_ignore_ascii_case(kind.name().as_bytes())).map_or(Self::Nothing, Self::Only)
    }
}

/// Which names are wanted; none means all.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pattern(Option<Box<[u8]>>);

impl Pattern {
    const ALL: Self = Self(None);

    fn new(pattern: &[u8]) -> Result<Self, ErrorReply> {
        match pattern {
            // The matcher would leave out the empty name, as that of Redis would.
            b"*" => Ok(Self::ALL),
            _ if pattern.len() > glob::MAX_PATTERN => Err(ErrorReply::Other("ERR the pattern is too long")),
            _ => Ok(Self(Some(pattern.into()))),
        }
    }

    /// Whether a name is wanted.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        self.0.as_deref().is_none_or(|pattern| glob::matches(pattern, name, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Result<ScanOptions, String> {
        let line = format!("scan 0 {options}");
        let mut start = 0;
        let ranges: Vec<_> = line
            .split(' ')
            .map(|word| {
                let range = start..start + word.len();
                start = range.end + 1;
                range
            })
            .filter(|range| !range.is_empty())
            .collect();
        ScanOptions::parse(Args::new(line.as_bytes(), &ranges), Scanned::Keys).map_err(|error| error.to_string())
    }

    #[test]
    fn options_are_read_as_by_redis() {
        let syntax = || Err("ERR syntax error".to_owned());
        let options = |pattern: Option<&[u8]>, count, wanted| {
            Ok(ScanOptions { pattern: Pattern(pattern.map(Into::into)), count, wanted })
        };
        for (line, expected) in [
            ("", options(None, 10, Wanted::All)),
            ("MATCH *", options(None, 10, Wanted::All)),
            ("match a* COUNT 7", options(Some(b"a*"), 7, Wanted::All)),
            ("COUNT 7 COUNT 8 TYPE String", options(None, 8, Wanted::Only(Kind::String))),
            ("TYPE nonsense", options(None, 10, Wanted::Nothing)),
            ("COUNT 9223372036854775807", options(None, MAX_COUNT, Wanted::All)),
            ("COUNT 0", syntax()),
            ("COUNT -1", syntax()),
            ("COUNT", syntax()),
            ("MATCH", syntax()),
            ("FOO", syntax()),
            ("FOO a", syntax()),
            ("COUNT a", Err("ERR value is not an integer or out of range".to_owned())),
            (&format!("MATCH {}", "a".repeat(9000)), Err("ERR the pattern is too long".to_owned())),
        ] {
            assert_eq!(parse(line), expected, "{}", &line[..line.len().min(40)]);
        }
    }

    #[test]
    fn the_star_alone_takes_the_empty_name() {
        for (pattern, name, expected) in [("*", "", true), ("**", "", false), ("a*", "ab", true), ("a*", "b", false)] {
            let pattern = Pattern::new(pattern.as_bytes()).expect("it is short");
            assert_eq!(pattern.matches(name.as_bytes()), expected, "{pattern:?} {name:?}");
        }
    }
}
