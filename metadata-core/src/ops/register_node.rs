//! RegisterNode: a chunk server says who it is. One node name has one incarnation at a time.

use dfs_proto::v1;
use dfs_types::limits::MAX_NODES;
use dfs_types::{ErrorCode, Incarnation};

use super::ctx::{Ctx, Fault, OpResult, refuse};
use crate::rights::Operation;
use crate::rows::nodes::Nodes;
use crate::rows::seats::{Seats, SeatsByIncarnation};
use crate::rows::{self, Tail};
use crate::rules::forms::{self, Check};

pub(super) fn check(c: &v1::RegisterNode) -> Check {
    forms::node_id(&c.node_id)?;
    forms::id(&c.incarnation, "incarnation")?;
    forms::address(&c.address)?;
    forms::domain(&c.domain)?;
    forms::wrapped(&c.wrapped_secret, "wrapped node secret")
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::RegisterNode) -> OpResult {
    ctx.require(Operation::SetNodeState)?;
    let incarnation = Incarnation::from_slice(&c.incarnation)?;
    let known = ctx.get::<Nodes>(&Tail(c.node_id.clone()))?;
    match known {
        Some(node) if node.incarnation == c.incarnation => {
            if node.state() == v1::NodeState::Removed {
                return refuse(
                    ErrorCode::NodeConflict,
                    "this data directory was removed from the cluster: format a new one",
                );
            }
            refresh(ctx, c, node)
        }
        known => {
            if let Some(index) = ctx.get::<SeatsByIncarnation>(&incarnation)? {
                let seat = ctx.must_get::<Seats>(&(index.position as u32))?;
                let message = format!("this data directory is known as one of node {}", seat.node_id);
                return refuse(ErrorCode::NodeConflict, message);
            }
            if let Some(node) = &known {
                replace(ctx, node)?;
            } else if rows::scan::<Nodes>(ctx.kv(), &(), None, MAX_NODES)?.len() >= MAX_NODES {
                return refuse(ErrorCode::LimitExceeded, format!("a cluster has at most {MAX_NODES} nodes"));
            }
            seat(ctx, c, incarnation)
        }
    }
}

/// The same data directory again: new address, domain or capacity; a node that talks is not down.
fn refresh(ctx: &mut Ctx<'_>, c: &v1::RegisterNode, mut node: v1::NodeRow) -> OpResult {
    if node.state() == v1::NodeState::Down {
        ctx.seat(node.seat)?.recheck_all();
    }
    if matches!(node.state(), v1::NodeState::Down | v1::NodeState::Suspect) {
        node.state = v1::NodeState::Up.into();
        node.state_since_ms = ctx.clock.cluster_ms;
    }
    node.address = c.address.clone();
    node.domain = c.domain.clone();
    node.capacity = c.capacity;
    ctx.put_node(&node);
    Ok(v1::CommandResult::default())
}

/// May a new data directory take the node's name? Only if the old one holds nothing that counts on it.
fn replace(ctx: &mut Ctx<'_>, node: &v1::NodeRow) -> Result<(), Fault> {
    let gone = matches!(node.state(), v1::NodeState::Down | v1::NodeState::Removed);
    if node.state() == v1::NodeState::Removed {
        return Ok(()); // its seat was retired with it
    }
    let seat = ctx.seat(node.seat)?;
    if !gone && seat.chunks > 0 {
        let message = format!(
            "node {} already serves another data directory with {} chunks; it must be down before a new one takes its name",
            node.node_id, seat.chunks
        );
        return refuse(ErrorCode::NodeConflict, message);
    }
    seat.retired = true;
    seat.recheck_all();
    Ok(())
}

fn seat(ctx: &mut Ctx<'_>, c: &v1::RegisterNode, incarnation: Incarnation) -> OpResult {
    ctx.count().last_seat += 1;
    let number = ctx.count().last_seat;
    let row = v1::SeatRow {
        node_id: c.node_id.clone(),
        incarnation: c.incarnation.clone(),
        since: ctx.position,
        ..Default::default()
    };
    ctx.new_seat(number, row);
    ctx.put::<SeatsByIncarnation>(&incarnation, &v1::PositionRow { position: u64::from(number) });
    let node = v1::NodeRow {
        node_id: c.node_id.clone(),
        incarnation: c.incarnation.clone(),
        address: c.address.clone(),
        domain: c.domain.clone(),
        capacity: c.capacity,
        wrapped_secret: c.wrapped_secret.clone(),
        state: v1::NodeState::Up.into(),
        seat: number,
        registered_unix_ms: ctx.unix_ms,
        state_since_ms: ctx.clock.cluster_ms,
    };
    ctx.put_node(&node);
    Ok(v1::CommandResult { count: 1, ..Default::default() })
}

/// Marks a seat's chunks to be looked at again, from the first.
pub(super) trait Recheck {
    fn recheck_all(&mut self);
}

impl Recheck for v1::SeatRow {
    fn recheck_all(&mut self) {
        self.recheck = true;
        self.recheck_after = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query;
    use crate::testing::{CLUSTER, World, register};
    use dfs_proto::v1::command::Kind;

    #[test]
    fn a_name_has_one_data_directory_at_a_time() {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b", "c"], 3);
        world.file(ann, &bucket, "a", &[1, 2, 3], &["n1", "n2", "n3"]);
        // The same again: only address and domain change.
        world.ok(CLUSTER, register("n1", "z", 1));
        assert_eq!(query::node(&world.kv, "n1").unwrap().unwrap().row.domain, "z");
        // Another node's data directory.
        let Kind::RegisterNode(c) = register("n1", "a", 1) else { unreachable!() };
        let stolen = v1::RegisterNode { node_id: "n9".into(), ..c };
        world.fails(CLUSTER, Kind::RegisterNode(stolen), ErrorCode::NodeConflict);
        // A new directory while the old one serves.
        world.fails(CLUSTER, register("n1", "a", 2), ErrorCode::NodeConflict);

        world.set_state("n1", v1::NodeState::Down);
        let old = world.at("n2");
        world.ok(CLUSTER, register("n1", "a", 2));
        assert_eq!(query::nodes_to_recheck(&world.kv).unwrap().len(), 1);
        world.recheck_all();
        assert_eq!(world.counters().deficits, 3);
        assert_eq!(world.chunk(ann, 1).unwrap().copies.len(), 2);
        assert_eq!(
            query::node_by_incarnation(
                &world.kv,
                Incarnation::from_slice(&crate::testing::incarnation("n1", 1)).unwrap()
            )
            .unwrap(),
            None
        );
        // The old directory comes back: its old receipts are older than its new registration.
        world.set_state("n1", v1::NodeState::Down);
        world.ok(CLUSTER, register("n1", "a", 1));
        let stale = v1::StoredAt { epoch: old.epoch, ..world.at("n1") };
        let add = v1::AddLocations { changes: vec![crate::testing::change(world.chunk_key(ann, 1), stale)] };
        assert_eq!(world.ok(CLUSTER, Kind::AddLocations(add)).count, 0);
    }

    #[test]
    fn forms() {
        let bad = |change: fn(&mut v1::RegisterNode)| {
            let Kind::RegisterNode(mut c) = register("n1", "a", 1) else { unreachable!() };
            change(&mut c);
            check(&c).unwrap_err().code
        };
        assert_eq!(bad(|c| c.node_id = "N1".into()), ErrorCode::InvalidArgument);
        assert_eq!(bad(|c| c.address = "n1".into()), ErrorCode::InvalidArgument);
        assert_eq!(bad(|c| c.domain = String::new()), ErrorCode::InvalidArgument);
    }
}
