//! Chunk servers as the state knows them. Heartbeats, free space and liveness are in the leader's memory.

use dfs_proto::v1;
use dfs_types::limits::MAX_NODES;
use dfs_types::{DfsError, Incarnation};

use crate::kv::KvRead;
use crate::rows::nodes::Nodes;
use crate::rows::seats::{Seats, SeatsByIncarnation};
use crate::rows::{self, Tail};

/// A node with its present seat.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    pub row: v1::NodeRow,
    pub seat: v1::SeatRow,
}

/// All nodes, removed ones included, by name.
pub fn nodes(kv: &dyn KvRead) -> Result<Vec<NodeView>, DfsError> {
    let rows = rows::scan::<Nodes>(kv, &(), None, MAX_NODES)?;
    rows.into_iter().map(|(_, row)| with_seat(kv, row)).collect()
}

pub fn node(kv: &dyn KvRead, node_id: &str) -> Result<Option<NodeView>, DfsError> {
    match rows::get::<Nodes>(kv, &Tail(node_id.to_owned()))? {
        Some(row) => Ok(Some(with_seat(kv, row)?)),
        None => Ok(None),
    }
}

fn with_seat(kv: &dyn KvRead, row: v1::NodeRow) -> Result<NodeView, DfsError> {
    // A removed node's seat goes once nothing refers to it.
    let seat = rows::get::<Seats>(kv, &row.seat)?.unwrap_or_default();
    Ok(NodeView { row, seat })
}

/// Copies of all chunks that are referenced, on nodes that are not down, beside what is wanted. Chunks in trash
/// have copies too, which nobody wants: they do not count.
pub fn redundancy(nodes: &[NodeView], counters: &v1::CountersRow) -> v1::Redundancy {
    let there = |node: &&NodeView| {
        matches!(node.row.state(), v1::NodeState::Up | v1::NodeState::Suspect | v1::NodeState::Draining)
    };
    let copies =
        nodes.iter().filter(there).map(|node| node.seat.chunks.saturating_sub(node.seat.trash_chunks));
    v1::Redundancy {
        chunks: counters.chunks.saturating_sub(counters.trash_chunks),
        copies: copies.sum(),
        wanted_copies: counters.wanted_copies,
    }
}

/// The seat of an incarnation, with its number.
pub fn node_by_incarnation(
    kv: &dyn KvRead,
    incarnation: Incarnation,
) -> Result<Option<(u32, v1::SeatRow)>, DfsError> {
    match rows::get::<SeatsByIncarnation>(kv, &incarnation)? {
        Some(index) => {
            let seat = index.position as u32;
            Ok(Some((seat, rows::must_get::<Seats>(kv, &seat)?)))
        }
        None => Ok(None),
    }
}

/// Seats whose chunks must be looked at again (QueueNodeDeficits), because their node went down, came
/// back, drains, or was replaced. Looks at every seat: a few more than there are nodes.
pub fn nodes_to_recheck(kv: &dyn KvRead) -> Result<Vec<v1::SeatRow>, DfsError> {
    let seats = rows::scan::<Seats>(kv, &(), None, 4 * MAX_NODES)?;
    Ok(seats.into_iter().map(|(_, seat)| seat).filter(|seat| seat.recheck).collect())
}
