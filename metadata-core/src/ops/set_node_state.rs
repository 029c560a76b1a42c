//! SetNodeState: the leader's view of a node's health, and draining by an administrator. What the
//! change means for copies is worked off by QueueNodeDeficits, when the leader finds it is time.

use dfs_proto::v1;
use dfs_types::ErrorCode;

use super::ctx::{Ctx, OpResult, refuse};
use super::register_node::Recheck;
use crate::rights::Operation;
use crate::rows::Tail;
use crate::rows::nodes::Nodes;
use crate::rules::forms::{self, Check, invalid};

pub(super) fn check(c: &v1::SetNodeState) -> Check {
    forms::node_id(&c.node_id)?;
    forms::id(&c.incarnation, "incarnation")?;
    match c.state() {
        v1::NodeState::Unspecified => Err(invalid("the state is missing or unknown")),
        v1::NodeState::Removed => Err(invalid("a node is removed by DropNode")),
        v1::NodeState::Up | v1::NodeState::Suspect | v1::NodeState::Down | v1::NodeState::Draining => Ok(()),
    }
}

pub(super) fn apply(ctx: &mut Ctx<'_>, c: &v1::SetNodeState) -> OpResult {
    ctx.require(Operation::SetNodeState)?;
    let node = ctx.get::<Nodes>(&Tail(c.node_id.clone()))?;
    let Some(mut node) = node else { return refuse(ErrorCode::NodeNotFound, "there is no such node") };
    if node.incarnation != c.incarnation || node.state() == v1::NodeState::Removed {
        return refuse(ErrorCode::NodeConflict, "the node was removed or has another data directory now");
    }
    // Health must not end a drain: only an administrator's "up" does.
    let health = matches!(c.state(), v1::NodeState::Suspect | v1::NodeState::Down);
    if node.state() == c.state() || (node.state() == v1::NodeState::Draining && health) {
        return Ok(v1::CommandResult::default());
    }
    let class = |state| match state {
        v1::NodeState::Up | v1::NodeState::Suspect => 0,
        v1::NodeState::Draining => 1,
        v1::NodeState::Down | v1::NodeState::Removed | v1::NodeState::Unspecified => 2,
    };
    if class(node.state()) != class(c.state()) {
        ctx.seat(node.seat)?.recheck_all();
    }
    node.state = c.state;
    node.state_since_ms = ctx.clock.cluster_ms;
    ctx.put_node(&node);
    Ok(v1::CommandResult { count: 1, ..Default::default() })
}
