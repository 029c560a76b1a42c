//! What is being taken apart in bounded steps, oldest first.

use dfs_proto::v1;

use super::codec::row;

row!(
    /// (position at which it was queued, its number in that command).
    Dropping: Dropping, (u64, u32) => v1::DroppingRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row =
            v1::DroppingRow { kind: 1, id: vec![3; 16].into(), target: 3, next: 5, ..Default::default() };
        golden::<Dropping>(
            (65536, 1),
            row,
            "44000000000001000000000001",
            "01080112100303030303030303030303030303030320032805",
        );
    }
}
