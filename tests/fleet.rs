//! A fleet under faults: what clients of several daemons are told fits one key that changes in one order, either exactly (strict
//! mode) or with answers that are younger than the promised bound. `make soak` runs the same for long.

mod support;

use std::time::Duration;

use support::client::{encode, shown};
use support::fleet::{Fleet, Shape};
use support::process::show;
use support::proxy::Weather;
use support::rng::Rng;
use support::soak::{ALONE, DEFAULT, OFF, Outcome, Promise, Round, STRICT, Session, soak};
use support::wait_for;

/// Two rounds with faults keep the promise.
fn two_rounds(promise: Promise, test: &str) {
    let seed = Rng::seed(test);
    let mut session = Session::start(promise);
    for round in 0..2 {
        session.round(Round { seed: seed.wrapping_add(round), faults: true, seconds: 10 }).assert_right();
    }
}

#[test]
fn answers_under_faults_are_younger_than_the_bound() {
    two_rounds(DEFAULT, "answers_under_faults_are_younger_than_the_bound");
}

#[test]
fn strict_answers_under_faults_are_linearizable() {
    two_rounds(STRICT, "strict_answers_under_faults_are_linearizable");
}

/// Its commits go on the connection on which it listens, so they have each other's faults.
#[test]
fn a_daemon_alone_serves_what_it_acknowledged() {
    two_rounds(ALONE, "a_daemon_alone_serves_what_it_acknowledged");
}

/// A daemon whose own commit was done, but which has not been told so, may not go on serving what was there before.
#[test]
fn an_answer_that_does_not_come_hides_no_change() {
    // One connection, so that it has prepared before what the change needs: no answer can be awaited later.
    let settings = &[("outage.serve_stale", "0s"), ("postgres.connections", "1")];
    let fleet = Fleet::start(Shape { nodes: 2, mode: "on", settings, wrappers: &[] });
    let [a, b] = &fleet.nodes[..] else { panic!("there are two") };
    let (mut writer, mut reader, mut elsewhere) = (a.daemon.client(), a.daemon.client(), b.daemon.client());
    for (change, seen) in [("SET k 2", "$1\\r\\n2\\r\\n"), ("DEL k", "$-1\\r\\n")] {
        a.pool.set(Weather::Clear);
        wait_for("node A changes", || (!reader.line(change).starts_with(b"-")).then_some(()));
        wait_for("node A writes", || (reader.ask("SET k 1") == "+OK\\r\\n").then_some(()));
        wait_for("node A caches", || (reader.ask("GET k") == "$1\\r\\n1\\r\\n").then_some(()));
        wait_for("node B sees it", || (elsewhere.ask("GET k") == "$1\\r\\n1\\r\\n").then_some(()));
        a.pool.set(Weather::Deaf);
        writer.send(&encode(&change.split(' ').collect::<Vec<_>>()));
        wait_for("node B sees the change", || (elsewhere.ask("GET k") == seen).then_some(()));
        std::thread::sleep(Duration::from_secs(1));
        // Node A cannot ask the database: it may answer with an error, or later; but not with what was there.
        reader.send(&encode(&["GET", "k"]));
        let answer = reader.reply();
        assert!(answer.starts_with(b"-") || shown(&answer) == seen, "{change}: node A answers {}", shown(&answer));
        a.pool.set(Weather::Clear);
        writer.reply();
    }
}

/// Nobody waits for a strict daemon whose lease is over: what the others change from then on, it must not serve, however long an
/// outage might be bridged otherwise.
#[test]
fn a_strict_daemon_that_is_cut_off_answers_nothing_from_its_cache() {
    let settings = &[("outage.serve_stale", "1h")];
    let fleet = Fleet::start(Shape { nodes: 2, mode: "strict", settings, wrappers: &[] });
    let [a, b] = &fleet.nodes[..] else { panic!("there are two") };
    let (mut on_a, mut on_b) = (a.daemon.client(), b.daemon.client());
    wait_for("node A writes", || (on_a.ask("SET k 1") == "+OK\\r\\n").then_some(()));
    wait_for("node B answers from its cache", || {
        let hits = || b.daemon.metric("cloakroom_cache_hits_total", &[]);
        let before = hits();
        (on_b.ask("GET k") == "$1\\r\\n1\\r\\n" && hits() > before).then_some(())
    });
    b.set(Weather::Cut);
    wait_for("node A deletes", || (on_a.ask("DEL k") == ":1\\r\\n").then_some(()));
    let answer = on_b.ask("GET k");
    assert!(answer.starts_with('-'), "node B answers {answer}");
    b.set(Weather::Clear);
    wait_for("node B asks again", || (on_b.ask("GET k") == "$-1\\r\\n").then_some(()));
}

/// Without coherence daemons serve what others have changed: if that is not found, nothing is.
#[test]
fn the_judge_finds_daemons_that_do_not_listen() {
    let seed = Rng::seed("the_judge_finds_daemons_that_do_not_listen");
    let mut session = Session::start(OFF);
    let found = first_violation(&mut session, seed);
    show(&found.faults[0].text);
}

/// The default allows answers of the age of an announcement's way: not linearizable, and found to be so where the way is long.
#[test]
fn the_judge_finds_that_the_default_is_not_strict() {
    let seed = Rng::seed("the_judge_finds_that_the_default_is_not_strict");
    let mut session = Session::start(Promise { mode: DEFAULT.mode, ..STRICT });
    for node in &session.fleet.nodes {
        node.link.set(Weather::Slow(Duration::from_millis(50)));
    }
    let found = first_violation(&mut session, seed);
    assert!(found.worst_staleness < 1_000_000, "answers were up to {} µs old", found.worst_staleness);
}

/// Plays rounds without faults until one shows a violation. A single one may not: whether a daemon reads, while others write, a key
/// that it has cached without an expiry is up to the seed.
fn first_violation(session: &mut Session, seed: u64) -> Outcome {
    (0..10)
        .map(|round| session.round(Round { seed: seed.wrapping_add(round), faults: false, seconds: 4 }))
        .find(|outcome| outcome.faults.iter().any(|fault| fault.proven))
        .expect("stale answers are noticed in ten rounds")
}

#[test]
#[ignore = "runs for the minutes that CLOAKROOM_SOAK_MINUTES says: `make soak MINUTES=n`"]
fn soak_with_all_faults() {
    soak(Rng::seed("soak_with_all_faults"));
}
