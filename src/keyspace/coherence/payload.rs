//! What daemons say to each other, as text. Pure. What cannot be understood is not an error here: whoever hears it forgets
//! everything, so that a newer daemon, or an administrator's plain `NOTIFY cloakroom`, is taken seriously.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;

use crate::store::link::MAX_ANNOUNCEMENT;

/// The first byte of everything that this version says.
const VERSION: u8 = 1;

/// Bytes before the hashes: version, kind, node, number.
const HEADER: usize = 1 + 1 + 8 + 8;

/// Hashes that fit into one text.
const HASHES: usize = (MAX_ANNOUNCEMENT / 4 * 3 - HEADER) / 8;

/// A change of more keys than this is announced as one of all keys.
pub const MAX_HASHES: usize = 4096;

/// One run of a daemon; random, so that two are never the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub u64);

/// Some keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Those with these hashes.
    Some(Vec<u64>),
    /// All.
    All,
}

/// Something said by a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who said it.
    pub node: NodeId,
    /// Numbers what the node says, by kind.
    pub number: u64,
    /// What.
    pub body: Body,
}

/// See [`Message`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The node hears itself: all that was committed before has been heard. And whether it is a strict node.
    Beat(bool),
    /// The batch of this number has changed these keys.
    Change(Keys),
    /// The batch of this number is about to change these keys.
    Fence(Keys),
    /// The batch of this number, of the node named here, may go on: this node caches nothing of its keys.
    Acknowledge(NodeId),
    /// The batch of this number changes nothing more.
    Lift,
}

const BEAT: u8 = 1;
const CHANGE: u8 = 2;
const CHANGE_ALL: u8 = 3;
const STRICT_BEAT: u8 = 4;
const FENCE: u8 = 5;
const FENCE_ALL: u8 = 6;
const ACKNOWLEDGE: u8 = 7;
const LIFT: u8 = 8;

/// The text of a heartbeat.
#[must_use]
pub fn beat(node: NodeId, number: u64, strict: bool) -> String {
    encode(if strict { STRICT_BEAT } else { BEAT }, node, number, &[])
}

/// The text that asks for a fence around keys (`None`: all). It is one text, so that one acknowledgement answers it.
#[must_use]
pub fn fence(node: NodeId, number: u64, hashes: Option<&[u64]>) -> String {
    match hashes {
        Some(hashes) if hashes.len() <= HASHES => encode(FENCE, node, number, hashes),
        _ => encode(FENCE_ALL, node, number, &[]),
    }
}

/// The text that acknowledges the fence of another's batch.
#[must_use]
pub fn acknowledge(node: NodeId, number: u64, owner: NodeId) -> String {
    encode(ACKNOWLEDGE, node, number, &[owner.0])
}

/// The text that lifts what is left of a batch's fence.
#[must_use]
pub fn lift(node: NodeId, number: u64) -> String {
    encode(LIFT, node, number, &[])
}

/// The texts that announce the change of keys (`None`: of all).
#[must_use]
pub fn change(node: NodeId, number: u64, hashes: Option<&[u64]>) -> Vec<String> {
    match hashes {
        Some(hashes) if hashes.len() <= MAX_HASHES => {
            hashes.chunks(HASHES).map(|chunk| encode(CHANGE, node, number, chunk)).collect()
        }
        _ => vec![encode(CHANGE_ALL, node, number, &[])],
    }
}

fn encode(kind: u8, node: NodeId, number: u64, hashes: &[u64]) -> String {
    let mut bytes = Vec::with_capacity(HEADER + hashes.len() * 8);
    bytes.extend([VERSION, kind]);
    bytes.extend(node.0.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.extend(hashes.iter().flat_map(|hash| hash.to_be_bytes()));
    BASE64.encode(bytes)
}

/// What a text says; `None` if it is not of this version.
#[must_use]
pub fn decode(text: &str) -> Option<Message> {
    let bytes = BASE64.decode(text).ok()?;
    let (header, rest) = bytes.split_at_checked(HEADER)?;
    let (start, header) = header.split_at_checked(2)?;
    let mut words = header.chunks_exact(8).map(word);
    let (node, number) = (NodeId(words.next()?), words.next()?);
    let body = match *start {
        [VERSION, kind @ (BEAT | STRICT_BEAT)] if rest.is_empty() => Body::Beat(kind == STRICT_BEAT),
        [VERSION, CHANGE_ALL] if rest.is_empty() => Body::Change(Keys::All),
        [VERSION, CHANGE] => Body::Change(Keys::Some(words_of(rest)?)),
        [VERSION, FENCE_ALL] if rest.is_empty() => Body::Fence(Keys::All),
        [VERSION, FENCE] => Body::Fence(Keys::Some(words_of(rest)?)),
        [VERSION, ACKNOWLEDGE] if rest.len() == 8 => Body::Acknowledge(NodeId(word(rest))),
        [VERSION, LIFT] if rest.is_empty() => Body::Lift,
        _ => return None,
    };
    Some(Message { node, number, body })
}

fn words_of(bytes: &[u8]) -> Option<Vec<u64>> {
    bytes.len().is_multiple_of(8).then(|| bytes.chunks_exact(8).map(word).collect())
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_said_is_heard(node: u64, number: u64, hashes in prop::collection::vec(any::<u64>(), 0..3000)) {
            let node = NodeId(node);
            let texts = change(node, number, Some(&hashes));
            let mut heard = Vec::new();
            for text in &texts {
                prop_assert!(text.len() <= MAX_ANNOUNCEMENT);
                let message = decode(text).unwrap();
                prop_assert_eq!((message.node, message.number), (node, number));
                let Body::Change(Keys::Some(some)) = message.body else { panic!("a change of some keys") };
                heard.extend(some);
            }
            prop_assert_eq!(&heard, &hashes);
            let keys = if hashes.len() <= HASHES { Keys::Some(hashes.clone()) } else { Keys::All };
            for (text, body) in [
                (beat(node, number, true), Body::Beat(true)),
                (beat(node, number, false), Body::Beat(false)),
                (fence(node, number, Some(&hashes)), Body::Fence(keys)),
                (fence(node, number, None), Body::Fence(Keys::All)),
                (acknowledge(node, number, NodeId(!number)), Body::Acknowledge(NodeId(!number))),
                (lift(node, number), Body::Lift),
            ] {
                prop_assert!(text.len() <= MAX_ANNOUNCEMENT);
                prop_assert_eq!(decode(&text), Some(Message { node, number, body }));
            }
        }

        #[test]
        fn any_text_is_survived(text: String, bytes: Vec<u8>) {
            let _ = decode(&text);
            let _ = decode(&BASE64.encode(bytes));
        }
    }

    #[test]
    fn many_keys_are_all_keys() {
        let node = NodeId(1);
        let all = Some(Message { node, number: 7, body: Body::Change(Keys::All) });
        for hashes in [None, Some(vec![0; MAX_HASHES + 1])] {
            let texts = change(node, 7, hashes.as_deref());
            assert_eq!(texts.iter().map(|text| decode(text)).collect::<Vec<_>>(), std::slice::from_ref(&all));
        }
        assert!(change(node, 7, Some(&[])).is_empty());
        assert!(change(node, 7, Some(&vec![u64::MAX; MAX_HASHES])).len() <= 6);
    }

    #[test]
    fn what_is_not_ours_is_not_understood() {
        for text in ["", "all", "AgEAAAAAAAAAAAAAAAAAAAAA", "!", "AQEAAAAAAAAA"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
