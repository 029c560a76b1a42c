//! Single rows: what the cluster is, its clock, counters, and how far the log was applied.

use dfs_proto::v1;

use super::Part;
use super::codec::row;

row!(
    /// Written once.
    ClusterMeta: Meta, Field<0> => v1::ClusterRow);
row!(
    /// Cluster time and epoch floor.
    Clock: Meta, Field<1> => v1::ClockRow);
row!(Counters: Meta, Field<2> => v1::CountersRow);
row!(
    /// The position of the last command applied.
    AppliedMeta: Meta, Field<3> => v1::AppliedRow);
row!(
    /// The chained state hash.
    StateHash: Meta, Field<4> => v1::HashRow);

/// The number of a single row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field<const N: u8>;

impl<const N: u8> Part for Field<N> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(N);
    }
    fn read(bytes: &mut &[u8]) -> Option<Self> {
        (u8::read(bytes)? == N).then_some(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        golden::<ClusterMeta>(
            Field,
            v1::ClusterRow { cluster_id: vec![1; 16].into(), feature_level: 1, ..Default::default() },
            "0100",
            "010a10010101010101010101010101010101012801",
        );
        golden::<Clock>(Field, v1::ClockRow { cluster_ms: 5, epoch_floor: 7 }, "0101", "0108051007");
        golden::<Counters>(Field, v1::CountersRow { files: 3, ..Default::default() }, "0102", "011803");
        golden::<AppliedMeta>(Field, v1::AppliedRow { position: 65536 }, "0103", "0108808004");
        golden::<StateHash>(
            Field,
            v1::HashRow { hash: vec![9; 32].into() },
            "0104",
            "010a200909090909090909090909090909090909090909090909090909090909090909",
        );
    }
}
