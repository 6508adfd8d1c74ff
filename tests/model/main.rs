//! The coherence protocol as a model that is explored exhaustively: every order of messages, faults and ticks of time
//! within small bounds. The whole protocol has no violation; and for each of its guards the same model without that guard
//! has one, so that none of them is there for show and the model can see what it is to prevent.
//!
//! Nothing here imports the crate: this is the protocol's argument, not its code.
#![allow(missing_docs, unreachable_pub, reason = "tests")]

mod relaxed;
mod strict;

use stateright::{Checker, HasDiscoveries, Model};

/// Explores all of `model`: each claim must hold, and each situation that it is about must come up.
fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + Clone + PartialEq + std::fmt::Debug + Send + Sync,
    M::Action: Clone + PartialEq + std::fmt::Debug + Send + Sync,
{
    let checker = model.checker().threads(2).spawn_bfs().join();
    tell(&format!("{name}: {} states", checker.unique_state_count()));
    checker.assert_properties();
}

/// Explores `model` until a claim is violated, which must happen; the shortest way there is shown.
fn is_broken<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + Clone + PartialEq + std::fmt::Debug + Send + Sync,
    M::Action: Clone + PartialEq + std::fmt::Debug + Send + Sync,
{
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let claims = checker.model().properties();
    let is_claim =
        |name: &str| claims.iter().any(|c| c.name == name && c.expectation == stateright::Expectation::Always);
    let found = checker.discoveries().into_iter().find(|(claim, _)| is_claim(claim));
    let Some((claim, path)) = found else {
        panic!("without the guard {name} nothing goes wrong in {} states", checker.unique_state_count());
    };
    let steps: Vec<String> = path.into_actions().iter().map(|action| format!("{action:?}")).collect();
    tell(&format!("without {name}, not \"{claim}\": {}", steps.join(", ")));
}

/// What was explored is the test's report.
#[expect(clippy::print_stdout, reason = "shown by `cargo test -- --nocapture`")]
fn tell(text: &str) {
    println!("{text}");
}
