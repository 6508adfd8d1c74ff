//! The library `cjson`: JSON to Lua values and back, with the rules and texts of the library that Redis has.
//! Its settings cannot be changed: they would outlive the script.

use mlua::{Lua, MultiValue, Result, Table, Value};

use crate::script::bits::Checked;
use crate::script::lua_number::general;
use crate::script::watch::is_over;

/// How deep data may nest, in both directions.
const MAX_DEPTH: usize = 1000;

/// Bytes of one encoded text: a table may hold another many times.
const MAX_ENCODED: usize = 64 * 1024 * 1024;

/// An array may have holes: up to this length, or if at least every second element is there.
const SPARSE_SAFE: usize = 10;

/// Significant digits of a number.
const PRECISION: usize = 14;

/// The library. Each function answers a complaint and a value; the prelude makes an error of the first.
pub(super) fn library(lua: &Lua) -> Result<Table> {
    let library = lua.create_table()?;
    library.raw_set("null", Value::NULL)?;
    library.raw_set("_NAME", "cjson")?;
    library.raw_set("_VERSION", "2.1.0")?;
    let encode = lua.create_function(|lua, args: MultiValue| -> Result<Checked> {
        let [value] = &args.iter().collect::<Vec<_>>()[..] else { return Ok(one_argument("encode")) };
        let mut text = Vec::new();
        Ok(match encode(lua, &mut text, value, 0) {
            Ok(()) => (None, Value::String(lua.create_string(text)?)),
            Err(complaint) => (Some(complaint), Value::Nil),
        })
    })?;
    library.raw_set("encode", encode)?;
    let decode = lua.create_function(|lua, args: MultiValue| -> Result<Checked> {
        let [value] = &args.iter().collect::<Vec<_>>()[..] else { return Ok(one_argument("decode")) };
        let Some(text) = lua.coerce_string((*value).clone())? else {
            let complaint = format!("bad argument #1 to 'decode' (string expected, got {})", value.type_name());
            return Ok((Some(complaint), Value::Nil));
        };
        let text = text.as_bytes();
        let mut decoder = Decoder { lua, text: &text, at: 0, depth: 0 };
        match decoder.whole() {
            Ok(value) => Ok((None, value)),
            Err(Fault::Lua(error)) => Err(error),
            Err(Fault::Text(complaint)) => Ok((Some(complaint), Value::Nil)),
        }
    })?;
    library.raw_set("decode", decode)?;
    for (name, value) in [
        ("encode_max_depth", Value::Number(MAX_DEPTH as f64)),
        ("decode_max_depth", Value::Number(MAX_DEPTH as f64)),
        ("encode_number_precision", Value::Number(PRECISION as f64)),
        ("encode_sparse_array", Value::Boolean(false)),
        ("encode_keep_buffer", Value::Boolean(true)),
        ("encode_invalid_numbers", Value::Boolean(false)),
        ("decode_invalid_numbers", Value::Boolean(true)),
    ] {
        let setting = lua.create_function(move |_, _: MultiValue| -> Result<Checked> { Ok((None, value.clone())) })?;
        library.raw_set(name, setting)?;
    }
    Ok(library)
}

fn one_argument(name: &str) -> Checked {
    (Some(format!("bad argument #1 to '{name}' (expected 1 argument)")), Value::Nil)
}

/// Appends `value` as JSON. Recurses at most [`MAX_DEPTH`] deep.
fn encode(lua: &Lua, out: &mut Vec<u8>, value: &Value, depth: usize) -> std::result::Result<(), String> {
    if out.len() > MAX_ENCODED || is_over(lua) {
        return Err("Cannot serialise: the text is too long".into());
    }
    match value {
        Value::Nil => out.extend_from_slice(b"null"),
        null if null.is_null() => out.extend_from_slice(b"null"),
        Value::Boolean(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Value::Integer(number) => out.extend_from_slice(general(*number as f64, PRECISION).as_bytes()),
        Value::Number(number) if number.is_finite() => {
            out.extend_from_slice(general(*number, PRECISION).as_bytes());
        }
        Value::Number(_) => return Err("Cannot serialise number: must not be NaN or Inf".into()),
        Value::String(text) => encode_string(out, &text.as_bytes()),
        Value::Table(table) => {
            if depth >= MAX_DEPTH {
                return Err(format!("Cannot serialise, excessive nesting ({})", depth + 1));
            }
            encode_table(lua, out, table, depth + 1)?;
        }
        other => return Err(format!("Cannot serialise {}: type not supported", other.type_name())),
    }
    Ok(())
}

fn encode_table(lua: &Lua, out: &mut Vec<u8>, table: &Table, depth: usize) -> std::result::Result<(), String> {
    let mut separator: &[u8] = b"";
    if let Some(length) = array_length(table)? {
        out.push(b'[');
        for at in 1..=length {
            out.extend_from_slice(separator);
            separator = b",";
            encode(lua, out, &table.raw_get(at).unwrap_or(Value::Nil), depth)?;
        }
        out.push(b']');
        return Ok(());
    }
    out.push(b'{');
    for (key, value) in table.pairs::<Value, Value>().flatten() {
        out.extend_from_slice(separator);
        separator = b",";
        match &key {
            Value::String(text) => encode_string(out, &text.as_bytes()),
            Value::Integer(number) => encode_string(out, general(*number as f64, PRECISION).as_bytes()),
            Value::Number(number) => encode_string(out, general(*number, PRECISION).as_bytes()),
            other => {
                let kind = other.type_name();
                return Err(format!("Cannot serialise {kind}: table key must be a number or string"));
            }
        }
        out.push(b':');
        encode(lua, out, &value, depth)?;
    }
    out.push(b'}');
    Ok(())
}

/// The length of a table that is an array; none if it has other keys, or nothing at all.
fn array_length(table: &Table) -> std::result::Result<Option<usize>, String> {
    let (mut largest, mut count) = (0, 0);
    for (key, _) in table.pairs::<Value, Value>().flatten() {
        let number = match key {
            Value::Integer(number) => number as f64,
            Value::Number(number) => number,
            _ => return Ok(None),
        };
        if number < 1.0 || number.fract() != 0.0 {
            return Ok(None);
        }
        largest = largest.max(number as usize);
        count += 1;
    }
    if largest > count * 2 && largest > SPARSE_SAFE {
        return Err("Cannot serialise table: excessively sparse array".into());
    }
    Ok((largest > 0).then_some(largest))
}

fn encode_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' | b'/' => out.extend_from_slice(&[b'\\', byte]),
            8 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            12 => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..=31 | 127 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Reads JSON; it only moves forward.
struct Decoder<'a> {
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    depth: usize,
}

enum Fault {
    Text(String),
    Lua(mlua::Error),
}

impl From<mlua::Error> for Fault {
    fn from(error: mlua::Error) -> Self {
        Self::Lua(error)
    }
}

/// A token with the place where it, or what is wrong with it, is.
struct Token {
    kind: Kind,
    at: usize,
}

enum Kind {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Colon,
    Comma,
    String(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    End,
    Error(&'static str),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::ObjectBegin => "T_OBJ_BEGIN",
            Self::ObjectEnd => "T_OBJ_END",
            Self::ArrayBegin => "T_ARR_BEGIN",
            Self::ArrayEnd => "T_ARR_END",
            Self::Colon => "T_COLON",
            Self::Comma => "T_COMMA",
            Self::String(_) => "T_STRING",
            Self::Number(_) => "T_NUMBER",
            Self::Boolean(_) => "T_BOOLEAN",
            Self::Null => "T_NULL",
            Self::End => "T_END",
            Self::Error(what) => what,
        }
    }
}

fn unexpected(expected: &str, found: &Token) -> Fault {
    Fault::Text(format!("Expected {expected} but found {} at character {}", found.kind.name(), found.at + 1))
}

impl Decoder<'_> {
    fn whole(&mut self) -> std::result::Result<Value, Fault> {
        let token = self.next();
        let value = self.value(token)?;
        let end = self.next();
        if matches!(end.kind, Kind::End) { Ok(value) } else { Err(unexpected("the end", &end)) }
    }

    /// Recurses at most [`MAX_DEPTH`] deep.
    fn value(&mut self, token: Token) -> std::result::Result<Value, Fault> {
        match token.kind {
            Kind::String(text) => Ok(Value::String(self.lua.create_string(text)?)),
            Kind::Number(number) => Ok(Value::Number(number)),
            Kind::Boolean(value) => Ok(Value::Boolean(value)),
            Kind::Null => Ok(Value::NULL),
            Kind::ObjectBegin => self.nested(Self::object),
            Kind::ArrayBegin => self.nested(Self::array),
            _ => Err(unexpected("value", &token)),
        }
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> std::result::Result<Value, Fault>,
    ) -> std::result::Result<Value, Fault> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let at = self.at;
            return Err(Fault::Text(format!(
                "Found too many nested data structures ({}) at character {at}",
                self.depth
            )));
        }
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> std::result::Result<Value, Fault> {
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if matches!(token.kind, Kind::ObjectEnd) {
            return Ok(Value::Table(table));
        }
        loop {
            let Kind::String(key) = token.kind else { return Err(unexpected("object key string", &token)) };
            let colon = self.next();
            if !matches!(colon.kind, Kind::Colon) {
                return Err(unexpected("colon", &colon));
            }
            let first = self.next();
            let value = self.value(first)?;
            table.raw_set(self.lua.create_string(key)?, value)?;
            token = self.next();
            match token.kind {
                Kind::ObjectEnd => return Ok(Value::Table(table)),
                Kind::Comma => token = self.next(),
                _ => return Err(unexpected("comma or object end", &token)),
            }
        }
    }

    fn array(&mut self) -> std::result::Result<Value, Fault> {
        let table = self.lua.create_table()?;
        let mut token = self.next();
        if matches!(token.kind, Kind::ArrayEnd) {
            return Ok(Value::Table(table));
        }
        for at in 1.. {
            let value = self.value(token)?;
            table.raw_set(at, value)?;
            token = self.next();
            match token.kind {
                Kind::ArrayEnd => break,
                Kind::Comma => token = self.next(),
                _ => return Err(unexpected("comma or array end", &token)),
            }
        }
        Ok(Value::Table(table))
    }

    fn next(&mut self) -> Token {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        let at = self.at;
        let kind = match self.text.get(at) {
            None => return Token { kind: Kind::End, at },
            Some(b'{') => Kind::ObjectBegin,
            Some(b'}') => Kind::ObjectEnd,
            Some(b'[') => Kind::ArrayBegin,
            Some(b']') => Kind::ArrayEnd,
            Some(b':') => Kind::Colon,
            Some(b',') => Kind::Comma,
            Some(b'"') => return self.string(at),
            Some(b'-' | b'0'..=b'9' | b'i' | b'I' | b'N') => return self.number(at),
            Some(_) => return self.word(at),
        };
        self.at += 1;
        Token { kind, at }
    }

    fn word(&mut self, at: usize) -> Token {
        for (word, kind) in [("true", Kind::Boolean(true)), ("false", Kind::Boolean(false)), ("null", Kind::Null)] {
            if self.text[at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Token { kind, at };
            }
        }
        if self.text[at] == b'n' { self.number(at) } else { Token { kind: Kind::Error("invalid token"), at } }
    }

    fn number(&mut self, at: usize) -> Token {
        match leading_number(&self.text[at..]) {
            Some((number, len)) => {
                self.at += len;
                Token { kind: Kind::Number(number), at }
            }
            None => Token { kind: Kind::Error("invalid token"), at },
        }
    }

    fn string(&mut self, start: usize) -> Token {
        let mut text = Vec::new();
        self.at += 1;
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                return Token { kind: Kind::Error("unexpected end of string"), at: self.at };
            };
            match byte {
                b'"' => {
                    self.at += 1;
                    return Token { kind: Kind::String(text), at: start };
                }
                b'\\' => {
                    if let Err(what) = self.escape(&mut text) {
                        return Token { kind: Kind::Error(what), at: self.at };
                    }
                }
                _ => {
                    text.push(byte);
                    self.at += 1;
                }
            }
        }
    }

    /// Reads what begins with a backslash.
    fn escape(&mut self, text: &mut Vec<u8>) -> std::result::Result<(), &'static str> {
        let plain = match self.text.get(self.at + 1) {
            Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 8,
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'f') => 12,
            Some(b'r') => b'\r',
            Some(b'u') => {
                const INVALID: &str = "invalid unicode escape code";
                let mut code = self.four_digits(self.at + 2).ok_or(INVALID)?;
                self.at += 6;
                if (0xd800..0xdc00).contains(&code) {
                    let is_pair = self.text[self.at..].starts_with(b"\\u");
                    let low = if is_pair { self.four_digits(self.at + 2) } else { None };
                    let low = low.filter(|low| (0xdc00..0xe000).contains(low)).ok_or(INVALID)?;
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    self.at += 6;
                }
                let character = char::from_u32(code).ok_or(INVALID)?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err("invalid escape code"),
        };
        text.push(plain);
        self.at += 2;
        Ok(())
    }

    fn four_digits(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 4)?;
        digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?))
    }
}

/// The number that `text` begins with, and its length, as C reads it.
fn leading_number(text: &[u8]) -> Option<(f64, usize)> {
    let signed = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let sign = if text.first() == Some(&b'-') { -1.0 } else { 1.0 };
    let rest = &text[signed..];
    let begins = |word: &str| rest.len() >= word.len() && rest[..word.len()].eq_ignore_ascii_case(word.as_bytes());
    for (word, value) in [("infinity", f64::INFINITY), ("inf", f64::INFINITY), ("nan", f64::NAN)] {
        if begins(word) {
            return Some((sign * value, signed + word.len()));
        }
    }
    if begins("0x") {
        let digits = rest[2..].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let digit = |byte: &u8| f64::from(char::from(*byte).to_digit(16).unwrap_or_default());
        let value = rest[2..2 + digits].iter().fold(0.0, |value, byte| value * 16.0 + digit(byte));
        return if digits > 0 { Some((sign * value, signed + 2 + digits)) } else { Some((sign * 0.0, signed + 1)) };
    }
    let digits = |from: usize| rest[from.min(rest.len())..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits(0);
    let mut len = whole;
    if rest.get(len) == Some(&b'.') {
        let fraction = digits(len + 1);
        if whole + fraction == 0 {
            return None;
        }
        len += 1 + fraction;
    }
    if len == 0 {
        return None;
    }
    if matches!(rest.get(len), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(rest.get(len + 1), Some(b'-' | b'+')));
        let exponent = digits(len + 1 + sign);
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    let value: f64 = std::str::from_utf8(&rest[..len]).ok()?.parse().ok()?;
    Some((sign * value, signed + len))
}
