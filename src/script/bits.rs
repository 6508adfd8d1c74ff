//! The library `bit`: operations on 32 bits, signed, as the library `BitOp` that Redis has.

use mlua::{Lua, MultiValue, Result, Table, Value};

/// What a checked function answers: a complaint, or a value.
pub(super) type Checked = (Option<String>, Value);

/// An operation on checked numbers.
type Operation = fn(&[i32]) -> i32;

const OPERATIONS: [(&str, usize, Operation); 11] = [
    ("tobit", 1, |n| n[0]),
    ("bnot", 1, |n| !n[0]),
    ("bswap", 1, |n| n[0].swap_bytes()),
    ("band", 1, |n| n.iter().fold(-1, |sum, one| sum & one)),
    ("bor", 1, |n| n.iter().fold(0, |sum, one| sum | one)),
    ("bxor", 1, |n| n.iter().fold(0, |sum, one| sum ^ one)),
    ("lshift", 2, |n| n[0] << (n[1] & 31)),
    ("rshift", 2, |n| (n[0] as u32 >> (n[1] & 31)) as i32),
    ("arshift", 2, |n| n[0] >> (n[1] & 31)),
    ("rol", 2, |n| n[0].rotate_left((n[1] & 31) as u32)),
    ("ror", 2, |n| n[0].rotate_right((n[1] & 31) as u32)),
];

/// The library. Each function answers a complaint and a value; the prelude makes an error of the first.
pub(super) fn library(lua: &Lua) -> Result<Table> {
    let library = lua.create_table()?;
    for (name, least, operation) in OPERATIONS {
        let function = lua.create_function(move |lua, args: MultiValue| -> Result<Checked> {
            Ok(match numbers(lua, &args, name, least) {
                Ok(numbers) => (None, Value::Number(f64::from(operation(&numbers)))),
                Err(complaint) => (Some(complaint), Value::Nil),
            })
        })?;
        library.raw_set(name, function)?;
    }
    let tohex = lua.create_function(|lua, args: MultiValue| -> Result<Checked> {
        let numbers = match numbers(lua, &args, "tohex", 1) {
            Ok(numbers) => numbers,
            Err(complaint) => return Ok((Some(complaint), Value::Nil)),
        };
        let digits = numbers.get(1).copied().unwrap_or(8);
        let text = format!("{:08x}", numbers[0]);
        let text = &text[8 - digits.unsigned_abs().min(8) as usize..];
        let text = if digits < 0 { text.to_ascii_uppercase() } else { text.to_owned() };
        Ok((None, Value::String(lua.create_string(text)?)))
    })?;
    library.raw_set("tohex", tohex)?;
    Ok(library)
}

/// All arguments as 32 bits, at least `least` of them.
fn numbers(lua: &Lua, args: &MultiValue, name: &str, least: usize) -> std::result::Result<Vec<i32>, String> {
    let count = args.len().max(least);
    (0..count)
        .map(|at| {
            let value = args.get(at);
            let number = value.and_then(|value| lua.coerce_number(value.clone()).ok().flatten());
            let got = value.map_or("no value", Value::type_name);
            number
                .map(tobit)
                .ok_or_else(|| format!("bad argument #{} to '{name}' (number expected, got {got})", at + 1))
        })
        .collect()
}

/// The nearest whole number's lowest 32 bits.
fn tobit(number: f64) -> i32 {
    number.round_ties_even().rem_euclid(4_294_967_296.0) as u32 as i32
}
