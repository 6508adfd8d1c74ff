//! Integers as Redis reads them from arguments and values. It knows no commands.

use crate::resp::error::ErrorReply;

/// The integer that `text` is the one canonical form of: no plus sign, no space, no leading zero, no `-0`.
#[must_use]
pub fn canonical_i64(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = text == b"0" || matches!(digits, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit));
    if canonical { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// The integer in an argument, or Redis's complaint.
pub fn integer(text: &[u8]) -> Result<i64, ErrorReply> {
    canonical_i64(text).ok_or(ErrorReply::NotInteger)
}

/// The number of a database in an argument, or Redis's complaint.
pub fn database(text: &[u8]) -> Result<u8, ErrorReply> {
    let number = integer(text)?;
    if i32::try_from(number).is_err() {
        return Err(ErrorReply::Other("ERR value is out of range, value must between -2147483648 and 2147483647"));
    }
    u8::try_from(number).ok().filter(|db| *db < crate::entry::DATABASES).ok_or(ErrorReply::DbRange)
}

/// The cursor in an argument as C's `strtoul` reads it, sign included, but no leading space.
pub fn cursor(text: &[u8]) -> Result<u64, ErrorReply> {
    let (negative, digits) = split_sign(text);
    if text.is_empty() {
        return Ok(0);
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(ErrorReply::InvalidCursor);
    }
    let magnitude: u64 =
        std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(ErrorReply::InvalidCursor)?;
    Ok(if negative { magnitude.wrapping_neg() } else { magnitude })
}

/// The text behind its sign, if it has one, and whether that is a minus.
pub(super) fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [sign @ (b'-' | b'+'), rest @ ..] => (*sign == b'-', rest),
        _ => (false, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_integers_are_integers() {
        let cases: &[(&str, Option<i64>)] = &[
            ("0", Some(0)),
            ("-0", None),
            ("00", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("-", None),
            ("1", Some(1)),
            ("-1", Some(-1)),
            ("1.0", None),
            ("1e3", None),
            ("0x10", None),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-9223372036854775809", None),
            ("1\u{0}", None),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical_i64(text.as_bytes()), *expected, "{text:?}");
        }
    }

    #[test]
    fn databases_have_their_own_complaints() {
        for (text, expected) in [
            ("0", Ok(0)),
            ("15", Ok(15)),
            ("16", Err("ERR DB index is out of range")),
            ("-1", Err("ERR DB index is out of range")),
            ("x", Err("ERR value is not an integer or out of range")),
            ("2147483648", Err("ERR value is out of range, value must between -2147483648 and 2147483647")),
        ] {
            assert_eq!(database(text.as_bytes()).map_err(|error| error.to_string()), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn cursors_are_read_as_by_strtoul() {
        for (text, expected) in [
            ("0", Some(0)),
            ("", Some(0)),
            ("+7", Some(7)),
            ("007", Some(7)),
            ("-1", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("abc", None),
            (" 0", None),
            ("0 ", None),
            ("1a", None),
            ("-", None),
            ("+", None),
        ] {
            assert_eq!(cursor(text.as_bytes()).ok(), expected, "{text:?}");
        }
    }
}
