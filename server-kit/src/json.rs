//! Extractors whose refusals are problem documents: a body as [`JsonBody`], a query string as
//! [`QueryArgs`], path segments as [`PathArgs`]. Bodies are bounded by axum's `DefaultBodyLimit`, which
//! a router should set to `limits::MAX_HTTP_BODY_BYTES`.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::response::{IntoResponse, Response};
use dfs_types::ErrorCode;
use http::StatusCode;
use http::request::Parts;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// As an extractor a JSON body; as an answer, one too.
pub struct JsonBody<T>(pub T);

impl<S, T> FromRequest<S> for JsonBody<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(refuse("the body must be application/json".to_owned())
                    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE))
            }
            Err(other) if other.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(Problem::new(ErrorCode::LimitExceeded, "the body is too long"))
            }
            Err(other) => Err(refuse(other.body_text())),
        }
    }
}

impl<T: Serialize> IntoResponse for JsonBody<T> {
    fn into_response(self) -> Response {
        Json(self.0).into_response()
    }
}

/// The query string.
pub struct QueryArgs<T>(pub T);

impl<S, T> FromRequestParts<S> for QueryArgs<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(refuse(QueryRejection::body_text(&rejection))),
        }
    }
}

/// The named segments of the path.
pub struct PathArgs<T>(pub T);

impl<S, T> FromRequestParts<S> for PathArgs<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(refuse(PathRejection::body_text(&rejection))),
        }
    }
}

fn refuse(detail: String) -> Problem {
    Problem::new(ErrorCode::InvalidArgument, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::extract::DefaultBodyLimit;
    use axum::routing::post;
    use tower::ServiceExt;

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Ask {
        size: u32,
    }

    async fn check(body: &str, content_type: &str) -> (u16, String) {
        let router = Router::new()
            .route(
                "/{n}",
                post(|PathArgs(n): PathArgs<u8>, JsonBody(ask): JsonBody<Ask>| async move {
                    format!("{n} {}", ask.size)
                }),
            )
            .layer(DefaultBodyLimit::max(64));
        let request = Request::post("/7").header("content-type", content_type);
        let response = router.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        (response.status().as_u16(), kind)
    }

    #[tokio::test]
    async fn bad_bodies_are_problems() {
        assert_eq!(check("{\"size\":3}", "application/json").await.0, 200);
        for (body, kind, status) in [
            ("{\"size\":-1}", "application/json", 400),
            ("{\"size\":3,\"role\":\"admin\"}", "application/json", 400),
            ("{", "application/json", 400),
            ("{\"size\":3}", "text/plain", 415),
            (&*format!("{{\"size\":{}}}", " ".repeat(80)), "application/json", 413),
        ] {
            assert_eq!(check(body, kind).await, (status, "application/problem+json".to_owned()), "{body}");
        }
    }
}
