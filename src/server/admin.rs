//! The side port: `/metrics`, `/livez`, `/readyz`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::metrics::page::Page;
use crate::server::page;
use crate::server::shared::Shared;

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;

/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;

/// Time to send a request's head, also that of the next request of an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Prometheus's text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Serves until the stop; `stop` comes last of all, so that probes see the shutdown.
pub async fn run(listener: TcpListener, shared: Arc<Shared>, stop: tokio_util::sync::CancellationToken) {
    let page = Arc::new(Page::new());
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (page, shared, stop) = (Arc::clone(&page), Arc::clone(&shared), stop.clone());
                let tasks = shared.tasks.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = serve(stream, page, shared) => {}
                        () = stop.cancelled() => {}
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the metrics port failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, page: Arc<Page>, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let response = answer(&request, &page, &shared);
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection to the metrics port ended");
    }
}

fn answer<B>(request: &Request<B>, page: &Page, shared: &Shared) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n".to_owned());
    }
    match request.uri().path() {
        "/metrics" => plain(StatusCode::OK, page::render(page, shared)),
        "/livez" => plain(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(shared),
        "/" => plain(StatusCode::OK, "cloakroom: /metrics /livez /readyz\n".to_owned()),
        _ => plain(StatusCode::NOT_FOUND, "not found\n".to_owned()),
    }
}

/// Ready: the store answered when it was last asked (at most a second ago), and we are not shutting down.
fn readiness(shared: &Shared) -> Response<Full<Bytes>> {
    let reason = match shared.keyspace.get() {
        _ if shared.stop.is_cancelled() => Some("shutting down"),
        None => Some("the store has not been reached yet"),
        Some(keyspace) if !keyspace.figures().store_up => Some("the store is not available"),
        Some(_) => None,
    };
    match reason {
        None => plain(StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

fn plain(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
}
