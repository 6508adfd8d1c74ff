//! Strict mode: each key is linearizable. Once anybody has read or been told of a version, nobody reads an older one.
//!
//! Two nodes with one key. Reads of the database itself (by clients of other nodes) are an action of their own that sets
//! what has been seen to what is committed: nothing else that is read can ask for more. A node that is not read from caches
//! nothing, so it is no member: it stands for any number of writers.

use stateright::{Model, Property};

use crate::{holds, is_broken};

/// How many ticks a lease lasts.
const LEASE: u8 = 2;
/// How many ticks after the fence a transaction may still be told to commit.
const FENCE_GOOD: u8 = 1;
/// How many ticks a transaction may take after its check.
const TRANSACTION: u8 = 1;
/// After how many ticks a fence falls by itself.
const FENCE_FALLS: u8 = FENCE_GOOD + TRANSACTION + 1;

/// What keeps the protocol right; each can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// Peers drop the key before the commit, not after it.
    FenceFirst,
    /// The committing transaction looks for members that have not acknowledged.
    Membership,
    /// That look and the commit exclude joining.
    Lock,
    /// A node trusts its cache only after its row is there.
    RowFirst,
    /// A renewal whose answer comes after the old deadline is none.
    Deadline,
    /// The transaction refuses to commit when the fence is about to fall.
    FenceAge,
    /// A fence outlives the epoch in which it was acknowledged.
    FenceStays,
    /// A fence that falls by itself kills the flight of its key.
    FenceFalls,
    /// An own write is not cached while another node's fence stands.
    Publish,
    /// A fence kills the flight of its key, and so does an invalidation.
    FillToken,
    /// While a fence stands, nothing fills.
    NoFill,
    /// Reads join a flight that was sent only while the cache is trusted and no fence stands.
    Join,
    /// A hit needs a lease.
    Lease,
    /// A node that starts again is another member.
    Identity,
}

#[derive(Clone, Debug)]
struct Strict {
    without: Option<Guard>,
    ticks: u8,
    writes: u8,
    faults: u8,
    /// How many nodes write, from the last on; the first ones only read.
    writers: usize,
    /// How many nodes read, from the first on.
    readers: usize,
    /// Whether the readers are members from the start.
    joined: bool,
    /// Whether leases are renewed.
    renewals: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    latest: u8,
    /// The newest version that anybody has read or been told of.
    seen: u8,
    nodes: [Node; 2],
    /// Until when the row of an earlier life is a live member's.
    ghost: u8,
    /// A transaction of an earlier life, or of a write that was given up, which may still commit.
    zombie: Option<Zombie>,
    faults: u8,
    wrong: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    link: Link,
    queue: Vec<Note>,
    /// The lease as the table has it.
    row: u8,
    /// The lease as the node knows it.
    deadline: u8,
    epoch: bool,
    renewal: Renewal,
    fences: Vec<Fence>,
    cached: Option<u8>,
    flight: Option<Flight>,
    write: Option<Write>,
    /// Batches so far.
    batches: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Link {
    #[default]
    Down,
    Up,
    /// Lost, and not noticed.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Note {
    Probe,
    Fence(Batch),
    /// The batch has committed.
    Invalidate(Batch),
    /// The batch will not commit.
    Lift(Batch),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Batch {
    writer: u8,
    number: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Renewal {
    #[default]
    None,
    Sent(u8),
    /// Looked at the row at this tick, and not committed yet.
    Evaluated(u8, u8),
    Done(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Fence {
    batch: Batch,
    since: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flight {
    /// What had been seen when the last read that waits for it began.
    floor: u8,
    answer: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Write {
    batch: Batch,
    stage: Stage,
    fenced_at: u8,
    /// Whether the other node was a member when the fence was sent, and whether it has acknowledged.
    asked: bool,
    acknowledged: bool,
    clean: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Fenced,
    /// Its transaction has looked at the members, and holds the lock.
    Checked(u8),
    Committed(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Zombie {
    batch: Batch,
    checked: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    DatabaseRead,
    Read(usize),
    Load(usize),
    Land(usize),
    Deliver(usize),
    Fence(usize),
    Check(usize),
    Commit(usize),
    Settle(usize),
    Fail(usize),
    LoseAnswer(usize),
    ZombieCommits,
    Renew(usize),
    EvaluateRenewal(usize),
    CommitRenewal(usize),
    AnswerRenewal(usize),
    LoseLink(usize),
    NoticeLoss(usize),
    Connect(usize),
    Join(usize),
    Restart(usize),
}

impl State {
    fn serve(&mut self, version: u8, floor: u8) {
        self.wrong |= version < floor;
        self.seen = self.seen.max(version);
    }

    fn drop_flight(&mut self, at: usize) {
        if let Some(Flight { floor, answer: Some(version) }) = self.nodes[at].flight.take() {
            // What later readers must see is the database's read's affair.
            self.wrong |= version < floor;
        }
    }

    fn is_member(&self, at: usize) -> bool {
        self.nodes[at].row > self.now
    }

    fn has_lock(&self) -> bool {
        let checked = self.nodes.iter().any(|node| node.write.is_some_and(|w| matches!(w.stage, Stage::Checked(_))));
        let zombie = self.zombie.is_some_and(|zombie| self.now <= zombie.checked + TRANSACTION);
        checked || zombie
    }
}

impl Strict {
    fn has(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    /// Tells the nodes that read, the writer itself only of what has an outcome.
    fn tell(&self, state: &mut State, note: Note, but: Option<usize>) {
        for (index, node) in state.nodes.iter_mut().enumerate().take(self.readers) {
            if node.link == Link::Up && Some(index) != but {
                node.queue.push(note);
            }
        }
    }

    fn commit(&self, state: &mut State, batch: Batch) -> u8 {
        state.latest += 1;
        self.tell(state, Note::Invalidate(batch), None);
        state.latest
    }

    fn is_trusted(&self, state: &State, at: usize) -> bool {
        let node = &state.nodes[at];
        node.epoch && (node.deadline > state.now || !self.has(Guard::Lease))
    }

    fn read(&self, state: &mut State, at: usize) {
        let trusted = self.is_trusted(state, at);
        if let Some(version) = state.nodes[at].cached.filter(|_| trusted) {
            return state.serve(version, state.seen);
        }
        let may_join = (trusted && state.nodes[at].fences.is_empty()) || !self.has(Guard::Join);
        match &mut state.nodes[at].flight {
            Some(flight) if flight.answer.is_none() || may_join => flight.floor = state.seen,
            _ => {
                state.drop_flight(at);
                state.nodes[at].flight = Some(Flight { floor: state.seen, answer: None });
            }
        }
    }

    fn land(&self, state: &mut State, at: usize) {
        let Some(Flight { floor, answer: Some(version) }) = state.nodes[at].flight.take() else { return };
        state.wrong |= version < floor;
        let node = &mut state.nodes[at];
        if node.epoch && (node.fences.is_empty() || !self.has(Guard::NoFill)) {
            node.cached = Some(version);
        }
    }

    fn forget(&self, state: &mut State, at: usize) {
        state.nodes[at].cached = None;
        if self.has(Guard::FillToken) {
            state.drop_flight(at);
        }
        if let Some(write) = &mut state.nodes[at].write {
            write.clean = false;
        }
    }

    fn deliver(&self, state: &mut State, at: usize) {
        let now = state.now;
        let mine = |batch: Batch| usize::from(batch.writer) == at;
        let in_flight = |state: &State, batch: Batch| state.nodes[at].write.is_some_and(|write| write.batch == batch);
        match state.nodes[at].queue.remove(0) {
            Note::Probe => state.nodes[at].epoch = true,
            Note::Fence(batch) => {
                self.forget(state, at);
                state.nodes[at].fences.push(Fence { batch, since: now });
                let writer = &mut state.nodes[usize::from(batch.writer)];
                if let Some(write) = writer.write.as_mut().filter(|write| write.batch == batch) {
                    write.acknowledged = true;
                }
            }
            // The settling does it.
            Note::Invalidate(batch) if mine(batch) && in_flight(state, batch) => {}
            Note::Invalidate(batch) | Note::Lift(batch) => {
                self.forget(state, at);
                state.nodes[at].fences.retain(|fence| fence.batch != batch);
            }
        }
    }

    /// Fences here and asks the other; the members are read after that.
    fn fence(&self, state: &mut State, at: usize) {
        let other = 1 - at;
        let batch = match &state.nodes[at].write {
            // Again, to those who came meanwhile.
            Some(write) => write.batch,
            None => {
                self.forget(state, at);
                state.nodes[at].batches += 1;
                let batch = Batch { writer: at as u8, number: state.nodes[at].batches };
                state.nodes[at].fences.push(Fence { batch, since: state.now });
                batch
            }
        };
        let asked = state.is_member(other);
        if self.has(Guard::FenceFirst) {
            self.tell(state, Note::Fence(batch), Some(at));
        }
        let node = &mut state.nodes[at];
        let (now, clean) = (state.now, node.epoch);
        node.write = Some(Write { batch, stage: Stage::Fenced, fenced_at: now, asked, acknowledged: false, clean });
    }

    fn may_commit(&self, state: &State, at: usize) -> bool {
        let Some(write) = state.nodes[at].write.filter(|write| write.stage == Stage::Fenced) else { return false };
        let in_time = state.now <= write.fenced_at + FENCE_GOOD || !self.has(Guard::FenceAge);
        let asked = !self.has(Guard::Membership) && !write.asked;
        let other = write.acknowledged || !state.is_member(1 - at) || asked;
        let ghost = state.ghost <= state.now || !self.has(Guard::Membership);
        in_time && ((other && ghost) || !self.has(Guard::FenceFirst))
    }

    fn settle(&self, state: &mut State, at: usize) {
        let Some(Write { batch, stage: Stage::Committed(version), clean, .. }) = state.nodes[at].write.take() else {
            return;
        };
        state.seen = state.seen.max(version);
        state.nodes[at].fences.retain(|fence| fence.batch != batch);
        state.nodes[at].cached = None;
        state.drop_flight(at);
        let node = &mut state.nodes[at];
        let publishes = clean && node.fences.is_empty();
        if node.epoch && (publishes || !self.has(Guard::Publish)) {
            node.cached = Some(version);
        }
    }

    /// The writer will not hear of its transaction, which may be under way: the fence stays until its time is over.
    fn give_up(state: &mut State, at: usize) {
        let Some(write) = state.nodes[at].write.take() else { return };
        if let Stage::Checked(checked) = write.stage
            && state.now <= checked + TRANSACTION
        {
            state.zombie = Some(Zombie { batch: write.batch, checked });
        }
        let now = state.now;
        for fence in state.nodes[at].fences.iter_mut().filter(|fence| fence.batch == write.batch) {
            fence.since = now;
        }
    }

    fn restart(&self, state: &mut State, at: usize) {
        state.nodes[at].flight = None;
        Self::give_up(state, at);
        let row = state.nodes[at].row;
        if self.has(Guard::Identity) {
            state.ghost = state.ghost.max(row);
            // What the life before acknowledged is not this one's word.
            if let Some(write) = &mut state.nodes[1 - at].write {
                write.acknowledged = false;
            }
        }
        state.nodes[at] = Node { batches: state.nodes[at].batches, ..Node::default() };
    }

    /// A row and a new epoch, on a link that listens already.
    fn join(&self, state: &mut State, at: usize) {
        let until = state.now + LEASE;
        let node = &mut state.nodes[at];
        (node.row, node.deadline) = (until, until);
        if !self.has(Guard::RowFirst) {
            node.row = 0;
        }
        node.renewal = Renewal::None;
        node.epoch = false;
        node.queue.push(Note::Probe);
        if !self.has(Guard::FenceStays) {
            node.fences.clear();
        }
        node.cached = None;
        state.drop_flight(at);
        if let Some(write) = &mut state.nodes[at].write {
            write.clean = false;
        }
    }

    fn tick(&self, state: &mut State) {
        state.now += 1;
        let now = state.now;
        for at in 0..2 {
            let node = &mut state.nodes[at];
            let own = node.write.map(|write| write.batch);
            let stood = node.fences.len();
            node.fences.retain(|fence| now < fence.since + FENCE_FALLS || Some(fence.batch) == own);
            if node.fences.len() < stood && self.has(Guard::FenceFalls) {
                state.drop_flight(at);
            }
        }
        if state.ghost <= now {
            state.ghost = 0;
        }
        if state.zombie.is_some_and(|zombie| now > zombie.checked + TRANSACTION) {
            state.zombie = None;
        }
    }

    /// What a node's write and its reads can do next.
    fn of_a_node(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[at];
        let mut may = |yes: bool, action: Action| {
            if yes {
                actions.push(action);
            }
        };
        let reads = at < self.readers;
        let answered = node.flight.is_some_and(|flight| flight.answer.is_some());
        may(reads, Action::Read(at));
        may(node.flight.is_some() && !answered, Action::Load(at));
        may(answered, Action::Land(at));
        may(node.link == Link::Up && !node.queue.is_empty(), Action::Deliver(at));
        let begun = state.nodes.iter().map(|node| node.batches).sum::<u8>();
        match node.write {
            None => may(at + self.writers >= 2 && begun < self.writes, Action::Fence(at)),
            Some(Write { stage: Stage::Fenced, fenced_at, .. }) => {
                may(self.may_commit(state, at), Action::Check(at));
                may(!self.may_commit(state, at) && fenced_at < state.now, Action::Fence(at));
                may(true, Action::Fail(at));
            }
            Some(Write { stage: Stage::Checked(checked), .. }) => {
                may(state.now <= checked + TRANSACTION, Action::Commit(at));
                may(true, Action::Fail(at));
                may(state.faults < self.faults && state.zombie.is_none(), Action::LoseAnswer(at));
            }
            Some(Write { stage: Stage::Committed(_), .. }) => {
                may(true, Action::Settle(at));
                may(state.faults < self.faults, Action::LoseAnswer(at));
            }
        }
    }

    /// What a node's membership can do next.
    fn of_a_member(&self, state: &State, at: usize, actions: &mut Vec<Action>) {
        let node = &state.nodes[at];
        let mut may = |yes: bool, action: Action| {
            if yes {
                actions.push(action);
            }
        };
        let has_lease = node.deadline > state.now;
        let linked = node.link == Link::Up;
        match node.renewal {
            Renewal::None => may(self.renewals && has_lease && node.deadline < state.now + LEASE, Action::Renew(at)),
            Renewal::Sent(_) => may(node.row > state.now, Action::EvaluateRenewal(at)),
            Renewal::Evaluated(..) => may(true, Action::CommitRenewal(at)),
            Renewal::Done(_) => may(true, Action::AnswerRenewal(at)),
        }
        // The row is locked by a renewal that has looked at it.
        let locked = matches!(node.renewal, Renewal::Evaluated(..));
        let excluded = state.has_lock() && self.has(Guard::Lock);
        let joining = node.queue.contains(&Note::Probe);
        may(linked && !joining && !locked && !excluded && (!has_lease || !node.epoch), Action::Join(at));
        let may_fail = state.faults < self.faults;
        may(linked && may_fail, Action::LoseLink(at));
        may(node.link == Link::Broken, Action::NoticeLoss(at));
        may(node.link == Link::Down, Action::Connect(at));
    }

    fn act(&self, state: &mut State, action: Action) {
        let now = state.now;
        match action {
            Action::Fence(at) => self.fence(state, at),
            Action::Check(at) => {
                if let Some(write) = &mut state.nodes[at].write {
                    write.stage = Stage::Checked(now);
                }
            }
            Action::Commit(at) => {
                if let Some(batch) = state.nodes[at].write.map(|write| write.batch) {
                    let version = self.commit(state, batch);
                    if let Some(write) = &mut state.nodes[at].write {
                        write.stage = Stage::Committed(version);
                    }
                }
            }
            Action::Settle(at) => self.settle(state, at),
            Action::Fail(at) => {
                if let Some(write) = state.nodes[at].write.take() {
                    state.nodes[at].fences.retain(|fence| fence.batch != write.batch);
                    self.tell(state, Note::Lift(write.batch), Some(at));
                }
            }
            Action::LoseAnswer(at) => {
                state.faults += 1;
                Self::give_up(state, at);
                self.forget(state, at);
            }
            Action::ZombieCommits => {
                if let Some(zombie) = state.zombie.take() {
                    self.commit(state, zombie.batch);
                }
            }
            _ => self.act_as_member(state, action),
        }
    }

    fn act_as_member(&self, state: &mut State, action: Action) {
        let now = state.now;
        match action {
            Action::Renew(at) => state.nodes[at].renewal = Renewal::Sent(now),
            Action::EvaluateRenewal(at) => {
                if let Renewal::Sent(sent) = state.nodes[at].renewal {
                    state.nodes[at].renewal = Renewal::Evaluated(sent, now);
                }
            }
            Action::CommitRenewal(at) => {
                if let Renewal::Evaluated(sent, looked) = state.nodes[at].renewal {
                    state.nodes[at].row = looked + LEASE;
                    state.nodes[at].renewal = Renewal::Done(sent);
                }
            }
            Action::AnswerRenewal(at) => {
                if let Renewal::Done(sent) = std::mem::take(&mut state.nodes[at].renewal)
                    && (state.nodes[at].deadline > now || !self.has(Guard::Deadline))
                {
                    state.nodes[at].deadline = sent + LEASE;
                }
            }
            Action::LoseLink(at) => {
                state.faults += 1;
                state.nodes[at].link = Link::Broken;
                state.nodes[at].queue.clear();
            }
            Action::NoticeLoss(at) => {
                state.nodes[at].link = Link::Down;
                state.nodes[at].epoch = false;
            }
            Action::Connect(at) => state.nodes[at].link = Link::Up,
            Action::Join(at) => self.join(state, at),
            Action::Restart(at) => {
                state.faults += 1;
                self.restart(state, at);
            }
            _ => {}
        }
    }
}

impl Model for Strict {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let member = Node { link: Link::Up, row: LEASE, deadline: LEASE, epoch: true, ..Node::default() };
        let node = |at: usize| if self.joined && at < self.readers { member.clone() } else { Node::default() };
        let nodes = [node(0), node(1)];
        vec![State { now: 0, latest: 0, seen: 0, nodes, ghost: 0, zombie: None, faults: 0, wrong: false }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < self.ticks {
            actions.push(Action::Tick);
        }
        if state.seen < state.latest {
            actions.push(Action::DatabaseRead);
        }
        if state.zombie.is_some() {
            actions.push(Action::ZombieCommits);
        }
        for at in 0..2 {
            self.of_a_node(state, at, actions);
            if at < self.readers {
                self.of_a_member(state, at, actions);
            }
            let zombie = state.zombie.is_some() && state.nodes[at].write.is_some();
            if state.faults < self.faults && state.ghost == 0 && !zombie {
                actions.push(Action::Restart(at));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => self.tick(&mut state),
            Action::DatabaseRead => state.seen = state.latest,
            Action::Read(at) => self.read(&mut state, at),
            Action::Load(at) => state.nodes[at].flight.as_mut()?.answer = Some(state.latest),
            Action::Land(at) => self.land(&mut state, at),
            Action::Deliver(at) => self.deliver(&mut state, at),
            _ => self.act(&mut state, action),
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nobody reads what was seen to be replaced", |_, state: &State| !state.wrong),
            Property::sometimes("a write waits for a lease to end", |model: &Self, state: &State| {
                state.nodes[1].write.is_some_and(|write| write.stage == Stage::Fenced && !write.acknowledged)
                    && state.now > 0
                    && !model.may_commit(state, 1)
            }),
            Property::sometimes("a peer caches the new version", |_, state: &State| {
                state.nodes[0].epoch && state.nodes[0].cached == Some(1) && state.nodes[0].fences.is_empty()
            }),
        ]
    }
}

/// A reader that loses its link and starts again, and a writer that dies and leaves transactions behind.
fn with_faults(without: Option<Guard>) -> Strict {
    Strict { without, ticks: 4, writes: 1, faults: 2, writers: 1, readers: 1, joined: true, renewals: false }
}

/// Two nodes that write, one of which reads.
fn with_two_writers(without: Option<Guard>) -> Strict {
    Strict { without, ticks: 1, writes: 2, faults: 1, writers: 2, readers: 1, joined: true, renewals: false }
}

/// A reader that joins and renews while the other writes.
fn with_joins(without: Option<Guard>) -> Strict {
    Strict { without, ticks: 4, writes: 1, faults: 0, writers: 1, readers: 1, joined: false, renewals: true }
}

#[test]
fn strict_mode_is_linearizable_through_faults() {
    holds("strict mode, faults", with_faults(None));
}

#[test]
fn strict_mode_is_linearizable_with_two_writers() {
    holds("strict mode, two writers", with_two_writers(None));
}

#[test]
fn strict_mode_is_linearizable_with_joins_and_renewals() {
    holds("strict mode, joins", with_joins(None));
}

#[test]
fn each_guard_of_strict_mode_is_needed() {
    use Guard::{Deadline, FenceAge, FenceFalls, FenceFirst, FenceStays, FillToken, Identity, Join, Lease, Lock};
    use Guard::{Membership, NoFill, Publish, RowFirst};
    for guard in [FenceFirst, FenceAge, FillToken, NoFill, Join, Lease, Identity] {
        is_broken(&format!("{guard:?}"), with_faults(Some(guard)));
    }
    for guard in [Membership, Lock, RowFirst, Deadline, FenceStays, FenceFalls] {
        is_broken(&format!("{guard:?}"), with_joins(Some(guard)));
    }
    is_broken("Publish", with_two_writers(Some(Publish)));
}
