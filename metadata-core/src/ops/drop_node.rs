//! DropNode: a node leaves the cluster. Only when it owns nothing: drain it first.

use dfs_proto::v1;
use dfs_types::ErrorCode;

use super::ctx::{Ctx, OpResult, refuse};
use super::register_node::Recheck;
use crate::rights::Operation;
use crate::rows::Tail;
use crate::rows::nodes::Nodes;
use crate::rules::forms::{self, Check};

pub(super) fn check(c: &v1::DropNode) -> Check {
    forms::node_id(&c.node_id)
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::DropNode) -> OpResult {
    ctx.require(Operation::RemoveNode)?;
    let node = ctx.get::<Nodes>(&Tail(c.node_id.clone()))?;
    let Some(mut node) = node.filter(|node| node.state() != v1::NodeState::Removed) else {
        return refuse(ErrorCode::NodeNotFound, format!("there is no node {:?}", c.node_id));
    };
    let seat = ctx.seat(node.seat)?;
    if seat.chunks > 0 {
        let message = format!("node {} still has {} chunks: drain it first", c.node_id, seat.chunks);
        return refuse(ErrorCode::NodeConflict, message);
    }
    // An empty one that still takes chunks may be in a plan right now: those puts would end with a copy too few.
    if !matches!(node.state(), v1::NodeState::Draining | v1::NodeState::Down) {
        let message = format!("node {} still takes chunks", c.node_id);
        return refuse(ErrorCode::NodeConflict, message);
    }
    seat.retired = true;
    seat.recheck_all(); // its undelivered tickets are cleared away in steps
    node.state = v1::NodeState::Removed.into();
    node.state_since_ms = ctx.clock.cluster_ms;
    node.wrapped_secret = Default::default();
    ctx.put_node(&node);
    Ok(v1::CommandResult::default())
}
