//! Turns a request's step into bytes and says which reply is the right one. Pure: no I/O, no clock.
//!
//! A value names its key and the write that made it, so that a reader can tell whose value it got. A new value has nothing in
//! common with the one before it, so that no server saves anything by comparing the two.

use std::fmt;

/// Digits of the key's number and of the count, at the start of a value.
const VALUE_KEY_DIGITS: usize = 12;
const VALUE_STAMP_DIGITS: usize = 12;

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Words as in sessions that are kept as text.
const WORDS: [&str; 32] = [
    "\"_auth_user_id\": \"",
    "\"_auth_user_hash\": \"",
    "\", \"csrf_token\": \"",
    "\", \"cart\": [",
    "], \"locale\": \"de-",
    "{\"sku\": ",
    ", \"count\": ",
    "}, ",
    "\", \"last_seen\": ",
    ", \"flash\": [\"",
    "\"]",
    "\"expires\": ",
    "true, ",
    "false, ",
    "null, ",
    "\"address\": {\"street\": \"",
    "\", \"city\": \"",
    "\"}, ",
    "\"name\": \"",
    "\"email\": \"",
    "@example.com\", ",
    "\"roles\": [\"editor\", \"",
    "\"admin\"",
    "\"theme\": \"dark\", ",
    "\"visits\": ",
    "\"history\": [",
    "\"/products/",
    "\", ",
    "\"/checkout/",
    "\"returnTo\": \"/",
    "\"cookie\": {\"path\": \"/\", ",
    "\"httpOnly\": true, \"maxAge\": ",
];

/// What keys and values look like.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    prefix: Vec<u8>,
    digits: usize,
    least: usize,
    most: usize,
    filler: Vec<u8>,
}

/// A reply that a step takes for right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// `+OK`.
    Ok,
    /// The key's value: a bulk string of a right length that begins with the key's number.
    Value,
    /// Any integer but 0: it was done, the key was there.
    Done,
}

/// A piece of a step's encoding.
#[derive(Debug)]
enum Piece {
    Fixed(Vec<u8>),
    Key,
    New,
    Same,
}

/// A command with room for its key and value.
#[derive(Debug)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
    pub(crate) expected: Expected,
}

#[derive(Debug)]
pub(crate) struct BadStep(String);

impl fmt::Display for BadStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadStep {}

impl Shape {
    /// Values are of random bytes in base64, or, as `text`, of random words, which a compressor makes half as long.
    pub(crate) fn new(prefix: &str, digits: usize, least: usize, most: usize, text: bool) -> Self {
        let least = least.max(VALUE_KEY_DIGITS + VALUE_STAMP_DIGITS);
        let most = most.max(least);
        let mut filler = Vec::with_capacity(2 * most + 64);
        let mut state = 88_172_645_463_325_252;
        while filler.len() < 2 * most {
            let random = next(&mut state);
            if text {
                filler.extend_from_slice(WORDS[(random >> 59) as usize].as_bytes());
                filler.extend_from_slice(format!("{:x}", random >> 32 & 0xFFF).as_bytes());
            } else {
                filler.push(BASE64[(random >> 58) as usize]);
            }
        }
        Self { prefix: prefix.as_bytes().to_vec(), digits, least, most, filler }
    }

    /// Appends a key as a bulk string.
    pub(crate) fn key(&self, out: &mut Vec<u8>, key: u64) {
        header(out, b'$', self.prefix.len() + self.digits);
        out.extend_from_slice(&self.prefix);
        padded(out, key, self.digits);
        out.extend_from_slice(b"\r\n");
    }

    /// Appends a value as a bulk string. Stamp 0 is the one that belongs to the key.
    pub(crate) fn value(&self, out: &mut Vec<u8>, key: u64, stamp: u64) {
        let length = self.length(key, stamp);
        header(out, b'$', length);
        padded(out, key, VALUE_KEY_DIGITS);
        padded(out, stamp, VALUE_STAMP_DIGITS);
        let from = stamp.wrapping_mul(0x9E37_79B9) as usize % self.most;
        out.extend_from_slice(&self.filler[from..from + length - VALUE_KEY_DIGITS - VALUE_STAMP_DIGITS]);
        out.extend_from_slice(b"\r\n");
    }

    fn length(&self, key: u64, stamp: u64) -> usize {
        let mut state = key.wrapping_mul(31).wrapping_add(stamp) | 1 << 63;
        self.least + (next(&mut state) >> 11) as usize % (self.most - self.least + 1)
    }

    /// Whether a value, of which the start is enough, was written for this key.
    pub(crate) fn is_value(&self, key: u64, length: usize, start: &[u8]) -> bool {
        let number = start
            .iter()
            .take(VALUE_KEY_DIGITS)
            .try_fold(0_u64, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0')));
        (self.least..=self.most).contains(&length) && start.len() >= VALUE_KEY_DIGITS && number == Some(key)
    }
}

impl Template {
    /// # Errors
    /// If the step is empty, its placeholders are not words of their own, or nobody knows its right reply.
    pub(crate) fn parse(step: &str) -> Result<Self, BadStep> {
        let words: Vec<&str> = step.split_whitespace().collect();
        let name = words.first().ok_or_else(|| BadStep("an empty step".into()))?;
        let expected = match name.to_ascii_uppercase().as_str() {
            "SET" => Expected::Ok,
            "GET" | "GETEX" => Expected::Value,
            "EXPIRE" | "DEL" | "EVALSHA" => Expected::Done,
            other => return Err(BadStep(format!("no right reply is known for {other}"))),
        };
        let mut pieces = Vec::new();
        let mut fixed = Vec::new();
        header(&mut fixed, b'*', words.len());
        for word in &words {
            let piece = match *word {
                "{key}" => Piece::Key,
                "{new}" => Piece::New,
                "{same}" => Piece::Same,
                word if word.contains(['{', '}']) => return Err(BadStep(format!("what is {word}?"))),
                word => {
                    header(&mut fixed, b'$', word.len());
                    fixed.extend_from_slice(word.as_bytes());
                    fixed.extend_from_slice(b"\r\n");
                    continue;
                }
            };
            pieces.extend([Piece::Fixed(std::mem::take(&mut fixed)), piece]);
        }
        pieces.push(Piece::Fixed(fixed));
        Ok(Self { pieces, expected })
    }

    /// Appends the command for a key; `stamp` makes the new value.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, shape: &Shape, key: u64, stamp: u64) {
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(bytes) => out.extend_from_slice(bytes),
                Piece::Key => shape.key(out, key),
                Piece::New => shape.value(out, key, stamp),
                Piece::Same => shape.value(out, key, 0),
            }
        }
    }
}

/// The next number of a sequence that looks random (xorshift*); the state must not be 0.
pub(crate) fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}

fn header(out: &mut Vec<u8>, sign: u8, number: usize) {
    out.push(sign);
    let digits = if number == 0 { 1 } else { number.ilog10() as usize + 1 };
    padded(out, number as u64, digits);
    out.extend_from_slice(b"\r\n");
}

fn padded(out: &mut Vec<u8>, mut number: u64, digits: usize) {
    let start = out.len();
    out.resize(start + digits, b'0');
    for place in out[start..].iter_mut().rev() {
        if number == 0 {
            break;
        }
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(step: &str, shape: &Shape, key: u64, stamp: u64) -> String {
        let mut out = Vec::new();
        Template::parse(step).unwrap().encode(&mut out, shape, key, stamp);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn steps_become_requests() {
        let shape = Shape::new("k:", 3, 24, 24, false);
        for (step, expected) in [
            ("GET {key}", "*2\r\n$3\r\nGET\r\n$5\r\nk:042\r\n"),
            ("EXPIRE {key} 86400", "*3\r\n$6\r\nEXPIRE\r\n$5\r\nk:042\r\n$5\r\n86400\r\n"),
            (
                "SET {key} {new} EX 9",
                "*5\r\n$3\r\nSET\r\n$5\r\nk:042\r\n$24\r\n000000000042000000000007\r\n$2\r\nEX\r\n$1\r\n9\r\n",
            ),
            ("EVALSHA 0a 1 {key}", "*4\r\n$7\r\nEVALSHA\r\n$2\r\n0a\r\n$1\r\n1\r\n$5\r\nk:042\r\n"),
            ("SET {key} {same}", "*3\r\n$3\r\nSET\r\n$5\r\nk:042\r\n$24\r\n000000000042000000000000\r\n"),
        ] {
            assert_eq!(encoded(step, &shape, 42, 7), expected, "{step}");
        }
        for bad in ["", "FLUSHALL", "GET x{key}", "GET {what}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_tells_its_key() {
        let shape = Shape::new("key:", 12, 100, 2000, true);
        let mut lengths = std::collections::HashSet::new();
        for key in 0..500 {
            let mut out = Vec::new();
            shape.value(&mut out, key, key % 7);
            let body = &out[out.iter().position(|byte| *byte == b'\n').unwrap() + 1..out.len() - 2];
            assert!(shape.is_value(key, body.len(), body), "{key}");
            assert!(!shape.is_value(key + 1, body.len(), body), "{key}");
            assert!(!shape.is_value(key, 99, body) && !shape.is_value(key, 2001, body), "{key}");
            assert_eq!(format!("${}", body.len()).as_bytes(), &out[..out.iter().position(|b| *b == b'\r').unwrap()]);
            lengths.insert(body.len());
        }
        assert!(lengths.len() > 300, "lengths hardly vary: {}", lengths.len());
    }
}
