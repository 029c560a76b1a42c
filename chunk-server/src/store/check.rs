//! Checking what is on disk, over any store: one chunk against its id, and a walk over all of them.

use chunk_format::tree::GroupHasher;
use dfs_types::limits::MIB;

use super::{ChunkKey, ChunkStore, StoreError};

/// What is read at once: the memory one check takes.
const PIECE_BYTES: u64 = MIB;

/// What became of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every byte was read and hashes to the chunk id, and so do the stored group hashes.
    Good,
    /// There is no such chunk (any more).
    Absent,
    /// It is there and it is not right; why, for people.
    Bad(String),
}

/// Reads the whole chunk and checks it against its id. Memory: 1 MiB.
///
/// # Errors
/// Only the index's; a disk that cannot read the chunk makes it `Bad`.
pub fn verify(store: &dyn ChunkStore, key: &ChunkKey) -> Result<Verdict, StoreError> {
    let Some(meta) = store.get(key)? else { return Ok(Verdict::Absent) };
    match check(store, key, meta.sealed_len) {
        Ok(()) => Ok(Verdict::Good),
        Err(StoreError::NotFound) => Ok(Verdict::Absent),
        Err(StoreError::Corrupt(why) | StoreError::Io(why)) => Ok(Verdict::Bad(why)),
        Err(error) => Err(error),
    }
}

fn check(store: &dyn ChunkStore, key: &ChunkKey, sealed_len: u64) -> Result<(), StoreError> {
    let mut hasher = GroupHasher::with_length(sealed_len);
    let mut offset = 0;
    while offset < sealed_len {
        let len = PIECE_BYTES.min(sealed_len - offset);
        hasher.update(&store.read(key, offset, len as usize)?);
        offset += len;
    }
    let (id, groups) = hasher.finish();
    if id != key.chunk {
        return Err(StoreError::Corrupt("the bytes do not hash to the chunk id".to_owned()));
    }
    if store.groups(key)? != groups {
        return Err(StoreError::Corrupt("the stored group hashes are not those of the bytes".to_owned()));
    }
    Ok(())
}

/// One unit of scrubbing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scrub {
    pub chunks: u64,
    pub bytes: u64,
    /// Chunks that are bad, quarantined ones left out: those are known.
    pub bad: Vec<(ChunkKey, String)>,
    /// Where to go on; none at the end of the store.
    pub next: Option<ChunkKey>,
}

/// Verifies chunks above `after` until `budget_bytes` are read. At least one chunk is done, so that
/// every walk ends. Chunks that change meanwhile are skipped or seen, never reported as bad.
pub fn scrub(
    store: &dyn ChunkStore,
    after: Option<&ChunkKey>,
    budget_bytes: u64,
) -> Result<Scrub, StoreError> {
    const PAGE: usize = 64;
    let mut done = Scrub { next: after.copied(), ..Scrub::default() };
    loop {
        let page = store.list(done.next.as_ref(), PAGE)?;
        for (key, meta) in &page {
            done.next = Some(*key);
            if meta.quarantined {
                continue;
            }
            if let Verdict::Bad(why) = verify(store, key)? {
                done.bad.push((*key, why));
            }
            done.chunks += 1;
            done.bytes += meta.sealed_len;
            if done.bytes >= budget_bytes {
                return Ok(done);
            }
        }
        if page.len() < PAGE {
            done.next = None;
            return Ok(done);
        }
    }
}
