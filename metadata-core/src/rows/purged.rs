//! Purges. A fact (chunk, seat) -> position says that receipts with an older epoch do not count, and
//! stays until the epoch floor passes it: a receipt given before the purge may be shown long after the
//! node deleted the bytes. A pending row says that the node has not confirmed yet.

use dfs_proto::v1;

use super::ChunkKey;
use super::codec::row;

row!(
    /// (chunk, seat) -> position.
    Purged: Purged, (ChunkKey, u32) => v1::PositionRow);
row!(
    /// (position, chunk, seat): facts in the order in which the floor passes them.
    PurgedByPosition: PurgedByPosition, (u64, ChunkKey, u32) => ());
row!(
    /// (seat, chunk) -> position: tickets to deliver.
    PendingPurges: PendingPurge, (u32, ChunkKey) => v1::PositionRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;
    use dfs_types::{ChunkId, RealmId};

    #[test]
    fn rows() {
        let chunk = ChunkKey { realm: RealmId([4; 16]), chunk: ChunkId([5; 32]) };
        golden::<Purged>(
            (chunk, 1),
            v1::PositionRow { position: 65536 },
            "5404040404040404040404040404040404050505050505050505050505050505050505050505050505050505050505050500000001",
            "0108808004",
        );
        golden::<PurgedByPosition>(
            (65536, chunk, 1),
            (),
            "55000000000001000004040404040404040404040404040404050505050505050505050505050505050505050505050505050505050505050500000001",
            "01",
        );
        golden::<PendingPurges>(
            (1, chunk),
            v1::PositionRow { position: 65536 },
            "5600000001040404040404040404040404040404040505050505050505050505050505050505050505050505050505050505050505",
            "0108808004",
        );
    }
}
