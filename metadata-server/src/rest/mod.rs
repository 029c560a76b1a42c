//! REST: the operations for curl and simple programs. Each handler reads its input strictly, calls
//! one or a few operations, and shapes the answer; it decides nothing itself.
//!
//! - [`api`]: the route table and the OpenAPI document, one list for both. [`docs`]: `/openapi.json`,
//!   `/docs` and the entries of error codes. [`book`]: the same as docs/rest.md.
//! - [`guard`]: what holds for every request before a handler sees it.
//! - [`shapes`]: the JSON. [`problems`]: which errors are answered where. [`asked`]: what a handler is
//!   given; [`input`]: query strings and bodies. [`conditional`]: etags. [`time`]: RFC 3339.
//! - `files`, `uploads`, `buckets`, `cluster`: the handlers, by area.

mod api;
mod asked;
pub mod book;
mod buckets;
mod cluster;
mod conditional;
mod docs;
mod files;
mod guard;
mod html;
mod input;
mod problems;
mod shapes;
pub mod time;
mod uploads;

use axum::extract::State;
use axum::http::header::{ETAG, HeaderName};
use axum::response::Response;
use axum::{Json, Router, middleware};
use http::{HeaderValue, StatusCode};
use server_kit::problem::{method_not_allowed, no_such_route};
use server_kit::{Health, Problem};

use self::problems::OfLook;
use crate::service::Operations;

pub use api::document;

/// What a handler answers.
type Answer<T> = Result<Json<T>, Problem>;
/// The same with the version as etag.
type Tagged<T> = ([(HeaderName, HeaderValue); 1], Json<T>);

/// Shared by all handlers.
#[derive(Clone)]
pub struct Rest {
    pub operations: Operations,
    pub metrics: server_kit::metrics::Metrics,
}

/// Every route: behind the credential check all but health, readiness and the documents; with problem
/// documents as fallbacks. gRPC routes are to be merged in.
pub fn router(rest: Rest, health: &Health) -> Router {
    let (with_credential, open, _) = api::parts();
    let with_credential = with_credential
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_such_route)
        .layer(middleware::from_fn_with_state(rest.clone(), guard::authenticate))
        .with_state(rest);
    open.merge(health.routes())
        .method_not_allowed_fallback(method_not_allowed)
        .merge(with_credential)
        .layer(middleware::from_fn(guard::guard))
}

/// Show metrics
///
/// In the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "server", operation_id = "metrics",
    responses((status = 200, description = "The metrics of this server.", body = String, content_type = "text/plain"), OfLook))]
async fn metrics(State(rest): State<Rest>) -> Response {
    crate::telemetry::raft(&rest.operations);
    rest.metrics.response()
}

/// Where the next page begins, if there is one.
fn next_cursor(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// An answer about this version.
fn tagged<T>(version: u64, body: T) -> Tagged<T> {
    ([(ETAG, conditional::etag(version))], Json(body))
}

/// 201 with a body.
fn created<T>(version: u64, body: T) -> (StatusCode, Tagged<T>) {
    (StatusCode::CREATED, tagged(version, body))
}
