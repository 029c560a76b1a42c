//! What holds for every request before a handler sees it: bounds on its head, a credential, an answer
//! it can take; and what every answer carries.

use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use dfs_types::ErrorCode;
use dfs_types::limits::{MAX_HEADER_LIST_BYTES, MAX_URI_BYTES};
use http::{HeaderMap, HeaderValue, StatusCode};
use server_kit::Problem;

use super::Rest;
use super::input::invalid;
use crate::service::auth;

/// Bounds the head of a request, and gives every answer what browsers and caches should know.
pub async fn guard(request: Request, next: Next) -> Response {
    let uri_bytes = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let header_bytes: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    let mut response = if uri_bytes > MAX_URI_BYTES {
        too_long(format!("the URL has more than {MAX_URI_BYTES} bytes"), StatusCode::URI_TOO_LONG)
    } else if header_bytes > MAX_HEADER_LIST_BYTES as usize {
        too_long(
            format!("the headers have more than {MAX_HEADER_LIST_BYTES} bytes"),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        )
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    response
}

fn too_long(detail: String, status: StatusCode) -> Response {
    Problem::new(ErrorCode::LimitExceeded, detail).with_status(status).into_response()
}

/// Reads the credential and leaves the call for the handler, before anything else is looked at.
pub async fn authenticate(
    State(rest): State<Rest>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if is_grpc(&request) {
        // gRPC methods are routes of their own: what comes here is none of them, whatever path it names.
        return Ok(tonic::Status::unimplemented("there is no such method").into_http());
    }
    let call = auth::authenticate(&rest.operations, request.headers(), None).await?;
    request.extensions_mut().insert(call);
    Ok(next.run(request).await)
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Refuses callers who take no JSON, on routes that answer nothing else.
pub async fn json_is_acceptable(request: Request, next: Next) -> Result<Response, Problem> {
    if accepts_json(request.headers()) {
        return Ok(next.run(request).await);
    }
    Err(invalid("this route answers application/json").with_status(StatusCode::NOT_ACCEPTABLE))
}

/// What cannot be read as a list of media types refuses nothing.
fn accepts_json(headers: &HeaderMap) -> bool {
    let mut named_any = false;
    for value in headers.get_all(ACCEPT) {
        for range in value.as_bytes().split(|byte| *byte == b',') {
            let mut parts = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            let kind = parts.next().unwrap_or_default();
            if kind.is_empty() {
                continue;
            }
            named_any = true;
            let refused = parts.any(is_zero_weight);
            let covers = [&b"*/*"[..], b"application/*", b"application/json"];
            if !refused
                && (covers.iter().any(|known| kind.eq_ignore_ascii_case(known)) || !kind.contains(&b'/'))
            {
                return true;
            }
        }
    }
    !named_any
}

/// `q=0`, `q=0.` and up to three zeros.
fn is_zero_weight(parameter: &[u8]) -> bool {
    let Some((name, value)) = parameter.split_at_checked(2) else { return false };
    name.eq_ignore_ascii_case(b"q=")
        && !value.is_empty()
        && value.iter().all(|byte| matches!(byte, b'0' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_json() {
        let takes = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            accepts_json(&headers)
        };
        assert!(accepts_json(&HeaderMap::new()));
        for yes in [
            "*/*",
            "application/json",
            "text/html, application/*;q=0.1",
            "Application/JSON",
            "",
            "json",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/json;q=1.0",
        ] {
            assert!(takes(yes), "{yes}");
        }
        for no in
            ["text/html", "application/json;q=0", "application/json; Q=0.000, text/*", "application/xml"]
        {
            assert!(!takes(no), "{no}");
        }
    }
}
