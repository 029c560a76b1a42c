//! Errors over HTTP: problem documents (RFC 9457), `application/problem+json`, the same for every
//! route, with the code of [`ErrorCode`] as `code` and the request id as `request_id`. `type` is a path
//! on the server itself: the entry of docs/troubleshooting.md that says what to do.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use dfs_types::error::Need;
use dfs_types::{DfsError, ErrorCode};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use crate::request_id;

/// An error on its way out. Handlers return `Result<_, Problem>`; `?` converts a [`DfsError`].
#[derive(Debug)]
pub struct Problem {
    error: DfsError,
    /// Where HTTP has a better word than the code's own (405, 415).
    status: Option<StatusCode>,
}

impl Problem {
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        DfsError::new(code, detail).into()
    }

    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| {
            StatusCode::from_u16(self.error.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        })
    }

    /// The document itself.
    pub fn document(&self) -> Value {
        let code = self.error.code;
        let mut document = json!({
            "type": format!("/docs/errors/{code}"),
            "title": code.as_str().replace('_', " "),
            "status": self.status().as_u16(),
            "detail": self.error.message,
            "code": code.as_str(),
        });
        if let Some(id) = request_id::current() {
            document["request_id"] = id.as_str().into();
            document["instance"] = format!("urn:dfs:request:{id}").into();
        }
        if !self.error.chunks.is_empty() {
            let need = |need| match need {
                Need::Send => "send",
                Need::Touch => "touch",
            };
            let chunks = self.error.chunks.iter();
            document["chunks"] =
                chunks.map(|chunk| json!({"index": chunk.index, "need": need(chunk.need)})).collect();
        }
        document
    }
}

impl From<DfsError> for Problem {
    fn from(error: DfsError) -> Self {
        Self { error, status: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, self.document().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"dfs\""));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Fallback of a router: no such route. Does not repeat what was typed.
pub async fn no_such_route(_: Request) -> Problem {
    Problem::new(ErrorCode::NotFound, "there is no such route; /openapi.json lists them")
}

/// `Router::method_not_allowed_fallback`; axum adds `allow`. OPTIONS asks for just that. Nothing is said
/// to pages of other origins: no route answers them.
pub async fn method_not_allowed(request: Request) -> Response {
    if request.method() == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    Problem::new(
        ErrorCode::InvalidArgument,
        "the route does not take this method; `allow` lists those it takes",
    )
    .with_status(StatusCode::METHOD_NOT_ALLOWED)
    .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::error::ChunkNeed;

    #[test]
    fn every_code_makes_a_document_with_its_status() {
        for code in ErrorCode::ALL {
            let response = Problem::new(*code, "why").into_response();
            assert_eq!(response.status().as_u16(), code.http_status(), "{code}");
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            let document = Problem::new(*code, "why").document();
            let (_, word) = document["type"].as_str().unwrap().rsplit_once('/').unwrap();
            assert!(!dfs_types::troubleshooting::entry(ErrorCode::from_word(word).unwrap()).is_empty());
        }
        let response = Problem::new(ErrorCode::Unauthenticated, "why").into_response();
        assert!(response.headers().contains_key(WWW_AUTHENTICATE));
    }

    #[test]
    fn chunks_are_listed() {
        let chunks = vec![ChunkNeed { index: 4, need: Need::Touch }];
        let document = Problem::from(DfsError::chunks_missing("two", chunks)).document();
        assert_eq!(document["chunks"], json!([{"index": 4, "need": "touch"}]));
        assert_eq!(document["title"], "chunks missing");
    }
}
