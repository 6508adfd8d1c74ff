//! Writes replies as RESP2 or RESP3, byte for byte as Redis 7.0 does. It knows no command and no socket.
//!
//! Strings of a known form come from `redis-protocol`'s encoder. Three things do not: aggregates, since its maps and
//! sets are hash tables without an order; bulk strings, which it fills with zeros before it copies; and integers,
//! whose length it takes from a floating-point logarithm, which is one too many from 17 nines on.

use std::borrow::Cow;

use bytes::{BufMut, BytesMut};
use redis_protocol::resp2::encode as resp2;
use redis_protocol::resp2::types::BorrowedFrame as Frame2;
use redis_protocol::resp3::encode as resp3;
use redis_protocol::resp3::types::{BorrowedFrame as Frame3, VerbatimStringFormat};

use crate::resp::error::{ErrorReply, ProtocolFault};
use crate::resp::reply::{Protocol, Reply};

/// Appends `reply` to `out`.
///
/// Recurses as deep as the reply nests, which handlers choose (at most a few levels), never a peer.
pub fn encode(reply: &Reply, protocol: Protocol, out: &mut BytesMut) {
    match reply {
        Reply::Value(value) => bulk(value, out),
        Reply::Bulk(bytes) => bulk(bytes, out),
        Reply::Int(number) => {
            marked_line(b':', *number, out);
        }
        Reply::Simple(text) => simple(text, out),
        Reply::Error(error) => fault(error, out),
        Reply::Text(text) => match protocol {
            Protocol::Resp2 => bulk(text.as_bytes(), out),
            Protocol::Resp3 => verbatim(text, out),
        },
        Reply::Null => match protocol {
            Protocol::Resp2 => leaf2(&Frame2::Null, out),
            Protocol::Resp3 => leaf3(&Frame3::Null, out),
        },
        Reply::NullArray => match protocol {
            Protocol::Resp2 => out.put_slice(b"*-1\r\n"),
            Protocol::Resp3 => leaf3(&Frame3::Null, out),
        },
        Reply::Double(number) => double(*number, protocol, out),
        Reply::Array(items) => aggregate(b'*', items, protocol, out),
        Reply::Set(items) => {
            let marker = if protocol == Protocol::Resp3 { b'~' } else { b'*' };
            aggregate(marker, items, protocol, out);
        }
        Reply::Map(pairs) => map(pairs, protocol, out),
    }
}

fn bulk(bytes: &[u8], out: &mut BytesMut) {
    // The marker, 20 digits and two line ends.
    out.reserve(bytes.len() + 25);
    marked_line(b'$', bytes.len() as i64, out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn simple(text: &str, out: &mut BytesMut) {
    debug_assert!(!text.contains(['\r', '\n']), "a simple string is one line");
    leaf2(&Frame2::SimpleString(text.as_bytes()), out);
}

/// An error is one line: what it quotes of the client may hold line ends, which become spaces, as in Redis.
fn fault(error: &ErrorReply, out: &mut BytesMut) {
    let start = out.len();
    match error {
        // Those that may quote bytes that are not text.
        ErrorReply::UnknownCommand { name, args } => {
            out.put_slice(b"-ERR unknown command '");
            out.put_slice(name);
            out.put_slice(b"', with args beginning with: ");
            out.put_slice(args);
            out.put_slice(b"\r\n");
        }
        ErrorReply::UnsupportedOption(option) => {
            out.put_slice(b"-ERR Unsupported option ");
            out.put_slice(line_end_trimmed(option));
            out.put_slice(b"\r\n");
        }
        ErrorReply::Protocol(ProtocolFault::ExpectedDollar(got)) => {
            out.put_slice(b"-ERR Protocol error: expected '$', got '");
            out.put_u8(*got);
            out.put_slice(b"'\r\n");
        }
        // As Redis does: line ends at the end go, others become spaces.
        _ => leaf2(&Frame2::Error(error.to_string().trim_end_matches(['\r', '\n'])), out),
    }
    let end = out.len() - 2;
    for byte in &mut out[start..end] {
        if matches!(byte, b'\r' | b'\n') {
            *byte = b' ';
        }
    }
}

/// `text` without line ends at its end.
fn line_end_trimmed(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &text[..end]
}

fn verbatim(text: &str, out: &mut BytesMut) {
    let frame = Frame3::VerbatimString { data: text.as_bytes(), format: VerbatimStringFormat::Text, attributes: None };
    leaf3(&frame, out);
}

fn double(number: f64, protocol: Protocol, out: &mut BytesMut) {
    let text = format_double(number);
    match protocol {
        Protocol::Resp2 => bulk(text.as_bytes(), out),
        Protocol::Resp3 => {
            out.put_u8(b',');
            out.put_slice(text.as_bytes());
            out.put_slice(b"\r\n");
        }
    }
}

fn aggregate(marker: u8, items: &[Reply], protocol: Protocol, out: &mut BytesMut) {
    marked_line(marker, items.len() as i64, out);
    for item in items {
        encode(item, protocol, out);
    }
}

fn map(pairs: &[(Reply, Reply)], protocol: Protocol, out: &mut BytesMut) {
    let (marker, length) = match protocol {
        Protocol::Resp2 => (b'*', pairs.len() * 2),
        Protocol::Resp3 => (b'%', pairs.len()),
    };
    marked_line(marker, length as i64, out);
    for (key, value) in pairs {
        encode(key, protocol, out);
        encode(value, protocol, out);
    }
}

/// A marker, a decimal number, and the end of the line.
fn marked_line(marker: u8, number: i64, out: &mut BytesMut) {
    // A marker, the 20 bytes of i64::MIN, and the line's end.
    let mut text = *b"_____________________\r\n";
    let mut at = text.len() - 2;
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        text[at] = b'-';
    }
    at -= 1;
    text[at] = marker;
    out.extend_from_slice(&text[at..]);
}

fn leaf2(frame: &Frame2<'_>, out: &mut BytesMut) {
    resp2::extend_encode_borrowed(out, frame, false).expect("the buffer grows to what the frame needs");
}

fn leaf3(frame: &Frame3<'_>, out: &mut BytesMut) {
    resp3::complete::extend_encode_borrowed(out, frame, false).expect("the buffer grows to what the frame needs");
}

/// `%.17g` of C, which Redis 7.0 prints doubles with.
fn format_double(number: f64) -> Cow<'static, str> {
    const PRECISION: i32 = 17;
    if !number.is_finite() {
        return Cow::Borrowed(match number {
            _ if number.is_nan() => "nan",
            _ if number > 0.0 => "inf",
            _ => "-inf",
        });
    }
    let scientific = format!("{number:.16e}");
    let (digits, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the format's exponent is a number");
    if (-4..PRECISION).contains(&exponent) {
        let decimals = (PRECISION - 1 - exponent) as usize;
        return Cow::Owned(without_trailing_zeros(&format!("{number:.decimals$}")).to_owned());
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    Cow::Owned(format!("{}e{sign}{:02}", without_trailing_zeros(digits), exponent.abs()))
}

fn without_trailing_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use redis_protocol::resp2::decode as decode2;
    use redis_protocol::resp3::decode as decode3;

    use super::*;

    fn encoded(reply: &Reply, protocol: Protocol) -> Vec<u8> {
        let mut out = BytesMut::new();
        encode(reply, protocol, &mut out);
        out.to_vec()
    }

    fn check(reply: &Reply, resp2: &str, resp3: &str) {
        assert_eq!(String::from_utf8_lossy(&encoded(reply, Protocol::Resp2)), resp2, "RESP2 of {reply:?}");
        assert_eq!(String::from_utf8_lossy(&encoded(reply, Protocol::Resp3)), resp3, "RESP3 of {reply:?}");
    }

    fn samples() -> Vec<(Reply, &'static str, &'static str)> {
        let text = |text: &str| Reply::Text(text.to_owned());
        vec![
            (Reply::OK, "+OK\r\n", "+OK\r\n"),
            (Reply::Simple("".into()), "+\r\n", "+\r\n"),
            (Reply::Int(0), ":0\r\n", ":0\r\n"),
            (Reply::Int(-1), ":-1\r\n", ":-1\r\n"),
            (Reply::Int(99_999_999_999_999_999), ":99999999999999999\r\n", ":99999999999999999\r\n"),
            (Reply::Int(i64::MAX), ":9223372036854775807\r\n", ":9223372036854775807\r\n"),
            (Reply::Int(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (Reply::Value(b"v".as_slice().into()), "$1\r\nv\r\n", "$1\r\nv\r\n"),
            (Reply::bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Reply::bulk("a\r\nb"), "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            (text("a\r\nb"), "$4\r\na\r\nb\r\n", "=8\r\ntxt:a\r\nb\r\n"),
            (text(""), "$0\r\n\r\n", "=4\r\ntxt:\r\n"),
            (Reply::Null, "$-1\r\n", "_\r\n"),
            (Reply::NullArray, "*-1\r\n", "_\r\n"),
            (Reply::Double(0.1), "$19\r\n0.10000000000000001\r\n", ",0.10000000000000001\r\n"),
            (Reply::Double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
            (Reply::Array(vec![]), "*0\r\n", "*0\r\n"),
            (Reply::Array(vec![Reply::Int(1), Reply::Null]), "*2\r\n:1\r\n$-1\r\n", "*2\r\n:1\r\n_\r\n"),
            (Reply::Set(vec![Reply::Int(1)]), "*1\r\n:1\r\n", "~1\r\n:1\r\n"),
            (
                Reply::Map(vec![(Reply::bulk("k"), Reply::Array(vec![Reply::Map(vec![])]))]),
                "*2\r\n$1\r\nk\r\n*1\r\n*0\r\n",
                "%1\r\n$1\r\nk\r\n*1\r\n%0\r\n",
            ),
            (ErrorReply::Syntax.into(), "-ERR syntax error\r\n", "-ERR syntax error\r\n"),
            (ErrorReply::Quoted("ERR a\r\nb".to_owned()).into(), "-ERR a  b\r\n", "-ERR a  b\r\n"),
        ]
    }

    #[test]
    fn replies_have_exactly_redis_bytes() {
        for (reply, resp2, resp3) in samples() {
            check(&reply, resp2, resp3);
        }
    }

    #[test]
    fn an_independent_decoder_takes_each_reply_whole() {
        for (reply, resp2, resp3) in samples() {
            let (_, used) = decode2::decode(resp2.as_bytes()).expect("valid").expect("complete");
            assert_eq!(used, resp2.len(), "RESP2 of {reply:?}");
            let (_, used) = decode3::complete::decode(resp3.as_bytes()).expect("valid").expect("complete");
            assert_eq!(used, resp3.len(), "RESP3 of {reply:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_text_come_back_as_sent() {
        let unknown = ErrorReply::UnknownCommand { name: b"\xff\n".to_vec(), args: b"'\xfe' ".to_vec() };
        assert_eq!(
            encoded(&unknown.into(), Protocol::Resp2),
            b"-ERR unknown command '\xff ', with args beginning with: '\xfe' \r\n"
        );
        let fault = ErrorReply::Protocol(ProtocolFault::ExpectedDollar(0xfe));
        assert_eq!(encoded(&fault.into(), Protocol::Resp2), b"-ERR Protocol error: expected '$', got '\xfe'\r\n");
    }

    #[test]
    fn doubles_print_as_c_does() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-1.5, "-1.5"),
            (100.0, "100"),
            (2.1, "2.1000000000000001"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (1.25e-5, "1.2500000000000001e-05"),
            (0.0001, "0.0001"),
            (1e300, "1.0000000000000001e+300"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(format_double(number), text, "{number:?}");
        }
    }

    #[test]
    fn replies_are_appended() {
        let mut out = BytesMut::from(&b"+OK\r\n"[..]);
        encode(&ErrorReply::Syntax.into(), Protocol::Resp2, &mut out);
        assert_eq!(&out[..], b"+OK\r\n-ERR syntax error\r\n");
    }
}
