//! CommitUpload: the version becomes visible, or nothing changes. Answered the same when repeated,
//! until the epoch floor has passed it.

use dfs_proto::v1;
use dfs_types::{ErrorCode, FileId};

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::manifests::Manifests;
use crate::rules::forms::{self, Check};
use crate::rules::versions::{Target, install};
use crate::rules::{buckets, uploads};

pub(super) fn check(c: &v1::CommitUpload) -> Check {
    forms::id(&c.upload_id, "upload id")?;
    forms::root(&c.sealed_root)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::CommitUpload) -> OpResult {
    ctx.require(Operation::CommitUpload)?;
    let (id, upload) = uploads::find(ctx, &c.upload_id)?;
    if let (v1::UploadState::Committed, Some(result)) = (upload.state(), &upload.result) {
        return Ok(v1::CommandResult { replayed: true, ..result.clone() });
    }
    let (bucket_id, bucket) = buckets::by_id(ctx, &upload.bucket_id)?;
    if c.chunks != upload.chunks || c.size != upload.bytes {
        let message = format!(
            "the commit says {} chunks and {} bytes, the pages have {} and {}",
            c.chunks, c.size, upload.chunks, upload.bytes
        );
        return refuse(ErrorCode::ManifestMismatch, message);
    }
    if upload.size.is_some_and(|size| size != upload.bytes) {
        let message = format!("the upload was begun for {} bytes, it has {}", upload.size(), upload.bytes);
        return refuse(ErrorCode::ManifestMismatch, message);
    }

    let empty = upload.chunks == 0;
    let row = v1::VersionRow {
        size: upload.bytes,
        chunks: upload.chunks,
        manifest_id: if empty { Default::default() } else { c.upload_id.clone() },
        inline: false,
        sealed_root: c.sealed_root.clone(),
        wrapped_version_key: upload.wrapped_version_key.clone(),
        owner: ctx.caller.to_vec().into(),
        unix_ms: ctx.unix_ms,
        policy: upload.policy,
        seal_bucket: upload.bucket_id.clone(),
        seal_file: upload.file_id.clone(),
        seal_upload: c.upload_id.clone(),
        expires_ms: 0,
        realm_id: upload.realm_id.clone(),
    };
    let target = Target {
        bucket_id,
        bucket: &bucket,
        key: &upload.key,
        file_id: FileId::from_slice(&upload.file_id)?,
        spare_id: FileId(id.0),
        if_version: c.if_version,
    };
    let file_id = install(ctx, &target, &row)?;
    if !empty {
        let manifest = v1::ManifestRow {
            refs: 1,
            chunks: upload.chunks,
            pages: upload.pages,
            size: upload.bytes,
            realm_id: upload.realm_id.clone(),
            policy: upload.policy,
            inline: false,
        };
        ctx.put::<Manifests>(&id, &manifest);
        ctx.count().manifests += 1;
    }
    let result = v1::CommandResult {
        position: ctx.position,
        file_id: file_id.to_vec().into(),
        version: ctx.position,
        copies: upload.copies,
        target: upload.policy.unwrap_or_default().target,
        ..Default::default()
    };
    uploads::bury(ctx, id, &upload, v1::UploadState::Committed, Some(result.clone()));
    // Each commit leaves a tombstone, so each takes up to two old ones away.
    uploads::forget_tombstones(ctx, 2)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLUSTER, World, begin, commit, page, upload_id};
    use dfs_proto::v1::command::Kind;

    fn world() -> (World, dfs_types::PrincipalId, bytes::Bytes) {
        World::with_nodes(&["a", "b", "c"], 3)
    }

    #[test]
    fn answered_the_same_until_the_floor_passes() {
        let (mut world, ann, bucket) = world();
        let upload = world.upload(ann, &bucket, "a", &[1, 2], &["n1", "n2"]);
        world.fails(ann, commit(&upload, 1), ErrorCode::ManifestMismatch);
        let bob = world.user("bob");
        world.fails(bob, commit(&upload, 2), ErrorCode::UploadNotFound);
        let first = world.ok(ann, commit(&upload, 2));
        assert_eq!((first.copies, first.target), (2, 3));
        let again = world.ok(ann, commit(&upload, 2));
        assert_eq!((again.version, again.position, again.replayed), (first.version, first.position, true));
        assert_eq!(world.counters().versions, 1);
        let at = [world.at("n1"), world.at("n2")];
        world.fails(ann, page(&upload, 2, &[3], &at), ErrorCode::UploadNotFound);

        let position = world.position();
        world.ok(CLUSTER, Kind::RaiseEpochFloor(v1::RaiseEpochFloor { position }));
        world.fails(ann, commit(&upload, 2), ErrorCode::UploadNotFound);
        assert_eq!(crate::query::upload(&world.kv, upload_id(&upload)).unwrap(), None);
    }

    #[test]
    fn a_lost_race_leaves_the_upload_open() {
        let (mut world, ann, bucket) = world();
        let guarded = |upload: &[u8], version| {
            let Kind::CommitUpload(c) = commit(upload, 1) else { unreachable!() };
            Kind::CommitUpload(v1::CommitUpload { if_version: Some(version), ..c })
        };
        let one = world.upload(ann, &bucket, "a", &[1], &["n1", "n2"]);
        let two = world.upload(ann, &bucket, "a", &[2], &["n1", "n2"]);
        let first = world.ok(ann, guarded(&one, 0));
        world.fails(ann, guarded(&two, 0), ErrorCode::VersionMismatch);
        let second = world.ok(ann, guarded(&two, first.version));
        assert_eq!(second.file_id, first.file_id);
        world.release_all();
        assert_eq!(world.chunk(ann, 1).unwrap().wanted, 0);
    }

    #[test]
    fn an_empty_upload_is_an_empty_file_and_a_declared_size_binds() {
        let (mut world, ann, bucket) = world();
        let c = begin(&world, ann, &bucket, "empty", 3);
        let upload = world.ok(ann, c).created_id;
        world.ok(ann, commit(&upload, 0));
        assert_eq!(world.head(&bucket, "empty").unwrap().size, 0);

        let Kind::BeginUpload(c) = begin(&world, ann, &bucket, "sized", 3) else { unreachable!() };
        let sized = world.ok(ann, Kind::BeginUpload(v1::BeginUpload { size: Some(5), ..c })).created_id;
        world.fails(ann, commit(&sized, 0), ErrorCode::ManifestMismatch);
    }

    #[test]
    fn no_half_file_is_visible_and_the_bucket_may_go_meanwhile() {
        let (mut world, ann, bucket) = world();
        let upload = world.upload(ann, &bucket, "a", &[1], &["n1", "n2"]);
        assert_eq!(world.head(&bucket, "a"), None);
        world.ok(ann, crate::testing::drop_bucket("photos"));
        world.fails(ann, commit(&upload, 1), ErrorCode::BucketNotFound);
    }
}
