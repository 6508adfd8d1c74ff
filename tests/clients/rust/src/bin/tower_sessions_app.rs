//! Axum with tower-sessions over fred.

use std::collections::HashMap;

use axum::extract::Query;
use axum::routing::{get, post};
use axum::{Router, http::StatusCode};
use clients::{TTL, address, listener, say};
use fred::prelude::{Builder, ClientLike, Config, ReconnectPolicy, ServerConfig};
use serde_json::json;
use tower_sessions::cookie::time::Duration;
use tower_sessions::{Expiry, Session, SessionManagerLayer};
use tower_sessions_redis_store::RedisStore;

type Answer = Result<String, (StatusCode, String)>;

fn failed(error: tower_sessions::session::Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

async fn login(session: Session, Query(query): Query<HashMap<String, String>>) -> Answer {
    session.cycle_id().await.map_err(failed)?;
    session.insert("user", &query["user"]).await.map_err(failed)?;
    Ok("ok".to_owned())
}

async fn me(session: Session) -> Answer {
    Ok(session.get("user").await.map_err(failed)?.unwrap_or_default())
}

async fn count(session: Session) -> Answer {
    let count = session.get::<i64>("count").await.map_err(failed)?.unwrap_or(0) + 1;
    session.insert("count", count).await.map_err(failed)?;
    Ok(count.to_string())
}

async fn rotate(session: Session) -> Answer {
    session.cycle_id().await.map_err(failed)?;
    Ok("ok".to_owned())
}

async fn logout(session: Session) -> Answer {
    session.flush().await.map_err(failed)?;
    Ok("ok".to_owned())
}

#[tokio::main]
async fn main() {
    let (host, port) = address();
    let config = Config { server: ServerConfig::new_centralized(host, port), ..Config::default() };
    let mut builder = Builder::from_config(config);
    builder.set_policy(ReconnectPolicy::new_constant(0, 20));
    let pool = builder.build_pool(4).expect("a pool can be made");
    pool.init().await.expect("the server answers");
    let sessions = SessionManagerLayer::new(RedisStore::new(pool))
        .with_secure(false)
        .with_always_save(true)
        .with_expiry(Expiry::OnInactivity(Duration::seconds(TTL)));
    let app = Router::new()
        .route("/login", post(login))
        .route("/me", get(me))
        .route("/count", post(count))
        .route("/rotate", post(rotate))
        .route("/logout", post(logout))
        .layer(sessions);
    let listener = listener();
    let about = json!({
        "name": "tower-sessions, tower-sessions-redis-store",
        "config": "let pool = Pool::new(Config::from_url(\"redis://127.0.0.1:6379\")?, None, None, None, 6)?;\n\
                   SessionManagerLayer::new(RedisStore::new(pool))",
        "touch": true,
        "rotate": true,
    });
    say(about, &["tower-sessions", "tower-sessions-redis-store", "fred"], &listener);
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    axum::serve(listener, app).await.expect("it serves");
}
