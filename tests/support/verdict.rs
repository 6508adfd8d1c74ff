//! Judges a whole history, key by key, and shows what is left of one that is wrong when all that does not matter is taken away.
//! It knows no daemon.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use super::history::{Action, Micros, NEVER, Op, Told};
use super::linear::{Verdict, judge};

/// The last operations of a history that is wrong, which are shown; of those before, the ones that have to do with the last.
const SHOWN: usize = 24;

/// What was wrong with one key.
pub struct Fault {
    /// Whether a violation was proven (and not merely the opposite not found).
    pub proven: bool,
    /// The shortest history found that shows it, as text.
    pub text: String,
}

/// The faults of a history of many keys. Clocks of daemons may be `vague` apart.
pub fn faults(ops: &[Op], vague: Micros) -> Vec<Fault> {
    let mut keys: BTreeMap<u32, Vec<Op>> = BTreeMap::new();
    for op in ops {
        keys.entry(op.key).or_default().push(*op);
    }
    let mut found = Vec::new();
    for (key, mut ops) in keys {
        let verdict = judge(&ops, vague);
        if verdict == Verdict::Fits {
            continue;
        }
        ops.sort_by_key(|op| op.call);
        keep(key, &ops);
        let whole = ops.len();
        if verdict == Verdict::Violated {
            ops = reduced(ops, vague);
        }
        let mut text = format!("key {key}: {verdict:?}, {whole} operations, of which these {} show it:\n", ops.len());
        for (at, op) in ops.iter().enumerate() {
            if at + SHOWN >= ops.len() || ops.last().is_some_and(|last| is_about(op, last)) {
                let _ = writeln!(text, "  {op}");
            }
        }
        found.push(Fault { proven: verdict == Verdict::Violated, text });
    }
    found
}

/// How many were kept: several tests of one process keep some.
static KEPT: AtomicU32 = AtomicU32::new(0);

/// Writes down all of a wrong history, in case that what is left of it does not explain itself.
fn keep(key: u32, ops: &[Op]) {
    let text: Vec<String> = ops.iter().map(ToString::to_string).collect();
    let number = KEPT.fetch_add(1, Ordering::Relaxed);
    let path = super::target_dir().join(format!("history-{}-{number}-{key}.txt", std::process::id()));
    // The verdict does not depend on it.
    if std::fs::write(&path, text.join("\n")).is_ok() {
        super::process::show(&format!("the whole history of key {key} is in {}", path.display()));
    }
}

/// Whether an operation wrote or was told the value that another one was told.
fn is_about(op: &Op, other: &Op) -> bool {
    let Told::Value(Some(value)) = other.told else { return false };
    let wrote = match op.action {
        Action::Set(written, _) | Action::SetNx(written, _) | Action::Cas(_, written) => Some(written),
        _ => None,
    };
    wrote == Some(value) || op.told == other.told
}

/// A violated history without what is not needed to show it: what came after, and the answers that contradict nothing.
fn reduced(ops: Vec<Op>, vague: Micros) -> Vec<Op> {
    let violated = |ops: &[Op]| judge(ops, vague) == Verdict::Violated;
    // A history that is cut at any time must fit, too; halving finds the first time at which it does not.
    let mut ends: Vec<Micros> = ops.iter().map(|op| op.ret).filter(|ret| *ret < NEVER).collect();
    ends.sort_unstable();
    let first_bad = ends.partition_point(|end| !violated(&until(&ops, *end)));
    let mut kept = ends.get(first_bad).map_or_else(|| ops.clone(), |end| until(&ops, *end));
    if !violated(&kept) {
        kept = ops;
    }
    // An operation that leaves any state as it is can go without changing what the others mean.
    let mut size = kept.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < kept.len() {
            let end = (at + size).min(kept.len());
            let shorter: Vec<Op> = (0..kept.len())
                .filter(|number| !(at..end).contains(number) || !kept[*number].only_looked())
                .map(|number| kept[number])
                .collect();
            if shorter.len() < kept.len() && violated(&shorter) {
                kept = shorter;
            } else {
                at = end;
            }
        }
        if size == 1 {
            break;
        }
        size = size.div_ceil(2);
    }
    without_beginning(kept, &violated)
}

/// Leaves out all before a change after which nothing before it can matter, as long as what is left is violated by itself.
fn without_beginning(ops: Vec<Op>, violated: &dyn Fn(&[Op]) -> bool) -> Vec<Op> {
    let resets = |op: &Op| matches!(op.action, Action::Set(..) | Action::Del) && op.changed();
    for from in (0..ops.len()).rev().filter(|from| resets(&ops[*from])) {
        let tail = &ops[from..];
        let is_alone = ops[..from].iter().all(|op| op.ret < ops[from].call)
            && tail[1..].iter().all(|op| op.start() > ops[from].ret);
        if is_alone && violated(tail) {
            return tail.to_vec();
        }
    }
    ops
}

/// The history as it was known at a time: what was called later is not in it, and what ended later has no end.
fn until(ops: &[Op], time: Micros) -> Vec<Op> {
    ops.iter()
        .filter(|op| op.call <= time && (op.ret <= time || op.changed() || op.ret == NEVER))
        .map(|op| if op.ret <= time { *op } else { Op { ret: NEVER, told: Told::Nothing, ..*op } })
        .collect()
}

/// The age of the stalest answer, as far as it is certain: the time from the acknowledgement of a change that had replaced the
/// value that was read, to the call of the read. Only values that one operation can have written count.
pub fn worst_staleness(ops: &[Op]) -> Micros {
    let mut keys: HashMap<u32, Vec<&Op>> = HashMap::new();
    for op in ops {
        keys.entry(op.key).or_default().push(op);
    }
    keys.values().map(|ops| worst_of_key(ops)).max().unwrap_or(0)
}

fn worst_of_key(ops: &[&Op]) -> Micros {
    let mut writers: HashMap<i64, Option<Micros>> = HashMap::new();
    for op in ops {
        let (value, sure) = match (op.action, op.told) {
            (Action::Set(value, _) | Action::SetNx(value, _) | Action::Cas(_, value), _) => (value, op.changed()),
            (Action::IncrBy(_), Told::Value(Some(value))) => (value, true),
            _ => continue,
        };
        let one_writer = sure && !writers.contains_key(&value);
        writers.insert(value, one_writer.then_some(op.ret));
    }
    // An expiry leaves the value; all other changes replace it.
    let mut replacing: Vec<&Op> =
        ops.iter().filter(|op| op.changed() && !matches!(op.action, Action::Expire(_))).copied().collect();
    replacing.sort_by_key(|op| op.call);
    let mut soonest = vec![NEVER; replacing.len() + 1];
    for (at, op) in replacing.iter().enumerate().rev() {
        soonest[at] = soonest[at + 1].min(op.ret);
    }
    let reads = ops.iter().filter_map(|op| match (op.action, op.told) {
        (Action::Get, Told::Value(Some(value))) => Some((op.call, (*writers.get(&value)?)?)),
        _ => None,
    });
    let age = |(call, written): (Micros, Micros)| {
        let later = replacing.partition_point(|op| op.call <= written);
        call.saturating_sub(soonest[later])
    };
    reads.map(age).max().unwrap_or(0)
}
