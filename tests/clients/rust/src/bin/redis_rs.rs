//! redis-rs with its defaults does what session back ends do.

use clients::{address, version};
use redis::{Client, Commands, Connection, ErrorKind, RedisResult, ServerErrorKind, cmd, pipe};
use serde_json::json;

fn connect(user: &str, database: u8, protocol: &str) -> RedisResult<Connection> {
    let (host, port) = address();
    Client::open(format!("redis://{user}@{host}:{port}/{database}{protocol}"))?.get_connection()
}

fn main() -> RedisResult<()> {
    let password = std::env::var("REDIS_PASSWORD").expect("REDIS_PASSWORD is set");
    let mut exercised = Vec::new();
    assert_eq!(connect(":no", 0, "").err().expect("refused").kind(), ErrorKind::AuthenticationFailed);
    let mut client = connect(&format!(":{password}"), 0, "")?;
    assert_eq!(client.ping::<String>()?, "PONG");
    connect(&format!("default:{password}"), 0, "")?;
    exercised.push("password");

    let mut other = connect(&format!(":{password}"), 3, "")?;
    other.set::<_, _, ()>("only here", 1)?;
    assert!(!client.exists::<_, bool>("only here")?);
    cmd("FLUSHDB").exec(&mut other)?;
    exercised.push("database");

    for protocol in ["?protocol=resp2", "?protocol=resp3"] {
        let mut chosen = connect(&format!(":{password}"), 0, protocol)?;
        chosen.set::<_, _, ()>("spoken", protocol)?;
        assert_eq!(chosen.get::<_, String>("spoken")?, protocol);
        assert_eq!(chosen.del::<_, i64>("spoken")?, 1);
    }
    exercised.push("RESP2 and RESP3");

    assert_eq!(client.get::<_, Option<Vec<u8>>>("missing")?, None);
    client.set_ex::<_, _, ()>("s:1", b"\x00\xff\r\n", 600)?;
    assert_eq!(client.get::<_, Vec<u8>>("s:1")?, b"\x00\xff\r\n");
    assert_eq!(client.ttl::<_, i64>("s:1")?, 600);
    let set = |condition: &str| cmd("SET").arg("s:1").arg("x").arg(condition).arg("EX").arg(100).to_owned();
    assert_eq!(set("NX").query::<Option<String>>(&mut client)?, None);
    assert_eq!(set("XX").query::<Option<String>>(&mut client)?, Some("OK".to_owned()));
    assert!(client.expire::<_, bool>("s:1", 50)?);
    assert_eq!(client.ttl::<_, i64>("s:1")?, 50);
    assert_eq!(client.mget::<_, Vec<Option<String>>>(&["s:1", "missing"])?, [Some("x".to_owned()), None]);
    assert_eq!(client.del::<_, i64>(&["s:1", "missing"])?, 1);
    assert_eq!(
        client.rename::<_, _, ()>("missing", "x").expect_err("there is no such key").kind(),
        ErrorKind::Server(ServerErrorKind::ResponseError)
    );
    exercised.push("string commands");

    let mut pipeline = pipe();
    for number in 0..60 {
        pipeline.set(format!("s:{number}"), number).ignore().get(format!("s:{number}"));
    }
    assert_eq!(pipeline.query::<Vec<i64>>(&mut client)?, (0..60).collect::<Vec<i64>>());
    exercised.push("pipeline");

    let found: RedisResult<Vec<String>> = client.scan_match::<_, String>("s:*")?.collect();
    assert_eq!(found?.len(), 60);
    exercised.push("SCAN");

    let replies: Vec<String> = pipe().atomic().set("m", 1).expire("m", 60).ignore().get("m").query(&mut client)?;
    assert_eq!(replies, ["OK", "1"]);
    exercised.push("MULTI");

    let script = "return redis.call('set', KEYS[1], ARGV[1]) and redis.call('get', KEYS[1])";
    let sha: String = cmd("SCRIPT").arg("LOAD").arg(script).query(&mut client)?;
    assert_eq!(cmd("EVALSHA").arg(sha).arg(1).arg("m").arg(4).query::<i64>(&mut client)?, 4);
    exercised.push("scripts");

    client.hset_multiple::<_, _, _, ()>("h", &[("user", "ada"), ("count", "1")])?;
    assert_eq!(client.hincr::<_, _, _, i64>("h", "count", 41)?, 42);
    let fields: std::collections::BTreeMap<String, String> = client.hgetall("h")?;
    assert_eq!(fields.into_iter().collect::<Vec<_>>(), [("count".to_owned(), "42".to_owned()), ("user".to_owned(), "ada".to_owned())]);
    assert_eq!(client.hdel::<_, _, i64>("h", "user")?, 1);
    exercised.push("hashes");

    let about = json!({
        "name": "redis-rs",
        "version": version("redis"),
        "exercised": exercised,
        "config": "redis::Client::open(\"redis://:…@127.0.0.1:6379\")?",
    });
    println!("{about}");
    Ok(())
}
