//! Buckets, by id and by name.

use dfs_proto::v1;
use dfs_types::BucketId;

use super::Tail;
use super::codec::row;

row!(Buckets: Bucket, BucketId => v1::BucketRow);
row!(
    /// (name) -> id.
    BucketsByName: BucketByName, Tail => v1::IdRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row = v1::BucketRow { name: "photos".into(), keep_ms: 7, ..Default::default() };
        golden::<Buckets>(
            BucketId([1; 16]),
            row,
            "2001010101010101010101010101010101",
            "01120670686f746f732007",
        );
        golden::<BucketsByName>(
            Tail("photos".into()),
            v1::IdRow { id: vec![1; 16].into() },
            "2170686f746f73",
            "010a1001010101010101010101010101010101",
        );
    }
}
