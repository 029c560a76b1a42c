//! CopyFile: a new version that shares another's manifest. Constant work whatever the size: the
//! manifest counts its versions, its chunks are referenced once, at the policy it was written with.

use dfs_proto::v1;
use dfs_types::{BucketId, ErrorCode, FileId, UploadId};

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::buckets::Buckets;
use crate::rows::files::Files;
use crate::rows::manifests::Manifests;
use crate::rows::versions::{Newest, Versions};
use crate::rules::buckets;
use crate::rules::forms::{self, Check};
use crate::rules::versions::{Target, install};

pub(super) fn check(c: &v1::CopyFile) -> Check {
    forms::id(&c.from_file_id, "source file id")?;
    forms::id(&c.bucket_id, "bucket id")?;
    forms::id(&c.file_id, "file id")?;
    forms::key(&c.key)?;
    forms::wrapped(&c.wrapped_version_key, "wrapped version key")?;
    forms::root(&c.sealed_root)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::CopyFile) -> OpResult {
    ctx.require(Operation::Copy)?;
    let (bucket_id, bucket) = buckets::by_id(ctx, &c.bucket_id)?;
    let from_id = FileId::from_slice(&c.from_file_id)?;
    let source = match ctx.get::<Files>(&from_id)?.filter(|file| !file.purged) {
        Some(file) => {
            let home = ctx.get::<Buckets>(&BucketId::from_slice(&file.bucket_id)?)?;
            let seen = home.is_some_and(|home| buckets::visible(ctx, &home));
            if seen { ctx.get::<Versions>(&(from_id, Newest(c.from_version)))? } else { None }
        }
        None => None,
    };
    let Some(source) = source else { return refuse(ErrorCode::NotFound, "there is no such file or version") };

    // Taken before the old content of the target is let go: it may be the same manifest.
    if let Ok(manifest_id) = UploadId::from_slice(&source.manifest_id) {
        let mut manifest = ctx.must_get::<Manifests>(&manifest_id)?;
        manifest.refs += 1;
        ctx.put::<Manifests>(&manifest_id, &manifest);
    }
    let row = v1::VersionRow {
        sealed_root: c.sealed_root.clone(),
        wrapped_version_key: c.wrapped_version_key.clone(),
        owner: ctx.caller.to_vec().into(),
        unix_ms: ctx.unix_ms,
        seal_bucket: c.bucket_id.clone(),
        seal_file: c.file_id.clone(),
        expires_ms: 0,
        ..source.clone()
    };
    let spare = {
        // Any id nobody has: of the position, under a prefix no UUIDv7 of this age has.
        let mut id = [0xff; 16];
        id[8..].copy_from_slice(&ctx.position.to_be_bytes());
        FileId(id)
    };
    let target = Target {
        bucket_id,
        bucket: &bucket,
        key: &c.key,
        file_id: FileId::from_slice(&c.file_id)?,
        spare_id: spare,
        if_version: c.if_version,
    };
    let file_id = install(ctx, &target, &row)?;
    let wanted = row.policy.unwrap_or_default().target;
    Ok(v1::CommandResult {
        file_id: file_id.to_vec().into(),
        version: ctx.position,
        copies: wanted,
        target: wanted,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bucket, copy, delete, purge, put_inline};

    #[test]
    fn a_purged_file_cannot_be_copied_while_it_is_taken_apart() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 0)).created_id;
        let a = world.ok(ann, put_inline(&id, "a", b"one"));
        world.ok(ann, purge(&id, "a"));
        world.fails(ann, copy(&a.file_id, a.version, &id, "b"), ErrorCode::NotFound);
    }

    #[test]
    fn copies_share_content_until_the_last_goes() {
        let mut world = World::new();
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        let id = world.ok(ann, bucket("photos", 3, 0)).created_id;
        let other = world.ok(bob, bucket("theirs", 3, 0)).created_id;
        let a = world.ok(ann, put_inline(&id, "a", b"one"));
        world.fails(bob, copy(&a.file_id, a.version, &other, "stolen"), ErrorCode::NotFound);
        world.fails(ann, copy(&a.file_id, a.version, &other, "b"), ErrorCode::BucketNotFound);
        world.fails(ann, copy(&a.file_id, 5, &id, "b"), ErrorCode::NotFound);
        world.ok(ann, copy(&a.file_id, a.version, &id, "b"));
        world.ok(ann, copy(&a.file_id, a.version, &id, "a"));
        world.ok(ann, delete(&id, "a"));
        assert_eq!(world.counters().manifests, 1);
        world.ok(ann, delete(&id, "b"));
        assert_eq!(world.counters().manifests, 0);
    }
}
