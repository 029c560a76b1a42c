//! The id of a request, in the header `x-request-id` of every call and its answer, in the `request_id`
//! field of every log line, and passed on to the servers called on its behalf. Beside it goes the
//! request's place in its trace, where traces are sent: header `traceparent`, field `trace_id`.

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dfs_types::limits::MAX_SPAN_NAME_BYTES;
use dfs_types::{ErrorCode, OsEntropy, RequestId, SystemClock};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::problem::Problem;

pub const HEADER: &str = "x-request-id";
const MAX_BYTES: usize = 128;

tokio::task_local! {
    static CURRENT: RequestIdText;
}

/// Request extension, and what [`current`] returns: 1-128 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestIdText(Arc<str>);

impl RequestIdText {
    /// A new one: a UUIDv7.
    pub fn generate() -> Self {
        Self(RequestId::generate(&SystemClock::new(), &OsEntropy).to_string().into())
    }

    /// The caller's, if it is fit for a log line and a header.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=MAX_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        fits.then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn header(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("a request id is made of header characters")
    }
}

impl fmt::Display for RequestIdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of the request this task works for, if any. A task spawned from a handler has none
/// unless it runs inside [`scope`].
pub fn current() -> Option<RequestIdText> {
    CURRENT.try_with(Clone::clone).ok()
}

/// Runs `work` as part of the request `id`: in its span, and with [`current`] giving the id.
pub async fn scope<T>(id: RequestIdText, work: impl Future<Output = T>) -> T {
    let span = tracing::info_span!("request", request_id = id.as_str());
    scope_in(span, id, work).await
}

async fn scope_in<T>(span: Span, id: RequestIdText, work: impl Future<Output = T>) -> T {
    CURRENT.scope(id, work.instrument(span)).await
}

/// Calls that begin a trace when they bring none: what users ask for. What servers ask of each other
/// by themselves does not.
const USERS_CALLS: [&str; 2] = ["/dfs.v1.Metadata/", "/v1/"];

/// The span of a request that came from outside, the child of its caller's.
fn span_of(id: &RequestIdText, request: &Request) -> Span {
    if !traces::on() {
        return tracing::info_span!("request", request_id = id.as_str());
    }
    let path = request.uri().path();
    let parent = traces::Parent::of(request.headers());
    let asked = parent.is_some() || USERS_CALLS.iter().any(|start| path.starts_with(start));
    let kind = if asked { "server" } else { "internal" };
    let span = tracing::info_span!(
        "request",
        request_id = id.as_str(),
        trace_id = Empty,
        otel.name = span_name(request),
        otel.kind = kind
    );
    if let Some(parent) = parent {
        traces::adopt(&span, &parent);
    }
    if let Some(trace) = traces::trace_id(&span) {
        span.record("trace_id", trace);
    }
    span
}

/// The call, without what only its caller should know: of a REST path the pattern.
fn span_name(request: &Request) -> String {
    let path = request.uri().path();
    match path.strip_prefix('/') {
        Some(call) if call.starts_with("dfs.v1.") && call.len() <= MAX_SPAN_NAME_BYTES => call.to_owned(),
        _ => {
            let pattern = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str);
            format!("{} {pattern}", request.method())
        }
    }
}

/// Makes `work`, to be spawned, a part of the request and span of the task that spawns it.
pub fn carry<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let (id, span) = (current(), Span::current());
    async move {
        match id {
            Some(id) => CURRENT.scope(id, work).await,
            None => work.await,
        }
    }
    .instrument(span)
}

/// Puts the current request's id and trace, if there are, into the headers of a call to another server.
/// For `tonic`: `propagate(request.metadata_mut().as_mut())`.
pub fn propagate(headers: &mut HeaderMap) {
    if let Some(id) = current() {
        headers.insert(HEADER, id.header());
    }
    traces::inject(headers);
}

/// Middleware (`axum::middleware::from_fn`), to be the outermost layer: takes the caller's id or makes
/// one (a caller's that is not fit is replaced), and gives it back in the answer. A handler that panics
/// answers `internal` with it, so that the log's line is found.
pub async fn middleware(mut request: Request, next: Next) -> Response {
    let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
    let id = given.and_then(RequestIdText::parse).unwrap_or_else(RequestIdText::generate);
    request.headers_mut().insert(HEADER, id.header());
    request.extensions_mut().insert(id.clone());
    let span = span_of(&id, &request);
    let mut response = scope_in(span, id.clone(), async {
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                // What happened and where is on the line before: see `logging`.
                tracing::error!("a handler panicked");
                Problem::new(ErrorCode::Internal, "a fault of ours; the log has it under the request id")
                    .into_response()
            }
        }
    })
    .await;
    response.headers_mut().insert(HEADER, id.header());
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    async fn check(given: Option<&str>) -> (String, String) {
        let router = Router::new()
            .route("/", get(|| async { current().map_or(String::new(), |id| id.to_string()) }))
            .layer(axum::middleware::from_fn(middleware));
        let mut request = Request::builder().uri("/");
        if let Some(id) = given {
            request = request.header(HEADER, id);
        }
        let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let echoed = response.headers()[HEADER].to_str().unwrap().to_owned();
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        (echoed, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_fit_id_is_kept_and_another_replaced() {
        assert_eq!(check(Some("abc-1")).await, ("abc-1".to_owned(), "abc-1".to_owned()));
        for bad in [None, Some(""), Some("a b"), Some("a\"b"), Some(&*"x".repeat(129))] {
            let (echoed, seen) = check(bad).await;
            assert_eq!(echoed, seen);
            assert_eq!(echoed.len(), 36, "{bad:?} gave {echoed}");
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_with_the_id() {
        async fn broken() -> &'static str {
            panic!("on purpose")
        }
        let router = Router::new().route("/", get(broken)).layer(axum::middleware::from_fn(middleware));
        let request = Request::get("/").header(HEADER, "r-7").body(Body::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()[HEADER]), (500, &"r-7".parse().unwrap()));
        let body = axum::body::to_bytes(response.into_body(), 1024).await.unwrap();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&document["code"], &document["request_id"]), (&"internal".into(), &"r-7".into()));
    }

    #[tokio::test]
    async fn the_id_goes_on_to_the_next_server() {
        let mut headers = HeaderMap::new();
        propagate(&mut headers);
        assert!(headers.is_empty());
        let id = RequestIdText::parse("r-9").unwrap();
        // Also from a task of its own.
        let spawned = scope(id.clone(), async { tokio::spawn(carry(async { current() })).await }).await;
        assert_eq!(spawned.unwrap(), Some(id.clone()));
        scope(id, async { propagate(&mut headers) }).await;
        assert_eq!(headers[HEADER], "r-9");
    }
}
