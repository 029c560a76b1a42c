//! Who may call, by id, by the hash of the API key, and by name.

use dfs_proto::v1;
use dfs_types::PrincipalId;

use super::Tail;
use super::codec::row;

row!(Principals: Principal, PrincipalId => v1::PrincipalRow);
row!(
    /// (BLAKE3-256 of the key's secret part) -> id.
    PrincipalsByKey: PrincipalByKey, [u8; 32] => v1::IdRow);
row!(
    /// (name) -> id.
    PrincipalsByName: PrincipalByName, Tail => v1::IdRow);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let row = v1::PrincipalRow { name: "ann".into(), role: v1::Role::User.into(), ..Default::default() };
        golden::<Principals>(
            PrincipalId([1; 16]),
            row,
            "1001010101010101010101010101010101",
            "011203616e6e1802",
        );
        golden::<PrincipalsByKey>(
            [2; 32],
            v1::IdRow { id: vec![1; 16].into() },
            "110202020202020202020202020202020202020202020202020202020202020202",
            "010a1001010101010101010101010101010101",
        );
        golden::<PrincipalsByName>(
            Tail("ann".into()),
            v1::IdRow { id: vec![1; 16].into() },
            "12616e6e",
            "010a1001010101010101010101010101010101",
        );
    }
}
