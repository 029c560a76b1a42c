//! Copies made again: what is under its target is copied from node to node, most urgent first, a few
//! at a time. The last copy of a chunk is copied at once; with more left, copies on a node that went
//! down are waited for until the repair delay is over. Doubts and faults are settled here too, by
//! asking the node itself.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::NodeState;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::MAX_PLAN_CHUNKS;
use dfs_types::{DfsError, MonotonicMillis};
use futures::stream;
use futures::{StreamExt as _, TryStreamExt as _};
use metadata_core::query::{self, CopyView, Deficit};
use metadata_core::repair;
use metadata_core::rows::ChunkKey;
use server_kit::{Next, Work};

use super::copies::{Failures, Pace, copy, limits, live_nodes};
use super::resting::Resting;
use super::{Timing, propose};
use crate::raft::StateView;
use crate::service::{Found, NodeAt, NodeTable, Operations, location_change};

/// Deficits looked at in one round.
const ROUND: usize = MAX_PLAN_CHUNKS;
/// A chunk whose copy failed rests: first and longest.
const FIRST_REST_MS: u64 = 1_000;
const LONGEST_REST_MS: u64 = 60_000;
const FAULTS_AT_ONCE: usize = 16;

pub struct Repair {
    operations: Operations,
    timing: Timing,
    term: u64,
    /// Behind which deficit the next round goes on, if nothing more urgent is due; None: from the top.
    after: Option<(u8, ChunkKey)>,
    /// When the walk over the list began at its top.
    walk_began: MonotonicMillis,
    resting: Resting,
    failures: Failures,
    pace: Pace,
}

impl Repair {
    pub fn new(operations: Operations, timing: Timing, term: u64, pace: Pace) -> Self {
        let (resting, failures) = (Resting::new(FIRST_REST_MS, LONGEST_REST_MS), Failures::default());
        Self { operations, timing, term, after: None, walk_began: 0, resting, failures, pace }
    }

    /// The deficits of one round that are to be worked at now, and whether the list goes on. What is
    /// most urgent comes first, also while a walk further down is under way.
    fn due(&mut self, view: &StateView, table: &NodeTable) -> Result<(Vec<Deficit>, bool), DfsError> {
        let now_ms = query::clock(view)?.cluster_ms;
        let due = |page: &[Deficit]| -> Vec<Deficit> {
            let waits = |deficit: &Deficit| waits(deficit, table, now_ms, self.timing.repair_delay_ms);
            let now = |deficit: &&Deficit| self.may_try(&deficit.chunk.key) && !waits(deficit);
            page.iter().filter(now).cloned().collect()
        };
        let top = query::deficits_page(view, None, ROUND)?;
        let mut found = due(&top);
        let page = match self.after {
            Some(_) if found.is_empty() => {
                let page = query::deficits_page(view, self.after, ROUND)?;
                found = due(&page);
                page
            }
            _ => {
                self.walk_began = self.operations.now();
                top
            }
        };
        self.after = match page.last() {
            Some(last) if page.len() == ROUND => Some((last.priority, last.chunk.key)),
            _ => None,
        };
        Ok((found, self.after.is_some()))
    }

    fn may_try(&self, key: &ChunkKey) -> bool {
        self.resting.is_over(key, self.operations.now())
    }
}

impl Work for Repair {
    async fn step(&mut self) -> Result<Next, DfsError> {
        let view = self.operations.parts.consensus.local_view()?;
        let table = NodeTable::load(&self.operations, &view)?;
        let (due, more) = self.due(&view, &table)?;
        if due.is_empty() {
            // A list so long that the walk took a while is not walked over without a rest.
            let walked = Duration::from_millis(self.operations.now() - self.walk_began);
            return Ok(if more { Next::Now } else { self.timing.pause_at_least(walked) });
        }
        let mut settling = Vec::with_capacity(due.len());
        for deficit in &due {
            settling.push(settle_doubts(&self.operations, &table, deficit));
        }
        let settled = stream::iter(settling).buffer_unordered(self.timing.repair_parallel);
        settled.try_collect::<()>().await?;
        let nodes = live_nodes(&self.operations, &table, &self.pace);
        let avoid = self.failures.avoid(self.operations.now());
        let plan = repair::plan(&due, &nodes, &avoid, limits(self.timing, ROUND));
        // No source or no place now; a node may join any moment.
        for key in &plan.hopeless {
            self.resting.shortly(*key, self.operations.now());
        }
        if plan.orders.is_empty() {
            return Ok(if more { Next::Now } else { self.timing.pause() });
        }
        let (operations, pace) = (self.operations.clone(), self.pace.clone());
        let (operations, pace, table, term) = (&operations, &pace, &table, self.term);
        drop(view);
        // What is done is committed at once: one copy that hangs holds up no other.
        let mut outcomes = stream::iter(plan.orders)
            .map(|order| async move {
                let ordered = tokio::time::Instant::now();
                let done = copy(operations, table, term, pace, &order).await;
                (order, ordered, done)
            })
            .buffer_unordered(self.timing.repair_parallel)
            .ready_chunks(ROUND);
        while let Some(done) = outcomes.next().await {
            let (mut changes, mut ordered) = (Vec::new(), Vec::new());
            for (order, began, outcome) in done {
                match outcome {
                    Ok(change) => {
                        self.resting.forget(&order.chunk);
                        crate::telemetry::copy_made();
                        changes.push(change);
                        ordered.push(began);
                    }
                    Err(error) => {
                        let (chunk, target) = (order.chunk.chunk, &order.target);
                        tracing::info!(%chunk, node = %target, code = %error.code, %error, "copy failed");
                        crate::telemetry::copy_failed();
                        self.failures.note(&order, &error, self.operations.now());
                        self.resting.tried(order.chunk, self.operations.now());
                    }
                }
            }
            if !changes.is_empty() {
                propose(operations, Kind::AddLocations(v1::AddLocations { changes })).await?;
                crate::telemetry::copies_located(ordered.into_iter());
            }
        }
        Ok(Next::Now)
    }
}

/// Whether copies on nodes that went down only just now would be enough, and are waited for. Never for
/// the last copy.
fn waits(deficit: &Deficit, table: &NodeTable, now_ms: u64, delay_ms: u64) -> bool {
    let back_soon = |copy: &&CopyView| {
        let down = |at: &NodeAt| {
            at.row.state() == NodeState::Down && now_ms < at.row.state_since_ms.saturating_add(delay_ms)
        };
        !copy.doubted && table.holder(copy).is_some_and(down)
    };
    let chunk = &deficit.chunk;
    let hoped = chunk.copies.iter().filter(back_soon).count() as u32;
    chunk.present > 1 && chunk.present + hoped >= chunk.wanted
}

/// Asks the nodes of doubted copies; a good copy is touched and counts again, a lost one is struck off.
async fn settle_doubts(
    operations: &Operations,
    table: &NodeTable,
    deficit: &Deficit,
) -> Result<(), DfsError> {
    for doubted in deficit.chunk.copies.iter().filter(|copy| copy.doubted) {
        if let Some(at) = table.holder(doubted).filter(|at| at.alive) {
            settle(operations, table, at, &deficit.chunk.key, doubted.epoch).await?;
        }
    }
    Ok(())
}

/// Whether the node said how it is.
async fn settle(
    operations: &Operations,
    table: &NodeTable,
    at: &NodeAt,
    key: &ChunkKey,
    epoch: u64,
) -> Result<bool, DfsError> {
    match operations.probe(at, key).await {
        Ok(Found::Present) => {
            let view = operations.parts.consensus.local_view()?;
            if let Some(change) = operations.touch(table, at, key, &view).await? {
                propose(operations, Kind::AddLocations(v1::AddLocations { changes: vec![change] })).await?;
            }
        }
        Ok(found @ (Found::Absent | Found::Corrupt)) => {
            tracing::warn!(node = %at.node, chunk = %key.chunk, ?found, "a copy is lost: struck off");
            let changes = vec![location_change(key, at, epoch)];
            propose(operations, Kind::StrikeLocations(v1::StrikeLocations { changes })).await?;
        }
        // The doubt stays; the chunk is copied as if this copy were gone.
        Ok(Found::Unknown) | Err(_) => return Ok(false),
    }
    Ok(true)
}

/// Settles what nodes found out about their own chunks.
pub async fn settle_faults(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    let faults = operations.parts.book.take_faults(FAULTS_AT_ONCE);
    let more = faults.len() == FAULTS_AT_ONCE;
    for (node, key) in faults {
        // A fresh view for each: it lists the location before the node is asked.
        let view = operations.parts.consensus.local_view()?;
        let table = NodeTable::load(operations, &view)?;
        let Some(chunk) = query::chunk(&view, key)? else { continue };
        let copy = chunk.copies.iter().find(|copy| table.holder(copy).is_some_and(|at| at.node == node));
        let Some(at) = table.get(&node) else { continue };
        let Some(copy) = copy else {
            // Not listed there: if it is good, it is the copy that the chunk lacks.
            if chunk.present < chunk.wanted && at.takes_chunks() {
                settle(operations, &table, at, &key, 0).await?;
            }
            continue;
        };
        if !settle(operations, &table, at, &key, copy.epoch).await? {
            // The node says it once: kept as a doubt, it is asked again until it answers.
            let changes = vec![location_change(&key, at, copy.epoch)];
            propose(operations, Kind::DoubtLocations(v1::DoubtLocations { changes })).await?;
        }
    }
    Ok(if more { Next::Now } else { timing.pause() })
}
