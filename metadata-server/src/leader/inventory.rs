//! What nodes really have, beside what the state lists there: one node after another, a page at a
//! time, slowly.
//!
//! Owner: [`Inventory`], in memory only; a new leader begins again. An inventory only nominates:
//!
//! - Bytes that the state does not list, with an epoch below the floor, are proposed as orphans. Why no
//!   ticket for them hurts anything is told in metadata-core/src/ops/purge_orphans.rs.
//! - Bytes that it does not list of a chunk that lacks copies are probed, touched and listed.
//! - A listed chunk that is not there, is marked bad, or is there with an epoch the state has already
//!   seen a higher one of, is asked about again ([`super::repair::settle_faults`]): struck off only on
//!   the node's direct answer to a probe made after the view that listed it.
//! - More than one in a hundred absent (`too_many_absent`) looks like a wrong disk more than like lost
//!   chunks: nothing is struck off for being absent there, until an operator accepts the loss
//!   (ConfirmLoss) or a later walk finds the chunks. It is an error in the log, a metric, and shown
//!   with the node.
//!
//! A node whose index is not complete has no inventory: it answers none, and none is asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::MAX_CHUNKS_PER_BACKGROUND_COMMAND;
use dfs_types::{ChunkId, DfsError, Incarnation, MonotonicMillis, NodeId, RealmId};
use metadata_core::inventory::{FoundChunk, Page, compare};
use metadata_core::query;
use metadata_core::rows::ChunkKey;
use server_kit::{Next, Work};

use super::{Timing, propose};
use crate::service::{NodeAt, NodeTable, Operations, chunk_ref};
use crate::telemetry;

/// Entries of one page: what one command can propose.
const PAGE: usize = MAX_CHUNKS_PER_BACKGROUND_COMMAND;
const PAGE_LIMIT: Duration = Duration::from_secs(10);
/// Between two pages, as parts of the pause of idle workers; and between two of a busy node.
const PAUSES_PER_PAGE: u32 = 10;
/// Absent chunks remembered in one walk; the next walk finds the others.
const MAX_ABSENT_KEPT: usize = 4096;
/// A node that did not answer is asked again after this long at the latest.
const RETRY_MS: u64 = 10_000;

pub struct Inventory {
    operations: Operations,
    timing: Timing,
    /// When each node's next walk is due.
    due: BTreeMap<NodeId, (Incarnation, MonotonicMillis)>,
    walk: Option<Walk>,
}

/// The walk over one node.
struct Walk {
    node: NodeId,
    incarnation: Incarnation,
    after: Option<ChunkKey>,
    listed: u64,
    absent: u64,
    kept: Vec<ChunkKey>,
    orphans: u64,
}

impl Inventory {
    pub fn new(operations: Operations, timing: Timing) -> Self {
        Self { operations, timing, due: BTreeMap::new(), walk: None }
    }

    /// The node that is due the longest.
    fn next_walk(&mut self, table: &NodeTable) -> Option<Walk> {
        let (now, book) = (self.operations.now(), &self.operations.parts.book);
        self.due.retain(|node, _| table.get(node).is_some() && !book.take_walk_wish(node));
        let mut best: Option<(MonotonicMillis, &NodeAt)> = None;
        for at in table.iter().filter(|at| self.can_answer(at)) {
            let due = match self.due.get(&at.node) {
                Some((incarnation, due)) if *incarnation == at.incarnation => *due,
                _ => 0,
            };
            if due <= now && best.is_none_or(|(earlier, _)| due < earlier) {
                best = Some((due, at));
            }
        }
        best.map(|(_, at)| Walk {
            node: at.node.clone(),
            incarnation: at.incarnation,
            after: None,
            listed: 0,
            absent: 0,
            kept: Vec::new(),
            orphans: 0,
        })
    }

    /// Whether the node is there and its index is whole.
    fn can_answer(&self, at: &NodeAt) -> bool {
        let book = &self.operations.parts.book;
        let whole = book.life(&at.node).is_some_and(|life| !life.index_rebuilding);
        whole && at.alive && book.was_heard(&at.node, at.incarnation)
    }

    /// One page of the walk; whether the walk is over.
    async fn page(&self, walk: &mut Walk) -> Result<bool, DfsError> {
        // The view comes first: what it lists, the node had before it was asked.
        let view = self.operations.parts.consensus.local_view()?;
        let table = NodeTable::load(&self.operations, &view)?;
        let at = table.get(&walk.node).filter(|at| at.incarnation == walk.incarnation);
        let Some(at) = at.filter(|at| self.can_answer(at)) else {
            return Err(DfsError::new(dfs_types::ErrorCode::Unavailable, "it is gone, or opens its store"));
        };
        let floor = query::clock(&view)?.epoch_floor;
        let listed = query::listed_at(&view, at.row.seat, walk.after, PAGE)?;
        let request = v1::InventoryRequest {
            incarnation: at.incarnation.to_vec().into(),
            after: walk.after.map(|key| v1::ChunkKey {
                realm_id: key.realm.to_vec().into(),
                chunk_id: key.chunk.to_vec().into(),
            }),
            limit: PAGE as u32,
        };
        let answer = self.operations.parts.nodes.inventory(&at.target(), request, PAGE_LIMIT).await?;
        let found = answer.entries.iter().take(PAGE).map(read).collect::<Result<Vec<_>, _>>()?;
        let compared = compare(
            walk.after,
            Page { items: &found, end: answer.end && answer.entries.len() <= PAGE },
            Page { items: &listed, end: listed.len() < PAGE },
            floor,
        )?;
        walk.listed += compared.listed;
        walk.absent += compared.absent.len() as u64;
        let room = MAX_ABSENT_KEPT.saturating_sub(walk.kept.len());
        walk.kept.extend(compared.absent.iter().take(room));
        let book = &self.operations.parts.book;
        for key in compared.suspicious {
            book.report_fault(&at.node, key);
        }
        for key in compared.spare {
            let lacks = |chunk: &query::ChunkView| chunk.present < chunk.wanted;
            if query::chunk(&view, key)?.as_ref().is_some_and(lacks) {
                book.report_fault(&at.node, key);
            }
        }
        drop(view);
        if !compared.orphans.is_empty() {
            let kind = Kind::PurgeOrphans(v1::PurgeOrphans {
                node_id: at.node.to_string(),
                incarnation: at.incarnation.to_vec().into(),
                chunks: compared.orphans.iter().map(chunk_ref).collect(),
            });
            let count = propose(&self.operations, kind).await?.count;
            telemetry::orphans_found(count);
            walk.orphans += count;
        }
        walk.after = compared.next;
        Ok(walk.after.is_none())
    }

    /// The whole inventory was seen.
    fn finish(&self, walk: Walk) {
        let book = &self.operations.parts.book;
        let was_held = book.holds_absence(&walk.node, walk.incarnation);
        let Some(absence) = book.inventoried(&walk.node, walk.incarnation, walk.listed, walk.absent) else {
            return;
        };
        let Walk { node, listed, absent, orphans, .. } = walk;
        telemetry::absent(node.as_str(), absent, absence.held);
        if orphans > 0 {
            tracing::info!(%node, orphans, "chunks that nothing refers to are being deleted");
        }
        if !absence.held {
            if was_held {
                tracing::warn!(%node, absent, listed, "the node's missing chunks are not held any more");
            }
            for key in walk.kept {
                book.report_fault(&node, key);
            }
        } else if !was_held {
            tracing::error!(
                %node, absent, listed,
                "too many chunks are missing on the node: none is given up before somebody looked. \
                 Mount its disk again and restart it, or accept the loss: dfsctl node confirm-loss {node}"
            );
        }
    }

    fn rest(&mut self, walk: &Walk, millis: u64) {
        self.due.insert(walk.node.clone(), (walk.incarnation, self.operations.now() + millis));
    }

    /// Between two pages: longer while users keep the node busy.
    fn pause(&self, node: &NodeId) -> Next {
        let idle = Duration::from_millis(self.timing.background_ms) / PAUSES_PER_PAGE;
        let busy = self.operations.parts.book.life(node).is_some_and(|life| life.streams > 0);
        Next::After(if busy { idle * PAUSES_PER_PAGE } else { idle })
    }
}

impl Work for Inventory {
    async fn step(&mut self) -> Result<Next, DfsError> {
        let mut walk = match self.walk.take() {
            Some(walk) => walk,
            None => {
                let table =
                    NodeTable::load(&self.operations, &self.operations.parts.consensus.local_view()?)?;
                match self.next_walk(&table) {
                    Some(walk) => walk,
                    None => return Ok(self.timing.pause()),
                }
            }
        };
        let interval = self.timing.inventory_interval_ms;
        match self.page(&mut walk).await {
            Ok(true) => {
                self.rest(&walk, interval);
                let next = self.pause(&walk.node);
                self.finish(walk);
                Ok(next)
            }
            Ok(false) => {
                let next = self.pause(&walk.node);
                self.walk = Some(walk);
                Ok(next)
            }
            Err(error) => {
                // One node's trouble must not hold up the others'.
                tracing::info!(node = %walk.node, code = %error.code, %error, "inventory given up for now");
                self.rest(&walk, interval.min(RETRY_MS));
                Ok(self.timing.pause())
            }
        }
    }
}

fn read(entry: &v1::InventoryEntry) -> Result<FoundChunk, DfsError> {
    let key = ChunkKey {
        realm: RealmId::from_slice(&entry.realm_id)?,
        chunk: ChunkId::from_slice(&entry.chunk_id)?,
    };
    Ok(FoundChunk { key, epoch: entry.epoch, quarantined: entry.quarantined })
}
