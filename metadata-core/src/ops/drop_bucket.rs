//! DropBucket: only when no name is left in it, deleted names included.

use dfs_proto::v1;
use dfs_types::ErrorCode;

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::buckets::{Buckets, BucketsByName};
use crate::rows::heads::Heads;
use crate::rows::{self, Tail};
use crate::rules::forms::{self, Check};
use crate::rules::{buckets, lower};

pub(super) fn check(c: &v1::DropBucket) -> Check {
    forms::bucket_name(&c.name)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::DropBucket) -> OpResult {
    ctx.require(Operation::DeleteBucket)?;
    let (id, _) = buckets::by_name(ctx, &c.name)?;
    // Deleted files hold their names until their keep time is over; whoever wants them gone earlier
    // purges them. Files without a name (replaced by a rename) expire without the bucket's row.
    if let Some((_, head)) = rows::first::<Heads>(ctx.kv(), &id)? {
        let message = if head.deleted {
            format!("bucket {:?} has deleted files that are still kept: purge them first", c.name)
        } else {
            format!("bucket {:?} still has files", c.name)
        };
        return refuse(ErrorCode::BucketNotEmpty, message);
    }
    ctx.delete::<Buckets>(&id);
    ctx.delete::<BucketsByName>(&Tail(c.name.clone()));
    lower(&mut ctx.count().buckets, 1);
    Ok(v1::CommandResult::default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bucket, delete, drop_bucket, purge, put_inline};

    #[test]
    fn only_when_nothing_is_left() {
        let mut world = World::new();
        let ann = world.user("ann");
        let bob = world.user("bob");
        let id = world.ok(ann, bucket("photos", 3, 1000)).created_id;
        world.ok(ann, put_inline(&id, "a", b"one"));
        world.fails(bob, drop_bucket("photos"), ErrorCode::BucketNotFound);
        world.fails(ann, drop_bucket("photos"), ErrorCode::BucketNotEmpty);
        world.ok(ann, delete(&id, "a"));
        let error = world.fails(ann, drop_bucket("photos"), ErrorCode::BucketNotEmpty);
        assert!(error.message.contains("purge"), "{}", error.message);
        world.ok(ann, purge(&id, "a"));
        world.ok(ann, drop_bucket("photos"));
        world.fails(ann, drop_bucket("photos"), ErrorCode::BucketNotFound);
        world.ok(ann, bucket("photos", 3, 0));
    }
}
