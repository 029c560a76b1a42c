//! Placement: which nodes get a chunk. A pure function of candidates and a seed, in integers only, so
//! that every member and every build decides alike.
//!
//! Weighted rendezvous hashing: each node draws a number from (seed, node id) and the smallest of
//! -log(draw) / weight wins, weight being its free space. A node gets chunks in proportion to its free
//! space; a node that comes or goes moves only its own share.

use std::collections::{BTreeMap, BTreeSet};

use dfs_types::NodeId;

/// A node that may get a copy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub node: NodeId,
    pub domain: String,
    /// Bytes it is willing to take. Zero: full, never chosen.
    pub free: u64,
    /// Bytes it has in all.
    pub capacity: u64,
}

/// Free space is weighed in steps of 1 MiB: finer differences decide nothing.
const WEIGHT_UNIT: u64 = 1 << 20;

/// Up to `want` distinct nodes, in order of preference: distinct domains first, then domains used least.
/// Fewer come back when fewer fit. Nodes of `exclude` and full ones are not chosen; a node with less
/// than 1/64 of its capacity free only when nothing else is left.
pub fn place(candidates: &[Candidate], want: usize, exclude: &BTreeSet<NodeId>, seed: &[u8]) -> Vec<NodeId> {
    place_beside(candidates, want, exclude, &BTreeMap::new(), seed)
}

/// [`place`], where copies exist already: `used` counts those in each domain.
pub fn place_beside(
    candidates: &[Candidate],
    want: usize,
    exclude: &BTreeSet<NodeId>,
    used: &BTreeMap<String, usize>,
    seed: &[u8],
) -> Vec<NodeId> {
    let mut ranked: Vec<(bool, u128, &Candidate)> = candidates
        .iter()
        .filter(|candidate| candidate.free > 0 && !exclude.contains(&candidate.node))
        .map(|candidate| (nearly_full(candidate), score(candidate, seed), candidate))
        .collect();
    ranked.sort_by(|a, b| (a.0, a.1, &a.2.node).cmp(&(b.0, b.1, &b.2.node)));
    ranked.dedup_by(|a, b| a.2.node == b.2.node);

    let mut used = used.clone();
    let mut chosen = Vec::new();
    while chosen.len() < want && !ranked.is_empty() {
        // The best of a domain used least. Nearly full nodes yield even a domain.
        let least = ranked
            .iter()
            .enumerate()
            .min_by_key(|(rank, (full, _, candidate))| {
                (*full, used.get(&candidate.domain).copied().unwrap_or(0), *rank)
            })
            .map(|(rank, _)| rank)
            .expect("not empty");
        let (_, _, candidate) = ranked.remove(least);
        *used.entry(candidate.domain.clone()).or_default() += 1;
        chosen.push(candidate.node.clone());
    }
    chosen
}

fn nearly_full(candidate: &Candidate) -> bool {
    candidate.free < candidate.capacity / 64
}

/// -log2(draw) / weight, scaled: small is good.
fn score(candidate: &Candidate, seed: &[u8]) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"dfs placement v1\0");
    hasher.update(&(seed.len() as u64).to_be_bytes());
    hasher.update(seed);
    hasher.update(candidate.node.as_str().as_bytes());
    let mut draw = [0u8; 8];
    draw.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let weight = (candidate.free / WEIGHT_UNIT).max(1);
    (u128::from(minus_log2(u64::from_be_bytes(draw))) << 64) / u128::from(weight)
}

/// -log2((draw + 1) / 2^64) in units of 2^-32, by repeated squaring: integers alone.
fn minus_log2(draw: u64) -> u64 {
    let value = draw.saturating_add(1);
    let exponent = u64::from(63 - value.leading_zeros());
    // The mantissa in [1, 2) with 63 bits behind the point.
    let mut mantissa = u128::from(value) << (63 - exponent);
    let mut fraction = 0u64;
    for _ in 0..32 {
        mantissa = (mantissa * mantissa) >> 63;
        fraction <<= 1;
        if mantissa >= 1 << 64 {
            mantissa >>= 1;
            fraction |= 1;
        }
    }
    (64 << 32) - (exponent << 32) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(name: &str, domain: &str, gib: u64) -> Candidate {
        let node = NodeId::new(name).unwrap();
        Candidate { node, domain: domain.into(), free: gib << 30, capacity: 1000 << 30 }
    }

    fn names(nodes: &[NodeId]) -> Vec<&str> {
        nodes.iter().map(NodeId::as_str).collect()
    }

    fn cluster() -> Vec<Candidate> {
        vec![
            candidate("n1", "a", 100),
            candidate("n2", "a", 400),
            candidate("n3", "b", 100),
            candidate("n4", "b", 200),
            candidate("n5", "c", 200),
        ]
    }

    #[test]
    fn logarithms() {
        assert_eq!(minus_log2(u64::MAX), (64 << 32) - (63 << 32) - 0xffff_ffff);
        assert_eq!(minus_log2((1 << 63) - 1), 1 << 32);
        assert_eq!(minus_log2(0), 64 << 32);
        // -log2(3/4) = 0.41503749927884...
        assert_eq!(minus_log2(3 << 62), 1_782_572_487);
    }

    /// Golden: a build that decides otherwise splits the cluster's mind.
    #[test]
    fn golden_vectors() {
        let chosen = |seed: u8| names(&place(&cluster(), 3, &BTreeSet::new(), &[seed])).join(" ");
        let found: Vec<String> = (0..6).map(chosen).collect();
        assert_eq!(found.join(", "), "n3 n5 n2, n3 n2 n5, n3 n2 n5, n2 n5 n4, n2 n5 n4, n4 n2 n5");
    }

    #[test]
    fn full_and_excluded_nodes_are_left_out_and_nearly_full_ones_come_last() {
        let mut nodes = cluster();
        nodes[4].free = 0;
        let exclude = BTreeSet::from([nodes[0].node.clone()]);
        let chosen = place(&nodes, 9, &exclude, b"x");
        assert_eq!(chosen.len(), 3);
        assert!(!chosen.contains(&nodes[4].node) && !chosen.contains(&nodes[0].node));
        nodes[4].free = 1 << 30;
        let chosen = place(&nodes, 9, &exclude, b"x");
        assert_eq!(chosen.last(), Some(&nodes[4].node));
        assert_eq!(place(&nodes, 3, &BTreeSet::new(), b"x").len(), 3);
    }

    #[test]
    fn copies_that_exist_hold_their_domains() {
        let used = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 1)]);
        for seed in 0..50u8 {
            let chosen = place_beside(&cluster(), 1, &BTreeSet::new(), &used, &[seed]);
            assert_eq!(names(&chosen), ["n5"]);
        }
    }

    #[test]
    fn shares_follow_free_space() {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for seed in 0..10_000u32 {
            let first = place(&cluster(), 1, &BTreeSet::new(), &seed.to_be_bytes());
            *counts.entry(first[0].to_string()).or_default() += 1;
        }
        for (name, share) in [("n1", 1000), ("n2", 4000), ("n3", 1000), ("n4", 2000), ("n5", 2000)] {
            let found = counts[name];
            assert!(found.abs_diff(share) < share / 10 + 50, "{name}: {found}, expected about {share}");
        }
    }

    proptest! {
        /// A node that goes moves its own copies only; domains are distinct while there are enough.
        #[test]
        fn little_moves_and_domains_differ(
            sizes in prop::collection::vec((1u64..1000, 0u8..4), 3..9), gone in 0usize..9, seed: u64,
        ) {
            let nodes: Vec<Candidate> = sizes.iter().enumerate()
                .map(|(n, (gib, domain))| candidate(&format!("n{n}"), &format!("d{domain}"), 20 + gib)).collect();
            let seed = seed.to_be_bytes();
            let before = place(&nodes, 1, &BTreeSet::new(), &seed);
            let left: Vec<Candidate> = nodes.iter().filter(|node| node.node != nodes[gone % nodes.len()].node).cloned().collect();
            let after = place(&left, 1, &BTreeSet::new(), &seed);
            if before[0] != nodes[gone % nodes.len()].node {
                prop_assert_eq!(&before, &after);
            }
            let mut shuffled = nodes.clone();
            shuffled.reverse();
            let three = place(&nodes, 3, &BTreeSet::new(), &seed);
            prop_assert_eq!(&three, &place(&shuffled, 3, &BTreeSet::new(), &seed));
            let domain = |id: &NodeId| nodes.iter().find(|node| node.node == *id).unwrap().domain.clone();
            let domains: BTreeSet<String> = three.iter().map(domain).collect();
            let all: BTreeSet<String> = nodes.iter().map(|node| node.domain.clone()).collect();
            prop_assert_eq!(domains.len(), all.len().min(3));
        }
    }
}
