//! How a hash lies in an entry's value, and how it is changed. Pure: it knows no commands and no keys.
//!
//! The encoding is stored, so it never changes its meaning: a byte with the number of the format (1), then each field
//! with its value in the order in which the fields came, each of the two as its length (LEB128: seven bits a byte, the
//! lowest first) and its bytes. A field occurs once, and a hash without fields is not stored.

use std::borrow::Cow;
use std::hash::RandomState;

use indexmap::IndexMap;

use crate::resp::error::ErrorReply;

/// The only format so far.
const FORMAT: u8 = 1;

/// The most bytes of a length.
const MAX_LENGTH_BYTES: u32 = 5;

/// A hash that is being read or changed, in the order in which its fields came.
#[derive(Clone, Debug, Default)]
pub(super) struct Hash<'a> {
    /// Fields are chosen by clients, hence the hasher with a random key.
    fields: IndexMap<Cow<'a, [u8]>, Cow<'a, [u8]>, RandomState>,
    changed: bool,
}

impl<'a> Hash<'a> {
    /// The hash in a value.
    ///
    /// # Errors
    /// [`ErrorReply::Internal`] if the bytes are no hash: somebody else wrote them.
    pub(super) fn decode(encoded: &'a [u8]) -> Result<Self, ErrorReply> {
        let mut hash = Self::default();
        for pair in Pairs::of(encoded)? {
            let (field, value) = pair?;
            hash.fields.insert(Cow::Borrowed(field), Cow::Borrowed(value));
        }
        Ok(hash)
    }

    /// The value that holds this hash.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(self.encoded_len());
        encoded.push(FORMAT);
        for part in self.fields.iter().flat_map(|(field, value)| [field, value]) {
            put_length(part.len(), &mut encoded);
            encoded.extend_from_slice(part);
        }
        encoded
    }

    /// Bytes that the encoded hash takes.
    pub(super) fn encoded_len(&self) -> usize {
        let part = |bytes: &[u8]| length_len(bytes.len()) + bytes.len();
        1 + self.fields.iter().map(|(field, value)| part(field) + part(value)).sum::<usize>()
    }

    /// Sets a field; whether it is new.
    pub(super) fn set(&mut self, field: Vec<u8>, value: Vec<u8>) -> bool {
        let before = self.fields.get(&field[..]).map(|held| **held == value);
        if before != Some(true) {
            self.fields.insert(Cow::Owned(field), Cow::Owned(value));
            self.changed = true;
        }
        before.is_none()
    }

    /// Removes a field; whether it was there. The others keep their order.
    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let was_there = self.fields.shift_remove(field).is_some();
        self.changed |= was_there;
        was_there
    }

    /// The value of a field.
    pub(super) fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields.get(field).map(|value| &**value)
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether it is another hash than the one that was decoded.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }
}

/// The value of one field of an encoded hash, found without building the hash.
pub(super) fn find<'a>(encoded: &'a [u8], field: &[u8]) -> Result<Option<&'a [u8]>, ErrorReply> {
    for pair in Pairs::of(encoded)? {
        let (name, value) = pair?;
        if name == field {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A field and its value.
pub(super) type Pair<'a> = (&'a [u8], &'a [u8]);

/// Walks through the fields of an encoded hash. After an error it ends.
pub(super) struct Pairs<'a> {
    rest: &'a [u8],
}

impl<'a> Pairs<'a> {
    /// The fields of an encoded hash.
    pub(super) fn of(encoded: &'a [u8]) -> Result<Self, ErrorReply> {
        match encoded.split_first() {
            Some((&FORMAT, rest)) => Ok(Self { rest }),
            _ => Err(ErrorReply::Internal),
        }
    }

    fn part(&mut self) -> Option<&'a [u8]> {
        let length = take_length(&mut self.rest)?;
        let (part, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(part)
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<Pair<'a>, ErrorReply>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let pair = self.part().and_then(|field| Some((field, self.part()?)));
        if pair.is_none() {
            self.rest = &[];
        }
        Some(pair.ok_or(ErrorReply::Internal))
    }
}

fn put_length(mut length: usize, out: &mut Vec<u8>) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn length_len(length: usize) -> usize {
    (length.max(1).ilog2() / 7 + 1) as usize
}

fn take_length(bytes: &mut &[u8]) -> Option<usize> {
    let mut length = 0;
    for place in 0..MAX_LENGTH_BYTES {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(length);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(pairs: &[(Vec<u8>, Vec<u8>)]) -> Hash<'static> {
        let mut hash = Hash::default();
        for (field, value) in pairs {
            hash.set(field.clone(), value.clone());
        }
        hash
    }

    #[test]
    fn the_encoding_is_stable() {
        let long = vec![b'x'; 300];
        let pairs = [(b"name".to_vec(), b"ada".to_vec()), (Vec::new(), Vec::new()), (b"long".to_vec(), long.clone())];
        let expected = [&b"\x01\x04name\x03ada\x00\x00\x04long\xac\x02"[..], &long].concat();
        assert_eq!(of(&pairs).encode(), expected);
        assert_eq!(find(&expected, b"long"), Ok(Some(&long[..])));
        assert_eq!(find(&expected, b""), Ok(Some(&b""[..])));
        assert_eq!(find(&expected, b"nope"), Ok(None));
    }

    #[test]
    fn broken_bytes_are_an_error_and_no_panic() {
        for broken in [
            &b""[..],
            b"\x00",
            b"\x02",
            b"\x01\x05name",
            b"\x01\x04name",
            b"\x01\x80",
            b"\x01\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert_eq!(Hash::decode(broken).map(|hash| hash.is_empty()), Err(ErrorReply::Internal), "{broken:?}");
        }
        assert_eq!(Hash::decode(b"\x01").map(|hash| hash.is_empty()), Ok(true));
    }

    #[test]
    fn lengths_are_counted_as_they_are_written() {
        for length in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, 0x1f_ffff, 0x20_0000, 0x0fff_ffff, 0x1000_0000] {
            let mut encoded = Vec::new();
            put_length(length, &mut encoded);
            assert_eq!(encoded.len(), length_len(length), "{length}");
            assert_eq!(take_length(&mut &encoded[..]), Some(length));
        }
    }

    proptest! {
        /// A naive list of pairs behaves the same, through any number of encodings.
        #[test]
        fn a_hash_is_a_list_without_repetitions(steps in proptest::collection::vec((0_u8..6, any::<Option<[u8; 2]>>()), 0..40)) {
            let mut model: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            let mut encoded = vec![FORMAT];
            for (number, value) in &steps {
                let field = vec![b'f'; usize::from(*number)];
                let held = encoded;
                let mut hash = Hash::decode(&held).expect("it was encoded by us");
                let place = model.iter().position(|(name, _)| *name == field);
                if let Some(value) = value {
                    prop_assert_eq!(hash.set(field.clone(), value.to_vec()), place.is_none());
                    match place {
                        Some(place) => model[place].1 = value.to_vec(),
                        None => model.push((field.clone(), value.to_vec())),
                    }
                } else {
                    prop_assert_eq!(hash.remove(&field), place.is_some());
                    prop_assert_eq!(hash.is_changed(), place.is_some());
                    if let Some(place) = place {
                        model.remove(place);
                    }
                }
                encoded = hash.encode();
                prop_assert_eq!(encoded.len(), hash.encoded_len());
            }
            let pairs = Pairs::of(&encoded).expect("it was encoded by us").map(|pair| pair.expect("so was the rest"));
            let pairs: Vec<_> = pairs.map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
            prop_assert_eq!(&pairs, &model);
            for (field, value) in &model {
                prop_assert_eq!(find(&encoded, field), Ok(Some(&value[..])));
            }
        }
    }
}
