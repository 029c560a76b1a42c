//! Seats: one per incarnation that ever registered, by number and by incarnation.

use dfs_proto::v1;
use dfs_types::Incarnation;

use super::codec::row;

row!(Seats: Seat, u32 => v1::SeatRow);
row!(
    /// (incarnation) -> seat number, in `position`.
    SeatsByIncarnation: SeatByIncarnation, Incarnation => v1::PositionRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row = v1::SeatRow {
            node_id: "n1".into(),
            since: 65536,
            chunks: 2,
            trash_chunks: 1,
            ..Default::default()
        };
        golden::<Seats>(1, row, "6100000001", "010a026e311880800420025001");
        golden::<SeatsByIncarnation>(
            Incarnation([6; 16]),
            v1::PositionRow { position: 1 },
            "6206060606060606060606060606060606",
            "010801",
        );
    }
}
