//! Results of requests, for at-most-once: by caller and request id, and by position for forgetting.

use dfs_proto::v1;
use dfs_types::{PrincipalId, RequestId};

use super::codec::row;

row!(Requests: Request, (PrincipalId, RequestId) => v1::RequestRow);
row!(
    /// (position, caller, request id).
    RequestsByPosition: RequestByPosition, (u64, PrincipalId, RequestId) => ());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::testing::golden;

    #[test]
    fn rows() {
        let key = (PrincipalId([1; 16]), RequestId([7; 16]));
        golden::<Requests>(
            key,
            v1::RequestRow { position: 65536, result: None },
            "700101010101010101010101010101010107070707070707070707070707070707",
            "0108808004",
        );
        golden::<RequestsByPosition>(
            (65536, key.0, key.1),
            (),
            "7100000000000100000101010101010101010101010101010107070707070707070707070707070707",
            "01",
        );
    }
}
