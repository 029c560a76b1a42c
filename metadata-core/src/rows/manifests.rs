//! Manifests: one set of pages, or one inline content, and how many versions share it.

use dfs_proto::v1;
use dfs_types::UploadId;

use super::codec::row;

row!(
    /// (upload that made it).
    Manifests: Manifest, UploadId => v1::ManifestRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row = v1::ManifestRow { refs: 1, chunks: 2, pages: 1, size: 9, ..Default::default() };
        golden::<Manifests>(
            UploadId([3; 16]),
            row,
            "4003030303030303030303030303030303",
            "010801100218012009",
        );
    }
}
