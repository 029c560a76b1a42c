//! Names: what each key of a bucket stands for now. Heads alone, so that a list reads nothing else.

use dfs_proto::v1;
use dfs_types::BucketId;

use super::Tail;
use super::codec::row;

row!(
    /// (bucket, key).
    Heads: Head, (BucketId, Tail) => v1::HeadRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row = v1::HeadRow { file_id: vec![2; 16].into(), version: 65536, size: 3, ..Default::default() };
        golden::<Heads>(
            (BucketId([1; 16]), Tail("a/b".into())),
            row,
            "3001010101010101010101010101010101612f62",
            "010a1002020202020202020202020202020202108080042003",
        );
    }
}
