//! Chunks of a node, by seat. Rows today; whoever asks goes through queries and rules/locations.

use super::ChunkKey;
use super::codec::row;

row!(
    /// (seat, chunk).
    NodeChunks: NodeChunk, (u32, ChunkKey) => ());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;
    use dfs_types::{ChunkId, RealmId};

    #[test]
    fn rows() {
        golden::<NodeChunks>(
            (1, ChunkKey { realm: RealmId([4; 16]), chunk: ChunkId([5; 32]) }),
            (),
            "5100000001040404040404040404040404040404040505050505050505050505050505050505050505050505050505050505050505",
            "01",
        );
    }
}
