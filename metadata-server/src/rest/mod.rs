//! REST: the operations for curl and simple programs. Each handler reads its input strictly, calls
//! one or a few operations, and shapes the answer; it decides nothing itself.
//!
//! - [`shapes`]: the JSON. [`input`]: query strings, ids, bodies. [`time`]: RFC 3339.
//! - `files`, `uploads`, `cluster`: the handlers, by area.

mod cluster;
mod files;
mod input;
mod shapes;
pub mod time;
mod uploads;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, StatusCode};
use server_kit::Problem;
use server_kit::problem::{method_not_allowed, no_such_route};

use crate::service::{Operations, auth};

/// What a handler answers.
type Answer<T> = Result<Json<T>, Problem>;

/// Shared by all handlers.
#[derive(Clone)]
pub struct Rest {
    pub operations: Operations,
    pub metrics: server_kit::metrics::Metrics,
}

/// Every route but `/health` and `/ready`, behind the credential check, with problem documents as
/// fallbacks; gRPC routes are to be merged in.
pub fn router(rest: Rest) -> Router {
    Router::new()
        .route("/files", get(files::list).post(files::create))
        .route("/files/{id}", get(files::get).delete(files::delete))
        .route("/init_upload", post(uploads::init))
        .route("/commit_upload", post(uploads::commit))
        .route("/nodes", get(cluster::nodes))
        .route("/nodes/{id}", get(cluster::node))
        .route("/chunks/{id}/locations", get(cluster::locations).put(cluster::put_location))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(fallback)
        .layer(middleware::from_fn(no_sniffing))
        .layer(middleware::from_fn_with_state(rest.clone(), authenticate))
        .with_state(rest)
}

/// Reads the credential and leaves the call for the handler, before anything else is looked at.
async fn authenticate(
    State(rest): State<Rest>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if is_grpc(&request) {
        // An unknown gRPC method: its answer says so, and nothing runs.
        return Ok(next.run(request).await);
    }
    let call = auth::authenticate(&rest.operations, request.headers(), None).await?;
    request.extensions_mut().insert(call);
    Ok(next.run(request).await)
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

async fn fallback(request: Request) -> Response {
    use axum::response::IntoResponse as _;
    if is_grpc(&request) {
        return tonic::Status::unimplemented("there is no such method").into_http();
    }
    no_such_route(request).await.into_response()
}

async fn no_sniffing(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn metrics(State(rest): State<Rest>) -> Response {
    crate::telemetry::raft(&rest.operations);
    rest.metrics.response()
}

/// 201 with a body.
fn created<T>(body: T) -> (StatusCode, Json<T>) {
    (StatusCode::CREATED, Json(body))
}
