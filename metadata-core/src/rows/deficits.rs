//! Chunks with fewer counting copies than wanted: what repair reads. Last copies first, then by copies
//! left, then what only waits to leave a node that drains, lost chunks last.

use super::ChunkKey;
use super::codec::row;

row!(
    /// (priority, chunk).
    Deficits: Deficit, (u8, ChunkKey) => ());

/// Priority of a chunk that has all the copies it wants, if those on nodes that drain are counted.
pub const LEAVING: u8 = 0x40;
/// Priority of a chunk without any counting copy: nothing can be done until a node comes back.
pub const LOST: u8 = u8::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;
    use dfs_types::{ChunkId, RealmId};

    #[test]
    fn rows() {
        golden::<Deficits>(
            (1, ChunkKey { realm: RealmId([4; 16]), chunk: ChunkId([5; 32]) }),
            (),
            "5201040404040404040404040404040404040505050505050505050505050505050505050505050505050505050505050505",
            "01",
        );
    }
}
