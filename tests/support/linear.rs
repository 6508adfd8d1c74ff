//! Decides whether a history of one key can be put in an order that the specification allows and that respects time: each operation
//! takes effect between its start and its end. For an answer that may be stale, the start lies before the call (see
//! [`Op::start`]), but never before a change that the same daemon had acknowledged by then. With no staleness allowed, this is
//! linearizability. The search is Wing and Gong's with Lowe's memory of what was tried; it knows no daemon.
//!
//! Operations whose outcome is unknown make such searches explode, as any of them may be left for later. But to have left more
//! of them is never worse: so what failed once fails again with the same state and fewer of them left.

use std::collections::HashMap;

use super::history::{Micros, NEVER, Op, State, step};
use super::rng::Rng;

/// Choices tried before the search gives up.
const MAX_CHOICES: usize = 2_000_000;

/// Operations of unknown outcome on one key that the search can tell apart.
const MAX_UNKNOWN: usize = 256;

/// A set of operations of unknown outcome, by their ranks among those.
type Used = [u64; MAX_UNKNOWN / 64];

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Fits,
    /// There is none.
    Violated,
    /// It was not found in [`MAX_CHOICES`].
    Undecided,
}

/// Judges the operations on one key, in any order. Clocks of daemons may be `vague` apart.
pub fn judge(ops: &[Op], vague: Micros) -> Verdict {
    Search::new(ops, vague).run()
}

/// Numbers in a fixed order, from which any can be taken out, and put back in reverse.
struct List {
    next: Vec<u32>,
    previous: Vec<u32>,
}

struct Search<'a> {
    ops: &'a [Op],
    vague: Micros,
    /// Random, so that a set of operations can be named by the exclusive or of its members; 0 for those of unknown outcome.
    names: Vec<u128>,
    /// The rank of those among themselves.
    ranks: Vec<usize>,
    /// What is not in order yet: by start.
    starts: List,
    /// By end; those without an end need not happen and are not here.
    ends: List,
    /// The changes that each daemon acknowledged, by end.
    changes: Vec<List>,
    state: State,
    /// The name of what is in order and has a known outcome.
    name: u128,
    /// What is in order and has none.
    used: Used,
    /// What is in order, with the state before each.
    trail: Vec<(u32, State)>,
}

/// Where the search may go on differently.
struct Choice {
    trail: usize,
    /// The last is tried next.
    left: Vec<(u32, State)>,
}

impl<'a> Search<'a> {
    fn new(ops: &'a [Op], vague: Micros) -> Self {
        let mut rng = Rng::new(ops.len() as u64);
        let mut name =
            |op: &Op| if op.ret == NEVER { 0 } else { (u128::from(rng.next()) << 64) | u128::from(rng.next()) };
        let names = ops.iter().map(&mut name).collect();
        let ranks = ops.iter().scan(0, |next, op| {
            *next += usize::from(op.ret == NEVER);
            Some(*next)
        });
        let ranks = ranks.map(|next| next.saturating_sub(1)).collect();
        let list = |key: &dyn Fn(&Op) -> Micros, filter: &dyn Fn(&Op) -> bool| {
            let mut order: Vec<u32> = (0..ops.len() as u32).filter(|at| filter(&ops[*at as usize])).collect();
            order.sort_by_key(|at| key(&ops[*at as usize]));
            List::new(ops.len(), &order)
        };
        let nodes = ops.iter().map(|op| op.node + 1).max().unwrap_or(0);
        let changes = (0..nodes).map(|node| list(&|op| op.ret, &|op| op.node == node && op.changed())).collect();
        Self {
            ops,
            vague,
            names,
            ranks,
            starts: list(&Op::start, &|_| true),
            ends: list(&|op| op.ret, &|op| op.ret < NEVER),
            changes,
            state: State::ABSENT,
            name: 0,
            used: Used::default(),
            trail: Vec::new(),
        }
    }

    fn run(mut self) -> Verdict {
        if self.ops.iter().filter(|op| op.ret == NEVER).count() > MAX_UNKNOWN {
            return Verdict::Undecided;
        }
        let mut choices: Vec<Choice> = Vec::new();
        let mut seen: HashMap<(u128, State), Vec<Used>> = HashMap::new();
        let mut tried = 0;
        loop {
            self.take_what_changes_nothing();
            if self.ends.first().is_none() {
                return Verdict::Fits;
            }
            if tried > MAX_CHOICES {
                return Verdict::Undecided;
            }
            // Where it has been, and found no way, it need not go again.
            let failed = seen.entry((self.name, self.state)).or_default();
            if !failed.iter().any(|less| is_subset(less, &self.used)) {
                failed.retain(|more| !is_subset(&self.used, more));
                failed.push(self.used);
                tried += 1;
                choices.push(Choice { trail: self.trail.len(), left: self.candidates() });
            }
            loop {
                let Some(choice) = choices.last_mut() else { return Verdict::Violated };
                let (length, next) = (choice.trail, choice.left.pop());
                self.back_to(length);
                match next {
                    Some((at, state)) => {
                        self.take(at, state);
                        break;
                    }
                    None => drop(choices.pop()),
                }
            }
        }
    }

    /// Puts in order what fits now and never changes a state. That shuts no way, so it is no choice. (What merely changes nothing
    /// in this state is one: an `EXPIRE` may be needed after the `SET` that is on its way.)
    fn take_what_changes_nothing(&mut self) {
        loop {
            let before = self.trail.len();
            let mut at = self.starts.first();
            while let Some(number) = at {
                let op = &self.ops[number as usize];
                if op.start() > self.first_end() {
                    break;
                }
                at = self.starts.after(number);
                if op.only_looked()
                    && self.is_free(op)
                    && step(self.state, op, self.vague).iter().flatten().any(|next| *next == self.state)
                {
                    self.take(number, self.state);
                }
            }
            if self.trail.len() == before {
                return;
            }
        }
    }

    /// What may come next, with the state after it. Tried from the back: first what must happen soonest, last what need not happen.
    fn candidates(&self) -> Vec<(u32, State)> {
        let mut found = Vec::new();
        let mut at = self.starts.first();
        while let Some(number) = at {
            let op = &self.ops[number as usize];
            if op.start() > self.first_end() {
                break;
            }
            at = self.starts.after(number);
            if self.is_free(op) {
                let nexts = step(self.state, op, self.vague).into_iter().flatten();
                let matters = |next: &State| *next != self.state || (op.ret < NEVER && !op.only_looked());
                found.extend(nexts.filter(matters).map(|next| (number, next)));
            }
        }
        found.sort_by_key(|(number, _)| std::cmp::Reverse(self.ops[*number as usize].ret));
        found
    }

    /// The end of what must be in order next.
    fn first_end(&self) -> Micros {
        self.ends.first().map_or(NEVER, |first| self.ops[first as usize].ret)
    }

    /// Whether no change stands before it that its own daemon had acknowledged when it was called.
    fn is_free(&self, op: &Op) -> bool {
        let first = self.changes[usize::from(op.node)].first();
        first.is_none_or(|first| self.ops[first as usize].ret >= op.call)
    }

    fn take(&mut self, number: u32, next: State) {
        let op = &self.ops[number as usize];
        self.trail.push((number, self.state));
        self.state = next;
        self.name ^= self.names[number as usize];
        self.starts.take(number);
        if op.ret < NEVER {
            self.ends.take(number);
        } else {
            self.flip(number);
        }
        if op.changed() {
            self.changes[usize::from(op.node)].take(number);
        }
    }

    fn back_to(&mut self, length: usize) {
        while self.trail.len() > length {
            let Some((number, before)) = self.trail.pop() else { return };
            let op = &self.ops[number as usize];
            if op.changed() {
                self.changes[usize::from(op.node)].put_back(number);
            }
            if op.ret < NEVER {
                self.ends.put_back(number);
            } else {
                self.flip(number);
            }
            self.starts.put_back(number);
            self.name ^= self.names[number as usize];
            self.state = before;
        }
    }
}

impl Search<'_> {
    fn flip(&mut self, number: u32) {
        let rank = self.ranks[number as usize];
        self.used[rank / 64] ^= 1 << (rank % 64);
    }
}

fn is_subset(less: &Used, more: &Used) -> bool {
    less.iter().zip(more).all(|(less, more)| less & !more == 0)
}

impl List {
    /// Of numbers below `size`, in this order. One more place holds the first and the last.
    fn new(size: usize, order: &[u32]) -> Self {
        let mut list = Self { next: vec![0; size + 1], previous: vec![0; size + 1] };
        let mut last = size as u32;
        for number in order {
            list.next[last as usize] = *number;
            list.previous[*number as usize] = last;
            last = *number;
        }
        list.next[last as usize] = size as u32;
        list.previous[size] = last;
        list
    }

    fn first(&self) -> Option<u32> {
        self.after(self.next.len() as u32 - 1)
    }

    fn after(&self, number: u32) -> Option<u32> {
        let next = self.next[number as usize];
        (next as usize + 1 < self.next.len()).then_some(next)
    }

    fn take(&mut self, number: u32) {
        let (previous, next) = (self.previous[number as usize], self.next[number as usize]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
    }

    fn put_back(&mut self, number: u32) {
        let (previous, next) = (self.previous[number as usize], self.next[number as usize]);
        self.next[previous as usize] = number;
        self.previous[next as usize] = number;
    }
}
