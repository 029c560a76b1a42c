//! BeginUpload: opens a session that collects manifest pages.

use dfs_proto::v1;
use dfs_types::limits::MAX_VERSION_BYTES;
use dfs_types::{DfsError, ErrorCode, UploadId};

use super::ctx::{Ctx, Fault, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::manifests::Manifests;
use crate::rows::meta::{ClusterMeta, Field};
use crate::rows::principals::Principals;
use crate::rows::uploads::{Uploads, UploadsByActivity};
use crate::rules::buckets;
use crate::rules::forms::{self, Check, invalid};

pub(super) fn check(c: &v1::BeginUpload) -> Check {
    forms::id(&c.upload_id, "upload id")?;
    forms::id(&c.bucket_id, "bucket id")?;
    forms::id(&c.file_id, "file id")?;
    forms::id(&c.realm_id, "realm id")?;
    forms::key(&c.key)?;
    forms::wrapped(&c.wrapped_version_key, "wrapped version key")?;
    forms::complete_policy(c.policy.as_ref())?;
    if c.size.unwrap_or(0) > MAX_VERSION_BYTES {
        let message = format!("a file has at most {MAX_VERSION_BYTES} bytes");
        return Err(DfsError::new(ErrorCode::LimitExceeded, message));
    }
    match c.realm() {
        v1::RealmKind::Unspecified => Err(invalid("the realm is missing or unknown")),
        v1::RealmKind::None => forms::wrapped(&c.wrapped_realm_secret, "wrapped realm secret"),
        v1::RealmKind::Private | v1::RealmKind::Shared => Ok(()),
    }
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::BeginUpload) -> OpResult {
    ctx.require(Operation::InitUpload)?;
    let (_, bucket) = buckets::by_id(ctx, &c.bucket_id)?;
    check_realm(ctx, c, &bucket)?;
    let id = UploadId::from_slice(&c.upload_id)?;
    if ctx.get::<Uploads>(&id)?.is_some() || ctx.get::<Manifests>(&id)?.is_some() {
        return refuse(ErrorCode::AlreadyExists, "the upload id is taken");
    }
    let active_ms = ctx.clock.cluster_ms;
    let row = v1::UploadRow {
        state: v1::UploadState::Open.into(),
        bucket_id: c.bucket_id.clone(),
        key: c.key.clone(),
        file_id: c.file_id.clone(),
        realm_id: c.realm_id.clone(),
        realm: c.realm,
        wrapped_realm_secret: c.wrapped_realm_secret.clone(),
        wrapped_version_key: c.wrapped_version_key.clone(),
        policy: c.policy,
        size: c.size,
        owner: ctx.caller.to_vec().into(),
        created_unix_ms: ctx.unix_ms,
        active_ms,
        copies: c.policy.unwrap_or_default().target,
        ..Default::default()
    };
    ctx.put::<Uploads>(&id, &row);
    ctx.put::<UploadsByActivity>(&(active_ms, id), &());
    ctx.count().uploads += 1;
    Ok(v1::CommandResult {
        created_id: c.upload_id.clone(),
        file_id: c.file_id.clone(),
        ..Default::default()
    })
}

/// The realm decides with whom chunks are shared: it must be the one its kind says.
fn check_realm(ctx: &Ctx<'_>, c: &v1::BeginUpload, bucket: &v1::BucketRow) -> Result<(), Fault> {
    let right = match c.realm() {
        v1::RealmKind::None => c.realm_id == c.upload_id,
        v1::RealmKind::Shared => {
            ctx.get::<ClusterMeta>(&Field)?.is_some_and(|cluster| cluster.shared_realm_id == c.realm_id)
        }
        _ => {
            let owner = dfs_types::PrincipalId::from_slice(&bucket.owner)?;
            [ctx.caller, owner].iter().try_fold(false, |found, id| {
                Ok::<_, Fault>(found || ctx.get::<Principals>(id)?.is_some_and(|p| p.realm_id == c.realm_id))
            })?
        }
    };
    if right { Ok(()) } else { refuse(ErrorCode::InvalidArgument, "the realm is not the one its kind means") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, begin, bucket};

    #[test]
    fn only_into_buckets_one_sees_and_realms_that_are_ones_own() {
        let mut world = World::new();
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        let id = world.ok(ann, bucket("photos", 3, 0)).created_id;
        let begun = begin(&world, ann, &id, "a", 3);
        world.fails(bob, begin(&world, bob, &id, "a", 3), ErrorCode::BucketNotFound);
        world.fails(ann, begin(&world, bob, &id, "a", 3), ErrorCode::InvalidArgument);
        world.ok(ann, begun.clone());
        world.fails(ann, begun, ErrorCode::AlreadyExists);
        assert_eq!(world.counters().uploads, 1);
    }
}
