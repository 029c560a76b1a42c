//! `/buckets`.

use axum::Json;
use dfs_proto::v1;
use dfs_types::BucketName;
use http::StatusCode;
use server_kit::Problem;

use super::asked::{Asked, Body, InPath, Plain};
use super::problems::{OfBucketChange, OfBucketCreate, OfBucketDelete, OfBucketLook, OfLook};
use super::shapes::{Bucket, BucketDeleted, BucketList, CreateBucket, SetBucket};
use super::{Answer, next_cursor};

/// List buckets
///
/// Those that the caller may see.
#[utoipa::path(get, path = "/buckets", tag = "buckets", operation_id = "list_buckets",
    params(
        ("limit" = Option<u32>, Query, description = "entries of a page, 1 to 1,000; default 1,000", minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page.", body = BucketList), OfLook))]
pub async fn list_buckets(asked: Asked) -> Answer<BucketList> {
    let query = asked.query(&["limit", "cursor"])?;
    let request = v1::ListBucketsRequest { cursor: query.cursor(), limit: query.limit()? };
    let page = asked.call(request).await?;
    Ok(Json(BucketList {
        buckets: page.buckets.into_iter().map(Bucket::from).collect(),
        next_cursor: next_cursor(page.next_cursor),
        position: page.position,
    }))
}

/// Make a bucket
#[utoipa::path(post, path = "/buckets", tag = "buckets", operation_id = "create_bucket", request_body = CreateBucket,
    responses((status = 201, description = "Made.", body = Bucket), OfBucketCreate))]
pub async fn create_bucket(
    Plain(asked): Plain,
    Body(wanted): Body<CreateBucket>,
) -> Result<(StatusCode, Json<Bucket>), Problem> {
    let request = v1::CreateBucketRequest {
        mutation: asked.new_mutation(),
        name: BucketName::new(wanted.name)?.to_string(),
        policy: wanted.policy.map(v1::Policy::from),
        keep_ms: wanted.keep_ms,
        realm: wanted.realm.map_or(v1::RealmKind::Unspecified, v1::RealmKind::from).into(),
    };
    Ok((StatusCode::CREATED, Json(asked.call(request).await?.into())))
}

/// Show a bucket
#[utoipa::path(get, path = "/buckets/{name}", tag = "buckets", operation_id = "get_bucket",
    params(("name" = String, Path, description = "bucket name")),
    responses((status = 200, description = "The bucket.", body = Bucket), OfBucketLook))]
pub async fn get_bucket(Plain(asked): Plain, InPath(name): InPath<BucketName>) -> Answer<Bucket> {
    let request = v1::GetBucketRequest { name: name.to_string() };
    Ok(Json(asked.call(request).await?.into()))
}

/// Change a bucket
///
/// Versions that are there stay as they are.
#[utoipa::path(patch, path = "/buckets/{name}", tag = "buckets", operation_id = "set_bucket", request_body = SetBucket,
    params(("name" = String, Path, description = "bucket name")),
    responses((status = 200, description = "The bucket as it is now.", body = Bucket), OfBucketChange))]
pub async fn set_bucket(
    Plain(asked): Plain,
    InPath(name): InPath<BucketName>,
    Body(wanted): Body<SetBucket>,
) -> Answer<Bucket> {
    let request = v1::SetBucketRequest {
        mutation: asked.new_mutation(),
        name: name.to_string(),
        policy: wanted.policy.map(v1::Policy::from),
        keep_ms: wanted.keep_ms,
    };
    Ok(Json(asked.call(request).await?.into()))
}

/// Delete a bucket
///
/// It must be empty: deleted files that are kept count too.
#[utoipa::path(delete, path = "/buckets/{name}", tag = "buckets", operation_id = "delete_bucket",
    params(("name" = String, Path, description = "bucket name")),
    responses((status = 200, description = "Deleted.", body = BucketDeleted), OfBucketDelete))]
pub async fn delete_bucket(Plain(asked): Plain, InPath(name): InPath<BucketName>) -> Answer<BucketDeleted> {
    let request = v1::DeleteBucketRequest { mutation: asked.new_mutation(), name: name.to_string() };
    let done = asked.call(request).await?;
    Ok(Json(BucketDeleted { name: name.to_string(), position: done.position }))
}
