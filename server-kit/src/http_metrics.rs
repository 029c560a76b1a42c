//! Counts and times of every request by route: `dfs_http_requests_total` and
//! `dfs_http_request_seconds` {route, method, status}, `dfs_http_requests_in_flight`.
//! The time is up to the head of the answer; bodies may stream on.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

/// Gives the in-flight count back even when the caller went away in the middle.
struct InFlight;

impl InFlight {
    fn new() -> Self {
        metrics::gauge!("dfs_http_requests_in_flight").increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("dfs_http_requests_in_flight").decrement(1.0);
    }
}

/// Middleware (`axum::middleware::from_fn`), to be put on with `Router::layer` after all routes are.
/// Labels are route patterns, never what a caller typed, so their number is bounded.
pub async fn middleware(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let start = Instant::now();
    let in_flight = InFlight::new();
    let response = next.run(request).await;
    drop(in_flight);
    let status = response.status().as_str().to_owned();
    let labels = [("route", route), ("method", method.to_owned()), ("status", status)];
    metrics::counter!("dfs_http_requests_total", &labels).increment(1);
    metrics::histogram!("dfs_http_request_seconds", &labels).record(start.elapsed().as_secs_f64());
    response
}

fn method_label(method: &http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "PUT" => "PUT",
        "POST" => "POST",
        "HEAD" => "HEAD",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
