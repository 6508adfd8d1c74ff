//! Finds requests in what a client sent: incremental, bounded and without recursion. It does no I/O and knows no command.
//!
//! The caller owns the buffer; the parser remembers where it stopped. Until a request is complete the buffer must begin
//! at the same byte and only grow. A length that the peer announces sizes nothing here: memory follows what was sent.

use std::ops::Range;

use crate::limits::{MAX_LINE, REQUEST, RequestLimits};
use crate::resp::args::Args;
use crate::resp::error::ProtocolFault;
use crate::resp::words;

/// What [`Parser::parse`] found at the beginning of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not a whole request yet.
    Incomplete,
    /// Nothing to answer (an empty line, `*0`, `*-10`): drop `consumed` bytes and go on.
    Empty {
        /// Bytes to drop.
        consumed: usize,
    },
    /// A request of `consumed` bytes; its arguments are in [`Parser::args`] until the next call of [`Parser::parse`].
    Request {
        /// Bytes to drop when the arguments are no longer needed.
        consumed: usize,
    },
}

/// The parser of one connection.
#[derive(Debug)]
pub struct Parser {
    limits: RequestLimits,
    step: Step,
    /// The first byte that is not understood yet.
    at: usize,
    /// Up to where the current line was searched for its end, in vain.
    searched: usize,
    /// Arguments still to come.
    pending: usize,
    /// Where the arguments lie: in the caller's buffer, or in `unquoted`.
    ranges: Vec<Range<usize>>,
    /// The arguments of an inline request; empty for the usual kind.
    unquoted: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// At the first byte of a request.
    Start,
    /// At the length line of an argument.
    Length,
    /// At the bytes of an argument of this length.
    Bulk(usize),
}

/// Ranges kept allocated between requests; what a larger request needed is given back.
const KEPT_RANGES: usize = 64;

/// Digits that the quick look at a length line takes in; a longer number gets the careful look.
const QUICK_DIGITS: usize = 9;

impl Parser {
    /// A parser at the start of a stream.
    #[must_use]
    pub fn new(limits: RequestLimits) -> Self {
        Self { limits, step: Step::Start, at: 0, searched: 0, pending: 0, ranges: Vec::new(), unquoted: Vec::new() }
    }

    /// Changes the bounds, from the next length on.
    ///
    /// A length within [`REQUEST`] but over these bounds is refused as Redis refuses it before `AUTH`.
    pub fn set_limits(&mut self, limits: RequestLimits) {
        self.limits = limits;
    }

    /// Goes on where the last call stopped. `buf` begins at the first byte that was not consumed.
    ///
    /// After an error the stream has no meaning any more: the connection is to be closed.
    pub fn parse(&mut self, buf: &[u8]) -> Result<Parsed, ProtocolFault> {
        if self.step == Step::Start {
            if let Some(consumed) = self.quick(buf) {
                return Ok(Parsed::Request { consumed });
            }
            match buf.first() {
                None => return Ok(Parsed::Incomplete),
                Some(b'*') => {}
                Some(_) => return self.parse_inline(buf),
            }
            match self.begin(buf)? {
                None => return Ok(Parsed::Incomplete),
                Some(0) => return Ok(Parsed::Empty { consumed: self.finish() }),
                Some(arguments) => self.pending = arguments,
            }
            self.step = Step::Length;
        }
        while self.pending > 0 {
            if self.step == Step::Length {
                let Some(length) = self.bulk_length(buf)? else { return Ok(Parsed::Incomplete) };
                self.step = Step::Bulk(length);
            }
            if let Step::Bulk(length) = self.step {
                // Redis does not look at the two bytes after an argument either.
                if buf.len() - self.at < length + 2 {
                    return Ok(Parsed::Incomplete);
                }
                self.ranges.push(self.at..self.at + length);
                self.at += length + 2;
                self.pending -= 1;
                self.step = Step::Length;
            }
        }
        Ok(Parsed::Request { consumed: self.finish() })
    }

    /// A usual request that is there as a whole: nothing to remember, and no error. All else is for the careful way, which
    /// comes to the same result where this one gives up.
    fn quick(&mut self, buf: &[u8]) -> Option<usize> {
        if buf.first() != Some(&b'*') || self.searched != 0 {
            return None;
        }
        self.clear();
        let (arguments, mut at) = quick_line(buf, 1)?;
        if arguments == 0 || arguments > self.limits.max_args.min(REQUEST.max_args) {
            return None;
        }
        for _ in 0..arguments {
            if buf.get(at) != Some(&b'$') {
                return None;
            }
            let (length, start) = quick_line(buf, at + 1)?;
            let end = start + length;
            if length > self.limits.max_bulk.min(REQUEST.max_bulk) || end + 2 > self.limits.max_request.min(buf.len()) {
                return None;
            }
            self.ranges.push(start..end);
            at = end + 2;
        }
        Some(at)
    }

    /// The arguments of the request that [`Parser::parse`] just found in `buf`.
    ///
    /// # Panics
    /// If the last call did not find a request, or `buf` is shorter than what it consumed.
    #[must_use]
    pub fn args<'a>(&'a self, buf: &'a [u8]) -> Args<'a> {
        Args::new(if self.unquoted.is_empty() { buf } else { &self.unquoted }, &self.ranges)
    }

    /// How many bytes must follow `buffered` for the argument that is being received to be whole; 0 if that is unknown.
    ///
    /// It is what the peer says: reserve at most a bounded part of it at a time.
    #[must_use]
    pub fn wanted(&self, buffered: usize) -> usize {
        match self.step {
            Step::Bulk(length) => (self.at + length + 2).saturating_sub(buffered),
            Step::Start | Step::Length => 0,
        }
    }

    /// Makes ready for the next request; gives the length of this one.
    fn finish(&mut self) -> usize {
        self.step = Step::Start;
        self.searched = 0;
        std::mem::take(&mut self.at)
    }

    /// Forgets the arguments of the last request.
    fn clear(&mut self) {
        self.ranges.clear();
        self.ranges.shrink_to(KEPT_RANGES);
        if self.unquoted.capacity() > 0 {
            self.unquoted = Vec::new();
        }
    }

    /// The line `*<arguments>`: how many arguments follow; `None` if it is not whole yet.
    fn begin(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolFault> {
        let Some(line) = self.line(buf, ProtocolFault::MultibulkLineTooLong)? else { return Ok(None) };
        let count = line.number.ok_or(ProtocolFault::MultibulkLength)?;
        self.clear();
        self.at = line.end;
        let Ok(count) = usize::try_from(count) else { return Ok(Some(0)) };
        match count {
            _ if count > REQUEST.max_args => Err(ProtocolFault::MultibulkLength),
            _ if count > self.limits.max_args => Err(ProtocolFault::UnauthenticatedMultibulkLength),
            _ => Ok(Some(count)),
        }
    }

    /// The line `$<bytes>` of the next argument; `None` if it is not whole yet.
    fn bulk_length(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolFault> {
        let Some(line) = self.line(buf, ProtocolFault::BulkLineTooLong)? else { return Ok(None) };
        if buf[self.at] != b'$' {
            return Err(ProtocolFault::ExpectedDollar(buf[self.at]));
        }
        let length = line.number.and_then(|number| usize::try_from(number).ok());
        let length = length.ok_or(ProtocolFault::BulkLength)?;
        if length > REQUEST.max_bulk {
            return Err(ProtocolFault::BulkLength);
        }
        if length > self.limits.max_bulk {
            return Err(ProtocolFault::UnauthenticatedBulkLength);
        }
        if line.end + length + 2 > self.limits.max_request {
            return Err(ProtocolFault::RequestTooLarge);
        }
        self.at = line.end;
        Ok(Some(length))
    }

    /// The line at `self.at`: one marker, a number, CR and any byte; `None` if it is not whole yet.
    fn line(&mut self, buf: &[u8], too_long: ProtocolFault) -> Result<Option<Line>, ProtocolFault> {
        let Some(end) = self.find(buf, b'\r', too_long)? else { return Ok(None) };
        if end + 1 >= buf.len() {
            // The CR is found again at once.
            self.searched = end;
            return Ok(None);
        }
        self.searched = 0;
        Ok(Some(Line { number: parse_number(buf.get(self.at + 1..end).unwrap_or_default()), end: end + 2 }))
    }

    /// Where the line at `self.at` has its `end`, if it is there yet; each byte is looked at once.
    fn find(&mut self, buf: &[u8], end: u8, too_long: ProtocolFault) -> Result<Option<usize>, ProtocolFault> {
        // One byte more than the bound may be the end itself; this way it does not matter how the bytes were split.
        let bound = buf.len().min(self.at + MAX_LINE + 1);
        let from = self.searched.max(self.at).min(bound);
        if let Some(offset) = buf[from..bound].iter().position(|byte| *byte == end) {
            return Ok(Some(from + offset));
        }
        if bound == self.at + MAX_LINE + 1 {
            return Err(too_long);
        }
        self.searched = bound;
        Ok(None)
    }

    /// A request as one types it: words on a line.
    fn parse_inline(&mut self, buf: &[u8]) -> Result<Parsed, ProtocolFault> {
        let Some(newline) = self.find(buf, b'\n', ProtocolFault::InlineTooLong)? else { return Ok(Parsed::Incomplete) };
        self.clear();
        let line = buf[..newline].strip_suffix(b"\r").unwrap_or(&buf[..newline]);
        words::split(line, &mut self.unquoted, &mut self.ranges).ok_or(ProtocolFault::UnbalancedQuotes)?;
        self.at = newline + 1;
        let consumed = self.finish();
        if self.ranges.is_empty() { Ok(Parsed::Empty { consumed }) } else { Ok(Parsed::Request { consumed }) }
    }
}

/// The number at `at` and the first byte after its line; `None` unless it is whole, short and written as usual.
#[inline]
fn quick_line(buf: &[u8], at: usize) -> Option<(usize, usize)> {
    let digits = buf.get(at..buf.len().min(at + QUICK_DIGITS + 1))?;
    let mut number = 0;
    for (index, byte) in digits.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let canonical = index == 1 || (index > 1 && digits[0] != b'0');
            return (*byte == b'\r' && canonical).then_some((number, at + index + 2));
        }
        number = number * 10 + usize::from(digit);
    }
    None
}

/// A whole length line.
struct Line {
    /// Its number, if it is one.
    number: Option<i64>,
    /// The first byte after it.
    end: usize,
}

/// An integer in the one way that Redis takes it: no plus sign, no leading zero, no `-0`.
fn parse_number(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, digits),
    };
    match digits {
        [b'0'] => return (!negative).then_some(0),
        [] | [b'0', ..] => return None,
        _ => {}
    }
    digits.iter().try_fold(0_i64, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        let shifted = number.checked_mul(10)?;
        if negative { shifted.checked_sub(i64::from(digit)) } else { shifted.checked_add(i64::from(digit)) }
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// What a stream of bytes comes to: its requests, and the fault that ended it.
    type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolFault>);

    /// Feeds the stream in pieces that end at `cuts`, as a connection would.
    fn feed(stream: &[u8], cuts: &[usize], limits: RequestLimits) -> Outcome {
        let mut parser = Parser::new(limits);
        let (mut requests, mut start, mut cuts) = (Vec::new(), 0, cuts.to_vec());
        cuts.push(stream.len());
        for end in cuts {
            loop {
                let buf = &stream[start..end];
                match parser.parse(buf) {
                    Ok(Parsed::Incomplete) => break,
                    Ok(Parsed::Empty { consumed }) => start += consumed,
                    Ok(Parsed::Request { consumed }) => {
                        requests.push(parser.args(buf).iter_from(0).map(<[u8]>::to_vec).collect());
                        start += consumed;
                    }
                    Err(fault) => return (requests, Some(fault)),
                }
                let held = parser.ranges.capacity() * size_of::<Range<usize>>() + parser.unquoted.capacity();
                // An argument of no bytes costs 6 bytes of the peer and a range of ours; vectors grow twofold.
                assert!(
                    held <= 2 * KEPT_RANGES * size_of::<Range<usize>>() + 6 * end,
                    "holds {held} after {end} bytes"
                );
            }
        }
        (requests, None)
    }

    fn check(stream: &[u8], requests: &[&[&[u8]]], fault: Option<ProtocolFault>) {
        let requests: Vec<Vec<Vec<u8>>> =
            requests.iter().map(|request| request.iter().map(|word| word.to_vec()).collect()).collect();
        let expected = (requests, fault);
        let shown = String::from_utf8_lossy(&stream[..stream.len().min(80)]);
        assert_eq!(feed(stream, &[], REQUEST), expected, "{shown:?} at once");
        if stream.len() < 1000 {
            let cuts: Vec<_> = (0..stream.len()).collect();
            assert_eq!(feed(stream, &cuts, REQUEST), expected, "{shown:?} byte by byte");
        }
    }

    #[test]
    fn requests_are_found() {
        check(b"", &[], None);
        check(b"*1\r\n$4\r\nPING\r\n", &[&[b"PING"]], None);
        check(b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$1\r\nx\r\n", &[&[b"GET", b""], &[b"x"]], None);
        check(b"*2\r\n$3\r\nGET\r\n$4\r\na\r\nb\r\n", &[&[b"GET", b"a\r\nb"]], None);
        check(b"*0\r\n*-10\r\n*1\r\n$1\r\nx\r\n", &[&[b"x"]], None);
        check(b"*2\r\n$3\r\nGET\r\n", &[], None);
        // The bytes after an argument, and the one after a CR, are skipped unseen, as Redis does.
        check(b"*1\rX$1\rYxZZ*1\r\n$1\r\ny\r\n", &[&[b"x"], &[b"y"]], None);
    }

    #[test]
    fn many_arguments_are_no_matter() {
        let mut stream = b"*20001\r\n$4\r\nMSET\r\n".to_vec();
        stream.extend(b"$3\r\nabc\r\n".repeat(20_000));
        let (requests, fault) = feed(&stream, &[100, 5_000, 5_001, 99_999], REQUEST);
        assert_eq!((requests.len(), requests[0].len(), fault), (1, 20_001, None));
    }

    #[test]
    fn inline_requests_are_split_as_redis_does() {
        check(b"PING\r\n", &[&[b"PING"]], None);
        check(b"PING\nPING\r\n\r\n\n  \t\r\nECHO  x \r\n", &[&[b"PING"], &[b"PING"], &[b"ECHO", b"x"]], None);
        check(b"a\x0bb \x0b c\n", &[&[b"a\x0bb", b"c"]], None);
        check(b"SET k \"a b\"\r\n", &[&[b"SET", b"k", b"a b"]], None);
        check(b"SET \"\" ''\r\n", &[&[b"SET", b"", b""]], None);
        check(b"\"\" \r\n", &[&[b""]], None);
        check(b"ECHO \"\\x41\\xfF\\xg0\\n\\r\\t\\b\\a\\\\\\\"\"\n", &[&[b"ECHO", b"A\xffxg0\n\r\t\x08\x07\\\""]], None);
        check(b"ECHO 'a\\'b\\n\"'\n", &[&[b"ECHO", b"a'b\\n\""]], None);
        check(b"ECHO foo\"bar\" b'a r'\n", &[&[b"ECHO", b"foobar", b"ba r"]], None);
        check(b"ECHO a\\nb\n", &[&[b"ECHO", b"a\\nb"]], None);
        for unbalanced in ["\"", "\"a", "'a", "\"a\\\"", "'a\\'", "\"a\"b", "'a'b", "\"a\"\"b\"", "\"a\\"] {
            check(format!("ECHO {unbalanced}\r\n").as_bytes(), &[], Some(ProtocolFault::UnbalancedQuotes));
        }
    }

    #[test]
    fn broken_framing_has_its_fault() {
        use ProtocolFault::{BulkLength, ExpectedDollar, MultibulkLength};
        for count in
            ["", "x", "01", "-0", "+1", "1 ", " 1", "3000000000", "1048577", "99999999999999999999", "--1", "1\n"]
        {
            check(format!("*{count}\r\n").as_bytes(), &[], Some(MultibulkLength));
        }
        for length in ["", "-1", "-10", "2000000000", "67108865", "blabla", "04", "-0", "+1", "18446744073709551617"] {
            check(format!("*1\r\n${length}\r\n").as_bytes(), &[], Some(BulkLength));
        }
        check(b"*1\r\nfoo\r\n", &[], Some(ExpectedDollar(b'f')));
        check(b"*1\r\n\r\n", &[], Some(ExpectedDollar(b'\r')));
        check(b"*1\r\n:1\r\n", &[], Some(ExpectedDollar(b':')));
        check(b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", &[], Some(ExpectedDollar(b'f')));
        check(b"*1\r\n$1\r\nx\r\n*1\r\n*1\r\n", &[&[b"x"]], Some(ExpectedDollar(b'*')));
    }

    #[test]
    fn lines_are_bounded_however_they_arrive() {
        use ProtocolFault::{BulkLineTooLong, InlineTooLong, MultibulkLineTooLong};
        for (start, end, fault) in
            [("", "\n", InlineTooLong), ("*", "\r\n", MultibulkLineTooLong), ("*1\r\n$", "\r\n", BulkLineTooLong)]
        {
            let head = usize::from(start.starts_with('*'));
            let endless = [start.as_bytes(), &vec![b'1'; MAX_LINE + 1 - head]].concat();
            let ended = [&endless, end.as_bytes()].concat();
            for stream in [&endless, &ended] {
                for cuts in [vec![], vec![MAX_LINE], vec![10, MAX_LINE + 1, MAX_LINE + 2]] {
                    let cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut <= stream.len()).collect();
                    assert_eq!(feed(stream, &cuts, REQUEST), (vec![], Some(fault)), "{start:?} with {cuts:?}");
                }
            }
            assert_eq!(feed(&endless[..endless.len() - 1], &[], REQUEST), (vec![], None), "{start:?} may still end");
        }
        let longest = [&vec![b'x'; MAX_LINE - 1][..], b"\r\n"].concat();
        assert_eq!(feed(&longest, &[], REQUEST).0[0][0].len(), MAX_LINE - 1);
    }

    #[test]
    fn tighter_limits_are_those_before_auth() {
        use ProtocolFault::{RequestTooLarge, UnauthenticatedBulkLength, UnauthenticatedMultibulkLength};
        let limits = RequestLimits { max_args: 10, max_bulk: 100, max_request: 200 };
        let ninety = "x".repeat(90);
        for (stream, fault) in [
            ("*11\r\n".to_owned(), Some(UnauthenticatedMultibulkLength)),
            ("*10\r\n$101\r\n".to_owned(), Some(UnauthenticatedBulkLength)),
            (format!("*2\r\n$90\r\n{ninety}\r\n$88\r\n"), None),
            (format!("*2\r\n$90\r\n{ninety}\r\n$100\r\n"), Some(RequestTooLarge)),
        ] {
            assert_eq!(feed(stream.as_bytes(), &[], limits).1, fault, "{stream:?}");
        }
    }

    #[test]
    fn the_rest_of_an_argument_is_known() {
        let mut parser = Parser::new(REQUEST);
        let stream = b"*1\r\n$1000\r\nabc";
        assert_eq!(parser.parse(&stream[..6]), Ok(Parsed::Incomplete));
        assert_eq!(parser.wanted(6), 0);
        assert_eq!(parser.parse(stream), Ok(Parsed::Incomplete));
        assert_eq!(parser.wanted(stream.len()), 999);
    }

    /// Streams that are nearly right: requests, and pieces of syntax in any order.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let request = vec(vec(any::<u8>(), 0..20), 1..6).prop_map(|words| {
            let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
            for word in words {
                bytes.extend(format!("${}\r\n", word.len()).into_bytes());
                bytes.extend(word);
                bytes.extend(b"\r\n");
            }
            bytes
        });
        let syntax = prop::sample::select(vec![
            "*",
            "$",
            "\r\n",
            "\n",
            "\r",
            "1",
            "3",
            "-1",
            "0",
            "PING",
            " ",
            "\"",
            "'",
            "\\",
            "x4f",
            "*2\r\n",
            "$3\r\n",
            "*1\r\n$1\r\n",
            "abc\r\n",
        ])
        .prop_map(|text| text.as_bytes().to_vec());
        let part = prop_oneof![3 => request, 4 => syntax, 1 => vec(any::<u8>(), 0..10)];
        vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_parses_alike(stream in streams(), cuts in vec(any::<prop::sample::Index>(), 0..8)) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
            cuts.sort_unstable();
            let bytewise: Vec<_> = (0..stream.len()).collect();
            let whole = feed(&stream, &[], REQUEST);
            prop_assert_eq!(&feed(&stream, &cuts, REQUEST), &whole);
            prop_assert_eq!(&feed(&stream, &bytewise, REQUEST), &whole);
        }

        #[test]
        fn random_bytes_never_panic(stream in vec(any::<u8>(), 0..2000), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(stream.len() + 1);
            prop_assert_eq!(feed(&stream, &[cut], REQUEST), feed(&stream, &[], REQUEST));
        }

        #[test]
        fn well_formed_requests_come_back(requests in vec(vec(vec(any::<u8>(), 0..300), 1..20), 0..10)) {
            let mut stream = Vec::new();
            for words in &requests {
                stream.extend(format!("*{}\r\n", words.len()).into_bytes());
                for word in words {
                    stream.extend(format!("${}\r\n", word.len()).into_bytes());
                    stream.extend(word);
                    stream.extend(b"\r\n");
                }
            }
            prop_assert_eq!(feed(&stream, &[], REQUEST), (requests, None));
        }
    }
}
