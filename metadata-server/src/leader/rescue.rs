//! Chunks without any good copy. A copy that is found bad is struck off and stays on its node, marked, for
//! its good groups may be the last. So every node is asked what it has of such a chunk: a good copy that was
//! forgotten is taken up again, and marked ones are merged by one of the nodes that have them. What comes of
//! it is one good copy; repair makes the others from that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::{MAX_LOCATIONS_PER_CHUNK, MAX_PLAN_CHUNKS};
use dfs_types::{DfsError, ErrorCode, NodeId, TaskId};
use futures::{StreamExt as _, stream};
use metadata_core::query::{self, ChunkView};
use metadata_core::rows::ChunkKey;
use server_kit::{Next, Work};

use super::copies::copy_limit;
use super::resting::Resting;
use super::{Timing, propose};
use crate::service::{GrantFor, NodeAt, NodeTable, Operations, chunk_ref};

/// Deficits looked at in one round, and chunks asked for in one call.
const ROUND: usize = MAX_PLAN_CHUNKS;
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// Nodes asked at once.
const ASK_PARALLEL: usize = 8;
/// A chunk for which nothing was found rests: first and longest.
const FIRST_REST_MS: u64 = 2_000;
const LONGEST_REST_MS: u64 = 300_000;

pub struct Rescue {
    operations: Operations,
    timing: Timing,
    term: u64,
    /// Where the walk over chunks without copies goes on.
    after: Option<ChunkKey>,
    resting: Resting,
}

/// Nodes by what they said of one chunk.
#[derive(Default)]
struct Holders {
    good: Vec<NodeId>,
    marked: Vec<NodeId>,
}

impl Rescue {
    pub fn new(operations: Operations, timing: Timing, term: u64) -> Self {
        let resting = Resting::new(FIRST_REST_MS, LONGEST_REST_MS);
        Self { operations, timing, term, after: None, resting }
    }

    /// The chunks of the next page that have no copy that counts, and whether the walk goes on.
    fn due(&mut self) -> Result<(Vec<ChunkView>, bool), DfsError> {
        let view = self.operations.parts.consensus.local_view()?;
        let page = query::lost_page(&view, self.after, ROUND)?;
        self.after = page.last().filter(|_| page.len() == ROUND).map(|last| last.key);
        let now = self.operations.now();
        let due = page.into_iter().filter(|chunk| self.resting.is_over(&chunk.key, now)).collect();
        Ok((due, self.after.is_some()))
    }
}

impl Work for Rescue {
    async fn step(&mut self) -> Result<Next, DfsError> {
        let (due, more) = self.due()?;
        if due.is_empty() {
            return Ok(if more { Next::Now } else { self.timing.pause() });
        }
        let view = self.operations.parts.consensus.local_view()?;
        let table = NodeTable::load(&self.operations, &view)?;
        drop(view);
        let holders = ask(&self.operations, &table, &due).await;
        for chunk in &due {
            let key = chunk.key;
            let tries = self.resting.tried(key, self.operations.now());
            let Some(holders) = holders.get(&key) else { continue };
            let saved = save(&self.operations, &table, self.term, chunk, holders, tries).await;
            match saved {
                Ok(Some(change)) => {
                    let changes = vec![change];
                    propose(&self.operations, Kind::AddLocations(v1::AddLocations { changes })).await?;
                    self.resting.forget(&key);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(chunk = %key.chunk, code = %error.code, %error, "a chunk without a good copy");
                    crate::telemetry::copy_failed();
                }
            }
        }
        Ok(self.timing.pause())
    }
}

/// Asks every live node what it has of these chunks, without reading them.
async fn ask(operations: &Operations, table: &NodeTable, due: &[ChunkView]) -> BTreeMap<ChunkKey, Holders> {
    let chunks: Vec<v1::ChunkKey> = due
        .iter()
        .map(|chunk| v1::ChunkKey {
            realm_id: chunk.key.realm.to_vec().into(),
            chunk_id: chunk.key.chunk.to_vec().into(),
        })
        .collect();
    let one = |at: &NodeAt| {
        let (at, chunks) = (at.clone(), chunks.clone());
        async move {
            let incarnation = at.incarnation.to_vec().into();
            let request = v1::ProbeRequest { incarnation, chunks, verify: false };
            let answer = operations.parts.nodes.probe(&at.target(), request, ASK_LIMIT).await;
            (at.node, answer)
        }
    };
    let asked: Vec<_> = table.iter().filter(|at| at.alive).map(one).collect();
    let answers: Vec<_> = stream::iter(asked).buffered(ASK_PARALLEL).collect().await;
    let mut holders = BTreeMap::<ChunkKey, Holders>::new();
    for (node, answer) in answers {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%node, code = %error.code, %error, "not asked for lost chunks");
                continue;
            }
        };
        for (chunk, result) in due.iter().zip(&answer.results) {
            match result.state() {
                v1::ProbeState::Present => {
                    holders.entry(chunk.key).or_default().good.push(node.clone());
                }
                v1::ProbeState::Corrupt => {
                    holders.entry(chunk.key).or_default().marked.push(node.clone());
                }
                v1::ProbeState::Absent | v1::ProbeState::Unknown | v1::ProbeState::Unspecified => {}
            }
        }
    }
    holders
}

/// The location of a good copy that was there, or that was merged.
async fn save(
    operations: &Operations,
    table: &NodeTable,
    term: u64,
    chunk: &ChunkView,
    holders: &Holders,
    tries: usize,
) -> Result<Option<v1::LocationChange>, DfsError> {
    let key = chunk.key;
    for at in holders.good.iter().filter_map(|node| table.get(node)) {
        let view = operations.parts.consensus.local_view()?;
        if let Ok(Some(change)) = operations.touch(table, at, &key, &view).await {
            tracing::warn!(node = %at.node, chunk = %key.chunk, "a copy that no list had: taken up again");
            return Ok(Some(change));
        }
    }
    let marked: Vec<&NodeAt> = holders.marked.iter().filter_map(|node| table.get(node)).collect();
    // One after the other: the disk of the first may be what spoils everything.
    let able: Vec<&NodeAt> = marked.iter().copied().filter(|at| at.takes_chunks()).collect();
    let Some(target) = able.get(tries % able.len().max(1)) else { return Ok(None) };
    merge(operations, table, term, chunk, target, &marked).await.map(Some)
}

async fn merge(
    operations: &Operations,
    table: &NodeTable,
    term: u64,
    chunk: &ChunkView,
    target: &NodeAt,
    marked: &[&NodeAt],
) -> Result<v1::LocationChange, DfsError> {
    let (key, sealed_length) = (chunk.key, chunk.sealed_length);
    let task = TaskId(operations.draw16());
    let view = operations.parts.consensus.local_view()?;
    let (grant_for, epoch) = (GrantFor::task(task.0, key.realm, &view)?, view.position().0);
    drop(view);
    let mut sources = Vec::new();
    let mut named = BTreeSet::new();
    for at in marked.iter().take(MAX_LOCATIONS_PER_CHUNK) {
        named.insert(at.node.to_string());
        sources.push(v1::ForwardTo {
            node: Some(v1::NodeAddress { node_id: at.node.to_string(), address: at.row.address.clone() }),
            grant: operations.get_grant(at, &grant_for, vec![key.chunk])?.into(),
        });
    }
    tracing::warn!(chunk = %key.chunk, node = %target.node, from = ?named, "all copies are bad: merging them");
    let request = v1::CopyChunkRequest {
        task_id: task.to_vec().into(),
        realm_id: key.realm.to_vec().into(),
        chunk_id: key.chunk.to_vec().into(),
        sealed_length,
        epoch,
        sources,
        term,
    };
    let limit = copy_limit(sealed_length) * 2 * (marked.len().max(1) as u32);
    let answer = operations.parts.nodes.merge(&target.target(), request, limit).await?;
    let receipt = operations.check_receipt(table, &answer.receipt, task.0, key.realm)?;
    match receipt {
        Some(receipt)
            if receipt.stored.node_id == target.node.as_str()
                && receipt.chunks.contains(&(key.chunk, sealed_length)) =>
        {
            crate::telemetry::copies_merged();
            Ok(v1::LocationChange { chunk: Some(chunk_ref(&key)), stored: Some(receipt.stored) })
        }
        _ => Err(DfsError::new(
            ErrorCode::ReceiptRefused,
            format!("the receipt of {} is not about the merged copy", target.node),
        )),
    }
}
