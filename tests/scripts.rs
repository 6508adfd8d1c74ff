//! Scripts that mean harm, scripts beside other clients, scripts under contention. What scripts answer is compared with
//! Redis's in `tests/differential.rs`.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use support::client::Client;
use support::daemon::{Daemon, StoreKind};
use support::postgres::Cluster;

/// A short time for scripts, so that endless ones do not hold up the tests.
const SHORT: &[(&str, &str)] = &[("scripts.time_limit", "200ms"), ("scripts.memory_limit", "16MiB")];

const OVER: &str = "-ERR the script took more time than it may, and was stopped\\r\\n";
const MEMORY: &str = "-ERR the script took more memory than it may, and was stopped\\r\\n";

fn eval(client: &mut Client, script: &str) -> String {
    support::client::shown(&client.call(&[b"EVAL", script.as_bytes(), b"0"]))
}

#[test]
fn endless_scripts_are_stopped() {
    let daemon = Daemon::start(StoreKind::Sqlite, SHORT);
    let mut client = daemon.client();
    for script in [
        "while true do end",
        "repeat until false",
        "while true do pcall(function() while true do end end) end",
        "local function f() while true do pcall(f) end end f()",
        "return xpcall(function() error('x') end, function() while true do end end)",
        "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
        "coroutine.wrap(function() while true do end end)()",
        "table.sort({3,2,1,5,4}, function() while true do end end)",
        "return string.find(('a'):rep(100000), '.-.-.-.-.-b')",
        "return string.gsub(('a'):rep(1000), '.', function() while true do end end)",
        "while true do redis.call('set', 'trace', '1') end",
        "while true do redis.pcall('nope') end",
        "redis.call('set', 'trace', '1') while true do end",
        "local t = {} for i = 1, 100 do t = {t, t} end return t",
        "local t = {} for i = 1, 100 do t = {t, t} end return cjson.encode(t)",
    ] {
        let reply = eval(&mut client, script);
        assert!(reply == OVER || reply == "-ERR the script writes too much\\r\\n", "{script}: {reply}");
    }
    assert_eq!(client.ask("EXISTS trace"), ":0\\r\\n");
    assert_eq!(eval(&mut client, "return 'fine'"), "$4\\r\\nfine\\r\\n");
}

#[test]
fn greedy_scripts_are_stopped() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[("scripts.memory_limit", "16MiB"), ("scripts.time_limit", "60s")]);
    let mut client = daemon.client();
    let long = "x".repeat(5000);
    for (script, expected) in [
        ("local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end", MEMORY),
        ("local s = 'x' while true do s = s .. s end", MEMORY),
        ("return ('x'):rep(100000000)", MEMORY),
        ("local t = {} for i = 1, 1e9 do t[i] = i end", MEMORY),
        ("local t = {} while true do t = {t} end", MEMORY),
        ("redis.call('set', 'trace', '1') return ('x'):rep(100000000)", MEMORY),
        (
            "for i = 1, 100 do redis.call('set', 'trace', ('x'):rep(1000000)) end",
            "-ERR the script writes too much\\r\\n",
        ),
        ("local t = {} t[1] = t return t", "-ERR reached lua stack limit\\r\\n"),
        ("local t = {} for i = 1, 100000 do t = {t} end return t", "-ERR reached lua stack limit\\r\\n"),
        ("return cjson.decode(('['):rep(100000))", "-ERR user_script:1: Found too many nested"),
        (
            "local t = {} t[1] = t return cjson.encode(t)",
            "-ERR user_script:1: Cannot serialise, excessive nesting (1001)",
        ),
        ("local function f() return 1 + f() end return f()", "-ERR user_script:1: stack overflow"),
        ("local function g() coroutine.wrap(g)() end g()", "-ERR user_script:1: "),
        (
            "return setmetatable({}, {__index = function(t, k) return t[k] end}).x",
            "-ERR user_script:1: C stack overflow",
        ),
        ("return #{unpack({}, 1, 1e9)}", "-ERR user_script:1: too many results to unpack"),
        (&format!("error('{long}')"), "-ERR user_script:1: xxx"),
    ] {
        let reply = eval(&mut client, script);
        assert!(reply.starts_with(expected) && reply.len() < 5000, "{}: {reply}", &script[..script.len().min(100)]);
    }
    assert_eq!(client.ask("EXISTS trace"), ":0\\r\\n");
    assert_eq!(eval(&mut client, "return 'fine'"), "$4\\r\\nfine\\r\\n");
}

#[test]
fn nothing_of_a_script_is_left_for_the_next() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let mut client = daemon.client();
    for script in [
        "x = 1",
        "_G.x = 1",
        "rawset(_G, 'x', 1)",
        "function x() end",
        "string.x = 1",
        "string.rep = nil",
        "redis.call = nil",
        "cjson.encode = nil",
        "table.insert(string, 1)",
        "rawset(string, 'rep', nil)",
        "setmetatable(string, {})",
        "setmetatable(_G, {})",
        "getmetatable('').__index = nil",
        "rawset(getmetatable(''), '__index', nil)",
        "getmetatable(_G).__index = nil",
        "getmetatable(_G).__index.x = 1",
        "getmetatable(getmetatable(_G).__index).__index = nil",
        "KEYS = {}",
    ] {
        let reply = eval(&mut client, script);
        assert!(reply.contains("Attempt to modify a readonly table"), "{script}: {reply}");
    }
    for (script, expected) in [
        ("math.randomseed(7) return 1", ":1\\r\\n"),
        ("KEYS.x = 1 ARGV.x = 1 return 1", ":1\\r\\n"),
        ("return KEYS.x or ARGV.x or 'none'", "$4\\r\\nnone\\r\\n"),
        ("redis.setresp(3) return 1", ":1\\r\\n"),
        ("redis.call('hset', 'h', 'f', 'v') return redis.call('hgetall', 'h')[1]", "$1\\r\\nf\\r\\n"),
        ("redis.call('select', 3) redis.call('set', 'three', '1') return 1", ":1\\r\\n"),
        ("return redis.call('exists', 'three')", ":0\\r\\n"),
        ("coroutine.wrap(function() coroutine.yield() end)() return 1", ":1\\r\\n"),
    ] {
        assert_eq!(eval(&mut client, script), expected, "{script}");
    }
    let random = eval(&mut client, "return tostring(math.random())");
    assert_eq!(eval(&mut client, "return tostring(math.random())"), random);
}

#[test]
fn the_host_is_out_of_reach() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    let mut client = daemon.client();
    for name in [
        "os",
        "io",
        "require",
        "debug",
        "load",
        "loadstring",
        "loadfile",
        "dofile",
        "package",
        "getfenv",
        "setfenv",
        "newproxy",
        "print",
        "buffer",
        "vector",
        "bit32",
        "utf8",
        "jit",
        "host",
        "prelude",
    ] {
        let reply = eval(&mut client, &format!("return {name}"));
        let expected =
            format!("-ERR user_script:1: Script attempted to access nonexistent global variable \\'{name}\\'");
        assert!(reply.starts_with(&expected), "{name}: {reply}");
    }
    for command in
        ["multi", "exec", "watch", "eval", "evalsha", "script", "auth", "hello", "client", "config", "quit", "reset"]
    {
        let reply = eval(&mut client, &format!("return redis.pcall('{command}', 'id', '0').err"));
        assert!(
            reply.contains("not allowed from script")
                || reply.contains("Wrong number of args")
                || reply.contains("Unknown"),
            "{command}: {reply}"
        );
    }
}

/// A client that reads and writes goes on while every thread for scripts is taken, and the script that is stopped has
/// not been stopped by that client's end.
#[test]
fn other_connections_are_served_while_a_script_runs() {
    let daemon = Daemon::start(StoreKind::Sqlite, &[("scripts.time_limit", "3s")]);
    let running = AtomicBool::new(true);
    let served = thread::scope(|scope| {
        let hostile: Vec<_> = (0..4).map(|_| scope.spawn(|| eval(&mut daemon.client(), "while true do end"))).collect();
        let other = scope.spawn(|| {
            let mut client = daemon.client();
            let mut served = 0;
            while running.load(Ordering::Relaxed) {
                assert_eq!(client.ask("SET k v EX 1000"), "+OK\\r\\n");
                assert_eq!(client.ask("GET k"), "$1\\r\\nv\\r\\n");
                served += 1;
            }
            served
        });
        let ends: Vec<String> = hostile.into_iter().map(|one| one.join().expect("it does not panic")).collect();
        running.store(false, Ordering::Relaxed);
        assert_eq!(ends, [OVER; 4]);
        other.join().expect("it does not panic")
    });
    // All of it happened before the last script ended. A client that had to wait for a script would come to a handful.
    assert!(served > 50, "{served} rounds were served beside the scripts");
}

#[test]
fn no_update_of_a_script_is_lost() {
    let increment = "local n = redis.call('get', 'undeclared') or 0 redis.call('set', 'undeclared', n + 1) \
                     return redis.call('incr', KEYS[1])";
    let check = |ports: &[u16]| {
        thread::scope(|scope| {
            for number in 0..6 {
                let port = ports[number % ports.len()];
                scope.spawn(move || {
                    let mut client = Client::connect(port);
                    for _ in 0..20 {
                        let reply = client.call(&[b"EVAL", increment.as_bytes(), b"1", b"declared"]);
                        assert_eq!(reply[0], b':', "{}", support::client::shown(&reply));
                    }
                });
            }
        });
        let mut client = Client::connect(ports[0]);
        assert_eq!(eval(&mut client, "return redis.call('incrby', 'declared', 0)"), ":120\\r\\n");
        assert_eq!(eval(&mut client, "return redis.call('incrby', 'undeclared', 0)"), ":120\\r\\n");
    };
    let daemon = Daemon::start(StoreKind::Sqlite, &[]);
    check(&[daemon.port()]);
    let cluster = Cluster::start();
    let [one, other] = [(); 2].map(|()| Daemon::start(StoreKind::Postgres(&cluster), &[]));
    check(&[one.port(), other.port()]);
}

#[test]
fn without_the_store_a_script_is_an_error() {
    let mut cluster = Cluster::start();
    let daemon = Daemon::start(StoreKind::Postgres(&cluster), &[("postgres.connect_timeout", "500ms")]);
    let mut client = daemon.client();
    assert_eq!(client.ask("SET a 1"), "+OK\\r\\n");
    cluster.kill9();
    for script in [
        "return redis.call('set', 'a', '2')",
        "return redis.call('get', 'never seen')",
        "redis.pcall('get', 'never seen') return 'as if nothing had happened'",
        "return redis.call('incr', 'a')",
    ] {
        let reply = eval(&mut client, script);
        assert!(reply.starts_with("-ERR the "), "{script}: {reply}");
    }
}
