//! A Luau machine that runs one script after the other: closed to the host, bounded in time and memory, and nothing of a
//! script is left for the next one. It knows no command.

use std::ops::Range;
use std::sync::Arc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, MultiValue, Result, StdLib, Table, Value, VmState};

use crate::resp::args::Args;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;
use crate::script::bits::{self, Checked};
use crate::script::cjson;
use crate::script::convert::{single, to_lua, to_reply};
use crate::script::lua_number::general;
use crate::script::source::{Script, sha1hex};
use crate::script::watch::{Limits, Watch};

/// Answers what a script asks of Redis. It lives as long as the script runs.
pub type Host = Box<dyn FnMut(Args<'_>) -> Reply + Send>;

/// A script with what it is given.
pub struct Job {
    /// The script.
    pub script: Arc<Script>,
    /// `KEYS`.
    pub keys: Vec<Vec<u8>>,
    /// `ARGV`.
    pub argv: Vec<Vec<u8>>,
}

/// How a script ended.
pub enum Ran {
    /// It returned, or failed: this is its reply, and what it did until then stands.
    Reply(Reply),
    /// It was stopped, because it took too much: what it did must not stand.
    Stopped(ErrorReply),
}

/// See the file's header.
pub struct Machine {
    lua: Lua,
    /// Runs a function; part of the prelude.
    run: Function,
    /// Of the table of globals of each script.
    globals: Table,
    watch: Arc<Watch>,
    limits: Limits,
    /// Memory in use before the first script.
    idle_memory: usize,
    is_reusable: bool,
}

/// What the functions of the machine need while a script runs.
struct Running {
    host: Host,
    resp3: bool,
    bytes: Vec<u8>,
    ranges: Vec<Range<usize>>,
}

/// What scripts may leave behind as garbage before it is collected.
const GARBAGE: usize = 4 * 1024 * 1024;

/// Bytes of an error's text that are told.
const MAX_COMPLAINT: usize = 4096;

/// What Redis calls itself to scripts, beside `redis_version`.
const VERSION: (&str, u32) = ("7.2.4", 0x0007_0204);

impl Machine {
    /// A machine that has run nothing.
    pub(super) fn new(limits: Limits) -> Result<Self> {
        let libraries = StdLib::COROUTINE | StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::DEBUG;
        // Panics of ours are caught by whoever runs the machine.
        let lua = Lua::new_with(libraries, LuaOptions::new().catch_rust_panics(false))?;
        let watch = Arc::new(Watch::new());
        let prelude = lua.load(include_str!("prelude.luau")).set_name("=prelude");
        let (run, globals): (Function, Table) = prelude.call(host(&lua)?)?;
        lua.sandbox(true)?;
        lua.set_app_data(Arc::clone(&watch));
        let looking = Arc::clone(&watch);
        lua.set_interrupt(
            move |_| {
                if looking.is_over() { Err(mlua::Error::runtime(OVERTIME)) } else { Ok(VmState::Continue) }
            },
        );
        lua.gc_collect()?;
        let idle_memory = lua.used_memory();
        lua.set_memory_limit(idle_memory + limits.memory)?;
        Ok(Self { lua, run, globals, watch, limits, idle_memory, is_reusable: true })
    }

    /// Whether another script may run in it.
    pub(super) fn is_reusable(&self) -> bool {
        self.is_reusable
    }

    /// Runs a script.
    pub fn run(&mut self, job: &Job, host: Host) -> Ran {
        self.watch.start(self.limits.time);
        self.lua.set_app_data(Running { host, resp3: false, bytes: Vec::new(), ranges: Vec::new() });
        let result = self.call(job).map(|ended| ended.map(|value| to_reply(&self.lua, &value)));
        self.lua.remove_app_data::<Running>();
        if self.watch.has_stopped() {
            return self.stopped("ERR the script took more time than it may, and was stopped");
        }
        let ran = match result {
            Ok(Ok(reply)) => Ran::Reply(reply),
            Ok(Err((text, _))) if is_out_of_memory(&text) => self.out_of_memory(),
            Ok(Err((text, 0))) => Ran::Reply(Reply::Error(ErrorReply::Quoted(text))),
            Ok(Err((text, line))) => {
                let text = format!("{text} script: {}, on @user_script:{line}.", job.script.sha);
                Ran::Reply(Reply::Error(ErrorReply::Quoted(text)))
            }
            Err(error) if is_out_of_memory(&error.to_string()) => self.out_of_memory(),
            // Such as an error in the handler of an error.
            Err(_) => self.stopped("ERR the script failed in a way that cannot be told"),
        };
        if self.is_reusable && self.lua.used_memory() > self.idle_memory + GARBAGE {
            self.is_reusable = self.lua.gc_collect().is_ok();
        }
        ran
    }

    /// What the script returned, or the text and line of its error.
    fn call(&self, job: &Job) -> Result<std::result::Result<Value, (String, u32)>> {
        let lua = &self.lua;
        let globals = lua.create_table()?;
        globals.raw_set("KEYS", strings(lua, &job.keys)?)?;
        globals.raw_set("ARGV", strings(lua, &job.argv)?)?;
        globals.raw_set("_G", globals.clone())?;
        globals.set_metatable(Some(self.globals.clone()))?;
        globals.set_readonly(true);
        let chunk = lua.load(&job.script.bytecode[..]).set_mode(ChunkMode::Binary).set_name("=user_script");
        let function = chunk.set_environment(globals).into_function()?;
        let results: MultiValue = self.run.call(function)?;
        let mut results = results.into_iter();
        let returned = matches!(results.next(), Some(Value::Boolean(true)));
        let value = results.next().unwrap_or(Value::Nil);
        match value {
            value if returned => Ok(Ok(value)),
            Value::Table(blame) => {
                let text: mlua::LuaString = blame.raw_get("text")?;
                let text = text.as_bytes();
                let text = String::from_utf8_lossy(&text[..text.len().min(MAX_COMPLAINT)]);
                let text = text.replace("attempt to modify a readonly", "Attempt to modify a readonly");
                Ok(Err((text, blame.raw_get("line")?)))
            }
            // There was no memory even for the blame.
            _ => Err(mlua::Error::MemoryError(String::new())),
        }
    }

    fn out_of_memory(&mut self) -> Ran {
        self.stopped("ERR the script took more memory than it may, and was stopped")
    }

    fn stopped(&mut self, text: &'static str) -> Ran {
        self.is_reusable = false;
        Ran::Stopped(ErrorReply::Other(text))
    }
}

const OVERTIME: &str = "the time of the script is over";

fn is_out_of_memory(text: &str) -> bool {
    text.contains("not enough memory") || text.contains("memory error")
}

fn strings(lua: &Lua, items: &[Vec<u8>]) -> Result<Table> {
    let table = lua.create_table_with_capacity(items.len(), 0)?;
    for (at, item) in items.iter().enumerate() {
        table.raw_set(at + 1, lua.create_string(item)?)?;
    }
    Ok(table)
}

/// What the prelude builds on.
fn host(lua: &Lua) -> Result<Table> {
    let host = lua.create_table()?;
    host.raw_set("bit", bits::library(lua)?)?;
    host.raw_set("cjson", cjson::library(lua)?)?;
    host.raw_set("call", lua.create_function(call)?)?;
    host.raw_set("sha1hex", lua.create_function(|lua, args: MultiValue| sha1(lua, &args))?)?;
    host.raw_set("log", lua.create_function(|lua, args: MultiValue| log(lua, &args))?)?;
    host.raw_set("setresp", lua.create_function(|lua, args: MultiValue| setresp(lua, &args))?)?;
    host.raw_set("error_reply", lua.create_function(|lua, args: MultiValue| reply(lua, &args, "err"))?)?;
    host.raw_set("status_reply", lua.create_function(|lua, args: MultiValue| reply(lua, &args, "ok"))?)?;
    let redis = lua.create_table()?;
    for (number, name) in ["LOG_DEBUG", "LOG_VERBOSE", "LOG_NOTICE", "LOG_WARNING"].into_iter().enumerate() {
        redis.raw_set(name, number)?;
    }
    for (name, number) in [("REPL_NONE", 0), ("REPL_SLAVE", 2), ("REPL_REPLICA", 2), ("REPL_AOF", 1), ("REPL_ALL", 3)] {
        redis.raw_set(name, number)?;
    }
    redis.raw_set("REDIS_VERSION", VERSION.0)?;
    redis.raw_set("REDIS_VERSION_NUM", VERSION.1)?;
    host.raw_set("redis", redis)?;
    Ok(host)
}

/// `redis.call`, except that an error is a table.
fn call(lua: &Lua, args: MultiValue) -> Result<Value> {
    let complain = |text: &str| single(lua, "err", Value::String(lua.create_string(text)?));
    if args.is_empty() {
        return complain("ERR Please specify at least one argument for this redis lib call");
    }
    let Some(mut running) = lua.app_data_mut::<Running>() else { return complain("ERR no script runs") };
    let Running { host, resp3, bytes, ranges } = &mut *running;
    bytes.clear();
    ranges.clear();
    for arg in args {
        let start = bytes.len();
        match arg {
            Value::String(text) => bytes.extend_from_slice(&text.as_bytes()),
            Value::Integer(number) => bytes.extend_from_slice(number.to_string().as_bytes()),
            Value::Number(number) => bytes.extend_from_slice(general(number, 17).as_bytes()),
            _ => return complain("ERR Lua redis lib command arguments must be strings or integers"),
        }
        ranges.push(start..bytes.len());
    }
    let reply = host(Args::new(bytes, ranges));
    let resp3 = *resp3;
    drop(running);
    to_lua(lua, &reply, resp3)
}

fn sha1(lua: &Lua, args: &MultiValue) -> Result<Checked> {
    if args.len() != 1 {
        return Ok((Some("ERR wrong number of arguments".into()), Value::Nil));
    }
    let text = lua.coerce_string(args[0].clone())?.map_or_else(|| sha1hex(b""), |text| sha1hex(&text.as_bytes()));
    Ok((None, Value::String(lua.create_string(text)?)))
}

/// What scripts say may hold keys and values, which do not belong in a log: only that something was said is logged.
fn log(lua: &Lua, args: &MultiValue) -> Result<Checked> {
    let complaint = |text: &str| Ok((Some(text.to_owned()), Value::Nil));
    if args.len() < 2 {
        return complaint("ERR redis.log() requires two arguments or more.");
    }
    let Some(level) = lua.coerce_number(args[0].clone())? else {
        return complaint("ERR First argument must be a number (log level).");
    };
    if !(0.0..=3.0).contains(&level) {
        return complaint("ERR Invalid debug level.");
    }
    tracing::debug!(level, "a script logged");
    Ok((None, Value::Nil))
}

fn setresp(lua: &Lua, args: &MultiValue) -> Result<Checked> {
    if args.len() != 1 {
        return Ok((Some("ERR redis.setresp() requires one argument.".into()), Value::Nil));
    }
    let wanted = lua.coerce_number(args[0].clone())?.unwrap_or_default();
    if wanted.to_bits() != 2f64.to_bits() && wanted.to_bits() != 3f64.to_bits() {
        return Ok((Some("ERR RESP version must be 2 or 3.".into()), Value::Nil));
    }
    if let Some(mut running) = lua.app_data_mut::<Running>() {
        running.resp3 = wanted > 2.0;
    }
    Ok((None, Value::Nil))
}

/// `redis.error_reply` and `redis.status_reply`: a table with one field.
fn reply(lua: &Lua, args: &MultiValue, name: &str) -> Result<Value> {
    let [Value::String(text)] = args.iter().collect::<Vec<_>>()[..] else {
        return single(lua, "err", Value::String(lua.create_string("ERR wrong number or type of arguments")?));
    };
    if name == "ok" {
        return single(lua, name, Value::String(text.clone()));
    }
    let bytes = text.as_bytes();
    // A text with a code has a space, or begins as an error on the wire does.
    let coded = match bytes.strip_prefix(b"-") {
        Some(coded) => coded.to_vec(),
        None if bytes.contains(&b' ') => bytes.to_vec(),
        None => [b"ERR ", &bytes[..]].concat(),
    };
    single(lua, name, Value::String(lua.create_string(coded)?))
}
