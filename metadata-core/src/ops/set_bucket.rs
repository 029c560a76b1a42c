//! SetBucket: changes policy or keep time; holds for what is written from now on.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use super::put_bucket;
use crate::rights::Operation;
use crate::rows::buckets::Buckets;
use crate::rules::buckets;
use crate::rules::forms::{self, Check};

pub(super) fn check(c: &v1::SetBucket) -> Check {
    forms::bucket_name(&c.name)?;
    if c.policy.is_some() {
        forms::complete_policy(c.policy.as_ref())?;
    }
    put_bucket::keep(c.keep_ms.unwrap_or(0))
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::SetBucket) -> OpResult {
    ctx.require(Operation::SetBucket)?;
    let (id, mut bucket) = buckets::by_name(ctx, &c.name)?;
    if let Some(policy) = c.policy {
        bucket.policy = Some(policy);
    }
    if let Some(keep_ms) = c.keep_ms {
        bucket.keep_ms = keep_ms;
    }
    bucket.position = ctx.position;
    ctx.put::<Buckets>(&id, &bucket);
    Ok(v1::CommandResult { created_id: bucket.bucket_id, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bucket};
    use dfs_types::ErrorCode;

    #[test]
    fn owners_and_admins_may_others_do_not_see_it() {
        let mut world = World::new();
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        world.ok(ann, bucket("photos", 3, 0));
        let set = |keep| {
            let c = v1::SetBucket { name: "photos".into(), keep_ms: Some(keep), ..Default::default() };
            v1::command::Kind::SetBucket(c)
        };
        world.ok(ann, set(5));
        world.fails(bob, set(6), ErrorCode::BucketNotFound);
        let admin = world.admin;
        world.ok(admin, set(7));
        assert_eq!(world.bucket("photos").keep_ms, 7);
    }
}
