//! Serving an axum router, gRPC routes included, on one TLS port, with windows sized for bulk data
//! and every wait bounded. A handler that panics answers 500 and takes nothing else with it.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use dfs_types::limits;
use futures::FutureExt;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use http::{HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use crate::listen::TlsListener;
use crate::stream::PeerStream;

/// What may differ between servers and tests.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    pub max_streams: u32,
    /// How long open requests may go on once the server stops.
    pub drain: Duration,
    /// A connection without any request after this long is closed.
    pub first_request: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            max_streams: limits::MAX_STREAMS_PER_CONNECTION,
            drain: Duration::from_millis(limits::DRAIN_DEADLINE_MS),
            first_request: Duration::from_millis(limits::FIRST_REQUEST_DEADLINE_MS),
        }
    }
}

/// Serves until `shutdown` is ready, then takes no new connection, tells the open ones to finish,
/// waits for them up to `options.drain` and cuts off the rest.
///
/// Every request carries two extensions: [`PeerIdentity`](crate::PeerIdentity) and
/// `ConnectInfo<SocketAddr>`. gRPC: merge `tonic::service::Routes::into_axum_router()`.
pub async fn serve(
    mut listener: TlsListener,
    router: axum::Router,
    shutdown: impl Future<Output = ()>,
    options: ServeOptions,
) {
    let builder = Arc::new(tuned_builder(&options));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Some(stream) => {
                    connections.spawn(connection(
                        stream,
                        router.clone(),
                        Arc::clone(&builder),
                        stopped.clone(),
                        options.first_request,
                    ));
                }
                None => break,
            },
            // Finished connections are collected as they end; a panic in one is its own affair.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    stop.send_replace(true);
    let drained = timeout(options.drain, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(open = connections.len(), "cutting off connections that did not finish");
        connections.shutdown().await;
    }
}

fn tuned_builder(options: &ServeOptions) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits::HEADER_READ_DEADLINE_MS))
        .max_buf_size(limits::HTTP2_MAX_FRAME_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::HTTP2_MAX_FRAME_BYTES)
        .max_header_list_size(limits::MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(options.max_streams)
        .keep_alive_interval(Duration::from_millis(limits::KEEPALIVE_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(limits::KEEPALIVE_TIMEOUT_MS));
    builder
}

async fn connection(
    stream: PeerStream,
    router: axum::Router,
    builder: Arc<auto::Builder<TokioExecutor>>,
    mut stopped: watch::Receiver<bool>,
    first_request: Duration,
) {
    let info = stream.info().clone();
    let remote = info.remote;
    let used = Arc::new(AtomicBool::new(false));
    let service = {
        let used = Arc::clone(&used);
        service_fn(move |mut request: Request<Incoming>| {
            used.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(info.identity.clone());
            request.extensions_mut().insert(ConnectInfo::<SocketAddr>(info.remote));
            answer(router.clone(), request)
        })
    };
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut idle = pin!(sleep(first_request));
    let mut watching = true;
    let mut draining = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%remote, error, "connection ended with an error");
                }
                return;
            }
            () = &mut idle, if watching => {
                if !used.load(Ordering::Relaxed) {
                    tracing::debug!(%remote, "no request on a new connection: closed");
                    return;
                }
                watching = false;
            }
            // An error means that `serve` itself is gone, which is as good as a stop.
            _ = stopped.wait_for(|stop| *stop), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn answer(
    router: axum::Router,
    request: Request<Incoming>,
) -> Result<Response, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    // With both a length and chunks, which of the two counts was for the parser to say (it takes the chunks); a
    // machine in front may have said the other. So nothing behind a chunked body is read as a request.
    let last = request.version() < Version::HTTP_2 && request.headers().contains_key(TRANSFER_ENCODING);
    let answered = AssertUnwindSafe(router.oneshot(request.map(Body::new))).catch_unwind().await;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            tracing::error!(path, "a handler panicked");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        }
    };
    if last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// `tonic`'s own server with the same windows, for tests and tools that serve gRPC alone.
pub fn tuned_server() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::HTTP2_MAX_FRAME_BYTES)
        .http2_max_header_list_size(limits::MAX_HEADER_LIST_BYTES)
        .max_concurrent_streams(limits::MAX_STREAMS_PER_CONNECTION)
        .http2_keepalive_interval(Some(Duration::from_millis(limits::KEEPALIVE_INTERVAL_MS)))
        .http2_keepalive_timeout(Some(Duration::from_millis(limits::KEEPALIVE_TIMEOUT_MS)))
}
