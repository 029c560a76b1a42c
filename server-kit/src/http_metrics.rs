//! Counts and times of every request: REST by route, method and status, gRPC by method and code.
//! The time is up to the head of the answer; bodies may stream on.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

/// Gives the in-flight count back even when the caller went away in the middle.
struct InFlight;

impl InFlight {
    fn new() -> Self {
        metrics::gauge!("fs_requests_in_flight").increment(1.0);
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        metrics::gauge!("fs_requests_in_flight").decrement(1.0);
    }
}

/// Middleware (`axum::middleware::from_fn`), to be put on with `Router::layer` after all routes are.
/// Labels are route patterns and methods of ours, never what a caller typed, so their number is bounded.
pub async fn middleware(request: Request, next: Next) -> Response {
    let grpc = is_grpc(request.headers()).then(|| request.uri().path().trim_start_matches('/').to_owned());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = method_label(request.method());
    let start = Instant::now();
    let in_flight = InFlight::new();
    let response = next.run(request).await;
    drop(in_flight);
    let took = start.elapsed().as_secs_f64();
    match grpc {
        Some(path) => {
            let code = response.headers().get("grpc-status").map_or(OK, |value| code_name(value.as_bytes()));
            // A method that does not exist is what a caller typed.
            let path = if code == UNIMPLEMENTED { "unknown".to_owned() } else { path };
            let labels = [("method", path), ("code", code.to_owned())];
            metrics::counter!("fs_grpc_requests_total", &labels).increment(1);
            metrics::histogram!("fs_grpc_request_duration_seconds", &labels).record(took);
        }
        None => {
            let status = response.status().as_str().to_owned();
            let labels = [("route", route), ("method", method.to_owned()), ("status", status)];
            metrics::counter!("fs_http_requests_total", &labels).increment(1);
            metrics::histogram!("fs_http_request_duration_seconds", &labels).record(took);
        }
    }
    response
}

const OK: &str = "OK";
const UNIMPLEMENTED: &str = "UNIMPLEMENTED";

/// The names of gRPC's status codes, by number (grpc/doc/statuscodes.md).
const CODES: [&str; 17] = [
    OK,
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    UNIMPLEMENTED,
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn code_name(number: &[u8]) -> &'static str {
    let number = std::str::from_utf8(number).ok().and_then(|text| text.parse::<usize>().ok());
    number.and_then(|number| CODES.get(number)).copied().unwrap_or("UNKNOWN")
}

fn is_grpc(headers: &http::HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
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
