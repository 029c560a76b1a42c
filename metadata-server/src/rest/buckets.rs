//! `/buckets`.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use dfs_proto::v1;
use dfs_types::BucketName;
use http::{HeaderMap, StatusCode, Uri};
use server_kit::Problem;

use super::input::{self, Query, invalid};
use super::problems::{OfBucketChange, OfBucketCreate, OfBucketDelete, OfBucketLook, OfLook};
use super::shapes::{Bucket, BucketDeleted, BucketList, CreateBucket, SetBucket};
use super::{Answer, Rest};
use crate::service::Call;

type Name = Result<Path<String>, PathRejection>;

fn name(path: Name) -> Result<BucketName, Problem> {
    let Path(text) = path.map_err(|_| invalid("the path is not valid UTF-8"))?;
    Ok(BucketName::new(text)?)
}

/// List buckets
///
/// Those that the caller may see.
#[utoipa::path(get, path = "/buckets", tag = "buckets", operation_id = "list_buckets",
    params(
        ("limit" = Option<u32>, Query, description = "entries of a page, 1 to 1,000; default 1,000", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page.", body = BucketList), OfLook))]
pub async fn list_buckets(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    uri: Uri,
) -> Answer<BucketList> {
    let query = Query::read(uri.query(), &["limit", "cursor"])?;
    let request = v1::ListBucketsRequest {
        cursor: query.text("cursor").unwrap_or_default().to_owned(),
        limit: query.limit()?,
    };
    let page = rest.operations.call(&call, request).await?;
    Ok(Json(BucketList {
        buckets: page.buckets.into_iter().map(Bucket::from).collect(),
        next_cursor: (!page.next_cursor.is_empty()).then_some(page.next_cursor),
        position: page.position,
    }))
}

/// Make a bucket
#[utoipa::path(post, path = "/buckets", tag = "buckets", operation_id = "create_bucket", request_body = CreateBucket,
    responses((status = 201, description = "Made.", body = Bucket), OfBucketCreate))]
pub async fn create_bucket(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Bucket>), Problem> {
    Query::read(uri.query(), &[])?;
    let wanted: CreateBucket = input::json(&headers, body).await?;
    let request = v1::CreateBucketRequest {
        mutation: Some(rest.operations.new_mutation()),
        name: BucketName::new(wanted.name)?.to_string(),
        policy: wanted.policy.map(v1::Policy::from),
        keep_ms: wanted.keep_ms,
        realm: wanted.realm.map_or(v1::RealmKind::Unspecified, v1::RealmKind::from).into(),
    };
    Ok((StatusCode::CREATED, Json(rest.operations.call(&call, request).await?.into())))
}

/// Show a bucket
#[utoipa::path(get, path = "/buckets/{name}", tag = "buckets", operation_id = "get_bucket",
    params(("name" = String, Path, description = "bucket name")),
    responses((status = 200, description = "The bucket.", body = Bucket), OfBucketLook))]
pub async fn get_bucket(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    path: Name,
    uri: Uri,
) -> Answer<Bucket> {
    Query::read(uri.query(), &[])?;
    let request = v1::GetBucketRequest { name: name(path)?.to_string() };
    Ok(Json(rest.operations.call(&call, request).await?.into()))
}

/// Change a bucket
///
/// Versions that are there stay as they are.
#[utoipa::path(patch, path = "/buckets/{name}", tag = "buckets", operation_id = "set_bucket", request_body = SetBucket,
    params(("name" = String, Path, description = "bucket name")),
    responses((status = 200, description = "The bucket as it is now.", body = Bucket), OfBucketChange))]
pub async fn set_bucket(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    path: Name,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Answer<Bucket> {
    Query::read(uri.query(), &[])?;
    let name = name(path)?.to_string();
    let wanted: SetBucket = input::json(&headers, body).await?;
    let request = v1::SetBucketRequest {
        mutation: Some(rest.operations.new_mutation()),
        name,
        policy: wanted.policy.map(v1::Policy::from),
        keep_ms: wanted.keep_ms,
    };
    Ok(Json(rest.operations.call(&call, request).await?.into()))
}

/// Delete a bucket
///
/// It must be empty: deleted files that are kept count too.
#[utoipa::path(delete, path = "/buckets/{name}", tag = "buckets", operation_id = "delete_bucket",
    params(("name" = String, Path, description = "bucket name")),
    responses((status = 200, description = "Deleted.", body = BucketDeleted), OfBucketDelete))]
pub async fn delete_bucket(
    State(rest): State<Rest>,
    Extension(call): Extension<Call>,
    path: Name,
    uri: Uri,
) -> Answer<BucketDeleted> {
    Query::read(uri.query(), &[])?;
    let name = name(path)?.to_string();
    let request =
        v1::DeleteBucketRequest { mutation: Some(rest.operations.new_mutation()), name: name.clone() };
    let done = rest.operations.call(&call, request).await?;
    Ok(Json(BucketDeleted { name, position: done.position }))
}
