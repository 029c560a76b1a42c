//! Merge: one good chunk from the good groups of copies that are all marked as bad, this node's own among
//! them. Every source is read once to see which of its groups are right, then the groups chosen are read
//! and stored like any chunk that arrives: kept only if the whole hashes to the chunk id.
//!
//! Crash promise: that of `ingest`; the bad copy stays until the merged one is durable.

use std::ops::Range;

use bytes::Bytes;
use chunk_format::merge::{DamagedCopy, choose};
use chunk_format::tree::{GroupHash, GroupHasher, group_count};
use dfs_proto::v1::{CopyChunkRequest, CopyChunkResponse, ForwardTo};
use dfs_types::limits::DATA_MESSAGE_BYTES;
use dfs_types::{DfsError, ErrorCode};

use super::wanted::{CopyOrder, Incoming, counted};
use crate::data::DataPlane;
use crate::data::ingest::{Ingest, Target};
use crate::data::order::stream_deadline;
use crate::data::reading::ChunkBytes;
use crate::peers::{PeerNode, within};
use crate::telemetry::Call;

pub(super) async fn merge(
    data: &DataPlane,
    request: CopyChunkRequest,
) -> Result<CopyChunkResponse, DfsError> {
    let run = async {
        let order = CopyOrder::accept(data, &request)?;
        let target = &order.target;
        if let Some(_room) = order.room(data).await? {
            let sources = sources(data, &request.sources, target).await?;
            // Twice through, and no source is waited for longer than its share.
            let limit = 2 * stream_deadline(target.sealed_length) * (sources.len().max(1) as u32);
            within(limit, "the merge", put_together(data, sources, target)).await?;
        }
        order.answer(data)
    };
    counted(Call::Merge, request.sealed_length, run).await
}

/// A bad copy, here or elsewhere.
enum Source {
    Own,
    Peer { node: PeerNode, grant: Bytes },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => f.write_str("this node"),
            Self::Peer { node, .. } => write!(f, "node {}", node.id),
        }
    }
}

/// The copy here, if there is one, and those the order names.
async fn sources(data: &DataPlane, named: &[ForwardTo], target: &Target) -> Result<Vec<Source>, DfsError> {
    let (store, key) = (target.store.clone(), target.key);
    let own = data.pool.run(move || store.get(&key)).await?;
    let mut sources = Vec::new();
    if own.is_some_and(|meta| meta.sealed_len == target.sealed_length) {
        sources.push(Source::Own);
    }
    for source in named {
        let node = PeerNode::parse(source.node.as_ref())?;
        if node.id != data.node.id {
            sources.push(Source::Peer { node, grant: source.grant.clone() });
        }
    }
    Ok(sources)
}

async fn put_together(data: &DataPlane, sources: Vec<Source>, target: &Target) -> Result<(), DfsError> {
    let groups = group_count(target.sealed_length);
    let mut copies = Vec::with_capacity(sources.len());
    for source in &sources {
        // One that cannot be read has no groups, and keeps its place in the list.
        copies.push(survey(data, source, target).await.unwrap_or_else(|error| {
            tracing::warn!(chunk = %target.key, %source, code = %error.code, error = %error.message, "a bad copy cannot be read");
            DamagedCopy { found: Vec::new(), stored: Vec::new() }
        }));
    }
    let id = target.key.chunk;
    let chosen = data
        .pool
        .run(move || {
            choose(&id, groups as usize, &copies)
                .map_err(|error| DfsError::new(ErrorCode::Integrity, format!("chunk {id}: {error}")))
        })
        .await?;
    let mut ingest = Ingest::new(data.pool.clone(), target.clone());
    let mut used = vec![false; sources.len()];
    for (range, at) in runs(&chosen) {
        used[at] = true;
        let mut feed = Feed::open(data, &sources[at], target, range).await?;
        while let Some(slice) = feed.next().await? {
            ingest.push(slice).await?;
        }
    }
    ingest.finish().await?;
    let used: Vec<String> =
        sources.iter().zip(used).filter(|(_, used)| *used).map(|(source, _)| source.to_string()).collect();
    tracing::warn!(chunk = %target.key, from = ?used, "merged from damaged copies");
    Ok(())
}

/// The chosen places as runs of groups from one copy.
fn runs(chosen: &[usize]) -> Vec<(Range<u32>, usize)> {
    let mut runs: Vec<(Range<u32>, usize)> = Vec::new();
    for (group, at) in chosen.iter().enumerate() {
        match runs.last_mut() {
            Some((range, of)) if of == at => range.end += 1,
            _ => runs.push((group as u32..group as u32 + 1, *at)),
        }
    }
    runs
}

/// Reads all of a copy and hashes its groups.
async fn survey(data: &DataPlane, source: &Source, target: &Target) -> Result<DamagedCopy, DfsError> {
    let groups = group_count(target.sealed_length);
    let mut feed = Feed::open(data, source, target, 0..groups).await?;
    let mut hasher = GroupHasher::with_length(target.sealed_length);
    while let Some(slice) = feed.next().await? {
        if hasher.length() + slice.len() as u64 > target.sealed_length {
            return Err(DfsError::new(ErrorCode::Integrity, "more bytes came than the chunk has"));
        }
        hasher = data
            .pool
            .run(move || {
                hasher.update(&slice);
                Ok::<_, DfsError>(hasher)
            })
            .await?;
    }
    if hasher.length() != target.sealed_length {
        return Err(DfsError::new(ErrorCode::Integrity, "fewer bytes came than the chunk has"));
    }
    Ok(DamagedCopy { found: hasher.finish().1, stored: feed.stored })
}

/// Groups of a bad copy on their way.
struct Feed {
    stored: Vec<GroupHash>,
    bytes: FeedBytes,
}

enum FeedBytes {
    Own(ChunkBytes),
    Peer(Incoming),
}

impl Feed {
    async fn open(
        data: &DataPlane,
        source: &Source,
        target: &Target,
        groups: Range<u32>,
    ) -> Result<Self, DfsError> {
        match source {
            Source::Own => {
                let (store, key) = (target.store.clone(), target.key);
                // Values that do not check are no error here: the bytes may be good.
                let stored = data.pool.run(move || Ok::<_, DfsError>(store.groups(&key).unwrap_or_default()));
                let bytes = ChunkBytes::of_damaged(
                    target.store.clone(),
                    data.pool.clone(),
                    target.key,
                    target.sealed_length,
                    groups,
                );
                Ok(Self { stored: stored.await?, bytes: FeedBytes::Own(bytes) })
            }
            Source::Peer { node, grant } => {
                let mut incoming = Incoming::open(data, node, grant, target, Some(groups)).await?;
                let stored = std::mem::take(&mut incoming.stored);
                Ok(Self { stored, bytes: FeedBytes::Peer(incoming) })
            }
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, DfsError> {
        match &mut self.bytes {
            FeedBytes::Own(bytes) => bytes.next(DATA_MESSAGE_BYTES).await,
            FeedBytes::Peer(incoming) => incoming.next().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_everything_once() {
        assert_eq!(runs(&[0, 0, 1, 0, 2, 2]), [(0..2, 0), (2..3, 1), (3..4, 0), (4..6, 2)]);
        assert!(runs(&[]).is_empty());
    }
}
