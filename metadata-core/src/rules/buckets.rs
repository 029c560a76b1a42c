//! The bucket a command names, as far as its caller may see it.

use dfs_proto::v1;
use dfs_types::{BucketId, ErrorCode};

use crate::ops::ctx::{Ctx, Fault, refuse};
use crate::rows::Tail;
use crate::rows::buckets::{Buckets, BucketsByName};

/// Owners and administrators see a bucket; to others it does not exist.
pub(crate) fn visible(ctx: &Ctx<'_>, bucket: &v1::BucketRow) -> bool {
    ctx.is_admin() || bucket.owner.as_ref() == ctx.caller.as_bytes()
}

pub(crate) fn by_id(ctx: &Ctx<'_>, id: &[u8]) -> Result<(BucketId, v1::BucketRow), Fault> {
    let id = BucketId::from_slice(id)?;
    match ctx.get::<Buckets>(&id)? {
        Some(bucket) if visible(ctx, &bucket) => Ok((id, bucket)),
        _ => refuse(ErrorCode::BucketNotFound, "there is no such bucket"),
    }
}

pub(crate) fn by_name(ctx: &Ctx<'_>, name: &str) -> Result<(BucketId, v1::BucketRow), Fault> {
    if let Some(index) = ctx.get::<BucketsByName>(&Tail(name.to_owned()))? {
        let id = BucketId::from_slice(&index.id)?;
        let bucket = ctx.must_get::<Buckets>(&id)?;
        if visible(ctx, &bucket) {
            return Ok((id, bucket));
        }
    }
    refuse(ErrorCode::BucketNotFound, format!("there is no bucket {name:?}"))
}
