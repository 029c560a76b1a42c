//! More copies than wanted, as after a dead node came back: the surplus goes, but only once every copy
//! that stays has been touched by its node, just now.

use std::collections::BTreeMap;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::{DfsError, Incarnation, NodeId};
use metadata_core::query::{self, ChunkView, NodeView};
use metadata_core::rows::ChunkKey;
use server_kit::{Next, Work};

use super::{Timing, propose};
use crate::service::{NodeTable, Operations, location_change};

/// Chunks looked at in one unit.
const ROUND: usize = 64;

/// Walks over the chunks of each node once after it came up under this leadership.
pub struct Trim {
    operations: Operations,
    timing: Timing,
    /// Nodes walked over while they were up, by incarnation and the time since which they are up.
    walked: BTreeMap<NodeId, (Incarnation, u64)>,
    walk: Option<Walk>,
}

struct Walk {
    node: NodeId,
    stamp: (Incarnation, u64),
    seat: u32,
    after: Option<ChunkKey>,
}

impl Trim {
    pub fn new(operations: Operations, timing: Timing) -> Self {
        Self { operations, timing, walked: BTreeMap::new(), walk: None }
    }

    /// The next node whose chunks may have too many copies.
    fn next_walk(&self, nodes: Vec<NodeView>) -> Result<Option<Walk>, DfsError> {
        for found in nodes {
            let node = NodeId::new(found.row.node_id.as_str())?;
            let stamp = (Incarnation::from_slice(&found.row.incarnation)?, found.row.state_since_ms);
            // While it is being rechecked, what counts is still changing.
            if found.row.state() == v1::NodeState::Up
                && !found.seat.recheck
                && self.walked.get(&node) != Some(&stamp)
            {
                return Ok(Some(Walk { node, stamp, seat: found.row.seat, after: None }));
            }
        }
        Ok(None)
    }

    /// Takes this node's copy of a chunk that has more than it needs.
    async fn trim(&self, table: &NodeTable, node: &NodeId, chunk: &ChunkView) -> Result<(), DfsError> {
        let Some(own) =
            chunk.copies.iter().find(|copy| table.holder(copy).is_some_and(|at| at.node == *node))
        else {
            return Ok(());
        };
        let view = self.operations.parts.consensus.local_view()?;
        let mut touched = Vec::new();
        for copy in chunk.copies.iter().filter(|copy| copy.counts() && copy.holder.seat != own.holder.seat) {
            let Some(at) = table.holder(copy).filter(|at| at.alive) else { continue };
            if let Some(change) = self.operations.touch(table, at, &chunk.key, &view).await? {
                touched.push(change);
            }
        }
        if touched.len() < chunk.wanted as usize {
            return Ok(());
        }
        propose(&self.operations, Kind::AddLocations(v1::AddLocations { changes: touched })).await?;
        let at = table.holder(own).expect("found above");
        let changes = vec![location_change(&chunk.key, at, own.epoch)];
        match propose(&self.operations, Kind::TrimLocations(v1::TrimLocations { changes })).await {
            Ok(_) => Ok(()),
            // Apply knows better: spread would suffer, or a copy went meanwhile.
            Err(error) if !error.is_retryable() => {
                tracing::debug!(chunk = %chunk.key.chunk, %error, "surplus copy stays");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

impl Work for Trim {
    async fn step(&mut self) -> Result<Next, DfsError> {
        let view = self.operations.parts.consensus.local_view()?;
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => match self.next_walk(query::nodes(&view)?)? {
                Some(walk) => walk,
                None => return Ok(self.timing.pause()),
            },
        };
        let page = query::chunks_of_node(&view, walk.seat, walk.after, ROUND)?;
        let table = NodeTable::load(&self.operations, &view)?;
        drop(view);
        for chunk in page.iter().filter(|chunk| chunk.wanted > 0 && chunk.present > chunk.wanted) {
            self.trim(&table, &walk.node, chunk).await?;
        }
        match page.last() {
            Some(last) if page.len() == ROUND => {
                walk.after = Some(last.key);
                self.walk = Some(walk);
            }
            _ => {
                self.walked.insert(walk.node, walk.stamp);
            }
        }
        Ok(Next::Now)
    }
}
