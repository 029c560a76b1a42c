//! What a node says it has beside what the state lists there: pure. An inventory only nominates. What
//! comes out here is asked again: orphans by apply (PurgeOrphans) and by the node's own comparison of
//! epochs, absent and suspicious copies by a probe of the node itself.

use dfs_types::{DfsError, ErrorCode};

use crate::rows::ChunkKey;

/// A chunk that the node says it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundChunk {
    pub key: ChunkKey,
    pub epoch: u64,
    pub quarantined: bool,
}

/// A location that the state lists, in a view taken before the node was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedCopy {
    pub key: ChunkKey,
    pub epoch: u64,
}

/// Keys in ascending order; `end`: there are none behind them.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a, T> {
    pub items: &'a [T],
    pub end: bool,
}

/// What one page of each says about the keys up to `next`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Compared {
    /// Listed keys that were compared.
    pub listed: u64,
    /// Not listed, and stored with an epoch below the floor.
    pub orphans: Vec<ChunkKey>,
    /// Not listed, and good: of use if the chunk lacks copies.
    pub spare: Vec<ChunkKey>,
    /// Listed, and not there.
    pub absent: Vec<ChunkKey>,
    /// Listed, and marked bad, or with an older epoch than the state has of it.
    pub suspicious: Vec<ChunkKey>,
    /// Go on behind this key; None: both lists are at their end.
    pub next: Option<ChunkKey>,
}

/// Compares what lies behind `after` in both lists, as far as both reach.
///
/// # Errors
/// `integrity` if the node's page is not in order: nothing can be concluded from it.
pub fn compare(
    after: Option<ChunkKey>,
    found: Page<'_, FoundChunk>,
    listed: Page<'_, ListedCopy>,
    floor: u64,
) -> Result<Compared, DfsError> {
    let ordered = found.items.windows(2).all(|pair| pair[0].key < pair[1].key);
    let behind = found.items.first().is_none_or(|first| after.is_none_or(|after| after < first.key));
    if !ordered || !behind || (found.items.is_empty() && !found.end) {
        return Err(DfsError::new(ErrorCode::Integrity, "the node's inventory is not in order"));
    }
    let reach = |end: bool, last: Option<ChunkKey>| if end { None } else { last };
    let of_found = reach(found.end, found.items.last().map(|found| found.key));
    let of_listed = reach(listed.end, listed.items.last().map(|listed| listed.key));
    let next = match (of_found, of_listed) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let reached = |key: &ChunkKey| next.is_none_or(|last| *key <= last);

    let mut result = Compared { next, ..Default::default() };
    let mut listed = listed.items.iter().filter(|listed| reached(&listed.key)).peekable();
    for found in found.items.iter().filter(|found| reached(&found.key)) {
        while let Some(missing) = listed.next_if(|listed| listed.key < found.key) {
            result.listed += 1;
            result.absent.push(missing.key);
        }
        match listed.next_if(|listed| listed.key == found.key) {
            Some(copy) => {
                result.listed += 1;
                if found.quarantined || found.epoch < copy.epoch {
                    result.suspicious.push(copy.key);
                }
            }
            None => {
                if found.epoch < floor {
                    result.orphans.push(found.key);
                }
                if !found.quarantined {
                    result.spare.push(found.key);
                }
            }
        }
    }
    for missing in listed {
        result.listed += 1;
        result.absent.push(missing.key);
    }
    Ok(result)
}

/// Whether so many of a node's listed chunks are absent that no one of them is struck off before an
/// operator looked: more than one in a hundred, and more than one; or more than `confirmed`, the
/// number that an operator accepted as lost.
pub fn too_many_absent(listed: u64, absent: u64, confirmed: u64) -> bool {
    absent > confirmed.max(1) && absent.saturating_mul(100) > listed
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_types::{ChunkId, RealmId};

    fn key(n: u8) -> ChunkKey {
        ChunkKey { realm: RealmId([1; 16]), chunk: ChunkId([n; 32]) }
    }

    fn found(n: u8, epoch: u64) -> FoundChunk {
        FoundChunk { key: key(n), epoch, quarantined: false }
    }

    fn listed(n: u8, epoch: u64) -> ListedCopy {
        ListedCopy { key: key(n), epoch }
    }

    fn ns(keys: &[ChunkKey]) -> Vec<u8> {
        keys.iter().map(|key| key.chunk.0[0]).collect()
    }

    #[test]
    fn each_chunk_falls_into_its_class() {
        let bad = FoundChunk { quarantined: true, ..found(6, 50) };
        let bad_orphan = FoundChunk { quarantined: true, ..found(7, 5) };
        let here = [found(1, 50), found(2, 5), found(4, 20), found(5, 10), bad, bad_orphan];
        let there = [listed(1, 50), listed(3, 9), listed(5, 11), listed(6, 50), listed(9, 9)];
        let page = compare(
            None,
            Page { items: &here, end: true },
            Page { items: &there, end: true },
            20, // 4 is not below it: its upload may still be going on
        )
        .unwrap();
        assert_eq!((ns(&page.orphans), ns(&page.spare)), (vec![2, 7], vec![2, 4]));
        assert_eq!((ns(&page.absent), ns(&page.suspicious)), (vec![3, 9], vec![5, 6]));
        assert_eq!((page.listed, page.next), (5, None));
    }

    /// In pages of any two sizes the same comes out as at once: no key is compared with a page that
    /// does not reach it.
    #[test]
    fn pages_of_any_size_say_the_same() {
        let here: Vec<FoundChunk> = [1, 2, 5, 6, 9, 12, 13].map(|n| found(n, u64::from(n))).into();
        let there: Vec<ListedCopy> = [2, 3, 4, 6, 12, 15, 16].map(|n| listed(n, 1)).into();
        for (of_found, of_listed) in [(1, 1), (1, 3), (2, 5), (3, 2), (7, 1), (7, 7), (9, 9)] {
            let (mut after, mut sum) = (None, Compared::default());
            for _ in 0..100 {
                let cut = |limit: usize, len: usize| (limit.min(len), len < limit);
                let rest: Vec<_> = here.iter().filter(|f| after.is_none_or(|a| f.key > a)).copied().collect();
                let rest_listed: Vec<_> =
                    there.iter().filter(|l| after.is_none_or(|a| l.key > a)).copied().collect();
                let (count, end) = cut(of_found, rest.len());
                let (count_listed, end_listed) = cut(of_listed, rest_listed.len());
                let page = compare(
                    after,
                    Page { items: &rest[..count], end },
                    Page { items: &rest_listed[..count_listed], end: end_listed },
                    100,
                )
                .unwrap();
                sum.listed += page.listed;
                sum.orphans.extend(page.orphans);
                sum.absent.extend(page.absent);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(after, None, "{of_found} {of_listed}: it ends");
            assert_eq!(ns(&sum.orphans), [1, 5, 9, 13], "{of_found} {of_listed}");
            assert_eq!((ns(&sum.absent), sum.listed), (vec![3, 4, 15, 16], 7), "{of_found} {of_listed}");
        }
    }

    #[test]
    fn a_page_out_of_order_says_nothing() {
        let none = Page { items: &[] as &[ListedCopy], end: true };
        for (after, items, end) in [
            (None, vec![found(2, 1), found(1, 1)], true),
            (None, vec![found(1, 1), found(1, 1)], true),
            (Some(key(3)), vec![found(3, 1)], true),
            (None, vec![], false),
        ] {
            let error = compare(after, Page { items: &items, end }, none, 9).unwrap_err();
            assert_eq!(error.code, ErrorCode::Integrity);
        }
    }

    #[test]
    fn more_than_one_in_a_hundred_holds() {
        for (listed, absent, confirmed, holds) in [
            (0, 0, 0, false),
            (5, 1, 0, false), // one alone is no share of anything
            (5, 2, 0, true),
            (1000, 10, 0, false),
            (1000, 11, 0, true),
            (1000, 11, 11, false),
            (1000, 12, 11, true),
            (1000, 1000, 0, true),
        ] {
            assert_eq!(too_many_absent(listed, absent, confirmed), holds, "{listed} {absent} {confirmed}");
        }
    }
}
