//! fred with its defaults does what session back ends do.

use clients::{address, version};
use fred::error::{Error, ErrorKind};
use fred::prelude::{
    Builder, Client, ClientInterface, ClientLike, Config, Expiration, KeysInterface, ServerConfig,
    SetOptions,
};
use fred::types::RespVersion;
use fred::types::scan::Scanner;
use futures_util::TryStreamExt;
use serde_json::json;

async fn connect(password: &str, database: u8, version: RespVersion) -> Result<Client, Error> {
    let (host, port) = address();
    let config = Config {
        server: ServerConfig::new_centralized(host, port),
        password: Some(password.to_owned()),
        database: Some(database),
        version,
        fail_fast: true,
        ..Config::default()
    };
    let client = Builder::from_config(config).build()?;
    client.init().await?;
    Ok(client)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let password = std::env::var("REDIS_PASSWORD").expect("REDIS_PASSWORD is set");
    let mut exercised = Vec::new();
    let refused = connect("no", 0, RespVersion::RESP2).await.err().expect("refused");
    assert_eq!(refused.kind(), &ErrorKind::Auth);
    let client = connect(&password, 0, RespVersion::RESP2).await?;
    assert_eq!(client.ping::<String>(None).await?, "PONG");
    exercised.push("password");

    let other = connect(&password, 3, RespVersion::RESP3).await?;
    other.client_setname("named").await?;
    assert_eq!(other.client_getname::<String>().await?, "named");
    other.set::<(), _, _>("only here", 1, None, None, false).await?;
    assert_eq!(client.exists::<i64, _>("only here").await?, 0);
    assert_eq!(other.del::<i64, _>("only here").await?, 1);
    other.quit().await?;
    exercised.extend(["name and database", "RESP2 and RESP3"]);

    assert_eq!(client.get::<Option<String>, _>("missing").await?, None);
    client.set::<(), _, _>("s:1", "v", Some(Expiration::EX(600)), None, false).await?;
    assert_eq!(client.get::<String, _>("s:1").await?, "v");
    assert_eq!(client.ttl::<i64, _>("s:1").await?, 600);
    let absent = client.set::<Option<String>, _, _>("s:1", "x", Some(Expiration::EX(100)), Some(SetOptions::NX), false);
    assert_eq!(absent.await?, None);
    let present = client.set::<Option<String>, _, _>("s:1", "x", Some(Expiration::EXAT(4_102_444_800)), Some(SetOptions::XX), false);
    assert_eq!(present.await?, Some("OK".to_owned()));
    assert_eq!(client.expire::<i64, _>("s:1", 50, None).await?, 1);
    assert_eq!(client.ttl::<i64, _>("s:1").await?, 50);
    assert_eq!(client.mget::<Vec<Option<String>>, _>(vec!["s:1", "missing"]).await?, [Some("x".to_owned()), None]);
    assert_eq!(client.del::<i64, _>(vec!["s:1", "missing"]).await?, 1);
    client.rename::<(), _, _>("missing", "x").await.expect_err("there is no such key");
    exercised.push("string commands");

    let pipeline = client.pipeline();
    for number in 0..60 {
        pipeline.set::<(), _, _>(format!("s:{number}"), number, None, None, false).await?;
    }
    assert_eq!(pipeline.all::<Vec<String>>().await?, vec!["OK"; 60]);
    exercised.push("pipeline");

    let mut found = 0;
    let mut pages = std::pin::pin!(client.scan("s:*", Some(10), None));
    while let Some(mut page) = pages.try_next().await? {
        found += page.take_results().map_or(0, |keys| keys.len());
        page.next();
    }
    assert_eq!(found, 60);
    exercised.push("SCAN");
    client.quit().await?;

    let about = json!({
        "name": "fred",
        "version": version("fred"),
        "exercised": exercised,
        "config": "Builder::from_config(Config::from_url(\"redis://:…@127.0.0.1:6379\")?).build()?",
    });
    println!("{about}");
    Ok(())
}
