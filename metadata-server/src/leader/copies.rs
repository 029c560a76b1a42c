//! Copies from node to node, for whoever orders them: which nodes can take part now, how fast they may
//! be used, which of them failed lately, and the copy itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_proto::v1;
use dfs_types::limits::{MAX_CHUNK_BYTES, MIB};
use dfs_types::{DfsError, ErrorCode, MonotonicMillis, NodeId, TaskId};
use metadata_core::repair::{Avoid, Limits, LiveNode, RepairOrder};
use metadata_core::rows::ChunkKey;

use super::Timing;
use crate::service::{GrantFor, NodeTable, Operations, chunk_ref};

/// A copy may take this long, and this much longer for every MiB.
const COPY_BASE: Duration = Duration::from_secs(10);
const COPY_MILLIS_PER_MIB: u64 = 500;
/// How far ahead of its rate a node may be: a burst, so that small chunks do not go in single file.
const BURST_MS: u64 = 1_000;
/// Failures remembered, and for how long.
const MAX_FAILURES: usize = 10_000;
const FAILURE_MS: u64 = 60_000;

/// How much of each node's bandwidth background copies may use: bytes a second, in and out together.
/// Shared by all who copy; cheap to clone.
#[derive(Clone)]
pub struct Pace {
    bytes_per_second: u64,
    /// Until when each node's bytes are spent. Only nodes that are ahead are kept.
    spent: Arc<Mutex<BTreeMap<NodeId, MonotonicMillis>>>,
}

impl Pace {
    /// 0: without a limit.
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, spent: Arc::default() }
    }

    fn may(&self, node: &NodeId, now: MonotonicMillis) -> bool {
        let spent = self.spent.lock().expect("never left half written");
        spent.get(node).is_none_or(|until| *until <= now + BURST_MS)
    }

    fn spend(&self, node: &NodeId, bytes: u64, now: MonotonicMillis) {
        if self.bytes_per_second == 0 {
            return;
        }
        let mut spent = self.spent.lock().expect("never left half written");
        spent.retain(|_, until| *until > now);
        let until = spent.entry(node.clone()).or_insert(now);
        *until += bytes.saturating_mul(1000) / self.bytes_per_second;
    }
}

/// Copies that failed lately.
#[derive(Default)]
pub struct Failures {
    targets: BTreeMap<(ChunkKey, NodeId), MonotonicMillis>,
    sources: BTreeMap<(ChunkKey, NodeId), MonotonicMillis>,
}

impl Failures {
    /// Who was to blame cannot always be told: next time another target and another source.
    pub fn note(&mut self, order: &RepairOrder, error: &DfsError, now: MonotonicMillis) {
        for map in [&mut self.targets, &mut self.sources] {
            map.retain(|_, until| *until > now);
            if map.len() >= MAX_FAILURES {
                map.clear();
            }
        }
        let until = now + FAILURE_MS;
        self.targets.insert((order.chunk, order.target.clone()), until);
        if error.code != ErrorCode::NoSpace
            && let Some(first) = order.sources.first()
        {
            self.sources.insert((order.chunk, first.clone()), until);
        }
    }

    pub fn avoid(&self, now: MonotonicMillis) -> Avoid {
        let young = |map: &BTreeMap<(ChunkKey, NodeId), MonotonicMillis>| {
            map.iter().filter(|(_, until)| **until > now).map(|(which, _)| which.clone()).collect()
        };
        Avoid { targets: young(&self.targets), sources: young(&self.sources) }
    }
}

pub(super) fn limits(timing: Timing, orders: usize) -> Limits {
    Limits { orders, per_target: timing.repair_per_node, per_source: timing.repair_per_node }
}

/// The nodes as planners see them. Who has used up its rate takes no part for a moment.
pub(super) fn live_nodes(operations: &Operations, table: &NodeTable, pace: &Pace) -> Vec<LiveNode> {
    let now = operations.now();
    let live = table.iter().map(|at| {
        let life = operations.parts.book.life(&at.node);
        let may = pace.may(&at.node, now);
        LiveNode {
            node: at.node.clone(),
            domain: at.row.domain.clone(),
            readable: at.alive && may,
            writable: at.takes_chunks() && may,
            free: life.as_ref().map_or(0, |life| life.plannable(now)),
            busy: life.as_ref().is_some_and(|life| life.streams > 0),
            capacity: life.map_or(at.row.capacity, |life| life.capacity),
        }
    });
    live.collect()
}

/// How long the copy of so many sealed bytes may take.
pub(super) fn copy_limit(sealed_length: u64) -> Duration {
    COPY_BASE + Duration::from_millis(COPY_MILLIS_PER_MIB * (sealed_length.min(MAX_CHUNK_BYTES) / MIB))
}

/// Has one chunk copied; the location that the target's receipt proves.
pub(super) async fn copy(
    operations: &Operations,
    table: &NodeTable,
    term: u64,
    pace: &Pace,
    order: &RepairOrder,
) -> Result<v1::LocationChange, DfsError> {
    let unknown = |node: &NodeId| DfsError::new(ErrorCode::NodeNotFound, format!("node {node} is gone"));
    let target = table.get(&order.target).ok_or_else(|| unknown(&order.target))?;
    let task = TaskId(operations.draw16());
    // Of now: the grants of a long round's last copies must not have run out.
    let view = operations.parts.consensus.local_view()?;
    let (grant_for, epoch) = (GrantFor::task(task.0, order.chunk.realm, &view)?, view.position().0);
    drop(view);
    let mut sources = Vec::new();
    for node in &order.sources {
        let at = table.get(node).ok_or_else(|| unknown(node))?;
        sources.push(v1::ForwardTo {
            node: Some(v1::NodeAddress { node_id: node.to_string(), address: at.row.address.clone() }),
            grant: operations.get_grant(at, &grant_for, vec![order.chunk.chunk])?.into(),
        });
    }
    let request = v1::CopyChunkRequest {
        task_id: task.to_vec().into(),
        realm_id: order.chunk.realm.to_vec().into(),
        chunk_id: order.chunk.chunk.to_vec().into(),
        sealed_length: order.sealed_length,
        epoch,
        sources,
        term,
    };
    let now = operations.now();
    operations.parts.book.reserve(task.0, &order.target, order.sealed_length, now);
    for node in order.sources.iter().take(1).chain([&order.target]) {
        pace.spend(node, order.sealed_length, now);
    }
    let limit = copy_limit(order.sealed_length);
    let answer = operations.parts.nodes.copy(&target.target(), request, limit).await;
    operations.parts.book.release(task.0);
    let answer = answer?;
    let receipt = operations.check_receipt(table, &answer.receipt, task.0, order.chunk.realm)?;
    match receipt {
        Some(receipt)
            if receipt.stored.node_id == order.target.as_str()
                && receipt.chunks.contains(&(order.chunk.chunk, order.sealed_length)) =>
        {
            Ok(v1::LocationChange { chunk: Some(chunk_ref(&order.chunk)), stored: Some(receipt.stored) })
        }
        _ => Err(DfsError::new(
            ErrorCode::ReceiptRefused,
            format!("the receipt of {} is not about the copy", order.target),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::{ChunkId, RealmId};

    fn name(text: &str) -> NodeId {
        NodeId::new(text).unwrap()
    }

    #[test]
    fn a_node_keeps_to_its_rate_over_any_while() {
        let (pace, node) = (Pace::new(10 * MIB), name("n1"));
        let (mut now, mut sent) = (0, 0);
        while now < 100_000 {
            if pace.may(&node, now) {
                pace.spend(&node, 4 * MIB, now);
                sent += 4 * MIB;
            }
            now += 10;
        }
        assert!((990 * MIB..=1030 * MIB).contains(&sent), "{sent}");
        assert!(pace.may(&name("n2"), now));
        let free = Pace::new(0);
        free.spend(&node, u64::MAX, 0);
        assert!(free.may(&node, 0));
    }

    #[test]
    fn failures_are_forgotten_in_time_and_number() {
        let order = |n: u8| RepairOrder {
            chunk: ChunkKey { realm: RealmId([1; 16]), chunk: ChunkId([n; 32]) },
            sealed_length: 1,
            sources: vec![name("n1"), name("n2")],
            target: name("n3"),
        };
        let mut failures = Failures::default();
        let (full, lost) = (DfsError::new(ErrorCode::NoSpace, ""), DfsError::new(ErrorCode::Unavailable, ""));
        failures.note(&order(1), &full, 0);
        failures.note(&order(2), &lost, 10);
        let avoid = failures.avoid(10);
        assert_eq!(
            (avoid.targets.len(), avoid.sources.len()),
            (2, 1),
            "no source is to blame for a full disk"
        );
        assert!(avoid.sources.contains(&(order(2).chunk, name("n1"))));
        assert_eq!(failures.avoid(FAILURE_MS).targets.len(), 1);
        assert_eq!(failures.avoid(FAILURE_MS + 10).targets.len(), 0);
        for n in 0..2 * MAX_FAILURES {
            let mut order = order(1);
            order.chunk.chunk.0[..8].copy_from_slice(&(n as u64).to_be_bytes());
            failures.note(&order, &lost, 20);
        }
        assert!(failures.targets.len() <= MAX_FAILURES && failures.sources.len() <= MAX_FAILURES);
    }
}
