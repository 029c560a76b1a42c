//! RaiseFeatureLevel: from here on commands of the next level are taken. One step at a time, never down.
//! The service proposes it only when every member's build knows the level; a build that does not stops.

use dfs_proto::v1;
use dfs_types::ErrorCode;

use super::ctx::{Ctx, Fault, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::meta::{ClusterMeta, Field};
use crate::rules::features;
use crate::rules::forms::{Check, invalid};

pub(super) fn check(c: &v1::RaiseFeatureLevel) -> Check {
    if c.level > 0 { Ok(()) } else { Err(invalid("a feature level of 0")) }
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::RaiseFeatureLevel) -> OpResult {
    ctx.require(Operation::RaiseFeatureLevel)?;
    let Some(mut row) = ctx.get::<ClusterMeta>(&Field)? else {
        return refuse(ErrorCode::FailedPrecondition, "there is no cluster yet");
    };
    if row.feature_level == c.level {
        return Ok(v1::CommandResult::default());
    }
    if row.feature_level.checked_add(1) != Some(c.level) {
        return refuse(
            ErrorCode::FailedPrecondition,
            format!("the cluster is at feature level {}: it rises one by one", row.feature_level),
        );
    }
    if c.level > features::LATEST {
        return Err(Fault::TooNew { level: c.level });
    }
    row.feature_level = c.level;
    ctx.put::<ClusterMeta>(&Field, &row);
    Ok(v1::CommandResult { count: 1, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use dfs_proto::v1::command::Kind;
    use dfs_types::PrincipalId;

    use super::*;
    use crate::apply::{ApplyError, apply_entry};
    use crate::kv::Space;
    use crate::rows;
    use crate::testing::{World, bucket};

    fn raise(level: u32) -> Kind {
        Kind::RaiseFeatureLevel(v1::RaiseFeatureLevel { level })
    }

    /// A world as an older build left it.
    fn at_level(level: u32) -> World {
        let mut world = World::new();
        let mut row = rows::get::<ClusterMeta>(&world.kv, &Field).unwrap().unwrap();
        row.feature_level = level;
        let mut writes = crate::kv::WriteSet::default();
        writes.put(Space::State, rows::key_bytes::<ClusterMeta>(&Field), rows::encode(&row));
        world.kv.apply(writes);
        world
    }

    #[test]
    fn commands_above_the_level_are_refused_until_it_is_raised() {
        let mut world = at_level(0);
        let admin = world.admin;
        world.fails(admin, bucket("photos", 3, 0), ErrorCode::FailedPrecondition);
        world.fails(admin, raise(2), ErrorCode::FailedPrecondition);
        world.fails(admin, raise(0), ErrorCode::InvalidArgument);
        assert_eq!(world.ok(admin, raise(1)).count, 1);
        // Said again, it is so already; and never down.
        assert_eq!(world.ok(admin, raise(1)).count, 0);
        world.ok(admin, bucket("photos", 3, 0));
        let ann = world.user("ann");
        world.fails(ann, raise(1), ErrorCode::PermissionDenied);
    }

    #[test]
    fn a_level_this_build_does_not_know_stops_it() {
        let stops = |world: &World, kind: Kind, who: PrincipalId| {
            let command =
                v1::Command { principal_id: who.to_vec().into(), kind: Some(kind), ..Default::default() };
            let entry = v1::Entry { format: 1, commands: vec![command] };
            match apply_entry(&world.kv, 1 << 20, &entry) {
                Err(ApplyError::UnknownFeatureLevel { level, .. }) => level,
                other => panic!("{other:?}"),
            }
        };
        let world = at_level(features::LATEST);
        assert_eq!(stops(&world, raise(features::LATEST + 1), world.admin), features::LATEST + 1);
        // So does a state that a newer build went on with.
        let world = at_level(features::LATEST + 3);
        assert_eq!(stops(&world, bucket("photos", 3, 0), world.admin), features::LATEST + 3);
    }
}
