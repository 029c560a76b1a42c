//! Uploads; open ones by their last activity, tombstones by the position at which they ended.

use dfs_proto::v1;
use dfs_types::UploadId;

use super::codec::row;

row!(Uploads: Upload, UploadId => v1::UploadRow);
row!(
    /// (cluster ms of the last page, upload): open ones.
    UploadsByActivity: UploadByActivity, (u64, UploadId) => ());
row!(
    /// (position of its end, upload): kept until the epoch floor passes.
    UploadTombstones: UploadTombstone, (u64, UploadId) => ());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row = v1::UploadRow { state: 1, key: "a".into(), chunks: 2, ..Default::default() };
        golden::<Uploads>(UploadId([3; 16]), row, "4803030303030303030303030303030303", "0108011a01617002");
        golden::<UploadsByActivity>(
            (9, UploadId([3; 16])),
            (),
            "49000000000000000903030303030303030303030303030303",
            "01",
        );
        golden::<UploadTombstones>(
            (65536, UploadId([3; 16])),
            (),
            "4a000000000001000003030303030303030303030303030303",
            "01",
        );
    }
}
