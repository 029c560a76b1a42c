//! Sealed small contents, in a space of their own.

use dfs_proto::v1;
use dfs_types::UploadId;

use super::codec::row;

row!(
    /// (manifest).
    Inlines: Inline, UploadId => v1::InlineRow, Inline);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row = v1::InlineRow { sealed: vec![1; 4].into(), sealed_page: vec![2; 4].into() };
        golden::<Inlines>(
            UploadId([3; 16]),
            row,
            "4303030303030303030303030303030303",
            "010a0401010101120402020202",
        );
    }
}
