//! Repair: from deficits and live nodes to a bounded list of copy orders. Pure; apply checks every
//! outcome again (AddLocations), so a stale order costs a copy, never a chunk.

use std::collections::{BTreeMap, BTreeSet};

use dfs_types::NodeId;

use crate::placement::{Candidate, place_beside};
use crate::query::Deficit;
use crate::rows::ChunkKey;

/// A node as the leader sees it now: the state's row and the last heartbeat together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiveNode {
    pub node: NodeId,
    pub domain: String,
    /// It answers: copies can be read from it.
    pub readable: bool,
    /// It is up, not draining, and may take copies.
    pub writable: bool,
    /// Bytes it is willing to take.
    pub free: u64,
    pub capacity: u64,
}

/// Copy one chunk from any of the sources to the target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepairOrder {
    pub chunk: ChunkKey,
    pub sealed_length: u64,
    /// Nodes with an undoubted copy, in the order to try them; then doubted ones.
    pub sources: Vec<NodeId>,
    pub target: NodeId,
}

/// What bounds a plan.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Orders in all.
    pub orders: usize,
    /// Orders that one node may be target of.
    pub per_target: usize,
}

/// Orders for the deficits, in their order (last copies first); chunks in `busy` have an order under
/// way already and are passed over. A copy goes to a domain that has none, as long as there is one.
pub fn plan(
    deficits: &[Deficit],
    nodes: &[LiveNode],
    busy: &BTreeSet<ChunkKey>,
    limits: Limits,
) -> Vec<RepairOrder> {
    let nodes: BTreeMap<&str, &LiveNode> = nodes.iter().map(|node| (node.node.as_str(), node)).collect();
    let mut free: BTreeMap<&str, u64> = nodes.iter().map(|(name, node)| (*name, node.free)).collect();
    let mut load: BTreeMap<&str, usize> = BTreeMap::new();
    let mut orders = Vec::new();
    for deficit in deficits {
        let chunk = &deficit.chunk;
        if orders.len() >= limits.orders {
            break;
        }
        if busy.contains(&chunk.key) {
            continue;
        }
        let (mut sources, mut doubted) = (Vec::new(), Vec::new());
        let mut holders = BTreeSet::new();
        let mut used: BTreeMap<String, usize> = BTreeMap::new();
        for copy in chunk.copies.iter().filter(|copy| copy.holder.current) {
            let Some(node) = nodes.get(copy.holder.node_id.as_str()) else { continue };
            // A node keeps one copy: whoever has one, good or not, is no target before that is settled.
            holders.insert(node.node.clone());
            if copy.counts() {
                *used.entry(node.domain.clone()).or_default() += 1;
            }
            match (node.readable, copy.doubted) {
                (true, false) => sources.push(node.node.clone()),
                (true, true) => doubted.push(node.node.clone()),
                (false, _) => {}
            }
        }
        sources.append(&mut doubted);
        if sources.is_empty() {
            continue;
        }
        let candidates: Vec<Candidate> = nodes
            .values()
            .filter(|node| node.writable && free[node.node.as_str()] > chunk.sealed_length)
            .filter(|node| load.get(node.node.as_str()).copied().unwrap_or(0) < limits.per_target)
            .map(|node| Candidate {
                node: node.node.clone(),
                domain: node.domain.clone(),
                free: free[node.node.as_str()],
                capacity: node.capacity,
            })
            .collect();
        let missing = chunk.wanted.saturating_sub(chunk.present) as usize;
        let want = missing.min(limits.orders - orders.len());
        for target in place_beside(&candidates, want, &holders, &used, chunk.key.chunk.as_bytes()) {
            let name = nodes.get_key_value(target.as_str()).expect("candidates are nodes").0;
            *load.entry(name).or_default() += 1;
            *free.get_mut(name).expect("every node has an entry") -= chunk.sealed_length;
            let sources = sources.clone();
            orders.push(RepairOrder {
                chunk: chunk.key,
                sealed_length: chunk.sealed_length,
                sources,
                target,
            });
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query;
    use crate::testing::{World, bucket};
    use dfs_proto::v1;

    fn live(name: &str, domain: &str) -> LiveNode {
        LiveNode {
            node: NodeId::new(name).unwrap(),
            domain: domain.into(),
            readable: true,
            writable: true,
            free: 1 << 40,
            capacity: 1 << 40,
        }
    }

    const LIMITS: Limits = Limits { orders: 64, per_target: 64 };

    #[test]
    fn last_copies_come_first_and_domains_are_honoured() {
        let mut world = World::new();
        let names = [("n1", "a"), ("n2", "b"), ("n3", "c"), ("n4", "a"), ("n5", "c")];
        for (name, domain) in names {
            world.node(name, domain);
        }
        let ann = world.user("ann");
        let bucket = world.ok(ann, bucket("photos", 3, 0)).created_id;
        world.file(ann, &bucket, "a", &[1], &["n1", "n2", "n3"]);
        world.file(ann, &bucket, "b", &[2], &["n2", "n3"]);
        world.set_state("n3", v1::NodeState::Down);
        world.recheck_all();
        let deficits = query::deficits_page(&world.kv, None, 100).unwrap();
        assert_eq!(deficits.iter().map(|deficit| deficit.priority).collect::<Vec<_>>(), [1, 2]);

        let mut nodes: Vec<LiveNode> = names.iter().map(|(name, domain)| live(name, domain)).collect();
        nodes[2].readable = false;
        nodes[2].writable = false;
        let orders = plan(&deficits, &nodes, &BTreeSet::new(), LIMITS);
        let shown: Vec<(u8, Vec<&str>, &str)> = orders
            .iter()
            .map(|order| {
                let sources = order.sources.iter().map(NodeId::as_str).collect();
                (order.chunk.chunk.0[0], sources, order.target.as_str())
            })
            .collect();
        assert_eq!(shown.len(), 3);
        assert_eq!((shown[0].0, shown[1].0, &shown[0].1), (2, 2, &vec!["n2"]));
        // Domain c has no counting copy of either: n5 gets one of both.
        assert!(shown[..2].iter().any(|order| order.2 == "n5"));
        assert_eq!(shown[2], (1, vec!["n1", "n2"], "n5"));
        assert_eq!(orders, plan(&deficits, &nodes, &BTreeSet::new(), LIMITS));

        let busy = BTreeSet::from([deficits[0].chunk.key]);
        assert_eq!(plan(&deficits, &nodes, &busy, LIMITS).len(), 1);
        let narrow = Limits { orders: 2, per_target: 1 };
        assert_eq!(plan(&deficits, &nodes, &BTreeSet::new(), narrow).len(), 2);
        // Who has a doubted copy is no target, and the last one to be asked for it.
        let doubt = crate::testing::change(world.chunk_key(ann, 1), world.at("n1"));
        let doubt = v1::DoubtLocations { changes: vec![doubt] };
        world.ok(crate::testing::CLUSTER, v1::command::Kind::DoubtLocations(doubt));
        let deficits = query::deficits_page(&world.kv, None, 100).unwrap();
        let orders = plan(&deficits, &nodes, &BTreeSet::new(), LIMITS);
        let of_one: Vec<&RepairOrder> = orders.iter().filter(|order| order.chunk.chunk.0[0] == 1).collect();
        assert_eq!(of_one.len(), 2);
        for order in of_one {
            assert_eq!(order.sources.iter().map(NodeId::as_str).collect::<Vec<_>>(), ["n2", "n1"]);
            assert!(["n4", "n5"].contains(&order.target.as_str()));
        }
        // No room, no order.
        for node in &mut nodes {
            node.free = 1000;
        }
        assert_eq!(plan(&deficits, &nodes, &BTreeSet::new(), LIMITS), []);
    }

    #[test]
    fn a_lost_chunk_has_no_order() {
        let mut world = World::new();
        for (name, domain) in [("n1", "a"), ("n2", "b"), ("n3", "c")] {
            world.node(name, domain);
        }
        let ann = world.user("ann");
        let bucket = world.ok(ann, bucket("photos", 3, 0)).created_id;
        world.file(ann, &bucket, "a", &[1], &["n1", "n2"]);
        world.set_state("n1", v1::NodeState::Down);
        world.set_state("n2", v1::NodeState::Down);
        world.recheck_all();
        let deficits = query::deficits_page(&world.kv, None, 100).unwrap();
        assert_eq!(deficits[0].priority, crate::rows::deficits::LOST);
        let nodes = [live("n3", "c")];
        assert_eq!(plan(&deficits, &nodes, &BTreeSet::new(), LIMITS), []);
    }
}
