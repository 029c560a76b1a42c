//! One good chunk out of several bad copies: which copy each 64 KiB group is taken from.
//!
//! Pure. What it answers makes the chunk id by the tree; whoever follows it hashes the whole all the same.

use std::collections::BTreeMap;

use dfs_types::ChunkId;
use dfs_types::limits::MAX_MERGE_TRIES;

use crate::tree::{GroupHash, root_of_groups};

/// One copy as it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedCopy {
    /// The values of the groups as their bytes hash now.
    pub found: Vec<GroupHash>,
    /// The values that were stored with it; empty if they could not be read.
    pub stored: Vec<GroupHash>,
}

/// Why there is no way.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MergeError {
    /// No copy has these groups right; the first few of them.
    #[error("no copy has these groups of 64 KiB right: {0:?}")]
    Missing(Vec<u32>),
    /// All lists of group values are damaged, and there are too many ways to put the groups together.
    #[error("the group values of all copies are damaged, and the groups differ in too many places")]
    TooMany,
    /// All lists of group values are damaged, and no way of putting the groups together makes the chunk.
    #[error("the group values of all copies are damaged, and no choice of groups makes the chunk")]
    None,
}

/// Groups named in an error.
const NAMED: usize = 16;

/// For each group the place of a copy that has it right. Copies of another count of groups than `groups`
/// are not used.
///
/// With one list of values that makes the chunk id, each group is judged alone. Without, choices are tried,
/// what most copies agree on first, at most [`MAX_MERGE_TRIES`].
pub fn choose(id: &ChunkId, groups: usize, copies: &[DamagedCopy]) -> Result<Vec<usize>, MergeError> {
    let lists = copies.iter().flat_map(|copy| [&copy.stored, &copy.found]);
    let right = lists.into_iter().find(|list| list.len() == groups && root_of_groups(list) == Some(*id));
    let usable = || copies.iter().enumerate().filter(|(_, copy)| copy.found.len() == groups);
    if let Some(right) = right {
        let place = |group: usize| usable().find(|(_, copy)| copy.found[group] == right[group]);
        let chosen: Vec<Option<usize>> = (0..groups).map(|group| place(group).map(|(at, _)| at)).collect();
        let missing = chosen.iter().enumerate().filter(|(_, at)| at.is_none());
        let missing: Vec<u32> = missing.map(|(group, _)| group as u32).take(NAMED).collect();
        return match missing.is_empty() {
            true => Ok(chosen.into_iter().flatten().collect()),
            false => Err(MergeError::Missing(missing)),
        };
    }
    if usable().next().is_none() {
        return Err(MergeError::None);
    }
    // By group: the values there are, each with the first copy that has it; those with most votes first.
    let mut candidates: Vec<Vec<(usize, GroupHash)>> = Vec::with_capacity(groups);
    for group in 0..groups {
        let mut votes: BTreeMap<GroupHash, (usize, usize)> = BTreeMap::new();
        for (at, copy) in usable() {
            votes.entry(copy.found[group]).or_insert((0, at)).0 += 1;
        }
        let mut values: Vec<_> = votes.into_iter().map(|(value, (count, at))| (count, at, value)).collect();
        values.sort_by_key(|(count, at, _)| (usize::MAX - count, *at));
        candidates.push(values.into_iter().map(|(_, at, value)| (at, value)).collect());
    }
    let mut tries: usize = 1;
    for values in &candidates {
        tries = tries.saturating_mul(values.len());
        if tries > MAX_MERGE_TRIES {
            return Err(MergeError::TooMany);
        }
    }
    let mut choice = vec![0usize; groups];
    for _ in 0..tries {
        let values: Vec<GroupHash> =
            choice.iter().zip(&candidates).map(|(which, values)| values[*which].1).collect();
        if root_of_groups(&values) == Some(*id) {
            return Ok(choice.iter().zip(&candidates).map(|(which, values)| values[*which].0).collect());
        }
        for (which, values) in choice.iter_mut().zip(&candidates) {
            *which += 1;
            if *which < values.len() {
                break;
            }
            *which = 0;
        }
    }
    Err(MergeError::None)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tree::{GROUP_BYTES, GroupHasher};

    const GROUP: usize = GROUP_BYTES as usize;

    fn hashed(bytes: &[u8]) -> (ChunkId, Vec<GroupHash>) {
        let mut hasher = GroupHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    fn content(length: usize, tag: u8) -> Vec<u8> {
        (0..length).map(|at| (at / 7) as u8 ^ tag).collect()
    }

    /// Follows a choice over the copies' bytes.
    fn put_together(chosen: &[usize], copies: &[Vec<u8>]) -> Vec<u8> {
        let group = |(group, at): (usize, &usize)| {
            let bytes = &copies[*at];
            bytes[group * GROUP..(group * GROUP + GROUP).min(bytes.len())].to_vec()
        };
        chosen.iter().enumerate().flat_map(group).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever is spoiled where: while each group is good somewhere the chunk comes back, else the groups
        /// that are good nowhere are named. Never anything that is not the chunk.
        #[test]
        fn the_chunk_comes_back_or_the_groups_that_are_gone_are_named(
            length in 1usize..6 * GROUP,
            copies in 1usize..4,
            spoiled in proptest::collection::vec((0usize..4, 0usize..6 * GROUP, 1u8..), 0..10),
            lists in proptest::collection::vec(0u8..3, 4),
        ) {
            let good = content(length, 0x5a);
            let (id, right) = hashed(&good);
            let mut bytes = vec![good.clone(); copies];
            for (copy, at, with) in spoiled {
                bytes[copy % copies][at % length] ^= with;
            }
            let read: Vec<DamagedCopy> = bytes.iter().zip(&lists).map(|(bytes, list)| {
                let mut stored = right.clone();
                match list {
                    0 => {}
                    1 => stored[0][3] ^= 1,
                    _ => stored.clear(),
                }
                DamagedCopy { found: hashed(bytes).1, stored }
            }).collect();
            let gone: Vec<u32> = (0..right.len())
                .filter(|group| read.iter().all(|copy| copy.found[*group] != right[*group]))
                .map(|group| group as u32)
                .collect();
            match choose(&id, right.len(), &read) {
                Ok(chosen) => {
                    prop_assert!(gone.is_empty());
                    prop_assert_eq!(put_together(&chosen, &bytes), good);
                }
                Err(MergeError::Missing(named)) => prop_assert_eq!(named, gone),
                Err(MergeError::None) => prop_assert!(!gone.is_empty()),
                Err(MergeError::TooMany) => prop_assert!(false, "few copies of few groups"),
            }
        }
    }

    #[test]
    fn tries_are_bounded_and_the_likely_ones_come_first() {
        let good = content(30 * GROUP, 1);
        let (id, _) = hashed(&good);
        let copy = |spoiled: std::ops::Range<usize>| {
            let mut bytes = good.clone();
            spoiled.for_each(|group| bytes[group * GROUP] ^= 1);
            DamagedCopy { found: hashed(&bytes).1, stored: Vec::new() }
        };
        // Twenty groups in which two copies differ, and no list: too many ways.
        let copies = [copy(0..10), copy(10..20)];
        assert_eq!(choose(&id, 30, &copies), Err(MergeError::TooMany));
        // A third of another length is left out; one good list decides.
        let mut told = copies.to_vec();
        told.push(DamagedCopy { found: vec![[0; 32]; 29], stored: hashed(&good).1 });
        let chosen = choose(&id, 30, &told).unwrap();
        assert!(chosen[..10].iter().all(|at| *at == 1) && chosen[10..20].iter().all(|at| *at == 0));
        assert_eq!(choose(&id, 30, &[]), Err(MergeError::None));
    }
}
