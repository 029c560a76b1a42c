//! Files: where a file id is, and how many versions it has.

use dfs_proto::v1;
use dfs_types::FileId;

use super::codec::row;

row!(Files: File, FileId => v1::FileRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row =
            v1::FileRow { bucket_id: vec![1; 16].into(), key: "a".into(), versions: 1, ..Default::default() };
        golden::<Files>(
            FileId([2; 16]),
            row,
            "3102020202020202020202020202020202",
            "010a10010101010101010101010101010101011201612001",
        );
    }
}
