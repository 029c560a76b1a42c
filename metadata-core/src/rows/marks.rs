//! Clock marks: which position a tick had, by cluster time. They tell how far the epoch floor may rise.

use dfs_proto::v1;

use super::codec::row;

row!(
    /// (cluster ms) -> position of the tick that reached it.
    Marks: Mark, u64 => v1::PositionRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        golden::<Marks>(1000, v1::PositionRow { position: 65536 }, "0200000000000003e8", "0108808004");
    }
}
