//! Chunk servers by name.

use dfs_proto::v1;

use super::Tail;
use super::codec::row;

row!(Nodes: Node, Tail => v1::NodeRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row = v1::NodeRow {
            node_id: "n1".into(),
            domain: "r1".into(),
            seat: 1,
            state: 1,
            ..Default::default()
        };
        golden::<Nodes>(Tail("n1".into()), row, "606e31", "010a026e312202723138014001");
    }
}
