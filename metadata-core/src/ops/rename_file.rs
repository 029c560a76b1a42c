//! RenameFile: one key of a bucket takes the place of another, with its history. One entry, one key.

use dfs_proto::v1;
use dfs_types::ErrorCode;

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::Tail;
use crate::rows::files::Files;
use crate::rows::heads::Heads;
use crate::rules::buckets;
use crate::rules::forms::{self, Check};
use crate::rules::versions::{self, check_version, detach, file_of};

pub(super) fn check(c: &v1::RenameFile) -> Check {
    forms::id(&c.bucket_id, "bucket id")?;
    forms::key(&c.from)?;
    forms::key(&c.to)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::RenameFile) -> OpResult {
    ctx.require(Operation::Rename)?;
    let (bucket_id, bucket) = buckets::by_id(ctx, &c.bucket_id)?;
    let from = versions::head(ctx, bucket_id, &c.from)?.filter(|head| !head.deleted);
    let Some(head) = from else { return refuse(ErrorCode::NotFound, "there is no file to rename") };
    check_version(Some(&head), c.if_version)?;
    let target = versions::head(ctx, bucket_id, &c.to)?;
    check_version(target.as_ref(), c.if_to_version)?;
    let file_id = file_of(&head)?;
    let (version, id) = (head.version, head.file_id.clone());
    if c.from != c.to {
        ctx.delete::<Heads>(&(bucket_id, Tail(c.from.clone())));
        let mut file = ctx.must_get::<Files>(&file_id)?;
        file.key = c.to.clone();
        ctx.put::<Files>(&file_id, &file);
        if let Some(target) = target {
            detach(ctx, &target, bucket.keep_ms)?;
        }
        ctx.put::<Heads>(&(bucket_id, Tail(c.to.clone())), &head);
    }
    Ok(v1::CommandResult { file_id: id, version, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bucket, delete, put_inline, rename};

    #[test]
    fn the_history_moves_with_the_name() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 1000)).created_id;
        let one = world.ok(ann, put_inline(&id, "a", b"one"));
        let two = world.ok(ann, put_inline(&id, "a", b"two"));
        let moved = world.ok(ann, rename(&id, "a", "b"));
        assert_eq!((moved.file_id.clone(), moved.version), (one.file_id.clone(), two.version));
        assert_eq!(world.head(&id, "a"), None);
        assert_eq!(world.head(&id, "b").unwrap().version, two.version);
        world.fails(ann, rename(&id, "a", "c"), ErrorCode::NotFound);
        world.ok(ann, rename(&id, "b", "b"));
        // A new file under the old name is another file, though its upload was planned for the old one.
        let v1::command::Kind::PutInline(c) = put_inline(&id, "a", b"new") else { unreachable!() };
        let planned = v1::PutInline { file_id: one.file_id.clone(), ..c };
        let fresh = world.ok(ann, v1::command::Kind::PutInline(planned));
        assert_ne!(fresh.file_id, one.file_id);
    }

    #[test]
    fn a_source_that_changed_is_told() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 0)).created_id;
        let a = world.ok(ann, put_inline(&id, "a", b"one"));
        let guarded = |version| {
            let v1::command::Kind::RenameFile(c) = rename(&id, "a", "b") else { unreachable!() };
            v1::command::Kind::RenameFile(v1::RenameFile { if_version: Some(version), ..c })
        };
        world.fails(ann, guarded(a.version + 1), ErrorCode::VersionMismatch);
        world.ok(ann, guarded(a.version));
    }

    #[test]
    fn a_replaced_target_is_kept_like_an_old_version() {
        let mut world = World::new();
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", 3, 1000)).created_id;
        let a = world.ok(ann, put_inline(&id, "a", b"one"));
        let b = world.ok(ann, put_inline(&id, "b", b"two"));
        let free = |from: &str, to: &str, want| {
            let v1::command::Kind::RenameFile(c) = rename(&id, from, to) else { unreachable!() };
            v1::command::Kind::RenameFile(v1::RenameFile { if_to_version: Some(want), ..c })
        };
        world.fails(ann, free("a", "b", 0), ErrorCode::VersionMismatch);
        world.ok(ann, free("a", "b", b.version));
        assert_eq!(world.head(&id, "b").unwrap().file_id, a.file_id);
        assert_eq!((world.counters().files, world.counters().versions), (1, 2));
        world.tick(2000);
        world.expire_versions();
        assert_eq!((world.counters().files, world.counters().versions), (1, 1));

        world.ok(ann, put_inline(&id, "c", b"x"));
        world.ok(ann, delete(&id, "c"));
        world.ok(ann, free("b", "c", 0));
    }
}
