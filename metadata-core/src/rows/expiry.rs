//! Versions that are not current any more, by the cluster time at which they may go.

use dfs_types::FileId;

use super::codec::row;

row!(
    /// (cluster ms, file, version).
    Expiries: Expiry, (u64, FileId, u64) => ());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        golden::<Expiries>(
            (5, FileId([2; 16]), 65536),
            (),
            "330000000000000005020202020202020202020202020202020000000000010000",
            "01",
        );
    }
}
