//! TrimLocations: takes copies away that are more than wanted, or stand on a node that drains or is
//! down. Only if what remains meets the target, and is spread no worse than it must be.

use dfs_proto::v1;

use super::ctx::{Ctx, OpResult};
use crate::rules::chunks::{counting, wanted};
use crate::rules::forms::{self, Check};
use crate::rules::locations::change_listed;
use crate::rules::purges;

pub(super) fn check(c: &v1::TrimLocations) -> Check {
    forms::changes(&c.changes)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::TrimLocations) -> OpResult {
    change_listed(ctx, &c.changes, |ctx, listed| {
        let (_, spread_before) = counting(ctx, &listed.row)?;
        listed.take();
        let (copies, spread) = counting(ctx, &listed.row)?;
        let target = wanted(&listed.row);
        let must_spread = spread_before.min(ctx.eligible_domains()?.min(target as usize));
        if copies < target || spread < must_spread {
            return Ok(false);
        }
        if ctx.holder(listed.seat)?.current {
            purges::order_purge(ctx, listed.key, listed.seat)?;
        }
        Ok(true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query;
    use crate::testing::{CLUSTER, World, change};
    use dfs_proto::v1::command::Kind;
    use dfs_types::ErrorCode;

    fn add(world: &mut World, owner: dfs_types::PrincipalId, n: u8, node: &str) -> u64 {
        let change = change(world.chunk_key(owner, n), world.at(node));
        world.ok(CLUSTER, Kind::AddLocations(v1::AddLocations { changes: vec![change] })).count
    }

    fn trim(world: &mut World, owner: dfs_types::PrincipalId, n: u8, node: &str) -> u64 {
        let change = change(world.chunk_key(owner, n), world.at(node));
        world.ok(CLUSTER, Kind::TrimLocations(v1::TrimLocations { changes: vec![change] })).count
    }

    /// Down, repaired elsewhere, drained, trimmed, removed: redundancy never drops on purpose.
    #[test]
    fn the_life_of_a_lost_node() {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b", "c", "d"], 3);
        world.file(ann, &bucket, "a", &[1, 2, 3, 4, 5], &["n1", "n2", "n3"]);
        world.set_state("n1", v1::NodeState::Down);
        assert_eq!(world.counters().deficits, 0, "only when the leader finds it is time");
        world.recheck_all();
        assert_eq!(world.counters().deficits, 5);
        assert_eq!(trim(&mut world, ann, 1, "n1"), 0, "below target nothing is trimmed");

        for n in 1..=4 {
            assert_eq!(add(&mut world, ann, n, "n4"), 1);
        }
        assert_eq!(world.counters().deficits, 1);
        // The node comes back: chunks have one copy more than wanted, the last deficit goes.
        world.set_state("n1", v1::NodeState::Up);
        world.recheck_all();
        assert_eq!(world.counters().deficits, 0);
        assert_eq!(trim(&mut world, ann, 5, "n1"), 0);
        assert_eq!(trim(&mut world, ann, 1, "n1"), 1);
        assert_eq!(trim(&mut world, ann, 1, "n2"), 0);

        world.fails(CLUSTER, Kind::DropNode(v1::DropNode { node_id: "n1".into() }), ErrorCode::NodeConflict);
        // An empty one may be in a plan that was made a moment ago.
        world.node("n5", "a");
        let empty = || Kind::DropNode(v1::DropNode { node_id: "n5".into() });
        world.fails(CLUSTER, empty(), ErrorCode::NodeConflict);
        world.set_state("n5", v1::NodeState::Down);
        world.ok(CLUSTER, empty());
        world.set_state("n1", v1::NodeState::Draining);
        world.set_state("n1", v1::NodeState::Down);
        assert_eq!(query::node(&world.kv, "n1").unwrap().unwrap().row.state(), v1::NodeState::Draining);
        world.recheck_all();
        assert_eq!(world.counters().deficits, 1);
        add(&mut world, ann, 5, "n4");
        for n in 2..=5 {
            assert_eq!(trim(&mut world, ann, n, "n1"), 1, "chunk {n}");
        }
        world.ok(CLUSTER, Kind::DropNode(v1::DropNode { node_id: "n1".into() }));
        world.recheck_all();
        assert_eq!(world.counters().pending_purges, 0);
        world.fails(CLUSTER, crate::testing::register("n1", "a", 1), ErrorCode::NodeConflict);
        world.ok(CLUSTER, crate::testing::register("n1", "a", 2));
    }

    #[test]
    fn spread_is_kept() {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b", "b"], 2);
        let c = crate::testing::begin(&world, ann, &bucket, "a", 2);
        let upload = world.ok(ann, c).created_id;
        let at = [world.at("n1"), world.at("n2"), world.at("n3")];
        world.ok(ann, crate::testing::page(&upload, 0, &[1], &at));
        assert_eq!(trim(&mut world, ann, 1, "n1"), 0, "the others share a domain");
        assert_eq!(trim(&mut world, ann, 1, "n3"), 1);
    }

    #[test]
    fn doubts_strikes_and_second_copies() {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b", "c"], 3);
        world.file(ann, &bucket, "a", &[1], &["n1", "n2", "n3"]);
        let epoch = |world: &World| world.chunk(ann, 1).unwrap().copies[0].epoch;
        let probed = v1::StoredAt { epoch: epoch(&world), ..world.at("n1") };
        let changes = vec![change(world.chunk_key(ann, 1), probed.clone())];
        let doubt = Kind::DoubtLocations(v1::DoubtLocations { changes: changes.clone() });
        assert_eq!(world.ok(CLUSTER, doubt.clone()).count, 1);
        assert_eq!(world.ok(CLUSTER, doubt.clone()).count, 0);
        assert_eq!(world.counters().deficits, 1);
        // A probe finds it whole, under a newer epoch: an older verdict does not strike it.
        assert_eq!(add(&mut world, ann, 1, "n1"), 1);
        assert_eq!(world.counters().deficits, 0);
        let strike = Kind::StrikeLocations(v1::StrikeLocations { changes });
        assert_eq!(world.ok(CLUSTER, strike).count, 0);
        let probed = v1::StoredAt { epoch: epoch(&world), ..probed };
        let before = world.at("n1");
        let changes = vec![change(world.chunk_key(ann, 1), probed)];
        assert_eq!(world.ok(CLUSTER, Kind::StrikeLocations(v1::StrikeLocations { changes })).count, 1);
        assert_eq!(world.counters().deficits, 1);
        // What the node said before it was struck does not bring the copy back.
        let stale = vec![change(world.chunk_key(ann, 1), before)];
        assert_eq!(world.ok(CLUSTER, Kind::AddLocations(v1::AddLocations { changes: stale })).count, 0);
        assert_eq!(add(&mut world, ann, 1, "n1"), 1);
        world.fails(ann, doubt, ErrorCode::PermissionDenied);
    }
}
