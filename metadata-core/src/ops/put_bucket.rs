//! PutBucket: makes a bucket, owned by the caller.

use dfs_proto::v1;
use dfs_types::limits::MAX_KEEP_MS;
use dfs_types::{BucketId, ErrorCode};

use super::ctx::{Ctx, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::Tail;
use crate::rows::buckets::{Buckets, BucketsByName};
use crate::rules::forms::{self, Check, invalid};

pub(super) fn check(c: &v1::PutBucket) -> Check {
    forms::id(&c.bucket_id, "bucket id")?;
    forms::bucket_name(&c.name)?;
    forms::complete_policy(c.policy.as_ref())?;
    forms::wrapped(&c.wrapped_kek, "wrapped bucket key")?;
    keep(c.keep_ms)?;
    match c.realm() {
        v1::RealmKind::Unspecified => Err(invalid("the realm is missing or unknown")),
        v1::RealmKind::Private | v1::RealmKind::Shared | v1::RealmKind::None => Ok(()),
    }
}

pub(super) fn keep(keep_ms: u64) -> Check {
    if keep_ms <= MAX_KEEP_MS { Ok(()) } else { Err(invalid("old versions cannot be kept that long")) }
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::PutBucket) -> OpResult {
    ctx.require(Operation::CreateBucket)?;
    let id = BucketId::from_slice(&c.bucket_id)?;
    let name = Tail(c.name.clone());
    // Names are one space for all: that a name is taken shows, whose it is does not.
    if ctx.get::<BucketsByName>(&name)?.is_some() {
        return refuse(ErrorCode::AlreadyExists, format!("the bucket name {:?} is taken", c.name));
    }
    if ctx.get::<Buckets>(&id)?.is_some() {
        return refuse(ErrorCode::AlreadyExists, "the bucket id is taken");
    }
    let row = v1::BucketRow {
        bucket_id: c.bucket_id.clone(),
        name: c.name.clone(),
        policy: c.policy,
        keep_ms: c.keep_ms,
        realm: c.realm,
        owner: ctx.caller.to_vec().into(),
        created_unix_ms: ctx.unix_ms,
        wrapped_kek: c.wrapped_kek.clone(),
        kek_generation: c.kek_generation,
        position: ctx.position,
    };
    ctx.put::<Buckets>(&id, &row);
    ctx.put::<BucketsByName>(&name, &v1::IdRow { id: c.bucket_id.clone() });
    ctx.count().buckets += 1;
    Ok(v1::CommandResult { created_id: c.bucket_id.clone(), ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bucket};

    #[test]
    fn names_are_unique_across_tenants() {
        let mut world = World::new();
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        world.ok(ann, bucket("photos", 3, 0));
        world.fails(bob, bucket("photos", 3, 0), ErrorCode::AlreadyExists);
    }

    #[test]
    fn readonly_principals_change_nothing() {
        let mut world = World::new();
        let eve = world.principal("eve", v1::Role::Readonly);
        world.fails(eve, bucket("photos", 3, 0), ErrorCode::PermissionDenied);
    }

    #[test]
    fn bad_forms_are_refused_before_they_are_proposed() {
        let bad = |change: fn(&mut v1::PutBucket)| {
            let v1::command::Kind::PutBucket(mut c) = bucket("photos", 3, 0) else { unreachable!() };
            change(&mut c);
            check(&c).unwrap_err().code
        };
        assert_eq!(bad(|c| c.name = "Photos".into()), ErrorCode::InvalidName);
        assert_eq!(bad(|c| c.policy = None), ErrorCode::InvalidArgument);
        assert_eq!(
            bad(|c| c.policy = Some(v1::Policy { target: 2, min_ack: 3 })),
            ErrorCode::InvalidArgument
        );
        assert_eq!(
            bad(|c| c.policy = Some(v1::Policy { target: 17, min_ack: 3 })),
            ErrorCode::InvalidArgument
        );
        assert_eq!(bad(|c| c.bucket_id = vec![1; 15].into()), ErrorCode::InvalidArgument);
        assert_eq!(bad(|c| c.wrapped_kek = vec![1; 300].into()), ErrorCode::LimitExceeded);
        assert_eq!(bad(|c| c.keep_ms = u64::MAX), ErrorCode::InvalidArgument);
        assert_eq!(bad(|c| c.realm = 0), ErrorCode::InvalidArgument);
    }
}
