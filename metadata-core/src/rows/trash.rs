//! Chunks without references, in the order in which they got there.

use dfs_proto::v1;

use super::ChunkKey;
use super::codec::row;

row!(
    /// (position, chunk).
    Trash: Trash, (u64, ChunkKey) => v1::TrashRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;
    use dfs_types::{ChunkId, RealmId};

    #[test]
    fn rows() {
        golden::<Trash>(
            (65536, ChunkKey { realm: RealmId([4; 16]), chunk: ChunkId([5; 32]) }),
            v1::TrashRow { cluster_ms: 5 },
            "530000000000010000040404040404040404040404040404040505050505050505050505050505050505050505050505050505050505050505",
            "010805",
        );
    }
}
