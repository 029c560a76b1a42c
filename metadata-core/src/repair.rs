//! Repair: from deficits and live nodes to a bounded list of copy orders. Pure; apply checks every
//! outcome again (AddLocations), so a stale order costs a copy, never a chunk.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::v1::NodeState;
use dfs_types::NodeId;

use crate::placement::{Candidate, place_beside};
use crate::query::{ChunkView, CopyView, Deficit};
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
    /// It serves users now: it is spared.
    pub busy: bool,
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
    /// Orders that one node may be target of; while it serves users, one.
    pub per_target: usize,
    /// Orders that name one node as their first source; while it serves users, one.
    pub per_source: usize,
}

/// (chunk, node): copies that failed lately. A target that refused is taken only if there is no
/// other; a source that failed is tried last.
#[derive(Clone, Default, Debug)]
pub struct Avoid {
    pub targets: BTreeSet<(ChunkKey, NodeId)>,
    pub sources: BTreeSet<(ChunkKey, NodeId)>,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Plan {
    pub orders: Vec<RepairOrder>,
    /// Chunks for which there is no source or no place now, however long one waits for others' copies.
    pub hopeless: Vec<ChunkKey>,
}

/// Copies of one chunk that are missing.
struct Lack<'c> {
    chunk: &'c ChunkView,
    missing: usize,
    /// Only a domain without a copy will do.
    new_domain: bool,
}

/// Orders for the deficits, in their order (last copies first). A copy goes to a domain that has none,
/// as long as there is one.
pub fn plan(deficits: &[Deficit], nodes: &[LiveNode], avoid: &Avoid, limits: Limits) -> Plan {
    let lacks = deficits.iter().map(|deficit| Lack {
        chunk: &deficit.chunk,
        missing: deficit.chunk.wanted.saturating_sub(deficit.chunk.present) as usize,
        new_domain: false,
    });
    plan_lacks(lacks, nodes, avoid, limits)
}

/// One copy in a new domain for each of these chunks, which have enough copies in too few domains.
pub fn plan_spread(chunks: &[ChunkView], nodes: &[LiveNode], avoid: &Avoid, limits: Limits) -> Plan {
    let lacks = chunks.iter().map(|chunk| Lack { chunk, missing: 1, new_domain: true });
    plan_lacks(lacks, nodes, avoid, limits)
}

fn plan_lacks<'c>(
    lacks: impl Iterator<Item = Lack<'c>>,
    nodes: &[LiveNode],
    avoid: &Avoid,
    limits: Limits,
) -> Plan {
    let nodes: BTreeMap<&str, &LiveNode> = nodes.iter().map(|node| (node.node.as_str(), node)).collect();
    let mut free: BTreeMap<&str, u64> = nodes.iter().map(|(name, node)| (*name, node.free)).collect();
    let (mut taking, mut giving) = (BTreeMap::<&str, usize>::new(), BTreeMap::<&str, usize>::new());
    let most = |node: &LiveNode, limit: usize| if node.busy { limit.min(1) } else { limit };
    let mut plan = Plan::default();
    for Lack { chunk, missing, new_domain } in lacks {
        if plan.orders.len() >= limits.orders {
            break;
        }
        let mut sources: Vec<(bool, bool, usize, &LiveNode)> = Vec::new();
        let mut holders = BTreeSet::new();
        let mut used: BTreeMap<String, usize> = BTreeMap::new();
        for copy in chunk.copies.iter().filter(|copy| copy.holder.current) {
            let Some(node) = nodes.get(copy.holder.node_id.as_str()) else { continue };
            // A node keeps one copy: whoever has one, good or not, is no target before that is settled.
            holders.insert(node.node.clone());
            if copy.counts() {
                *used.entry(node.domain.clone()).or_default() += 1;
            }
            if node.readable {
                let failed = avoid.sources.contains(&(chunk.key, node.node.clone()));
                let load = giving.get(node.node.as_str()).copied().unwrap_or(0);
                sources.push((copy.doubted, failed, load, node));
            }
        }
        sources.sort_by(|a, b| (a.0, a.1, a.2, &a.3.node).cmp(&(b.0, b.1, b.2, &b.3.node)));
        let Some((_, _, load, first)) = sources.first().copied() else {
            plan.hopeless.push(chunk.key);
            continue;
        };
        let fits = |node: &&&LiveNode| {
            node.writable
                && node.free > chunk.sealed_length
                && !holders.contains(&node.node)
                && !(new_domain && used.contains_key(&node.domain))
        };
        let possible: Vec<&LiveNode> = nodes.values().filter(fits).copied().collect();
        if possible.is_empty() {
            plan.hopeless.push(chunk.key);
            continue;
        }
        if load >= most(first, limits.per_source) {
            continue;
        }
        let candidates = |refused: bool| -> Vec<Candidate> {
            let name = |node: &LiveNode| (chunk.key, node.node.clone());
            possible
                .iter()
                .filter(|node| free[node.node.as_str()] > chunk.sealed_length)
                .filter(|node| {
                    let load = taking.get(node.node.as_str()).copied().unwrap_or(0);
                    load < most(node, limits.per_target)
                })
                .filter(|node| avoid.targets.contains(&name(node)) == refused)
                .map(|node| Candidate {
                    node: node.node.clone(),
                    domain: node.domain.clone(),
                    free: free[node.node.as_str()],
                    capacity: node.capacity,
                })
                .collect()
        };
        let want = missing.min(limits.orders - plan.orders.len());
        let seed = chunk.key.chunk.as_bytes();
        let mut targets = place_beside(&candidates(false), want, &holders, &used, seed);
        if targets.len() < want {
            targets.extend(place_beside(&candidates(true), want - targets.len(), &holders, &used, seed));
        }
        let sources: Vec<NodeId> = sources.iter().map(|(_, _, _, node)| node.node.clone()).collect();
        for target in targets {
            let name = nodes.get_key_value(target.as_str()).expect("candidates are nodes").0;
            *taking.entry(name).or_default() += 1;
            *giving.entry(first.node.as_str()).or_default() += 1;
            *free.get_mut(name).expect("every node has an entry") -= chunk.sealed_length;
            plan.orders.push(RepairOrder {
                chunk: chunk.key,
                sealed_length: chunk.sealed_length,
                sources: sources.clone(),
                target,
            });
        }
    }
    plan
}

/// Distinct domains in which a chunk's counting copies are.
fn domains(chunk: &ChunkView) -> BTreeMap<&str, usize> {
    let mut domains = BTreeMap::new();
    for copy in chunk.copies.iter().filter(|copy| copy.counts()) {
        *domains.entry(copy.holder.domain.as_str()).or_default() += 1;
    }
    domains
}

/// Whether a chunk with enough copies has them in fewer domains than it could: `eligible` is how many
/// domains have nodes on which new copies may be.
pub fn crowded(chunk: &ChunkView, eligible: usize) -> bool {
    chunk.wanted > 0
        && chunk.present >= chunk.wanted
        && domains(chunk).len() < eligible.min(chunk.wanted as usize)
}

/// The copy to take away from a chunk that has more than it wants: one that shares its domain with
/// another, suspect ones first. None: no copy can go without harm.
pub fn surplus_copy(chunk: &ChunkView) -> Option<&CopyView> {
    let domains = domains(chunk);
    let shares = |copy: &&CopyView| domains.get(copy.holder.domain.as_str()).is_some_and(|count| *count > 1);
    let rank = |copy: &&CopyView| (copy.holder.state == NodeState::Suspect, copy.holder.seat);
    let counting = chunk.copies.iter().filter(|copy| copy.counts());
    (chunk.present > chunk.wanted).then(|| counting.filter(shares).max_by_key(rank)).flatten()
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
            busy: false,
        }
    }

    const LIMITS: Limits = Limits { orders: 64, per_target: 64, per_source: 64 };

    fn orders(deficits: &[Deficit], nodes: &[LiveNode], avoid: &Avoid, limits: Limits) -> Vec<RepairOrder> {
        plan(deficits, nodes, avoid, limits).orders
    }

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
        let first = orders(&deficits, &nodes, &Avoid::default(), LIMITS);
        let shown: Vec<(u8, Vec<&str>, &str)> = first
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
        assert_eq!(first, orders(&deficits, &nodes, &Avoid::default(), LIMITS));
        let narrow = Limits { orders: 2, per_target: 1, per_source: 64 };
        assert_eq!(orders(&deficits, &nodes, &Avoid::default(), narrow).len(), 2);
        // Who has a doubted copy is no target, and the last one to be asked for it.
        let doubt = crate::testing::change(world.chunk_key(ann, 1), world.at("n1"));
        let doubt = v1::DoubtLocations { changes: vec![doubt] };
        world.ok(crate::testing::CLUSTER, v1::command::Kind::DoubtLocations(doubt));
        let deficits = query::deficits_page(&world.kv, None, 100).unwrap();
        let again = orders(&deficits, &nodes, &Avoid::default(), LIMITS);
        let of_one: Vec<&RepairOrder> = again.iter().filter(|order| order.chunk.chunk.0[0] == 1).collect();
        assert_eq!(of_one.len(), 2);
        for order in of_one {
            assert_eq!(order.sources.iter().map(NodeId::as_str).collect::<Vec<_>>(), ["n2", "n1"]);
            assert!(["n4", "n5"].contains(&order.target.as_str()));
        }
        // No room, no order.
        for node in &mut nodes {
            node.free = 1000;
        }
        let none = plan(&deficits, &nodes, &Avoid::default(), LIMITS);
        assert_eq!((none.orders.len(), none.hopeless.len()), (0, 2));
    }

    #[test]
    fn a_lost_chunk_has_no_order() {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b", "c"], 3);
        world.file(ann, &bucket, "a", &[1], &["n1", "n2"]);
        world.set_state("n1", v1::NodeState::Down);
        world.set_state("n2", v1::NodeState::Down);
        world.recheck_all();
        let deficits = query::deficits_page(&world.kv, None, 100).unwrap();
        assert_eq!(deficits[0].priority, crate::rows::deficits::LOST);
        let nodes = [live("n3", "c")];
        let none = plan(&deficits, &nodes, &Avoid::default(), LIMITS);
        assert_eq!((none.orders.len(), none.hopeless.len()), (0, 1));
        // Whoever looks for lost chunks finds them, however many others stand before them in the list: they
        // were looked for at its head.
        world.node("n4", "d");
        world.file(ann, &bucket, "b", &[2], &["n3", "n4"]);
        assert_eq!(query::deficits_page(&world.kv, None, 1).unwrap()[0].priority, 2);
        let lost = query::lost_page(&world.kv, None, 9).unwrap();
        assert_eq!(lost.iter().map(|chunk| chunk.key).collect::<Vec<_>>(), [world.chunk_key(ann, 1)]);
        assert_eq!(query::lost_page(&world.kv, Some(lost[0].key), 9).unwrap(), []);
    }

    /// Four chunks on n1 and n2, a third copy wanted of each; n3 and n4 can take them.
    fn lacking() -> (World, Vec<Deficit>, Vec<LiveNode>) {
        let mut world = World::new();
        let names = [("n1", "a"), ("n2", "b"), ("n3", "c"), ("n4", "d")];
        for (name, domain) in names {
            world.node(name, domain);
        }
        let ann = world.user("ann");
        let bucket = world.ok(ann, bucket("photos", 3, 0)).created_id;
        world.file(ann, &bucket, "a", &[1, 2, 3, 4], &["n1", "n2"]);
        let deficits = query::deficits_page(&world.kv, None, 100).unwrap();
        let nodes = names.iter().map(|(name, domain)| live(name, domain)).collect();
        (world, deficits, nodes)
    }

    /// A target that refused was planned again and again, for the choice is deterministic.
    #[test]
    fn who_refused_is_asked_last_and_who_failed_is_read_last() {
        let (_world, deficits, nodes) = lacking();
        let before = orders(&deficits, &nodes, &Avoid::default(), LIMITS);
        let (key, target) = (before[0].chunk, before[0].target.clone());
        let other = if target.as_str() == "n3" { "n4" } else { "n3" };
        let mut avoid = Avoid::default();
        avoid.targets.insert((key, target.clone()));
        avoid.sources.insert((key, before[0].sources[0].clone()));
        let after = orders(&deficits, &nodes, &avoid, LIMITS);
        assert_eq!((after[0].chunk, after[0].target.as_str()), (key, other));
        assert_eq!(after[0].sources, [before[0].sources[1].clone(), before[0].sources[0].clone()]);
        // Of the other chunks nothing changes, but for the load on sources.
        let targets =
            |orders: &[RepairOrder]| orders[1..].iter().map(|o| o.target.clone()).collect::<Vec<_>>();
        assert_eq!(targets(&after), targets(&before));
        // Where there is nobody else, who refused is asked again.
        avoid.targets.insert((key, NodeId::new(other).unwrap()));
        assert_eq!(orders(&deficits, &nodes, &avoid, LIMITS)[0].target, target);
    }

    #[test]
    fn nodes_are_spared_and_what_waits_for_them_is_not_hopeless() {
        let (_world, deficits, mut nodes) = lacking();
        let narrow = Limits { orders: 64, per_target: 64, per_source: 1 };
        let few = plan(&deficits, &nodes, &Avoid::default(), narrow);
        let sources: BTreeSet<&str> = few.orders.iter().map(|order| order.sources[0].as_str()).collect();
        assert_eq!((few.orders.len(), sources.len(), few.hopeless.len()), (2, 2, 0));
        for node in &mut nodes {
            node.busy = true;
        }
        let spared = plan(&deficits, &nodes, &Avoid::default(), LIMITS);
        assert_eq!((spared.orders.len(), spared.hopeless.len()), (2, 0), "one on each, not none");
    }

    #[test]
    fn a_crowded_chunk_gets_a_copy_in_a_new_domain_and_loses_one_of_the_crowd() {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b", "b"], 3);
        world.file(ann, &bucket, "a", &[1], &["n1", "n2", "n3"]);
        let chunk = world.chunk(ann, 1).unwrap();
        assert!(!crowded(&chunk, 2), "as spread as it can be");
        assert_eq!(surplus_copy(&chunk), None);
        world.node("n4", "c");
        world.node("n5", "a");
        assert!(crowded(&chunk, 3));
        let names = [("n1", "a"), ("n2", "b"), ("n3", "b"), ("n4", "c"), ("n5", "a")];
        let mut nodes: Vec<LiveNode> = names.iter().map(|(name, domain)| live(name, domain)).collect();
        let chunks = [chunk];
        let spread = plan_spread(&chunks, &nodes, &Avoid::default(), LIMITS);
        assert_eq!(spread.orders.iter().map(|order| order.target.as_str()).collect::<Vec<_>>(), ["n4"]);
        nodes[3].writable = false;
        let nowhere = plan_spread(&chunks, &nodes, &Avoid::default(), LIMITS);
        assert_eq!((nowhere.orders.len(), nowhere.hopeless.len()), (0, 1), "n5 would not help");

        let added = crate::testing::change(world.chunk_key(ann, 1), world.at("n4"));
        let add = v1::AddLocations { changes: vec![added] };
        world.ok(crate::testing::CLUSTER, v1::command::Kind::AddLocations(add));
        let chunk = world.chunk(ann, 1).unwrap();
        assert!(!crowded(&chunk, 3));
        let surplus = surplus_copy(&chunk).unwrap().holder.node_id.clone();
        assert_eq!(surplus, "n3");
        let change = crate::testing::change(world.chunk_key(ann, 1), world.at(&surplus));
        let trim = v1::TrimLocations { changes: vec![change] };
        let trimmed = world.ok(crate::testing::CLUSTER, v1::command::Kind::TrimLocations(trim));
        assert_eq!(trimmed.count, 1, "apply agrees");
    }
}
