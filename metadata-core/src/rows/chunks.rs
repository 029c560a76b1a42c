//! Chunks: references by target, locations, marks.

use dfs_proto::v1;

use super::ChunkKey;
use super::codec::row;

row!(Chunks: Chunk, ChunkKey => v1::ChunkRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;
    use dfs_types::{ChunkId, RealmId};

    #[test]
    fn rows() {
        let row = v1::ChunkRow {
            sealed_length: 81,
            refs: vec![v1::ChunkRefs { target: 3, count: 1 }],
            locations: vec![v1::ChunkLocation { seat: 1, epoch: 65536, doubted: false }],
            ..Default::default()
        };
        golden::<Chunks>(
            ChunkKey { realm: RealmId([4; 16]), chunk: ChunkId([5; 32]) },
            row,
            "50040404040404040404040404040404040505050505050505050505050505050505050505050505050505050505050505",
            "0108511204080310011a06080110808004",
        );
    }
}
