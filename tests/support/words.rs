//! Command lines as redis-cli takes them: words, `"escaped \x00"` and `'plain'` strings. Knows no command.

/// Splits one line into the arguments of a request.
///
/// # Panics
/// On unbalanced quotes: the tables of the tests are meant to be right.
pub fn split(line: &str) -> Vec<Vec<u8>> {
    let mut rest = line.as_bytes();
    let mut words = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        match rest.first() {
            None => return words,
            Some(b'"') => words.push(double_quoted(&mut rest, line)),
            Some(b'\'') => words.push(single_quoted(&mut rest, line)),
            Some(_) => {
                let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
                words.push(rest[..end].to_vec());
                rest = &rest[end..];
            }
        }
    }
}

/// The bytes that a string with backslash escapes stands for.
pub fn unescape(text: &str) -> Vec<u8> {
    let quoted = format!("\"{}\"", text.replace('"', "\\\""));
    split(&quoted).pop().unwrap_or_default()
}

fn double_quoted(rest: &mut &[u8], line: &str) -> Vec<u8> {
    let mut word = Vec::new();
    let mut at = 1;
    loop {
        match rest.get(at) {
            None => panic!("unbalanced quotes: {line}"),
            Some(b'"') => break,
            Some(b'\\') => {
                let (byte, used) = escape(&rest[at + 1..], line);
                word.push(byte);
                at += 1 + used;
            }
            Some(byte) => {
                word.push(*byte);
                at += 1;
            }
        }
    }
    *rest = &rest[at + 1..];
    word
}

fn escape(after: &[u8], line: &str) -> (u8, usize) {
    match after.first() {
        Some(b'n') => (b'\n', 1),
        Some(b'r') => (b'\r', 1),
        Some(b't') => (b'\t', 1),
        Some(b'b') => (8, 1),
        Some(b'a') => (7, 1),
        Some(b'x') if after.len() >= 3 => {
            let digits = std::str::from_utf8(&after[1..3]).expect("hexadecimal digits are ASCII");
            (u8::from_str_radix(digits, 16).expect("two hexadecimal digits follow \\x"), 3)
        }
        Some(byte) => (*byte, 1),
        None => panic!("a backslash ends the line: {line}"),
    }
}

fn single_quoted(rest: &mut &[u8], line: &str) -> Vec<u8> {
    let end = rest[1..].iter().position(|byte| *byte == b'\'').unwrap_or_else(|| panic!("unbalanced quotes: {line}"));
    let word = rest[1..=end].to_vec();
    *rest = &rest[end + 2..];
    word
}
