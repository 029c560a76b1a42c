//! What a handler is given, taken out of the request before the handler runs: who asks, the id in the path, the
//! body. A handler names what it takes in its parameters, so none can forget a check.

use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use dfs_proto::v1;
use dfs_types::{DfsError, ErrorCode};
use http::request::Parts;
use serde::de::DeserializeOwned;
use server_kit::Problem;

use super::Rest;
use super::input::{self, Query, invalid};
use crate::service::{Call, Operation, Operations};

/// A request whose query string the handler reads.
pub struct Asked {
    operations: Operations,
    call: Call,
    query: Option<String>,
}

impl Asked {
    /// Runs an operation for the caller, here or at the leader.
    pub async fn call<R: Operation>(&self, request: R) -> Result<R::Response, DfsError> {
        self.operations.call(&self.call, request).await
    }

    /// For a request that changes something.
    pub fn new_mutation(&self) -> Option<v1::Mutation> {
        Some(self.operations.new_mutation())
    }

    /// The query string, in which only these names may stand.
    pub fn query(&self, allowed: &[&str]) -> Result<Query, Problem> {
        Query::read(self.query.as_deref(), allowed)
    }
}

impl FromRequestParts<Rest> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Problem> {
        // Left by `guard::authenticate`; were a route ever outside it, nothing runs without a caller.
        let call = parts.extensions.get::<Call>().cloned().ok_or_else(|| {
            Problem::new(ErrorCode::Unauthenticated, "the request came past the credential check")
        })?;
        let query = parts.uri.query().map(str::to_owned);
        Ok(Self { operations: rest.operations.clone(), call, query })
    }
}

/// A request that takes no parameters: one that has any is refused.
pub struct Plain(pub Asked);

impl FromRequestParts<Rest> for Plain {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Problem> {
        let asked = Asked::from_request_parts(parts, rest).await?;
        asked.query(&[])?;
        Ok(Self(asked))
    }
}

/// The id or name in the path.
pub struct InPath<T>(pub T);

impl<T: FromStr<Err = DfsError>> FromRequestParts<Rest> for InPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, rest: &Rest) -> Result<Self, Problem> {
        let path = Path::<String>::from_request_parts(parts, rest).await;
        let Path(text) = path.map_err(|_| invalid("the path is not valid UTF-8"))?;
        Ok(Self(text.parse()?))
    }
}

/// The body, JSON of this shape.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Rest> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Rest) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        Ok(Self(input::json(&parts.headers, body).await?))
    }
}
