//! Actix with actix-session over redis-rs.

use std::collections::HashMap;

use actix_session::config::{PersistentSession, TtlExtensionPolicy};
use actix_session::storage::RedisSessionStore;
use actix_session::{Session, SessionMiddleware};
use actix_web::cookie::Key;
use actix_web::cookie::time::Duration;
use actix_web::web::Query;
use actix_web::{App, Error, HttpServer, get, post};
use clients::{TTL, address, listener, say, versions};
use serde_json::json;

type Answer = Result<String, Error>;

#[post("/login")]
async fn login(session: Session, query: Query<HashMap<String, String>>) -> Answer {
    session.renew();
    session.insert("user", &query["user"])?;
    Ok("ok".to_owned())
}

#[get("/me")]
async fn me(session: Session) -> Answer {
    Ok(session.get("user")?.unwrap_or_default())
}

#[post("/count")]
async fn count(session: Session) -> Answer {
    let count = session.get::<i64>("count")?.unwrap_or(0) + 1;
    session.insert("count", count)?;
    Ok(count.to_string())
}

#[post("/rotate")]
async fn rotate(session: Session) -> Answer {
    session.renew();
    Ok("ok".to_owned())
}

#[post("/logout")]
async fn logout(session: Session) -> Answer {
    session.purge();
    Ok("ok".to_owned())
}

#[actix_web::main]
async fn main() {
    let (host, port) = address();
    let store = RedisSessionStore::new(format!("redis://{host}:{port}")).await.expect("the server answers");
    let server = HttpServer::new(move || {
        let life = PersistentSession::default()
            .session_ttl(Duration::seconds(TTL))
            .session_ttl_extension_policy(TtlExtensionPolicy::OnEveryRequest);
        let sessions = SessionMiddleware::builder(store.clone(), Key::from(&[7; 64]))
            .session_lifecycle(life)
            .cookie_secure(false)
            .build();
        App::new().wrap(sessions).service(login).service(me).service(count).service(rotate).service(logout)
    });
    let listener = listener();
    let about = json!({
        "name": "actix-session",
        "version": format!("actix-session {}, redis {}", clients::version("actix-session"), versions("redis")[0]),
        "config": "let store = RedisSessionStore::new(\"redis://127.0.0.1:6379\").await?;\n\
                   App::new().wrap(SessionMiddleware::new(store.clone(), key))",
        "touch": true,
        "rotate": true,
    });
    say(about, &[], &listener);
    server.workers(2).listen(listener).expect("a listener").run().await.expect("it serves");
}
