//! Replies to Lua values and back, by Redis's rules. Bounded: a table may hold itself.

use mlua::{Lua, Result, Table, Value};

use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;
use crate::script::watch::is_over;

/// How deep a reply may nest.
const MAX_DEPTH: usize = 128;

/// How many values a reply may have.
const MAX_VALUES: usize = 1024 * 1024;

/// Bytes of all strings of a reply.
const MAX_BYTES: usize = 128 * 1024 * 1024;

/// A reply as a script sees it; `resp3`: after `redis.setresp(3)`.
pub(super) fn to_lua(lua: &Lua, reply: &Reply, resp3: bool) -> Result<Value> {
    let string = |bytes: &[u8]| Ok(Value::String(lua.create_string(bytes)?));
    match reply {
        Reply::Simple(text) => single(lua, "ok", string(text.as_bytes())?),
        Reply::Error(error) => single(lua, "err", string(error.to_string().as_bytes())?),
        Reply::Int(number) => Ok(Value::Number(*number as f64)),
        Reply::Value(value) => string(value),
        Reply::Bulk(bytes) => string(bytes),
        Reply::Text(text) => string(text.as_bytes()),
        Reply::Null | Reply::NullArray if resp3 => Ok(Value::Nil),
        Reply::Null | Reply::NullArray => Ok(Value::Boolean(false)),
        Reply::Double(number) if resp3 => single(lua, "double", Value::Number(*number)),
        Reply::Double(number) => string(super::lua_number::general(*number, 17).as_bytes()),
        Reply::Array(items) => sequence(lua, items.iter(), resp3),
        Reply::Set(items) if !resp3 => sequence(lua, items.iter(), resp3),
        Reply::Set(items) => {
            let set = lua.create_table()?;
            for item in items {
                set.raw_set(to_lua(lua, item, resp3)?, true)?;
            }
            single(lua, "set", Value::Table(set))
        }
        Reply::Map(pairs) if !resp3 => sequence(lua, pairs.iter().flat_map(|(key, value)| [key, value]), resp3),
        Reply::Map(pairs) => {
            let map = lua.create_table()?;
            for (key, value) in pairs {
                map.raw_set(to_lua(lua, key, resp3)?, to_lua(lua, value, resp3)?)?;
            }
            single(lua, "map", Value::Table(map))
        }
    }
}

/// A table with one field.
pub(super) fn single(lua: &Lua, name: &str, value: Value) -> Result<Value> {
    let table = lua.create_table()?;
    table.raw_set(name, value)?;
    Ok(Value::Table(table))
}

fn sequence<'a>(lua: &Lua, items: impl Iterator<Item = &'a Reply>, resp3: bool) -> Result<Value> {
    let table = lua.create_table()?;
    for (at, item) in items.enumerate() {
        table.raw_set(at + 1, to_lua(lua, item, resp3)?)?;
    }
    Ok(Value::Table(table))
}

/// What a script returned, as its reply.
pub(super) fn to_reply(lua: &Lua, value: &Value) -> Reply {
    let mut room = Room { lua, values: MAX_VALUES, bytes: MAX_BYTES };
    let reply = room.reply(value, 0);
    reply.unwrap_or_else(|error| Reply::Error(ErrorReply::Other(error)))
}

/// What may still be taken into a reply.
struct Room<'a> {
    lua: &'a Lua,
    values: usize,
    bytes: usize,
}

impl Room<'_> {
    fn reply(&mut self, value: &Value, depth: usize) -> std::result::Result<Reply, &'static str> {
        const TOO_LARGE: &str = "ERR the script's reply is too large";
        // A table may hold another many times, and that another.
        if is_over(self.lua) {
            return Err(TOO_LARGE);
        }
        if depth > MAX_DEPTH {
            return Err("ERR reached lua stack limit");
        }
        self.values = self.values.checked_sub(1).ok_or(TOO_LARGE)?;
        Ok(match value {
            Value::String(text) => {
                let text = text.as_bytes();
                self.bytes = self.bytes.checked_sub(text.len()).ok_or(TOO_LARGE)?;
                Reply::Bulk(text.to_vec())
            }
            Value::Boolean(true) => Reply::Int(1),
            Value::Integer(number) => Reply::Int(*number),
            Value::Number(number) => Reply::Int(truncated(*number)),
            Value::Table(table) => self.table(table, depth)?,
            _ => Reply::Null,
        })
    }

    fn table(&mut self, table: &Table, depth: usize) -> std::result::Result<Reply, &'static str> {
        if let Some(text) = text_field(table, "err") {
            return Ok(Reply::Error(ErrorReply::Quoted(text)));
        }
        if let Some(text) = text_field(table, "ok") {
            return Ok(Reply::Simple(text.replace(['\r', '\n'], " ").into()));
        }
        match field(table, "double") {
            Value::Number(number) => return Ok(Reply::Double(number)),
            Value::Integer(number) => return Ok(Reply::Double(number as f64)),
            _ => {}
        }
        if let Value::Table(map) = field(table, "map") {
            let mut pairs = Vec::new();
            for pair in map.pairs::<Value, Value>().flatten() {
                pairs.push((self.reply(&pair.0, depth + 1)?, self.reply(&pair.1, depth + 1)?));
            }
            return Ok(Reply::Map(pairs));
        }
        if let Value::Table(set) = field(table, "set") {
            let mut items = Vec::new();
            for pair in set.pairs::<Value, Value>().flatten() {
                items.push(self.reply(&pair.0, depth + 1)?);
            }
            return Ok(Reply::Set(items));
        }
        if let Some(text) = text_field(table, "big_number") {
            return Ok(Reply::Bulk(text.replace(['\r', '\n'], " ").into_bytes()));
        }
        if let Value::Table(verbatim) = field(table, "verbatim_string")
            && let (Some(text), Some(_)) = (text_field(&verbatim, "string"), text_field(&verbatim, "format"))
        {
            return Ok(Reply::Text(text));
        }
        let mut items = Vec::new();
        for at in 1.. {
            let item: Value = table.raw_get(at).unwrap_or(Value::Nil);
            if item.is_nil() {
                break;
            }
            items.push(self.reply(&item, depth + 1)?);
        }
        Ok(Reply::Array(items))
    }
}

fn field(table: &Table, name: &str) -> Value {
    table.raw_get(name).unwrap_or(Value::Nil)
}

fn text_field(table: &Table, name: &str) -> Option<String> {
    match field(table, name) {
        Value::String(text) => Some(text.to_string_lossy()),
        _ => None,
    }
}

/// As C makes an integer of a number, on the machines that Redis runs on.
fn truncated(number: f64) -> i64 {
    if number > -9_223_372_036_854_775_808.0 && number < 9_223_372_036_854_775_808.0 { number as i64 } else { i64::MIN }
}
