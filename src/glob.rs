//! Redis's glob patterns over bytes, without recursion. It knows no keys and no commands.

/// The longest pattern that commands should accept, in bytes: four bytes for each byte of the longest key.
///
/// [`matches()`] takes time proportional to pattern times text, so whoever takes a pattern from outside bounds it first.
pub const MAX_PATTERN: usize = 4 * crate::limits::MAX_KEY;

/// Whether `text` matches `pattern` as Redis's `stringmatchlen` has it: `*`, `?`, `[a-z^]` and `\` for the next byte.
///
/// Odd patterns match as there: a class without its `]` reaches to the end, `[]` matches nothing and `[^]` any byte,
/// ranges may be written backwards and compare signed bytes, and only the empty pattern matches the empty text.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8], ignore_case: bool) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut rest, mut at) = (pattern, 0);
    // Where the last `*` was: the pattern behind it, and the first byte that it does not cover so far. Going back to
    // the last one is enough, since all else in a pattern covers exactly one byte.
    let mut star: Option<(&[u8], usize)> = None;
    loop {
        if let Some((b'*', behind)) = rest.split_first() {
            rest = behind;
            star = Some((rest, at));
            continue;
        }
        match text.get(at) {
            None if rest.is_empty() => return true,
            None => {}
            Some(&byte) => {
                if let Some(behind) = step(rest, byte, ignore_case) {
                    rest = behind;
                    at += 1;
                    continue;
                }
            }
        }
        match star {
            Some((behind, covered)) if covered < text.len() => {
                rest = behind;
                at = covered + 1;
                star = Some((behind, at));
            }
            _ => return false,
        }
    }
}

/// The pattern behind its first element, which is no `*`, if that covers `byte`.
fn step(pattern: &[u8], byte: u8, ignore_case: bool) -> Option<&[u8]> {
    let (literal, behind) = match pattern {
        [] => return None,
        [b'?', behind @ ..] => return Some(behind),
        [b'[', class @ ..] => return step_class(class, byte, ignore_case),
        [b'\\', escaped, behind @ ..] => (*escaped, behind),
        [literal, behind @ ..] => (*literal, behind),
    };
    equal(literal, byte, ignore_case).then_some(behind)
}

/// As [`step`], for a class whose `[` is gone.
fn step_class(class: &[u8], byte: u8, ignore_case: bool) -> Option<&[u8]> {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [] => break,
            [b'\\', escaped, behind @ ..] => {
                found |= *escaped == byte;
                behind
            }
            [b']', behind @ ..] => {
                rest = behind;
                break;
            }
            [first, b'-', last, behind @ ..] => {
                found |= in_range(*first, *last, byte, ignore_case);
                behind
            }
            [literal, behind @ ..] => {
                found |= equal(*literal, byte, ignore_case);
                behind
            }
        };
    }
    (found != negated).then_some(rest)
}

fn equal(a: u8, b: u8, ignore_case: bool) -> bool {
    if ignore_case { a.eq_ignore_ascii_case(&b) } else { a == b }
}

/// Redis compares C's `char`, which has a sign on the machines it is used on. It orders the ends before it folds them.
fn in_range(first: u8, last: u8, byte: u8, ignore_case: bool) -> bool {
    let fold = |byte: u8| if ignore_case { byte.to_ascii_lowercase() as i8 } else { byte as i8 };
    let (low, high) = if first as i8 > last as i8 { (last, first) } else { (first, last) };
    (fold(low)..=fold(high)).contains(&fold(byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Taken from `KEYS` of Redis 7.0.15 with exactly one key (the pattern `*` alone is answered before matching there).
    const FROM_REDIS: &[(&[u8], &[u8], bool)] = &[
        (b"", b"", true),
        (b"**", b"", false),
        (b"", b"a", false),
        (b"*", b"a", true),
        (b"**", b"a", true),
        (b"a*", b"a", true),
        (b"a**", b"a", true),
        (b"*a", b"a", true),
        (b"*a*", b"a", true),
        (b"?", b"a", true),
        (b"??", b"a", false),
        (b"a?", b"a", false),
        (b"*?", b"a", true),
        (b"?*", b"a", true),
        (b"h?llo", b"hello", true),
        (b"h*llo", b"heeeello", true),
        (b"h[ae]llo", b"hallo", true),
        (b"h[ae]llo", b"hillo", false),
        (b"h[^e]llo", b"hallo", true),
        (b"h[^e]llo", b"hello", false),
        (b"h[a-b]llo", b"hbllo", true),
        (b"h[b-a]llo", b"hbllo", true),
        (b"[", b"[", false),
        (b"[", b"a", false),
        (b"[]", b"a", false),
        (b"[]", b"]", false),
        (b"[]", b"[]", false),
        (b"[^", b"a", true),
        (b"[^", b"^", true),
        (b"[^", b"ab", false),
        (b"[^]", b"a", true),
        (b"[^]", b"]", true),
        (b"[^]a", b"xa", true),
        (b"[a", b"a", true),
        (b"[a", b"b", false),
        (b"[ab", b"b", true),
        (b"[a-", b"a", true),
        (b"[a-", b"-", true),
        (b"[a-", b"b", false),
        (b"[a-c", b"b", true),
        (b"[a-]b", b"b", true),
        (b"[a-]b", b"ab", false),
        (b"[a-]b", b"^", true),
        (b"[a-]", b"a", true),
        (b"[a-]", b"]", true),
        (b"[a-]", b"_", true),
        (b"[]a]", b"a", false),
        (b"[]a]", b"]a]", false),
        (b"[-a]", b"-", true),
        (b"[-a]", b"a", true),
        (b"[--a]", b"A", true),
        (b"[z-a]", b"m", true),
        (b"[a-a]", b"a", true),
        (b"[\\]", b"\\", false),
        (b"[\\]", b"]", true),
        (b"[\\]]", b"]", true),
        (b"[\\]]", b"\\", false),
        (b"[\\", b"\\", true),
        (b"[\\", b"a", false),
        (b"[a\\", b"\\", true),
        (b"[a\\", b"a", true),
        (b"[\\a-c]", b"b", false),
        (b"[\\a-c]", b"-", true),
        (b"[a-\\]]", b"]", false),
        (b"[a-\\]]", b"]]", true),
        (b"[a-\\]", b"_", true),
        (b"[^\\a]", b"a", false),
        (b"[^\\^]", b"^", false),
        (b"[a^]", b"^", true),
        (b"[*]", b"*", true),
        (b"[?]", b"x", false),
        (b"a\\", b"a\\", true),
        (b"a\\", b"a", false),
        (b"\\", b"\\", true),
        (b"\\a", b"a", true),
        (b"\\a", b"\\a", false),
        (b"\\*", b"*", true),
        (b"\\*", b"a", false),
        (b"\\?", b"?", true),
        (b"\\[", b"[", true),
        (b"\\\\", b"\\", true),
        (b"*\\", b"a\\", true),
        (b"*\\", b"a", false),
        (b"a*\\*", b"ab*", true),
        (b"a*b*c", b"axxbxxc", true),
        (b"a*b*c", b"axxbxxcx", false),
        (b"a*b*c*", b"axxbxxcx", true),
        (b"*ab*ab", b"abab", true),
        (b"*ab*ab", b"abxab", true),
        (b"*aab", b"aaab", true),
        (b"*a*[", b"aa", false),
        (b"*[^", b"ab", true),
        (b"a*[", b"a", false),
        (b"[a-\xff]", b"b", false),
        (b"[a-\xff]", b"A", true),
        (b"[a-\xff]", b"\xff", true),
        (b"[a-\xff]", b"\x80", false),
        (b"[\x80-\xff]", b"\x90", true),
        (b"[\xff-\x80]", b"\x90", true),
        (b"?", b"\xff", true),
        (b"\xff", b"\xff", true),
        (b"a\x00b", b"a\x00b", true),
        (b"a\x00b", b"a", false),
        (b"[\x00]", b"\x00", true),
        (b"*\x00", b"x\x00", true),
        (b"s:*", b"s:1", true),
        (b"s:*", b"t:1", false),
        (b"A", b"a", false),
        (b"[A-Z]", b"a", false),
    ];

    #[test]
    fn matches_as_redis_does() {
        for (pattern, text, expected) in FROM_REDIS {
            let shown = (pattern.escape_ascii(), text.escape_ascii());
            assert_eq!(matches(pattern, text, false), *expected, "{} on {}", shown.0, shown.1);
        }
    }

    #[test]
    fn folds_case_when_told() {
        for (pattern, text, expected) in [
            ("ABC", "abc", true),
            ("a?c", "ABC", true),
            ("[A-C]x", "bX", true),
            ("[abc]", "B", true),
            ("[^a-c]", "B", false),
            ("[\\A]", "a", false),
            ("\\A", "a", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes(), true), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = "a*".repeat(MAX_PATTERN / 2);
        let text = "a".repeat(crate::limits::MAX_KEY);
        assert!(!matches(format!("{pattern}b").as_bytes(), text.as_bytes(), false));
    }

    /// Redis's algorithm in its own recursive form.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=text.len()).any(|covered| naive(rest, &text[covered..])),
            (_, []) => false,
            (_, [byte, text @ ..]) => step(pattern, *byte, false).is_some_and(|rest| naive(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_recursive_form(pattern in "[ab*?\\[\\]^\\\\-]{0,12}", text in "[ab\\]-]{1,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text, false), naive(pattern, text));
        }

        #[test]
        fn takes_any_bytes(pattern: Vec<u8>, text: Vec<u8>, ignore_case: bool) {
            let _ = matches(&pattern, &text, ignore_case);
        }
    }
}
