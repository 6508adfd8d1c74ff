//! The default mode: a read is at most so much behind, and nothing stale stays.
//!
//! One node is modelled whole, with one key. All other nodes are one environment that commits: to a node, another is no
//! more than commits and their notifications, so what holds for this one against any such environment holds for each.

use stateright::{Model, Property};

use crate::{holds, is_broken};

/// How far behind a read may be, in ticks.
const BOUND: u8 = 1;

/// What keeps the protocol right; each can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guard {
    /// An invalidation kills the flight of its key.
    FillToken,
    /// It marks an own write that is under way, too.
    OwnWriteToken,
    /// An own notification that comes before the commit's answer drops what is cached.
    OwnNotification,
    /// An own notification is skipped only if the write's outcome is known.
    UnknownOutcome,
    /// A new session of the link begins with an empty cache and no tokens.
    Epoch,
    /// A hit needs a proof that is young enough, looked at when reading.
    Staleness,
    /// A heartbeat proves what was current when it was sent, not when it came back.
    SentTime,
    /// Reads join a flight that was sent only while the cache is trusted.
    Join,
    /// What another server than the link's has answered is neither kept nor served.
    Incarnation,
    /// Heartbeats wait for the synchronous standby as writes do.
    Synchronous,
}

#[derive(Clone, Debug)]
struct Relaxed {
    without: Option<Guard>,
    ticks: u8,
    writes: u8,
    faults: u8,
    /// Whether the standby may be promoted while the old primary lives on.
    promotion: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    now: u8,
    /// The current version: each commit makes the next one.
    latest: u8,
    /// When each earlier version was replaced.
    replaced: Vec<u8>,
    /// After a promotion: the version on the server that was the primary before.
    old: Option<u8>,
    /// A write of unknown outcome, or of an earlier life, may still commit.
    zombie: bool,
    faults: u8,
    node: Node,
    /// A read was further behind than it may.
    wrong: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Node {
    link: Link,
    /// What the link's session has not delivered yet.
    queue: Vec<Note>,
    /// The link has seen its probe, and no loss since.
    epoch: bool,
    /// When the last heartbeat that came back was sent.
    proven: u8,
    cached: Option<u8>,
    flight: Option<Flight>,
    write: Option<Write>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Link {
    #[default]
    Down,
    Up(Server),
    /// Lost, and not noticed.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Server {
    /// The primary, or the one before the promotion.
    First,
    /// The promoted standby.
    Second,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Note {
    Probe(u8),
    Heartbeat(u8),
    Foreign,
    /// Of the node's write that made this version.
    Own(u8),
    /// Of a write whose outcome the node does not know.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Flight {
    /// When the last read that waits for it began.
    begun: u8,
    fills: bool,
    /// The answer that is on its way, once it was sent.
    answer: Option<(u8, Server)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Write {
    /// Its token is alive.
    clean: bool,
    committed: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Tick,
    Read,
    Load(Server),
    Land,
    ForeignCommit,
    Write,
    Commit,
    Answer,
    LoseAnswer,
    ZombieCommits,
    Heartbeat,
    Deliver,
    LoseLink,
    NoticeLoss,
    Connect(Server),
    Restart,
    Promote,
}

impl State {
    fn primary(&self) -> Server {
        if self.old.is_some() { Server::Second } else { Server::First }
    }

    fn commit(&mut self, note: Note) -> u8 {
        self.replaced.push(self.now);
        self.latest += 1;
        if self.node.link == Link::Up(self.primary()) {
            self.node.queue.push(note);
        }
        self.latest
    }

    fn is_fresh(&self) -> bool {
        self.node.epoch && self.now - self.node.proven <= BOUND
    }

    /// A read that began at `begun` gets this version.
    fn serve(&mut self, version: u8, begun: u8) {
        self.wrong |= version < self.latest && self.replaced[usize::from(version)] + BOUND < begun;
    }

    /// Takes the flight out of the map. Who waits still gets its answer; one that was not sent yet cannot be too old.
    fn drop_flight(&mut self) {
        if let Some(Flight { begun, answer: Some((version, Server::First)), .. }) = self.node.flight.take()
            && self.old.is_none()
        {
            self.serve(version, begun);
        }
    }

    fn forget(&mut self) {
        self.node.cached = None;
        self.drop_flight();
    }
}

impl Relaxed {
    fn has(&self, guard: Guard) -> bool {
        self.without != Some(guard)
    }

    fn read(&self, state: &mut State) {
        let fresh = state.is_fresh();
        if let Some(version) = state.node.cached
            && (fresh || (state.node.epoch && !self.has(Guard::Staleness)))
        {
            return state.serve(version, state.now);
        }
        let may_join = fresh || !self.has(Guard::Join);
        match &mut state.node.flight {
            Some(flight) if flight.answer.is_none() || may_join => flight.begun = state.now,
            _ => {
                state.drop_flight();
                state.node.flight = Some(Flight { begun: state.now, fills: state.node.epoch, answer: None });
            }
        }
    }

    fn land(&self, state: &mut State) {
        let Some(flight) = &mut state.node.flight else { return };
        let Flight { begun, fills, answer: Some((version, server)) } = *flight else { return };
        let on_link = match state.node.link {
            Link::Up(link) => link == server,
            Link::Broken | Link::Down => true,
        };
        if self.has(Guard::Incarnation) && state.node.epoch && !on_link {
            flight.answer = None;
            return;
        }
        // A primary that was replaced and lives on cannot be told from the real one without a link that is proven.
        if server == state.primary() || state.is_fresh() {
            state.serve(version, begun);
        }
        state.node.flight = None;
        if fills && state.node.epoch {
            state.node.cached = Some(version);
        }
    }

    fn deliver(&self, state: &mut State) {
        let now = state.now;
        match state.node.queue.remove(0) {
            Note::Probe(sent) => {
                state.node.epoch = true;
                state.node.proven = sent;
                self.end_epoch(state);
                if self.has(Guard::Epoch) {
                    state.forget();
                }
            }
            Note::Heartbeat(sent) => state.node.proven = if self.has(Guard::SentTime) { sent } else { now },
            Note::Unknown if !self.has(Guard::UnknownOutcome) => {}
            Note::Foreign | Note::Unknown => {
                state.node.cached = None;
                if self.has(Guard::FillToken) {
                    state.drop_flight();
                }
                if let Some(write) = &mut state.node.write
                    && self.has(Guard::OwnWriteToken)
                {
                    write.clean = false;
                }
            }
            Note::Own(version) => {
                let in_flight = state.node.write.is_some_and(|write| write.committed == Some(version));
                if in_flight && self.has(Guard::OwnNotification) {
                    state.forget();
                }
            }
        }
    }

    fn end_epoch(&self, state: &mut State) {
        if self.has(Guard::Epoch) {
            if let Some(flight) = &mut state.node.flight {
                flight.fills = false;
            }
            if let Some(write) = &mut state.node.write {
                write.clean = false;
            }
        }
    }

    fn answer(state: &mut State) {
        let Some(Write { clean, committed: Some(version) }) = state.node.write.take() else { return };
        state.forget();
        if clean && state.node.epoch {
            state.node.cached = Some(version);
        }
    }

    fn lose_answer(state: &mut State) {
        if let Some(write) = state.node.write.take() {
            state.zombie |= write.committed.is_none();
        }
        state.forget();
        for note in &mut state.node.queue {
            if matches!(note, Note::Own(_)) {
                *note = Note::Unknown;
            }
        }
    }
}

impl Model for Relaxed {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let node = Node { link: Link::Up(Server::First), epoch: true, ..Node::default() };
        let (replaced, old) = (Vec::new(), None);
        vec![State { now: 0, latest: 0, replaced, old, zombie: false, faults: 0, node, wrong: false }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let node = &state.node;
        let mut may = |yes: bool, action: Action| {
            if yes {
                actions.push(action);
            }
        };
        let (sent, answered) = (node.flight.is_some(), node.flight.is_some_and(|flight| flight.answer.is_some()));
        let may_commit = state.latest < self.writes;
        let may_fail = state.faults < self.faults;
        may(state.now < self.ticks, Action::Tick);
        may(true, Action::Read);
        may(sent && !answered, Action::Load(Server::First));
        may(sent && !answered && state.old.is_some(), Action::Load(Server::Second));
        may(answered, Action::Land);
        may(may_commit, Action::ForeignCommit);
        may(may_commit && node.write.is_none(), Action::Write);
        may(may_commit && node.write.is_some_and(|write| write.committed.is_none()), Action::Commit);
        may(node.write.is_some_and(|write| write.committed.is_some()), Action::Answer);
        may(may_fail && node.write.is_some(), Action::LoseAnswer);
        may(may_commit && state.zombie, Action::ZombieCommits);
        let beats = node.queue.iter().any(|note| matches!(note, Note::Heartbeat(_) | Note::Probe(_)));
        if let Link::Up(server) = node.link {
            let returns = server == state.primary() || !self.has(Guard::Synchronous);
            may(node.epoch && !beats && returns && node.proven < state.now, Action::Heartbeat);
            may(!node.queue.is_empty(), Action::Deliver);
            may(may_fail, Action::LoseLink);
        }
        may(node.link != Link::Down && (node.link == Link::Broken || !state.is_fresh()), Action::NoticeLoss);
        may(node.link == Link::Down, Action::Connect(Server::First));
        may(node.link == Link::Down && state.old.is_some(), Action::Connect(Server::Second));
        may(may_fail, Action::Restart);
        may(self.promotion && state.old.is_none(), Action::Promote);
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Tick => state.now += 1,
            Action::Read => self.read(&mut state),
            Action::Load(server) => {
                let version = state.old.filter(|_| server == Server::First).unwrap_or(state.latest);
                state.node.flight.as_mut()?.answer = Some((version, server));
            }
            Action::Land => self.land(&mut state),
            Action::ForeignCommit => drop(state.commit(Note::Foreign)),
            Action::Write => state.node.write = Some(Write { clean: state.node.epoch, committed: None }),
            Action::Commit => {
                let version = state.latest + 1;
                state.commit(Note::Own(version));
                state.node.write.as_mut()?.committed = Some(version);
            }
            Action::Answer => Self::answer(&mut state),
            Action::LoseAnswer => {
                state.faults += 1;
                Self::lose_answer(&mut state);
            }
            Action::ZombieCommits => {
                state.zombie = false;
                state.commit(Note::Unknown);
            }
            Action::Heartbeat => state.node.queue.push(Note::Heartbeat(state.now)),
            Action::Deliver => self.deliver(&mut state),
            Action::LoseLink => {
                state.faults += 1;
                state.node.link = Link::Broken;
                state.node.queue.clear();
            }
            Action::NoticeLoss => {
                state.node.link = Link::Down;
                state.node.queue.clear();
                state.node.epoch = false;
                self.end_epoch(&mut state);
            }
            Action::Connect(server) => {
                state.node.link = Link::Up(server);
                if server == state.primary() || !self.has(Guard::Synchronous) {
                    state.node.queue.push(Note::Probe(state.now));
                }
            }
            Action::Restart => {
                state.faults += 1;
                // Nobody waits any more.
                state.node.flight = None;
                Self::lose_answer(&mut state);
                state.node = Node::default();
            }
            Action::Promote => state.old = Some(state.latest),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("no read is further behind than the bound", |_, state: &State| !state.wrong),
            Property::always("what is stale is on its way out", |_, state: &State| {
                let node = &state.node;
                let news = node.queue.iter().any(|note| !matches!(note, Note::Heartbeat(_)));
                let linked = node.epoch && node.link == Link::Up(state.primary());
                !linked || news || node.cached.is_none_or(|version| version == state.latest)
            }),
            Property::sometimes("a cache waits for a late heartbeat", |_, state: &State| {
                let late = state.node.queue.iter().any(|note| matches!(note, Note::Heartbeat(_)));
                late && !state.is_fresh() && state.node.cached == Some(state.latest)
            }),
            Property::sometimes("an own write was overtaken", |_, state: &State| {
                state.node.epoch && state.node.write.is_some_and(|write| !write.clean && write.committed.is_some())
            }),
            Property::sometimes("an own write is cached", |_, state: &State| state.node.cached == Some(1)),
        ];
        if self.faults > 0 {
            properties.push(Property::sometimes("a write of unknown outcome has committed", |_, state: &State| {
                state.node.queue.contains(&Note::Unknown)
            }));
        }
        if self.promotion {
            properties.push(Property::sometimes("the link is on the new primary", |_, state: &State| {
                state.node.epoch && state.node.link == Link::Up(Server::Second) && state.node.cached.is_some()
            }));
        }
        properties
    }
}

fn with_faults(without: Option<Guard>) -> Relaxed {
    Relaxed { without, ticks: 3, writes: 2, faults: 2, promotion: false }
}

fn with_promotion(without: Option<Guard>) -> Relaxed {
    Relaxed { without, ticks: 3, writes: 2, faults: 0, promotion: true }
}

#[test]
fn the_default_mode_keeps_its_bound() {
    holds("default mode, faults", with_faults(None));
}

#[test]
fn the_default_mode_keeps_its_bound_through_a_promotion() {
    holds("default mode, promotion", with_promotion(None));
}

#[test]
fn each_guard_of_the_default_mode_is_needed() {
    use Guard::{Epoch, FillToken, Incarnation, Join, OwnNotification, OwnWriteToken};
    use Guard::{SentTime, Staleness, Synchronous, UnknownOutcome};
    for guard in [FillToken, OwnWriteToken, OwnNotification, UnknownOutcome, Epoch, Staleness, SentTime, Join] {
        is_broken(&format!("{guard:?}"), with_faults(Some(guard)));
    }
    for guard in [Incarnation, Synchronous] {
        is_broken(&format!("{guard:?}"), with_promotion(Some(guard)));
    }
}
