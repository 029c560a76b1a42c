//! The BLAKE3 tree of a chunk's sealed bytes, cut at groups of 64 KiB.
//!
//! A node keeps one 32-byte chaining value per group; with them it proves any groups against the
//! chunk id without reading the others. The tree is BLAKE3's own: a chunk id is the plain BLAKE3-256
//! of the bytes. The left side of a subtree of `n` groups has the largest power of two below `n`.
//!
//! A chunk of one group has no chaining value below its root: its one "group value" is the chunk id.

use std::ops::Range;

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use dfs_types::ChunkId;

use crate::error::FormatError;

/// Bytes of one group; the last of a chunk may be shorter.
pub const GROUP_BYTES: u64 = dfs_types::limits::FRAME_BYTES as u64;

/// A chaining value of BLAKE3.
pub type GroupHash = [u8; 32];

/// Groups of a chunk of `sealed_length` bytes.
pub fn group_count(sealed_length: u64) -> u32 {
    sealed_length.div_ceil(GROUP_BYTES) as u32
}

/// Bytes of groups `groups` of a chunk of `sealed_length` bytes.
pub fn bytes_of_groups(sealed_length: u64, groups: &Range<u32>) -> u64 {
    let end = (u64::from(groups.end) * GROUP_BYTES).min(sealed_length);
    end.saturating_sub(u64::from(groups.start) * GROUP_BYTES)
}

/// The chaining value of group `index` with these bytes, at most 64 KiB, in a chunk of several groups.
pub fn group_chaining_value(index: u32, bytes: &[u8]) -> GroupHash {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(u64::from(index) * GROUP_BYTES);
    hasher.update(bytes);
    hasher.finalize_non_root()
}

/// Hashes a chunk as it arrives, in pieces of any length, and keeps the value of every group.
pub struct GroupHasher {
    groups: Vec<GroupHash>,
    current: Hasher,
    current_bytes: u64,
}

impl GroupHasher {
    pub fn new() -> Self {
        Self { groups: Vec::new(), current: Hasher::new(), current_bytes: 0 }
    }

    /// The same with room for the groups of `sealed_length` bytes.
    pub fn with_length(sealed_length: u64) -> Self {
        Self { groups: Vec::with_capacity(group_count(sealed_length) as usize), ..Self::new() }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A full group is closed only when more follows: the only group of a chunk is its root.
            if self.current_bytes == GROUP_BYTES {
                self.groups.push(self.current.finalize_non_root());
                // Not reset(): it keeps the offset that was set, and then counts wrongly.
                self.current = Hasher::new();
                self.current.set_input_offset(self.groups.len() as u64 * GROUP_BYTES);
                self.current_bytes = 0;
            }
            let take = bytes.len().min((GROUP_BYTES - self.current_bytes) as usize);
            self.current.update(&bytes[..take]);
            self.current_bytes += take as u64;
            bytes = &bytes[take..];
        }
    }

    /// Bytes hashed so far.
    pub fn length(&self) -> u64 {
        self.groups.len() as u64 * GROUP_BYTES + self.current_bytes
    }

    /// The chunk id and the value of every group.
    pub fn finish(mut self) -> (ChunkId, Vec<GroupHash>) {
        if self.groups.is_empty() {
            let root = *self.current.finalize().as_bytes();
            return (ChunkId(root), vec![root]);
        }
        self.groups.push(self.current.finalize_non_root());
        let id = root_of_groups(&self.groups).expect("there are at least two groups");
        (id, self.groups)
    }
}

impl Default for GroupHasher {
    fn default() -> Self {
        Self::new()
    }
}

/// The chunk id that these group values make; none for an empty list.
pub fn root_of_groups(groups: &[GroupHash]) -> Option<ChunkId> {
    match groups {
        [] => None,
        [only] => Some(ChunkId(*only)),
        _ => {
            let left = left_groups(groups.len());
            let root = merge_subtrees_root(
                &subtree_value(&groups[..left]),
                &subtree_value(&groups[left..]),
                Mode::Hash,
            );
            Some(ChunkId(*root.as_bytes()))
        }
    }
}

/// What a reader of the groups in `sent` needs beside them: the values of the largest subtrees that
/// hold none of them, from left to right. `sent` is ordered and does not overlap.
pub fn proof(groups: &[GroupHash], sent: &[Range<u32>]) -> Vec<GroupHash> {
    let mut proof = Vec::new();
    if groups.len() > 1 {
        // The root itself is never a chaining value: it is what the proof leads to.
        let left = left_groups(groups.len());
        collect_proof(&groups[..left], 0, sent, &mut proof);
        collect_proof(&groups[left..], left as u32, sent, &mut proof);
    } else {
        collect_proof(groups, 0, sent, &mut proof);
    }
    proof
}

fn collect_proof(groups: &[GroupHash], first: u32, sent: &[Range<u32>], proof: &mut Vec<GroupHash>) {
    let here = first..first + groups.len() as u32;
    if here.is_empty() || covers(sent, &here) {
        return;
    }
    if !touches(sent, &here) {
        proof.push(subtree_value(groups));
        return;
    }
    let left = left_groups(groups.len());
    collect_proof(&groups[..left], first, sent, proof);
    collect_proof(&groups[left..], first + left as u32, sent, proof);
}

/// Cuts a proof as it travels into its values.
pub fn proof_from_bytes(bytes: &[u8]) -> Result<Vec<GroupHash>, FormatError> {
    let (values, rest) = bytes.as_chunks::<32>();
    // A path has at most two values a level and the tallest tree eleven levels; double that is room.
    if !rest.is_empty() || values.len() > 64 {
        let expected = 64.min(values.len() as u64);
        return Err(FormatError::ProofLength { expected, found: bytes.len().div_ceil(32) as u64 });
    }
    Ok(values.to_vec())
}

/// Checks that `bytes` are the groups `sent` (ordered, without overlap) of the chunk `id` of
/// `sealed_length` bytes.
pub fn verify(
    sealed_length: u64,
    sent: &[Range<u32>],
    bytes: &[u8],
    proof: &[GroupHash],
    id: &ChunkId,
) -> Result<(), FormatError> {
    let total = group_count(sealed_length);
    let mut after = 0;
    for range in sent {
        if range.start < after || range.end < range.start || range.end > total {
            return Err(FormatError::GroupsOutside);
        }
        after = range.end;
    }
    let expected = sent.iter().map(|range| bytes_of_groups(sealed_length, range)).sum();
    if bytes.len() as u64 != expected {
        return Err(FormatError::GroupBytes { expected, found: bytes.len() as u64 });
    }
    let mut walk = Walk { sealed_length, sent, bytes, proof, used: 0 };
    let root = match total {
        0 => return Err(FormatError::SealedLength { length: sealed_length }),
        1 if bytes.is_empty() => *walk.take_proof(),
        1 => *blake3::hash(bytes).as_bytes(),
        _ => {
            let left = left_groups(total as usize) as u32;
            let (a, b) = (walk.value(0..left), walk.value(left..total));
            *merge_subtrees_root(&a, &b, Mode::Hash).as_bytes()
        }
    };
    if walk.used != proof.len() {
        return Err(FormatError::ProofLength { expected: walk.used as u64, found: proof.len() as u64 });
    }
    if root == id.0 { Ok(()) } else { Err(FormatError::ProofMismatch) }
}

/// One pass over the tree from left to right, eating sent bytes and proof values as it meets them.
struct Walk<'a> {
    sealed_length: u64,
    sent: &'a [Range<u32>],
    bytes: &'a [u8],
    proof: &'a [GroupHash],
    /// Values wanted, which may be more than there are.
    used: usize,
}

impl<'a> Walk<'a> {
    fn value(&mut self, here: Range<u32>) -> GroupHash {
        if !touches(self.sent, &here) {
            return *self.take_proof();
        }
        if here.len() == 1 {
            let (group, rest) = self.bytes.split_at(bytes_of_groups(self.sealed_length, &here) as usize);
            self.bytes = rest;
            return group_chaining_value(here.start, group);
        }
        let middle = here.start + left_groups(here.len()) as u32;
        let left = self.value(here.start..middle);
        let right = self.value(middle..here.end);
        merge_subtrees_non_root(&left, &right, Mode::Hash)
    }

    fn take_proof(&mut self) -> &'a GroupHash {
        const MISSING: &GroupHash = &[0; 32];
        let value = self.proof.get(self.used).unwrap_or(MISSING);
        self.used += 1;
        value
    }
}

/// The value of a subtree below the root.
fn subtree_value(groups: &[GroupHash]) -> GroupHash {
    if let [only] = groups {
        return *only;
    }
    let left = left_groups(groups.len());
    merge_subtrees_non_root(&subtree_value(&groups[..left]), &subtree_value(&groups[left..]), Mode::Hash)
}

/// Groups on the left side of a subtree of `count >= 2`: the largest power of two below it.
fn left_groups(count: usize) -> usize {
    count.next_power_of_two() / 2
}

fn touches(sent: &[Range<u32>], here: &Range<u32>) -> bool {
    sent.iter().any(|range| range.start.max(here.start) < range.end.min(here.end))
}

fn covers(sent: &[Range<u32>], here: &Range<u32>) -> bool {
    let covered: u32 =
        sent.iter().map(|range| range.end.min(here.end).saturating_sub(range.start.max(here.start))).sum();
    covered == here.end - here.start
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i % 251) as u8).collect()
    }

    fn hashed(bytes: &[u8]) -> (ChunkId, Vec<GroupHash>) {
        let mut hasher = GroupHasher::new();
        hasher.update(bytes);
        assert_eq!(hasher.length(), bytes.len() as u64);
        hasher.finish()
    }

    fn cut(bytes: &[u8], sent: &[Range<u32>]) -> Vec<u8> {
        let at = |group: u32| (group as usize * GROUP_BYTES as usize).min(bytes.len());
        sent.iter().flat_map(|range| bytes[at(range.start)..at(range.end)].to_vec()).collect()
    }

    #[test]
    fn the_id_is_plain_blake3_at_every_boundary() {
        let group = GROUP_BYTES as usize;
        for length in
            [1, 2, 1024, group - 1, group, group + 1, 2 * group, 2 * group + 1, 3 * group, 5 * group + 7]
        {
            let bytes = pattern(length);
            let (id, groups) = hashed(&bytes);
            assert_eq!(id.0, *blake3::hash(&bytes).as_bytes(), "{length}");
            assert_eq!(groups.len(), group_count(length as u64) as usize);
            assert_eq!(root_of_groups(&groups), Some(id));
            if groups.len() > 1 {
                for (index, value) in groups.iter().enumerate() {
                    let here = index as u32..index as u32 + 1;
                    assert_eq!(group_chaining_value(index as u32, &cut(&bytes, &[here])), *value);
                }
            }
        }
        assert_eq!(root_of_groups(&[]), None);
    }

    #[test]
    fn a_lone_group_proves_itself() {
        let bytes = pattern(100);
        let (id, groups) = hashed(&bytes);
        assert!(proof(&groups, std::slice::from_ref(&(0..1))).is_empty());
        assert_eq!(verify(100, std::slice::from_ref(&(0..1)), &bytes, &[], &id), Ok(()));
        assert_eq!(
            verify(100, std::slice::from_ref(&(0..1)), &bytes[..99], &[], &id),
            Err(FormatError::GroupBytes { expected: 100, found: 99 })
        );
        assert_eq!(verify(0, &[], &[], &[], &id), Err(FormatError::SealedLength { length: 0 }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn pieces_of_any_length_hash_alike(length in 1usize..400_000, piece in 1usize..150_000) {
            let bytes = pattern(length);
            let mut hasher = GroupHasher::with_length(length as u64);
            for part in bytes.chunks(piece) {
                hasher.update(part);
            }
            prop_assert_eq!(hasher.finish(), hashed(&bytes));
        }

        #[test]
        fn any_two_ranges_prove_and_any_change_is_seen(
            length in 1usize..1_500_000, a in 0u32..24, b in 0u32..24, c in 0u32..24, d in 0u32..24, flip in any::<prop::sample::Index>()
        ) {
            let bytes = pattern(length);
            let (id, groups) = hashed(&bytes);
            let total = groups.len() as u32;
            let mut ends = [a % (total + 1), b % (total + 1), c % (total + 1), d % (total + 1)];
            ends.sort_unstable();
            let sent = [ends[0]..ends[1], ends[2]..ends[3]];
            let path = proof(&groups, &sent);
            let mut part = cut(&bytes, &sent);
            prop_assert_eq!(verify(length as u64, &sent, &part, &path, &id), Ok(()));
            prop_assert_eq!(proof_from_bytes(&path.concat()), Ok(path.clone()));
            // One value too many or too few is named as such.
            let longer = [path.clone(), vec![[0; 32]]].concat();
            let refused = matches!(verify(length as u64, &sent, &part, &longer, &id), Err(FormatError::ProofLength { .. }));
            prop_assert!(refused);
            if let [shorter @ .., _] = path.as_slice() {
                let refused = matches!(verify(length as u64, &sent, &part, shorter, &id), Err(FormatError::ProofLength { .. }));
                prop_assert!(refused);
            }
            if !part.is_empty() {
                let place = flip.index(part.len());
                part[place] ^= 1;
                prop_assert_eq!(verify(length as u64, &sent, &part, &path, &id), Err(FormatError::ProofMismatch));
            }
        }
    }
}
