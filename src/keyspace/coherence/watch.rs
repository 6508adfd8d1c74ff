//! Runs the link: connects, beats, listens, and says in the log how it goes, once for each change. The decisions are made
//! beside it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::keyspace::clock::{Clock, Tick};
use crate::keyspace::coherence::lease::{LEASE_MS, Lease};
use crate::keyspace::coherence::payload::NodeId;
use crate::keyspace::coherence::status::State;
use crate::keyspace::coherence::vigil::{Loss, Step, Timing, Vigil};
use crate::keyspace::coherence::{Coherence, payload};
use crate::store::Store;
use crate::store::error::{Chain, StoreError, StoreErrorKind};
use crate::store::link::{Link, LinkEvent, Order};

/// The pause before the next try to link.
const RETRY: Duration = Duration::from_millis(250);

/// The same where only somebody's doing can help.
const SLOW_RETRY: Duration = Duration::from_secs(10);

/// How long a lease may take to be granted: strict writes under way come first.
const ENTER_PATIENCE: Tick = 10_000_000;

/// How long a lease may take to be given back at the end.
const LEAVE_PATIENCE: Duration = Duration::from_millis(500);

/// Why there is no link, or none any more.
enum Unlinked {
    Stopped,
    Failed(StoreError),
    /// The store's side has ended it, and said why.
    Ended,
    Lost(Loss),
    /// A strict node was without a lease for a moment.
    Lapsed,
}

/// Keeps a link, for ever.
pub async fn run(coherence: Arc<Coherence>, store: Arc<dyn Store>, clock: Arc<Clock>, stop: CancellationToken) {
    if !coherence.linked {
        return forget_by_age(&coherence, &clock, &stop).await;
    }
    let mut next_beat = 0;
    loop {
        let linked = tokio::select! {
            // In strict mode others wait for what this node hears.
            linked = store.link(!coherence.is_strict()) => linked,
            () = stop.cancelled() => return,
        };
        let unlinked = match linked {
            Ok(Some(mut link)) => {
                let unlinked = follow(&coherence, &clock, &mut link, &mut next_beat, &stop).await;
                // Before the link is let go of: whoever ended it waits for that.
                coherence.part();
                unlinked
            }
            Ok(None) => Unlinked::Ended,
            Err(error) => Unlinked::Failed(error),
        };
        coherence.part();
        let pause = explain(&coherence, &unlinked);
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Follows one life of the link to its end.
async fn follow(
    coherence: &Coherence,
    clock: &Clock,
    link: &mut Link,
    next_beat: &mut u64,
    stop: &CancellationToken,
) -> Unlinked {
    if !link.is_direct {
        return Unlinked::Lost(Loss::Unheard);
    }
    coherence.take_orders(link.orders.clone());
    let events = &mut link.events;
    let mut tenure = Tenure::begin(coherence, clock.tick());
    let mut vigil = Vigil::new(Timing::of(coherence.config.max_staleness), *next_beat, clock.tick());
    let ended = loop {
        let now = clock.tick();
        let mut until = match tenure.step(coherence, now) {
            // A strict node has a lease before it trusts anything.
            Err(loss) => break Unlinked::Lost(loss),
            Ok(until) => until,
        };
        if tenure.has_begun() {
            until = until.min(match vigil.step(now) {
                Step::Wait(until) => until,
                Step::GiveUp(loss) => break Unlinked::Lost(loss),
                Step::Beat(number) => {
                    coherence.order(Order::Announce(payload::beat(coherence.node, number, coherence.is_strict())));
                    continue;
                }
            });
        }
        // The moment at which the proof ends is one to wake up at, to say so.
        if !coherence.note_lateness(now) {
            until = until.min(coherence.proven_until());
        }
        let event = tokio::select! {
            biased;
            event = events.recv() => event,
            () = coherence.broken.notified() => break Unlinked::Ended,
            () = sleep_until(clock.instant(until)) => continue,
            () = stop.cancelled() => {
                leave(coherence, events).await;
                break Unlinked::Stopped;
            }
        };
        match event {
            Some(LinkEvent::Heard(text)) => {
                let beat = coherence.hear(&text, clock.tick());
                if let Some(proven) = beat.and_then(|number| vigil.heard(number)) {
                    coherence.take_proof(proven.at, proven.first, clock.tick());
                }
            }
            Some(LinkEvent::Sent) => vigil.taken(clock.tick()),
            Some(LinkEvent::Left) => {}
            Some(event) => {
                if !tenure.take(coherence, &event, clock.tick()) {
                    break Unlinked::Lapsed;
                }
            }
            None => break Unlinked::Ended,
        }
    };
    *next_beat = vigil.next();
    ended
}

/// Gives the lease back, so that nobody waits for it.
async fn leave(coherence: &Coherence, events: &mut mpsc::Receiver<LinkEvent>) {
    if !coherence.is_strict() {
        return;
    }
    coherence.proof.withdraw();
    coherence.order(Order::Leave(coherence.node.0));
    let left = async { while events.recv().await.is_some_and(|event| event != LinkEvent::Left) {} };
    let _ = timeout(LEAVE_PATIENCE, left).await;
}

/// The time that a strict node spends on a link with a lease. Others need none.
struct Tenure {
    /// When the lease was asked for that has not been granted yet.
    asked: Option<Tick>,
    lease: Option<Lease>,
    /// How long no write may go, until the others are known.
    wait: Option<Duration>,
}

impl Tenure {
    fn begin(coherence: &Coherence, now: Tick) -> Self {
        let asked = coherence.is_strict().then_some(now);
        if asked.is_some() {
            coherence.order(Order::Enter(coherence.node.0, LEASE_MS));
        }
        Self { asked, lease: None, wait: None }
    }

    /// Whether heartbeats may prove anything.
    fn has_begun(&self) -> bool {
        self.asked.is_none()
    }

    /// Asks for what is due at `now`; when to be called again.
    fn step(&mut self, coherence: &Coherence, now: Tick) -> Result<Tick, Loss> {
        match (&mut self.lease, self.asked) {
            (Some(lease), _) => {
                if lease.asks(now) {
                    coherence.order(Order::Renew(coherence.node.0, LEASE_MS));
                }
                // One that is not renewed in time ends the proof by itself; the answer decides on the rest.
                Ok(if lease.due() > now { lease.due() } else { Tick::MAX / 2 })
            }
            (None, Some(asked)) if now >= asked + ENTER_PATIENCE => Err(Loss::Silent),
            (None, Some(asked)) => Ok(asked + ENTER_PATIENCE),
            (None, None) => Ok(Tick::MAX / 2),
        }
    }

    /// Takes in what the store says of leases; false if this node was without one.
    fn take(&mut self, coherence: &Coherence, event: &LinkEvent, now: Tick) -> bool {
        match event {
            LinkEvent::Entered(wait) => {
                let Some(asked) = self.asked.take() else { return true };
                let lease = Lease::granted(asked);
                coherence.lease_until.store(lease.until(), Ordering::Relaxed);
                self.lease = Some(lease);
                self.wait = Some(*wait);
                coherence.order(Order::Members);
            }
            LinkEvent::Renewed(granted) => {
                let Some(lease) = &mut self.lease else { return true };
                if !lease.renew(*granted, now) {
                    return false;
                }
                coherence.lease_until.store(lease.until(), Ordering::Relaxed);
            }
            LinkEvent::Members(nodes) => {
                let others = nodes.iter().map(|node| NodeId(*node)).filter(|node| *node != coherence.node).collect();
                let mut fleet = coherence.lock_fleet();
                match self.wait.take() {
                    Some(wait) => fleet.enter(others, now + wait.as_micros() as Tick),
                    None => fleet.learn(others),
                }
                drop(fleet);
                coherence.tell_news();
            }
            LinkEvent::Heard(_) | LinkEvent::Sent | LinkEvent::Left => {}
        }
        true
    }
}

impl Coherence {
    /// There is a link.
    fn take_orders(&self, orders: mpsc::Sender<Order>) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(orders);
    }

    /// A heartbeat sent at `at` has returned at `now`; `first`: on this link.
    fn take_proof(&self, at: Tick, first: bool, now: Tick) {
        if first {
            self.meet();
        }
        self.counts.proven.store(at, Ordering::Relaxed);
        self.prove(at);
        if now >= self.proven_until() {
            // It was so long under way that it proves nothing any more.
            return;
        }
        let before = *self.state.borrow();
        self.enter(State::Linked);
        match before {
            State::Linked => {}
            State::Late => tracing::info!("cache is used again: heartbeats return"),
            _ => tracing::info!(
                epoch = self.counts.epochs.load(Ordering::Relaxed),
                "cache is used: other daemons are heard"
            ),
        }
    }

    /// Until when the cache is proven current.
    fn proven_until(&self) -> Tick {
        self.counts.proven.load(Ordering::Relaxed) + self.config.max_staleness.as_micros() as Tick
    }

    /// Says so when the proof has run out. Reads know without.
    fn note_lateness(&self, now: Tick) -> bool {
        let linked = *self.state.borrow() == State::Linked;
        if linked && now >= self.proven_until() {
            self.enter(State::Late);
            tracing::warn!("cache is not used: no heartbeat within max_staleness");
        }
        *self.state.borrow() != State::Linked
    }
}

/// Says why there is no link, if that is news, and how long to wait before the next try.
fn explain(coherence: &Coherence, unlinked: &Unlinked) -> Duration {
    let before = *coherence.state.borrow();
    let (state, pause) = match unlinked {
        Unlinked::Stopped => return Duration::ZERO,
        Unlinked::Lost(Loss::Unheard) => (State::Unheard, SLOW_RETRY),
        Unlinked::Failed(error) if error.kind() == StoreErrorKind::ReadOnly => (State::Standby, RETRY),
        Unlinked::Failed(error) if error.is_permanent() => (State::Unreachable, SLOW_RETRY),
        Unlinked::Lapsed => (State::Unlinked, Duration::ZERO),
        Unlinked::Failed(_) | Unlinked::Ended | Unlinked::Lost(Loss::Silent) => (State::Unreachable, RETRY),
    };
    if state != before {
        match (state, unlinked) {
            (State::Unheard, _) => tracing::warn!(
                "cache is not used: notifications are swallowed on their way, as by a pooler of transactions; \
                 set coherence.listen_url"
            ),
            (_, Unlinked::Lapsed) => tracing::warn!("cache is not used: the lease was not renewed in time"),
            (State::Standby, _) => tracing::warn!("cache is not used: no server takes writes"),
            (_, Unlinked::Failed(error)) => {
                tracing::warn!(error = %Chain(error), "cache is not used: other daemons cannot be heard");
            }
            _ => tracing::warn!("cache is not used: the link to other daemons was lost"),
        }
    }
    coherence.enter(state);
    pause
}

/// Where nobody is heard: what is cached is forgotten before it reaches its greatest age.
async fn forget_by_age(coherence: &Coherence, clock: &Clock, stop: &CancellationToken) {
    let age = if coherence.proof.covers(clock.tick()) { None } else { coherence.config.max_age };
    let Some(age) = age else { return stop.cancelled().await };
    loop {
        let end = clock.tick() + age.as_micros() as Tick;
        coherence.cache.clear();
        coherence.proof.renew(end, end + coherence.config.serve_stale.as_micros() as Tick);
        tokio::select! {
            () = sleep_until(Instant::now() + age) => {}
            () = stop.cancelled() => return,
        }
    }
}
