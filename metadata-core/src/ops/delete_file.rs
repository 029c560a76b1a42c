//! DeleteFile: marks a file deleted and keeps its content for the bucket's keep time; or purges the
//! file with all its versions now; or drops one version.

use dfs_proto::v1;
use dfs_types::{BucketId, ErrorCode, FileId};

use super::ctx::{Ctx, Fault, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::files::Files;
use crate::rows::heads::Heads;
use crate::rows::versions::{Newest, Versions};
use crate::rows::{self, Tail};
use crate::rules::forms::{self, Check};
use crate::rules::versions::{self, check_version, drop_version, file_of, head_for, retire};
use crate::rules::{buckets, lower};

pub(super) fn check(c: &v1::DeleteFile) -> Check {
    forms::id(&c.bucket_id, "bucket id")?;
    forms::key(&c.key)?;
    if c.file_id.is_empty() { Ok(()) } else { forms::id(&c.file_id, "file id") }
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::DeleteFile) -> OpResult {
    ctx.require(Operation::Delete)?;
    let (bucket_id, bucket) = buckets::by_id(ctx, &c.bucket_id)?;
    let named = |head: &v1::HeadRow| c.file_id.is_empty() || head.file_id == c.file_id;
    let Some(head) = versions::head(ctx, bucket_id, &c.key)?.filter(named) else {
        return refuse(ErrorCode::NotFound, "there is no such file");
    };
    check_version(Some(&head), c.if_version)?;
    let file_id = file_of(&head)?;
    let version = match c.version {
        Some(version) => {
            drop_one(ctx, bucket_id, &c.key, &head, file_id, version)?;
            version
        }
        None if c.purge => {
            purge(ctx, bucket_id, &c.key, &head, file_id)?;
            head.version
        }
        None if head.deleted => return refuse(ErrorCode::NotFound, "the file is deleted already"),
        None => {
            mark(ctx, bucket_id, &c.key, &head);
            retire(ctx, file_id, head.version, bucket.keep_ms)?;
            ctx.position
        }
    };
    Ok(v1::CommandResult { file_id: head.file_id, version, ..Default::default() })
}

fn mark(ctx: &mut Ctx<'_>, bucket_id: BucketId, key: &str, head: &v1::HeadRow) {
    let marker = v1::HeadRow {
        file_id: head.file_id.clone(),
        version: ctx.position,
        deleted: true,
        unix_ms: ctx.unix_ms,
        owner: ctx.caller.to_vec().into(),
        created_unix_ms: head.created_unix_ms,
        ..Default::default()
    };
    ctx.put::<Heads>(&(bucket_id, Tail(key.to_owned())), &marker);
    lower(&mut ctx.count().files, 1);
}

/// Frees the name at once; the versions, however many, go through the dropping queue.
fn purge(
    ctx: &mut Ctx<'_>,
    bucket_id: BucketId,
    key: &str,
    head: &v1::HeadRow,
    file_id: FileId,
) -> Result<(), Fault> {
    let mut file = ctx.must_get::<Files>(&file_id)?;
    file.purged = true;
    ctx.put::<Files>(&file_id, &file);
    ctx.delete::<Heads>(&(bucket_id, Tail(key.to_owned())));
    if !head.deleted {
        lower(&mut ctx.count().files, 1);
    }
    let kind = v1::DroppingKind::File.into();
    versions::queue(ctx, v1::DroppingRow { kind, id: file_id.to_vec().into(), ..Default::default() });
    Ok(())
}

/// Drops one version now. If it was the current one, the next older takes its place.
fn drop_one(
    ctx: &mut Ctx<'_>,
    bucket_id: BucketId,
    key: &str,
    head: &v1::HeadRow,
    file_id: FileId,
    version: u64,
) -> Result<(), Fault> {
    if ctx.get::<Versions>(&(file_id, Newest(version)))?.is_none() {
        return refuse(ErrorCode::NotFound, "the file has no such version");
    }
    if !head.deleted && head.version == version {
        let after = (file_id, Newest(version));
        let older = rows::scan::<Versions>(ctx.kv(), &file_id, Some(&after), 1)?.pop();
        if let Some(((_, Newest(older)), mut row)) = older {
            ctx.delete::<crate::rows::expiry::Expiries>(&(row.expires_ms, file_id, older));
            row.expires_ms = 0;
            ctx.put::<Versions>(&(file_id, Newest(older)), &row);
            let file = ctx.must_get::<Files>(&file_id)?;
            ctx.put::<Heads>(&(bucket_id, Tail(key.to_owned())), &head_for(file_id, &file, older, &row));
        }
    }
    Ok(drop_version(ctx, file_id, version)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bucket, delete, delete_version, purge, put_inline};

    #[test]
    fn a_deleted_file_is_kept_and_its_name_is_free() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 1000)).created_id;
        let put = world.ok(ann, put_inline(&id, "a", b"one"));
        let gone = world.ok(ann, delete(&id, "a"));
        assert_eq!((gone.file_id.clone(), gone.version > put.version), (put.file_id.clone(), true));
        world.fails(ann, delete(&id, "a"), ErrorCode::NotFound);
        assert_eq!(world.counters().files, 0);
        assert_eq!(world.counters().versions, 1);

        // A new file under the name continues the history.
        let again = world.ok(ann, put_inline(&id, "a", b"two"));
        assert_eq!(again.file_id, put.file_id);
        assert_eq!(world.counters().versions, 2);
    }

    #[test]
    fn deletion_without_keep_leaves_nothing() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 0)).created_id;
        world.ok(ann, put_inline(&id, "a", b"one"));
        world.ok(ann, delete(&id, "a"));
        let counters = world.counters();
        assert_eq!((counters.files, counters.versions, counters.manifests), (0, 0, 0));
        world.fails(ann, delete(&id, "a"), ErrorCode::NotFound);
    }

    #[test]
    fn a_purge_frees_the_name_at_once_and_the_versions_in_steps() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 1000)).created_id;
        for n in 0..5u8 {
            world.ok(ann, put_inline(&id, "a", &[n]));
        }
        world.ok(ann, purge(&id, "a"));
        assert_eq!(world.counters().versions, 5);
        let fresh = world.ok(ann, put_inline(&id, "a", b"new"));
        world.release_all();
        assert_eq!(world.counters().versions, 1);
        assert_eq!(world.head(&id, "a").unwrap().version, fresh.version);
    }

    #[test]
    fn dropping_the_current_version_brings_the_older_one_back() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 1000)).created_id;
        let one = world.ok(ann, put_inline(&id, "a", b"one"));
        let two = world.ok(ann, put_inline(&id, "a", b"two"));
        world.fails(ann, delete_version(&id, "a", 77), ErrorCode::NotFound);
        world.ok(ann, delete_version(&id, "a", two.version));
        assert_eq!(world.head(&id, "a").unwrap().version, one.version);
        world.ok(ann, delete_version(&id, "a", one.version));
        assert_eq!(world.head(&id, "a"), None);
    }

    #[test]
    fn another_tenant_sees_no_bucket_and_a_lost_race_is_told() {
        let mut world = World::new();
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        let id = world.ok(ann, bucket("photos", 3, 0)).created_id;
        world.ok(ann, put_inline(&id, "a", b"one"));
        world.fails(bob, delete(&id, "a"), ErrorCode::BucketNotFound);
        let v1::command::Kind::DeleteFile(c) = delete(&id, "a") else { unreachable!() };
        let raced = v1::command::Kind::DeleteFile(v1::DeleteFile { if_version: Some(1), ..c });
        world.fails(ann, raced, ErrorCode::VersionMismatch);
        // The name may belong to another file by now.
        let v1::command::Kind::DeleteFile(c) = delete(&id, "a") else { unreachable!() };
        let other = v1::command::Kind::DeleteFile(v1::DeleteFile { file_id: vec![1; 16].into(), ..c });
        world.fails(ann, other, ErrorCode::NotFound);
        assert!(!world.head(&id, "a").unwrap().deleted);
    }
}
