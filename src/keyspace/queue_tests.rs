//! The queue: what goes together, what waits, and that the order of each key holds however batches are taken.

use proptest::prelude::*;

use super::*;
use crate::entry::{Applied, Key, KeyHasher, Kind, Mutation};

const LIMITS: QueueLimits = QueueLimits { max_waiting_bytes: 1 << 20, max_batch_rows: 8, max_batch_bytes: 4096 };

fn key(number: u8) -> Key {
    Key::new(&KeyHasher::new(&[1; 16]), 0, vec![number].into())
}

fn put(number: u8, value: &[u8]) -> Mutation {
    let change = Change::Put { kind: Kind::String, value: value.into(), expires_at: None };
    Mutation { key: key(number), expect: Expect::Any, change }
}

fn delete(number: u8) -> Mutation {
    Mutation { key: key(number), expect: Expect::Any, change: Change::Delete }
}

fn submit(queue: &mut Queue, group: Group) -> oneshot::Receiver<Written> {
    let (done, written) = oneshot::channel();
    assert!(queue.push(Submission { group, seen: Vec::new(), done }).is_ok());
    written
}

fn rows(batch: &Batch) -> Vec<Vec<u8>> {
    batch.groups.iter().map(|group| group.iter().map(|mutation| mutation.key.name()[0]).collect()).collect()
}

#[test]
fn what_has_gathered_goes_together() {
    let mut queue = Queue::new(LIMITS);
    assert!(queue.take().is_none());
    for number in 0..3 {
        submit(&mut queue, vec![put(number, b"v")]);
    }
    assert_eq!(queue.rows(), 3);
    assert_eq!(rows(&queue.take().expect("three wait")), [[0], [1], [2]]);
    assert_eq!((queue.rows(), queue.bytes(), queue.len()), (0, 0, 0));
}

#[test]
fn a_key_in_flight_waits_and_holds_back_later_writes_of_the_same_keys() {
    let mut queue = Queue::new(LIMITS);
    submit(&mut queue, vec![put(1, b"v")]);
    let first = queue.take().expect("one waits");
    submit(&mut queue, vec![delete(1), delete(2)]);
    submit(&mut queue, vec![put(2, b"v")]);
    submit(&mut queue, vec![put(3, b"v")]);
    assert_eq!(rows(&queue.take().expect("key 3 is free")), [[3]]);
    assert!(queue.take().is_none());
    queue.release(first.hashes());
    assert_eq!(rows(&queue.take().expect("key 1 is free")), [[1, 2]]);
}

#[test]
fn a_blind_put_replaces_an_earlier_one_of_the_batch() {
    let mut queue = Queue::new(LIMITS);
    let mut waiting: Vec<_> = (0..3).map(|turn| submit(&mut queue, vec![put(1, &[turn])])).collect();
    submit(&mut queue, vec![delete(1)]);
    submit(&mut queue, vec![put(1, b"late")]);
    let batch = queue.take().expect("four wait");
    assert_eq!((rows(&batch), batch.submissions), (vec![vec![1]], 3));
    let Change::Put { value, .. } = &batch.groups[0][0].change else { panic!("a put") };
    assert_eq!(&**value, [2]);
    let answer = Ok(Outcome::Applied(vec![Applied { version: 9, existed: false }]));
    assert_eq!((batch.waiting.len(), batch.absorbed.len()), (1, 2));
    for done in batch.waiting.into_iter().chain(batch.absorbed.into_iter().map(|(_, done)| done)) {
        assert!(done.send(answer.clone()).is_ok());
    }
    for written in &mut waiting {
        assert_eq!(written.try_recv(), Ok(answer.clone()));
    }
    assert_eq!(queue.len(), 2, "the delete and the put after it wait for the batch");
}

#[test]
fn batches_and_the_queue_are_bounded() {
    let mut queue = Queue::new(LIMITS);
    for number in 0..20 {
        submit(&mut queue, vec![put(number, b"v")]);
    }
    let sizes: Vec<_> = std::iter::from_fn(|| queue.take().map(|batch| batch.rows)).collect();
    assert_eq!(sizes, [8, 8, 4]);

    let mut queue = Queue::new(LIMITS);
    submit(&mut queue, vec![put(1, &[0; 5000])]);
    submit(&mut queue, vec![put(2, b"v")]);
    assert_eq!(rows(&queue.take().expect("a large group goes alone")), [[1]]);

    let mut queue = Queue::new(QueueLimits { max_waiting_bytes: 1000, ..LIMITS });
    submit(&mut queue, vec![put(1, &[0; 5000])]);
    let (done, _) = oneshot::channel();
    assert!(queue.push(Submission { group: vec![put(2, b"v")], seen: Vec::new(), done }).is_err());
}

/// A write of the model: its keys, and whether it is a lone blind put.
fn writes() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
    let one = (0..5_u8, any::<bool>()).prop_map(|(number, blind)| (vec![number], blind));
    let two = (0..5_u8, 1..5_u8).prop_map(|(first, distance)| (vec![first, (first + distance) % 5], false));
    proptest::collection::vec(prop_oneof![3 => one, 1 => two], 1..40)
}

proptest! {
    /// However batches are taken and released, each key sees its writes in the order of their submission, no key is in
    /// two batches at once, and every write is answered exactly once.
    #[test]
    fn order_per_key_holds(writes in writes(), releases in proptest::collection::vec(any::<bool>(), 80)) {
        let mut queue = Queue::new(LIMITS);
        let total = writes.len();
        for (turn, (keys, blind)) in writes.iter().enumerate() {
            let turn = [u8::try_from(turn).expect("at most 40")];
            let group = match (keys.as_slice(), blind) {
                ([one], true) => vec![put(*one, &turn)],
                (keys, _) => keys.iter().map(|number| Mutation { expect: Expect::Present, ..put(*number, &turn) }).collect(),
            };
            drop(submit(&mut queue, group));
        }
        let mut seen: HashMap<u8, u8> = HashMap::new();
        let (mut flying, mut answered): (Vec<Batch>, usize) = (Vec::new(), 0);
        let mut releases = releases.into_iter().cycle();
        while !queue.is_empty() || !flying.is_empty() {
            match queue.take() {
                Some(batch) => {
                    for other in &flying {
                        prop_assert!(batch.hashes().all(|hash| other.hashes().all(|busy| busy != hash)));
                    }
                    for mutation in batch.groups.iter().flatten() {
                        let Change::Put { value, .. } = &mutation.change else { unreachable!("all are puts") };
                        let last = seen.insert(mutation.key.name()[0], value[0]);
                        prop_assert!(last.is_none_or(|last| last < value[0]), "{last:?} then {}", value[0]);
                    }
                    answered += batch.waiting.len() + batch.absorbed.len();
                    flying.push(batch);
                }
                None => {
                    let batch = flying.remove(0);
                    queue.release(batch.hashes());
                }
            }
            if releases.next().expect("cycles") && !flying.is_empty() {
                let batch = flying.remove(0);
                queue.release(batch.hashes());
            }
        }
        prop_assert_eq!(answered, total);
    }
}
