//! Chunks whose copies stand in fewer domains than they could: after a domain was down while they were
//! written or repaired, or joined later. Each gets one copy more in a new domain, then loses one of
//! those that share one.
//!
//! Owner: [`Spread`], in memory. It walks over all chunks when the set of domains with live nodes
//! changed, and once in an inventory interval; slowly, and only while nothing lacks copies: a chunk
//! with too few is in greater need than one with enough in the wrong places.

use std::collections::BTreeSet;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::{DfsError, MonotonicMillis};
use futures::{StreamExt as _, stream};
use metadata_core::query::{self, ChunkView};
use metadata_core::repair::{self, RepairOrder};
use metadata_core::rows::{ChunkKey, deficits::LEAVING};
use server_kit::{Next, Work};

use super::copies::{Failures, Pace, copy, limits, live_nodes};
use super::trim::{shed, slow_pause};
use super::{Timing, propose};
use crate::raft::StateView;
use crate::service::{NodeTable, Operations};

/// Chunks looked at in one unit.
const ROUND: usize = 64;

pub struct Spread {
    operations: Operations,
    timing: Timing,
    term: u64,
    pace: Pace,
    failures: Failures,
    /// The domains of the last walk, and when the next is due all the same.
    walked: BTreeSet<String>,
    due: MonotonicMillis,
    walk: Option<Walk>,
}

struct Walk {
    domains: BTreeSet<String>,
    seats: Vec<u32>,
    after: Option<ChunkKey>,
}

impl Spread {
    pub fn new(operations: Operations, timing: Timing, term: u64, pace: Pace) -> Self {
        let (failures, walked) = (Failures::default(), BTreeSet::new());
        Self { operations, timing, term, pace, failures, walked, due: 0, walk: None }
    }

    /// Where to go on; None: there is nothing to do now.
    fn walk(&mut self, view: &StateView) -> Result<Option<Walk>, DfsError> {
        let nodes = query::nodes(view)?;
        // What counts is changing, or something lacks copies.
        let urgent = query::deficits_page(view, None, 1)?.first().is_some_and(|top| top.priority < LEAVING);
        if urgent || nodes.iter().any(|found| found.seat.recheck) {
            return Ok(None);
        }
        let up = nodes.iter().filter(|found| found.row.state() == v1::NodeState::Up);
        let domains: BTreeSet<String> = up.map(|found| found.row.domain.clone()).collect();
        match self.walk.take() {
            Some(walk) if walk.domains == domains => Ok(Some(walk)),
            _ if domains == self.walked && self.operations.now() < self.due => Ok(None),
            _ => {
                let seats = nodes.iter().filter(|found| found.seat.chunks > 0).map(|found| found.row.seat);
                Ok(Some(Walk { domains, seats: seats.collect(), after: None }))
            }
        }
    }

    /// Copies what is crowded into new domains, and takes one of the crowd away.
    async fn spread(&mut self, table: &NodeTable, crowded: &[ChunkView]) -> Result<(), DfsError> {
        let now = self.operations.now();
        let nodes = live_nodes(&self.operations, table, &self.pace);
        let avoid = self.failures.avoid(now);
        let plan = repair::plan_spread(crowded, &nodes, &avoid, limits(self.timing, ROUND));
        let (operations, pace, term) = (self.operations.clone(), self.pace.clone(), self.term);
        let (operations, pace) = (&operations, &pace);
        let copies = plan.orders.into_iter().map(|order| async move {
            let done = copy(operations, table, term, pace, &order).await;
            (order, done)
        });
        let copies = copies.collect::<Vec<_>>();
        let outcomes: Vec<(RepairOrder, Result<v1::LocationChange, DfsError>)> =
            stream::iter(copies).buffer_unordered(self.timing.repair_parallel).collect().await;
        let (mut changes, mut added) = (Vec::new(), Vec::new());
        for (order, outcome) in outcomes {
            match outcome {
                Ok(change) => {
                    crate::telemetry::copy_spread();
                    changes.push(change);
                    added.push(order.chunk);
                }
                Err(error) => {
                    tracing::info!(chunk = %order.chunk.chunk, node = %order.target, code = %error.code, %error, "copy failed");
                    self.failures.note(&order, &error, now);
                }
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        propose(operations, Kind::AddLocations(v1::AddLocations { changes })).await?;
        let view = operations.parts.consensus.local_view()?;
        let mut surplus = Vec::new();
        for key in added {
            let Some(chunk) = query::chunk(&view, key)? else { continue };
            if let Some(seat) = repair::surplus_copy(&chunk).map(|copy| copy.holder.seat) {
                surplus.push((chunk, seat));
            }
        }
        drop(view);
        shed(operations, &surplus).await?;
        Ok(())
    }
}

impl Work for Spread {
    async fn step(&mut self) -> Result<Next, DfsError> {
        let view = self.operations.parts.consensus.local_view()?;
        let Some(mut walk) = self.walk(&view)? else { return Ok(self.timing.pause()) };
        let Some(seat) = walk.seats.last().copied() else {
            self.walked = walk.domains;
            self.due = self.operations.now() + self.timing.inventory_interval_ms;
            return Ok(self.timing.pause());
        };
        let page = query::chunks_of_node(&view, seat, walk.after, ROUND)?;
        let table = NodeTable::load(&self.operations, &view)?;
        drop(view);
        // Each chunk is looked at where it is listed first.
        let own = |chunk: &&ChunkView| chunk.copies.first().is_some_and(|copy| copy.holder.seat == seat);
        let crowded: Vec<ChunkView> = page
            .iter()
            .filter(own)
            .filter(|chunk| repair::crowded(chunk, walk.domains.len()))
            .cloned()
            .collect();
        match page.last() {
            Some(last) if page.len() == ROUND => walk.after = Some(last.key),
            _ => {
                walk.seats.pop();
                walk.after = None;
            }
        }
        self.walk = Some(walk);
        if !crowded.is_empty() {
            self.spread(&table, &crowded).await?;
        }
        Ok(slow_pause(self.timing))
    }
}
