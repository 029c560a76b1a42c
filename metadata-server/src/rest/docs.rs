//! The documents that a server shows about itself, to anybody: they say what the source says, and a
//! browser sends no key. No scripts, nothing from elsewhere: they work on a machine without a network.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use axum::response::{Html, IntoResponse, Response};
use dfs_types::{ErrorCode, troubleshooting};
use serde::Serialize;
use server_kit::Problem;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

use super::{api, book, html, problems};

/// Pages run nothing, load nothing and can be framed by nobody; their one style sheet is inside them.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    api::document().to_json().expect("a document made of texts and numbers can be written as JSON")
});
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let document = serde_json::from_str(&DOCUMENT).expect("written as JSON just now");
    html::page("Distribute: REST", &book::markdown(&document))
});
static ERRORS: LazyLock<String> = LazyLock::new(|| html::page("Distribute: errors", troubleshooting::GUIDE));

/// What `/health` and `/ready` say.
#[derive(Serialize, ToSchema)]
#[allow(dead_code)] // only its schema is used; `server_kit::health` writes it
pub struct HealthAnswer {
    /// `ok`, `ready`, `not_ready` or `failed`.
    status: String,
    version: String,
    role: String,
    id: String,
    build: BuildAnswer,
    /// By component.
    reasons: Option<BTreeMap<String, String>>,
}

/// How the program was built.
#[derive(Serialize, ToSchema)]
#[allow(dead_code)]
pub struct BuildAnswer {
    /// Of the source, if it was known at the build; else `unknown`.
    commit: String,
    rustc: String,
    /// `release` or `debug`.
    profile: String,
}

/// Routes without a credential refuse only what is wrong with the request's head.
pub struct OfOpen;

impl IntoResponses for OfOpen {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let answer = |text: &str| {
            let schema = Some(Ref::from_schema_name("ProblemDocument"));
            let content = ContentBuilder::new().schema(schema).build();
            RefOr::T(ResponseBuilder::new().description(text).content(problems::MEDIA_TYPE, content).build())
        };
        [("414", "The URL is too long."), ("431", "The headers are too long.")]
            .into_iter()
            .map(|(status, text)| (status.to_owned(), answer(text)))
            .collect()
    }
}

/// Show this document
///
/// No credential needed.
#[utoipa::path(get, path = "/openapi.json", tag = "server", operation_id = "openapi", security(()),
    responses((status = 200, description = "OpenAPI 3.1.", body = serde_json::Value), OfOpen))]
pub async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], DOCUMENT.as_str()).into_response()
}

/// Show this document as a page
///
/// No credential needed.
#[utoipa::path(get, path = "/docs", tag = "server", operation_id = "docs", security(()),
    responses((status = 200, description = "A page for people.", body = String, content_type = "text/html"), OfOpen))]
pub async fn page() -> Response {
    shown(&PAGE)
}

/// Show what all error codes mean
///
/// No credential needed.
#[utoipa::path(get, path = "/docs/errors", tag = "server", operation_id = "errors", security(()),
    responses((status = 200, description = "A page for people.", body = String, content_type = "text/html"), OfOpen))]
pub async fn errors() -> Response {
    shown(&ERRORS)
}

/// Show what an error code means and what to do
///
/// The `type` of every error leads here. No credential needed.
#[utoipa::path(get, path = "/docs/errors/{code}", tag = "server", operation_id = "error", security(()),
    params(("code" = String, Path, description = "the `code` of an error", example = "not_found")),
    responses(
        (status = 200, description = "Plain text.", body = String, content_type = "text/plain"),
        (status = 404, description = "There is no such code.", body = problems::ProblemDocument, content_type = "application/problem+json"),
        OfOpen))]
pub async fn error(code: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let code = code.ok().and_then(|Path(word)| ErrorCode::from_word(&word));
    let code = code.ok_or_else(|| {
        Problem::new(ErrorCode::NotFound, "there is no such error code; /docs/errors lists them")
    })?;
    let text = troubleshooting::entry(code);
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}

fn shown(page: &'static str) -> Response {
    (
        [(CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, "no-referrer"), (CACHE_CONTROL, "no-cache")],
        Html(page),
    )
        .into_response()
}
