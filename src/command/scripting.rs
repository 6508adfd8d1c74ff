//! `EVAL` and its kin, and `SCRIPT`. A script is a transaction of one command: it works on a stage, on a thread of its own
//! kind, and what it did commits at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::command::access::{LACKING, later};
use crate::command::client::help_lines;
use crate::command::execute::{Context, execute};
use crate::command::number::{database, integer};
use crate::command::request::{About, Flow, Handled, Queue, Request, Step};
use crate::command::spec::{Flag, Spec};
use crate::keyspace::stage::Stage;
use crate::limits::MAX_QUEUED_BYTES;
use crate::resp::args::Args;
use crate::resp::error::ErrorReply;
use crate::resp::reply::Reply;
use crate::script::source::Script;
use crate::script::{Job, Machine, Ran};

/// The rows of this family.
pub const COMMANDS: &[Spec] = &[
    Spec {
        name: "eval",
        since: "2.6.0",
        summary: "Execute a Lua script server side",
        handler: |request| eval(request, How::EVAL),
        ..SCRIPT
    },
    Spec {
        name: "evalsha",
        since: "2.6.0",
        summary: "Execute a Lua script server side",
        handler: |request| eval(request, How::EVALSHA),
        ..SCRIPT
    },
    Spec {
        name: "eval_ro",
        flags: &[Flag::NoScript, Flag::Stale, Flag::ReadOnly],
        since: "7.0.0",
        summary: "Execute a read-only Lua script server side",
        handler: |request| eval(request, How::EVAL_RO),
        ..SCRIPT
    },
    Spec {
        name: "evalsha_ro",
        flags: &[Flag::NoScript, Flag::Stale, Flag::ReadOnly],
        since: "7.0.0",
        summary: "Execute a read-only Lua script server side",
        handler: |request| eval(request, How::EVALSHA_RO),
        ..SCRIPT
    },
    Spec {
        name: "script",
        arity: -2,
        group: "scripting",
        since: "2.6.0",
        summary: "A container for Lua scripts management commands",
        subcommands: SUBCOMMANDS,
        ..Spec::BASE
    },
];

/// What the rows that run scripts have in common.
const SCRIPT: Spec = Spec { arity: -3, flags: &[Flag::NoScript, Flag::Stale], group: "scripting", ..Spec::BASE };

const SUBCOMMANDS: &[Spec] = &[
    Spec {
        name: "exists",
        arity: -3,
        summary: "Check existence of scripts in the script cache.",
        handler: exists,
        ..SUBCOMMAND
    },
    Spec {
        name: "flush",
        arity: -2,
        summary: "Remove all the scripts from the script cache.",
        handler: flush,
        ..SUBCOMMAND
    },
    Spec {
        name: "help",
        arity: 2,
        flags: &[Flag::Loading, Flag::Stale],
        since: "5.0.0",
        summary: "Show helpful text about the different subcommands",
        handler: |_| Ok(Flow::Done(help_lines(HELP))),
        ..SUBCOMMAND
    },
    Spec {
        name: "kill",
        arity: 2,
        flags: &[Flag::NoScript, Flag::AllowBusy],
        summary: "Kill the script currently in execution.",
        handler: |_| Err(ErrorReply::Other("NOTBUSY No scripts in execution right now.")),
        ..SUBCOMMAND
    },
    Spec {
        name: "load",
        arity: 3,
        flags: &[Flag::NoScript, Flag::Stale],
        summary: "Load the specified Lua script into the script cache.",
        handler: load,
        ..SUBCOMMAND
    },
];

/// What the subcommands have in common.
const SUBCOMMAND: Spec = Spec { flags: &[Flag::NoScript], group: "scripting", since: "2.6.0", ..Spec::BASE };

const HELP: &[&str] = &[
    "SCRIPT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "EXISTS <sha1> [<sha1> ...]",
    "    Return information about the existence of the scripts in the script cache.",
    "FLUSH [ASYNC|SYNC]",
    "    Flush the Lua scripts cache. Very dangerous on replicas.",
    "    When called without the optional mode argument, the behavior is determined by the",
    "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
    "    * ASYNC: Asynchronously flush the scripts cache.",
    "    * SYNC: Synchronously flush the scripts cache.",
    "KILL",
    "    Kill the currently executing Lua script.",
    "LOAD <script>",
    "    Load a script into the scripts cache without executing it.",
    "HELP",
    "    Prints this help.",
];

/// Which of the four it is.
#[derive(Clone, Copy)]
struct How {
    /// Whether the script is named by its SHA-1.
    by_sha: bool,
    /// Whether it may only read.
    read_only: bool,
}

impl How {
    const EVAL: Self = Self { by_sha: false, read_only: false };
    const EVALSHA: Self = Self { by_sha: true, read_only: false };
    const EVAL_RO: Self = Self { by_sha: false, read_only: true };
    const EVALSHA_RO: Self = Self { by_sha: true, read_only: true };

    /// Its code, for when it is run over a stage.
    fn step(self) -> Step {
        let handler = match (self.by_sha, self.read_only) {
            (false, false) => |request: &mut Request<'_>| eval(request, Self::EVAL),
            (true, false) => |request: &mut Request<'_>| eval(request, Self::EVALSHA),
            (false, true) => |request: &mut Request<'_>| eval(request, Self::EVAL_RO),
            (true, true) => |request: &mut Request<'_>| eval(request, Self::EVALSHA_RO),
        };
        Step { handler, about: About::Entries, writes: !self.read_only, is_for_scripts: false }
    }
}

fn exists(request: &mut Request<'_>) -> Handled {
    let found = |sha| Reply::Int(i64::from(request.server.scripts.find(sha).is_some()));
    Ok(Flow::Done(Reply::Array(request.args.iter_from(2).map(found).collect())))
}

fn flush(request: &mut Request<'_>) -> Handled {
    let args = request.args;
    let mode = args.get(2).is_none_or(|mode| [&b"sync"[..], b"async"].iter().any(|m| mode.eq_ignore_ascii_case(m)));
    if args.len() > 3 || !mode {
        return Err(ErrorReply::Other("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    request.server.scripts.clear();
    Ok(Flow::Done(Reply::OK))
}

fn load(request: &mut Request<'_>) -> Handled {
    let script = request.server.scripts.load(&request.args[2]).map_err(ErrorReply::Quoted)?;
    Ok(Flow::Done(Reply::bulk(script.sha.as_str())))
}

fn eval(request: &mut Request<'_>, how: How) -> Handled {
    let args = request.args;
    let keys = integer(&args[2])?;
    if keys > args.len() as i64 - 3 {
        return Err(ErrorReply::Other("ERR Number of keys can't be greater than number of args"));
    }
    let Ok(keys) = usize::try_from(keys) else {
        return Err(ErrorReply::Other("ERR Number of keys can't be negative"));
    };
    let scripts = &request.server.scripts;
    let script = if how.by_sha {
        scripts.find(&args[1]).ok_or(ErrorReply::Other("NOSCRIPT No matching script. Please use EVAL."))?
    } else {
        scripts.load(&args[1]).map_err(ErrorReply::Quoted)?
    };
    match request.stage {
        Some(stage) => Ok(eval_staged(request, how, script, keys, stage)),
        None => eval_alone(request, how),
    }
}

/// Runs the script as a transaction of its own.
fn eval_alone(request: &Request<'_>, how: How) -> Handled {
    let mut queue = Queue::default();
    queue.push(how.step(), request.args)?;
    let run = execute(Context::of(request), queue, Vec::new());
    Ok(later(run.map(|(replies, _)| {
        let reply = replies?.and_then(|mut replies| replies.pop());
        Ok(reply.unwrap_or(Reply::Null))
    })))
}

/// Runs the script over a stage, once the keys that it declares are there.
fn eval_staged(request: &Request<'_>, how: How, script: Arc<Script>, keys: usize, stage: &Arc<Mutex<Stage>>) -> Flow {
    {
        let mut stage = lock(stage);
        for name in request.args.iter_from(3).take(keys) {
            // A key that is too long is complained of when it is used.
            if let Ok(key) = request.keyspace.key(request.client.db, name) {
                stage.want(&key);
            }
        }
        if stage.is_missing_keys() {
            return Flow::Done(LACKING);
        }
    }
    let words = |from: usize, count: usize| request.args.iter_from(from).take(count).map(<[u8]>::to_vec).collect();
    let read_only = how.read_only || script.is_read_only;
    let job = Job { script, keys: words(3, keys), argv: words(3 + keys, usize::MAX) };
    let calls = Calls {
        context: Context::of(request),
        stage: Arc::clone(stage),
        runtime: Handle::current(),
        read_only,
        fault: Arc::default(),
    };
    let (answer, answered) = oneshot::channel();
    let submitted = request.server.script_pool.submit(move |machine| {
        // Whoever asked may have left.
        let _ = answer.send(run(machine, &job, calls));
    });
    if !submitted {
        return Flow::Done(Reply::Error(ErrorReply::Other("BUSY too many scripts wait to be run, try again")));
    }
    later(async move { answered.await.map_err(|_| ErrorReply::Internal) })
}

/// Runs a script on this thread. If it is stopped, the stage is as before.
fn run(machine: &mut Machine, job: &Job, mut calls: Calls) -> Reply {
    let (stage, fault) = (Arc::clone(&calls.stage), Arc::clone(&calls.fault));
    let before = lock(&stage).clone();
    let ran = machine.run(job, Box::new(move |args| calls.answer(args)));
    let fault = fault.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (ran, fault) {
        (Ran::Reply(reply), None) => reply,
        (Ran::Stopped(error), None) | (_, Some(error)) => {
            *lock(&stage) = before;
            Reply::Error(error)
        }
    }
}

/// Answers what a script calls.
struct Calls {
    context: Context,
    stage: Arc<Mutex<Stage>>,
    /// For what a call must wait for; the script's thread is none of the runtime's.
    runtime: Handle,
    read_only: bool,
    /// Why the script as a whole has failed, whatever it makes of the errors it is given.
    fault: Arc<Mutex<Option<ErrorReply>>>,
}

impl Calls {
    fn answer(&mut self, args: Args<'_>) -> Reply {
        if let Some(error) = &*self.fault.lock().unwrap_or_else(PoisonError::into_inner) {
            return Reply::Error(error.clone());
        }
        match self.call(args) {
            Ok(reply) => reply,
            Err(error) => Reply::Error(error),
        }
    }

    fn call(&mut self, args: Args<'_>) -> Result<Reply, ErrorReply> {
        let step = (self.context.lookup)(args)?;
        if !step.is_for_scripts {
            return Err(ErrorReply::Other("ERR This Redis command is not allowed from script"));
        }
        if step.writes && self.read_only {
            return Err(ErrorReply::Other("ERR Write commands are not allowed from read-only scripts."));
        }
        match step.about {
            About::Database => {
                self.context.client.db = database(&args[1])?;
                return Ok(Reply::OK);
            }
            About::Other => return Ok(self.wait_for(step, args, false)),
            About::AllKeys if lock(&self.stage).has_changes() => {
                return Err(ErrorReply::Other("ERR this command about all keys cannot follow a write in its script"));
            }
            About::AllKeys | About::Listing | About::Entries => {}
        }
        loop {
            let reply = self.wait_for(step, args, true);
            let missing = {
                let mut stage = lock(&self.stage);
                if stage.bytes() > MAX_QUEUED_BYTES {
                    return Err(self.fail(ErrorReply::Other("ERR the script writes too much")));
                }
                stage.take_missing()
            };
            if missing.is_empty() {
                return Ok(reply);
            }
            let loaded = self.runtime.block_on(self.context.keyspace.entries(&missing));
            let entries = loaded.map_err(|error| self.fail(error.into()))?;
            let mut stage = lock(&self.stage);
            for (key, entry) in missing.iter().zip(entries) {
                stage.give(key, entry);
            }
        }
    }

    fn wait_for(&mut self, step: Step, args: Args<'_>, staged: bool) -> Reply {
        let Context { keyspace, server, client, lookup } = &mut self.context;
        let stage = staged.then_some(&self.stage);
        let (now, tick, lookup) = (lock(&self.stage).now(), keyspace.moment().tick, *lookup);
        let mut request = Request { args, now, tick, behind: false, client, keyspace, server, stage, lookup };
        match (step.handler)(&mut request).unwrap_or_else(|error| Flow::Done(Reply::Error(error))) {
            Flow::Done(reply) | Flow::Close(reply) => reply,
            Flow::Wait(reply) => self.runtime.block_on(reply),
            Flow::Alone(_) => Reply::Error(ErrorReply::Internal),
        }
    }

    fn fail(&self, error: ErrorReply) -> ErrorReply {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error).clone()
    }
}

/// A stage is consistent between its calls, so a panic of a command over it does no harm.
fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}
