//! Copies that are not needed go: the surplus after a dead node came back, and those on a node that
//! drains, dead or alive, once others have all that is wanted. Always only after every copy that stays
//! was touched by its node, just now; apply checks target and spread once more.
//!
//! The copies of a node that is merely down are kept in the state: they may be back, and they may turn
//! out to be the last ones. An operator who gives a node up says so by draining it.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::MAX_CHUNKS_PER_BACKGROUND_COMMAND;
use dfs_types::{DfsError, Incarnation, MonotonicMillis, NodeId};
use metadata_core::query::{self, ChunkView, NodeView};
use metadata_core::rows::ChunkKey;
use server_kit::{Next, Work};

use super::{Timing, propose};
use crate::service::{NodeTable, Operations, location_change};

/// Chunks looked at in one unit.
const ROUND: usize = 64;

/// Walks over the chunks of each node once after it came up under this leadership, and over those of
/// nodes that drain again and again.
pub struct Trim {
    operations: Operations,
    timing: Timing,
    /// Nodes walked over while they were up, by incarnation and the time since which they are up.
    walked: BTreeMap<NodeId, (Incarnation, u64)>,
    /// When the next walk over a node that drains may begin.
    drains: BTreeMap<NodeId, MonotonicMillis>,
    walk: Option<Walk>,
}

struct Walk {
    node: NodeId,
    stamp: (Incarnation, u64),
    draining: bool,
    began: MonotonicMillis,
    seat: u32,
    after: Option<ChunkKey>,
    trimmed: u64,
}

impl Trim {
    pub fn new(operations: Operations, timing: Timing) -> Self {
        Self { operations, timing, walked: BTreeMap::new(), drains: BTreeMap::new(), walk: None }
    }

    /// The next node some of whose copies may not be needed.
    fn next_walk(&mut self, nodes: Vec<NodeView>) -> Result<Option<Walk>, DfsError> {
        let now = self.operations.now();
        let mut next: Option<Walk> = None;
        for found in nodes {
            let node = NodeId::new(found.row.node_id.as_str())?;
            let stamp = (Incarnation::from_slice(&found.row.incarnation)?, found.row.state_since_ms);
            let (is_due, draining) = match found.row.state() {
                v1::NodeState::Up => (self.walked.get(&node) != Some(&stamp), false),
                v1::NodeState::Draining => (self.drains.get(&node).is_none_or(|due| *due <= now), true),
                _ => (false, false),
            };
            if !draining {
                self.drains.remove(&node);
            }
            // While it is being rechecked, what counts is still changing.
            if next.is_none() && is_due && found.seat.chunks > 0 && !found.seat.recheck {
                let (seat, began) = (found.row.seat, now);
                next = Some(Walk { node, stamp, draining, began, seat, after: None, trimmed: 0 });
            }
        }
        Ok(next)
    }

    fn finish(&mut self, walk: Walk) {
        if !walk.draining {
            self.walked.insert(walk.node, walk.stamp);
            return;
        }
        // A long list is not walked over without a rest, unless it gets shorter.
        let now = self.operations.now();
        let rest = self.timing.background_ms.max(if walk.trimmed > 0 { 0 } else { now - walk.began });
        self.drains.insert(walk.node, now + rest);
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
        drop(view);
        let unneeded = |chunk: &&ChunkView| match walk.draining {
            // This copy is not among those present.
            true => chunk.present >= chunk.wanted,
            false => chunk.wanted > 0 && chunk.present > chunk.wanted,
        };
        let unneeded: Vec<(ChunkView, u32)> =
            page.iter().filter(unneeded).map(|chunk| (chunk.clone(), walk.seat)).collect();
        walk.trimmed += shed(&self.operations, &unneeded).await?;
        match page.last() {
            Some(last) if page.len() == ROUND => {
                walk.after = Some(last.key);
                self.walk = Some(walk);
            }
            _ => self.finish(walk),
        }
        Ok(Next::Now)
    }
}

/// Takes one copy of each of these chunks, the one at the seat given: once as many others as are
/// wanted have been touched. How many went; the others stay, and are looked at again some day.
pub(super) async fn shed(operations: &Operations, chunks: &[(ChunkView, u32)]) -> Result<u64, DfsError> {
    if chunks.is_empty() {
        return Ok(0);
    }
    let view = operations.parts.consensus.local_view()?;
    let table = NodeTable::load(operations, &view)?;
    let mut keepers: BTreeMap<&NodeId, Vec<usize>> = BTreeMap::new();
    for (place, (chunk, seat)) in chunks.iter().enumerate() {
        // Nobody wants a chunk in trash: nothing has to stay.
        let stay = chunk.copies.iter().filter(|copy| copy.counts() && copy.holder.seat != *seat);
        for at in stay.filter(|_| chunk.wanted > 0).filter_map(|copy| table.holder(copy)) {
            if at.alive {
                keepers.entry(&at.node).or_default().push(place);
            }
        }
    }
    let mut touched = vec![0; chunks.len()];
    let mut changes = Vec::new();
    for (node, places) in keepers {
        let at = table.get(node).expect("holders are in the table");
        let keys: Vec<ChunkKey> = places.iter().map(|place| chunks[*place].0.key).collect();
        match operations.touch_all(&table, at, &keys, &view).await {
            Ok(answers) => {
                for (place, change) in places.into_iter().zip(answers) {
                    touched[place] += u32::from(change.is_some());
                    changes.extend(change);
                }
            }
            Err(error) => {
                tracing::info!(node = %node, code = %error.code, %error, "copies that stay not touched")
            }
        }
    }
    drop(view);
    for changes in changes.chunks(MAX_CHUNKS_PER_BACKGROUND_COMMAND) {
        let changes = changes.to_vec();
        propose(operations, Kind::AddLocations(v1::AddLocations { changes })).await?;
    }
    let safe = chunks.iter().zip(touched).filter(|((chunk, _), touched)| *touched >= chunk.wanted);
    let trims: Vec<v1::LocationChange> = safe
        .filter_map(|((chunk, seat), _)| {
            let own = chunk.copies.iter().find(|copy| copy.holder.seat == *seat)?;
            Some(location_change(&chunk.key, table.holder(own)?, own.epoch))
        })
        .collect();
    let mut trimmed = 0;
    for changes in trims.chunks(MAX_CHUNKS_PER_BACKGROUND_COMMAND) {
        let changes = changes.to_vec();
        // Apply knows better: where spread would suffer, or a copy went meanwhile, nothing happens.
        trimmed += propose(operations, Kind::TrimLocations(v1::TrimLocations { changes })).await?.count;
    }
    crate::telemetry::copies_trimmed(trimmed);
    Ok(trimmed)
}

/// Between two looks at lists that are long and rarely say anything.
pub(super) fn slow_pause(timing: Timing) -> Next {
    Next::After(Duration::from_millis(timing.background_ms / 10))
}
