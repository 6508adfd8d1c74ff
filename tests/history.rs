//! The judge of histories is judged: it accepts what is right, and finds each kind of violation that is planted.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as its body does")]

mod support;

use support::history::{Action, NEVER, Op, State, Told, step};
use support::linear::{Verdict, judge};
use support::rng::Rng;
use support::verdict::{faults, worst_staleness};

/// How far apart the clocks of daemons may be, in these tests.
const VAGUE: u64 = 10;

/// `node call ret action → reply`, times in µs; `?` as the end of what has none.
fn parse(line: &str, stale: u64) -> Op {
    let (request, reply) = line.split_once('→').unwrap();
    let words: Vec<&str> = request.split_whitespace().collect();
    let number = |at: usize| words[at].parse::<i64>().unwrap();
    let ttl = |at: usize| words.get(at).map(|word| word.parse::<u64>().unwrap());
    let action = match words[3] {
        "get" => Action::Get,
        "set" => Action::Set(number(4), ttl(5)),
        "setnx" => Action::SetNx(number(4), ttl(5)),
        "cas" => Action::Cas(number(4), number(5)),
        "del" => Action::Del,
        "getdel" => Action::GetDel,
        "expire" => Action::Expire(ttl(4)),
        "incr" => Action::IncrBy(number(4)),
        other => panic!("no such action: {other}"),
    };
    let told = match reply.trim() {
        "?" => Told::Nothing,
        "nil" => Told::Value(None),
        "done" => Told::Done(true),
        "not" => Told::Done(false),
        value => Told::Value(Some(value.parse().unwrap())),
    };
    let ret = words[2].parse().unwrap_or(NEVER);
    Op { key: 1, node: words[0].parse().unwrap(), call: words[1].parse().unwrap(), ret, stale, action, told }
}

fn history(text: &str, stale: u64) -> Vec<Op> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(|line| parse(line, stale)).collect()
}

#[track_caller]
fn check(text: &str, stale: u64, expected: Verdict) {
    assert_eq!(judge(&history(text, stale), VAGUE), expected, "stale {stale}:\n{text}");
}

#[test]
fn sequential_histories_follow_the_specification() {
    for (text, expected) in [
        ("", Verdict::Fits),
        ("0 0 1 get → nil", Verdict::Fits),
        ("0 0 1 get → 1", Verdict::Violated),
        ("0 0 1 set 7 → done\n0 2 3 get → 7", Verdict::Fits),
        ("0 0 1 set 7 → done\n0 2 3 get → 8", Verdict::Violated),
        ("0 0 1 set 7 → done\n0 2 3 get → nil", Verdict::Violated),
        ("0 0 1 setnx 7 → done\n0 2 3 setnx 8 → not\n0 4 5 get → 7", Verdict::Fits),
        ("0 0 1 setnx 7 → done\n0 2 3 setnx 8 → done", Verdict::Violated),
        ("0 0 1 setnx 7 → not", Verdict::Violated),
        ("0 0 1 set 7 → done\n0 2 3 del → done\n0 4 5 del → not\n0 6 7 get → nil", Verdict::Fits),
        ("0 0 1 set 7 → done\n0 2 3 del → not", Verdict::Violated),
        ("0 0 1 set 7 → done\n0 2 3 getdel → 7\n0 4 5 getdel → nil", Verdict::Fits),
        ("0 0 1 set 7 → done\n0 2 3 getdel → 7\n0 4 5 getdel → 7", Verdict::Violated),
        ("0 0 1 incr 5 → 5\n0 2 3 incr 5 → 10\n0 4 5 get → 10", Verdict::Fits),
        ("0 0 1 incr 5 → 5\n1 2 3 incr 5 → 5", Verdict::Violated),
        ("0 0 1 set 7 → done\n0 2 3 cas 7 8 → done\n0 4 5 cas 7 9 → not\n0 6 7 get → 8", Verdict::Fits),
        ("0 0 1 set 7 → done\n0 2 3 cas 7 8 → done\n0 4 5 cas 7 9 → done", Verdict::Violated),
        ("0 0 1 cas 7 8 → not\n0 2 3 get → nil", Verdict::Fits),
    ] {
        check(text, 0, expected);
    }
}

#[test]
fn concurrent_operations_may_take_effect_in_any_order() {
    check("0 0 9 set 1 → done\n1 0 9 set 2 → done\n2 10 11 get → 1", 0, Verdict::Fits);
    check("0 0 9 set 1 → done\n1 0 9 set 2 → done\n2 10 11 get → 2", 0, Verdict::Fits);
    // Both reads come after both writes: they must agree.
    check("0 0 9 set 1 → done\n1 0 9 set 2 → done\n2 10 11 get → 1\n2 12 13 get → 2", 0, Verdict::Violated);
    // A read beside a write sees either; once new was seen, old is no longer.
    check("0 0 1 set 1 → done\n0 2 9 set 2 → done\n1 3 4 get → 1\n2 5 6 get → 2", 0, Verdict::Fits);
    check("0 0 1 set 1 → done\n0 2 9 set 2 → done\n1 3 4 get → 2\n2 5 6 get → 1", 0, Verdict::Violated);
}

#[test]
fn an_unknown_outcome_takes_effect_late_or_never_but_once() {
    check("0 0 1 set 1 → done\n0 2 ? set 2 → ?\n1 10 11 get → 1\n1 90 91 get → 2", 0, Verdict::Fits);
    check("0 0 1 set 1 → done\n0 2 ? set 2 → ?\n1 10 11 get → 1", 0, Verdict::Fits);
    check("0 0 1 set 1 → done\n0 2 ? set 2 → ?\n1 10 11 get → 2\n1 12 13 get → 1", 0, Verdict::Violated);
    check("0 0 1 set 1 → done\n0 2 ? incr 5 → ?\n1 10 11 get → 6\n1 12 13 get → 11", 0, Verdict::Violated);
    check("0 0 1 set 1 → done\n0 2 ? del → ?\n1 10 11 setnx 3 → done\n1 12 13 get → 3", 0, Verdict::Fits);
    // Not before it was called.
    check("1 0 1 get → 2\n0 2 ? set 2 → ?", 0, Verdict::Violated);
}

#[test]
fn a_stale_answer_is_younger_than_the_bound() {
    let text = "0 0 10 set 1 → done\n0 20 30 set 2 → done\n1 130 131 get → 1";
    check(text, 0, Verdict::Violated);
    check(text, 99, Verdict::Violated);
    check(text, 100, Verdict::Fits);
    // A deleted key is not brought back beyond the bound.
    let text = "0 0 10 set 1 → done\n0 20 30 del → done\n1 130 131 get → 1";
    check(text, 99, Verdict::Violated);
    check(text, 100, Verdict::Fits);
    // An absence can be stale as well.
    let text = "1 0 10 get → nil\n0 20 30 set 1 → done\n1 130 131 get → nil";
    check(text, 99, Verdict::Violated);
    check(text, 100, Verdict::Fits);
    // Two stale answers need not be in order, but a value that never was is never right.
    check("0 0 1 set 1 → done\n0 2 3 set 2 → done\n1 4 5 get → 2\n1 6 7 get → 1", 50, Verdict::Fits);
    check("0 0 1 set 1 → done\n0 2 3 set 2 → done\n1 4 5 get → 3", 50, Verdict::Violated);
    // A change is decided by the store: it is never stale.
    check("0 0 1 set 1 → done\n0 2 3 set 2 → done\n1 4 5 cas 1 9 → done", 50, Verdict::Violated);
    check("0 0 1 set 1 → done\n0 2 3 set 2 → done\n1 4 5 incr 1 → 2", 50, Verdict::Violated);
    check("0 0 1 set 1 → done\n0 2 3 del → done\n1 4 5 setnx 1 → not", 50, Verdict::Violated);
}

#[test]
fn a_daemon_knows_what_it_acknowledged_itself() {
    check("0 0 1 set 1 → done\n0 2 3 set 2 → done\n1 4 5 get → 1", 50, Verdict::Fits);
    check("0 0 1 set 1 → done\n0 2 3 set 2 → done\n0 4 5 get → 1", 50, Verdict::Violated);
    check("0 0 1 set 1 → done\n0 2 3 del → done\n0 4 5 get → 1", 50, Verdict::Violated);
    check("0 0 1 set 1 → done\n0 2 5 del → done\n0 4 6 get → 1", 50, Verdict::Fits);
}

#[test]
fn expiry_is_exact_but_for_the_clocks() {
    let set = "0 0 2 set 1 100 → done\n";
    for (read, expected) in [
        ("1 85 89 get → 1", Verdict::Fits),
        ("1 85 89 get → nil", Verdict::Violated),
        ("1 95 96 get → 1", Verdict::Fits),
        ("1 95 96 get → nil", Verdict::Fits),
        ("1 112 113 get → 1", Verdict::Fits),
        ("1 113 114 get → 1", Verdict::Violated),
        ("1 113 114 get → nil", Verdict::Fits),
    ] {
        check(&format!("{set}{read}"), 0, expected);
        // A cache knows the expiry of what it has: staleness is no excuse.
        check(&format!("{set}{read}"), 50, expected);
    }
    check(&format!("{set}0 10 11 set 2 → done\n1 200 201 get → 2"), 0, Verdict::Fits);
    check(&format!("{set}0 10 11 incr 1 → 2\n1 200 201 get → 2"), 0, Verdict::Violated);
    check(&format!("{set}0 10 11 expire → done\n1 200 201 get → 1"), 0, Verdict::Fits);
    check(&format!("{set}0 10 11 expire 500 → done\n1 300 301 get → 1\n1 600 601 get → nil"), 0, Verdict::Fits);
    check(&format!("{set}0 200 201 setnx 2 → not"), 0, Verdict::Violated);
    check(&format!("{set}0 200 201 incr 5 → 5"), 0, Verdict::Fits);
    check(&format!("{set}0 200 201 expire → done"), 0, Verdict::Violated);
    // Beside a write, it matters on which side of it the expiry was changed, even where that changes nothing.
    let beside = "0 0 1 set 1 → done\n0 2 9 set 2 100 → done\n1 3 12 expire → done\n";
    check(&format!("{beside}1 200 201 get → 2"), 0, Verdict::Fits);
    check(&format!("{beside}1 200 201 get → nil"), 0, Verdict::Fits);
    check(&format!("{beside}1 200 201 get → 2\n1 202 203 get → nil"), 0, Verdict::Violated);
    // An expiry that another daemon has put off looks past to a stale cache.
    check(&format!("{set}0 60 61 expire → done\n1 104 105 get → nil"), 50, Verdict::Fits);
    check(&format!("{set}0 60 61 expire → done\n1 120 121 get → nil"), 50, Verdict::Violated);
    check("0 0 1 set 1 → done\n0 2 3 expire 50 → done\n1 90 91 get → 1", 40, Verdict::Violated);
    check("0 0 1 set 1 → done\n0 2 3 expire 50 → done\n1 90 91 get → 1", 90, Verdict::Fits);
}

#[test]
fn what_is_left_of_a_violation_is_short() {
    let mut ops = simulated(&mut Rng::new(7), 2_000, 0);
    assert!(faults(&ops, VAGUE).is_empty());
    let wrong = (1_500..ops.len()).find(|at| ops[*at].action == Action::Get && ops[*at].told != Told::Nothing).unwrap();
    ops[wrong].told = Told::Value(Some(-1));
    let found = faults(&ops, VAGUE);
    assert!(found.len() == 1 && found[0].proven);
    let lines = found[0].text.lines().filter(|line| line.contains("  GET →")).count();
    assert!(lines <= 3 && found[0].text.contains("GET → -1"), "{}", found[0].text);
}

#[test]
fn the_age_of_the_stalest_answer_is_measured() {
    let ops = history("0 0 10 set 1 → done\n0 20 30 set 2 → done\n1 25 26 get → 1\n1 130 131 get → 1", 0);
    assert_eq!(worst_staleness(&ops), 100);
    let ops = history("0 0 10 set 1 → done\n0 20 30 set 2 → done\n1 25 40 get → 1\n1 130 131 get → 2", 0);
    assert_eq!(worst_staleness(&ops), 0);
    let ops = history("0 0 10 set 1 → done\n0 20 30 del → done\n1 50 60 get → 1", 0);
    assert_eq!(worst_staleness(&ops), 20);
}

/// Histories that are right by construction, some with answers from the past, are accepted; made wrong, they are refused.
#[test]
fn random_histories_are_judged_rightly() {
    let seed = Rng::seed("random_histories_are_judged_rightly");
    let mut rng = Rng::new(seed);
    let mut refused = 0;
    for _ in 0..300 {
        let stale = [0, 0, 200, 2_000][rng.below(4)];
        let mut ops = simulated(&mut rng, 150, stale);
        assert_eq!(judge(&ops, 0), Verdict::Fits, "{ops:#?}");
        if stale > 0 {
            let exact: Vec<Op> = ops.iter().map(|op| Op { stale: 0, ..*op }).collect();
            refused += usize::from(judge(&exact, 0) == Verdict::Violated);
        }
        // A value that nobody wrote.
        let reads: Vec<usize> = (0..ops.len()).filter(|at| ops[*at].action == Action::Get).collect();
        if let Some(at) = reads.get(rng.below(reads.len().max(1))) {
            ops[*at].told = Told::Value(Some(-5));
            assert_eq!(judge(&ops, 0), Verdict::Violated);
        }
    }
    assert!(refused > 50, "histories with stale answers are not linearizable: {refused}");
}

/// `count` operations of three daemons' clients that take effect at a random moment within their time; reads may answer
/// from a state that was current up to `stale` before their call, unless their own daemon acknowledged a change since.
fn simulated(rng: &mut Rng, count: usize, stale: u64) -> Vec<Op> {
    let mut states = vec![(0, State::ABSENT)];
    let mut acknowledged = [0_u64; 3];
    let mut free = [0_u64; 6];
    let mut ops: Vec<(u64, Op)> = Vec::new();
    for number in 0..count {
        let client = rng.below(6);
        let call = free[client] + 1 + rng.below(40) as u64;
        let ret = call + 2 + rng.below(100) as u64;
        let effect = call + 1 + rng.below((ret - call - 1) as usize) as u64;
        free[client] = ret;
        let action = match rng.below(10) {
            0 => Action::Set(number as i64 * 1_000 + 1, None),
            1 => Action::SetNx(number as i64 * 1_000 + 1, None),
            2 => Action::Del,
            3 => Action::IncrBy(1 + rng.below(3) as i64),
            4 => Action::GetDel,
            5 => Action::Cas(number as i64 * 1_000 - 999, number as i64 * 1_000 + 1),
            _ => Action::Get,
        };
        let op = Op { key: 1, node: (client % 3) as u8, call, ret, stale, action, told: Told::Nothing };
        ops.push((effect, op));
    }
    // Decided in the order in which they take effect; distinct, so that the order is the one of the states.
    ops.sort_by_key(|(effect, op)| (*effect, op.call));
    for (effect, op) in &mut ops {
        let now = states.last().unwrap().1;
        let own = acknowledged[usize::from(op.node)];
        let mut seen = now;
        if op.action == Action::Get && rng.one_in(2) {
            let moment = (op.call.saturating_sub(stale)).max(own.min(op.call)).max(1);
            let choices: Vec<State> = (0..states.len())
                .filter(|at| states.get(at + 1).is_none_or(|next| next.0 > moment))
                .map(|at| states[at].1)
                .collect();
            seen = choices[rng.below(choices.len())];
        }
        let answers = [
            Told::Value(seen.value),
            Told::Value(seen.value.map(|value| value + added(op.action)).or(Some(added(op.action)))),
            Told::Done(true),
            Told::Done(false),
        ];
        let answer = |told: &Told| {
            step(seen, &Op { told: *told, ..*op }, 0).into_iter().flatten().next().map(|next| (*told, next))
        };
        let fitting = if matches!(op.action, Action::IncrBy(_)) { &answers[1..2] } else { &answers[..] };
        let (told, next) = fitting.iter().find_map(answer).unwrap();
        op.told = told;
        if next != seen || op.changed() {
            states.push((*effect, next));
        }
        if op.changed() {
            let own = &mut acknowledged[usize::from(op.node)];
            *own = (*own).max(op.ret);
        }
        if op.changed() && rng.one_in(50) {
            op.told = Told::Nothing;
            op.ret = NEVER;
        }
    }
    ops.into_iter().map(|(_, op)| op).collect()
}

fn added(action: Action) -> i64 {
    if let Action::IncrBy(by) = action { by } else { 0 }
}
