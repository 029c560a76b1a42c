//! Buckets.

use dfs_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Policy, bucket_id, principal_id};
use crate::rest::time::rfc3339;

/// A bucket.
#[derive(Serialize, ToSchema)]
pub struct Bucket {
    pub bucket_id: String,
    pub name: String,
    /// What new versions get.
    pub policy: Policy,
    /// How long older versions and deleted files are kept.
    pub keep_ms: u64,
    pub realm: Realm,
    /// Id of the user who made it.
    pub owner: String,
    #[schema(format = DateTime)]
    pub created_at: String,
    pub position: u64,
}

/// Which chunks may be stored once for several files: `private`: those of the owner; `shared`: those of
/// everybody who uses shared buckets; `none`: none.
#[derive(Serialize, Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Realm {
    Private,
    Shared,
    None,
}

/// A page of buckets.
#[derive(Serialize, ToSchema)]
pub struct BucketList {
    /// By name.
    pub buckets: Vec<Bucket>,
    /// Give it as `cursor` to get the next page; null: this was the last.
    pub next_cursor: Option<String>,
    pub position: u64,
}

/// A bucket to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"name": "photos"}))]
pub struct CreateBucket {
    /// 3 to 63 of `a-z 0-9 . -`.
    #[schema(min_length = 3, max_length = 63)]
    pub name: String,
    /// Absent: three copies, two of them durable before a commit succeeds.
    pub policy: Option<Policy>,
    /// Absent: 24 hours.
    pub keep_ms: Option<u64>,
    /// Absent: `private`.
    pub realm: Option<Realm>,
}

/// What is to change of a bucket; what is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"keep_ms": 604_800_000}))]
pub struct SetBucket {
    /// For new versions.
    pub policy: Option<Policy>,
    pub keep_ms: Option<u64>,
}

/// A bucket that is gone.
#[derive(Serialize, ToSchema)]
pub struct BucketDeleted {
    pub name: String,
    pub position: u64,
}

impl From<v1::Bucket> for Bucket {
    fn from(bucket: v1::Bucket) -> Self {
        Self {
            bucket_id: bucket_id(&bucket.bucket_id),
            realm: match bucket.realm() {
                v1::RealmKind::Unspecified | v1::RealmKind::Private => Realm::Private,
                v1::RealmKind::Shared => Realm::Shared,
                v1::RealmKind::None => Realm::None,
            },
            name: bucket.name,
            policy: bucket.policy.unwrap_or_default().into(),
            keep_ms: bucket.keep_ms,
            owner: principal_id(&bucket.owner),
            created_at: rfc3339(bucket.created_unix_ms),
            position: bucket.position,
        }
    }
}

impl From<Realm> for v1::RealmKind {
    fn from(realm: Realm) -> Self {
        match realm {
            Realm::Private => Self::Private,
            Realm::Shared => Self::Shared,
            Realm::None => Self::None,
        }
    }
}
