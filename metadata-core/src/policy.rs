//! Policies: how many copies, and how many of them before an answer.

use dfs_proto::v1;
use dfs_types::limits::MAX_TARGET;
use dfs_types::{DfsError, ErrorCode};

/// What a bucket gets that asks for nothing: three copies, two before a commit succeeds.
pub const DEFAULT: v1::Policy = v1::Policy { target: 3, min_ack: 2 };

/// The requested policy with its gaps filled: target from `fallback`, min_ack by the rule of
/// common.proto (1 for 1, 2 for 2, target - 1 above). Errors: `invalid_argument`.
pub fn complete(requested: Option<&v1::Policy>, fallback: &v1::Policy) -> Result<v1::Policy, DfsError> {
    let Some(requested) = requested else { return Ok(*fallback) };
    if requested.target == 0 && requested.min_ack == 0 {
        return Ok(*fallback);
    }
    let target = if requested.target == 0 { fallback.target } else { requested.target };
    let min_ack = match (requested.min_ack, target) {
        (0, 0..=2) => target,
        (0, _) => target - 1,
        (given, _) => given,
    };
    if target > MAX_TARGET || min_ack > target {
        let message =
            format!("target {target} and min_ack {min_ack}: 1 <= min_ack <= target <= {MAX_TARGET}");
        return Err(DfsError::new(ErrorCode::InvalidArgument, message));
    }
    Ok(v1::Policy { target, min_ack })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_filled() {
        let policy = |target, min_ack| v1::Policy { target, min_ack };
        for (asked, got) in [
            (None, Some(DEFAULT)),
            (Some(policy(0, 0)), Some(DEFAULT)),
            (Some(policy(1, 0)), Some(policy(1, 1))),
            (Some(policy(2, 0)), Some(policy(2, 2))),
            (Some(policy(5, 0)), Some(policy(5, 4))),
            (Some(policy(0, 3)), Some(policy(3, 3))),
            (Some(policy(3, 4)), None),
            (Some(policy(17, 1)), None),
        ] {
            assert_eq!(complete(asked.as_ref(), &DEFAULT).ok(), got, "{asked:?}");
        }
    }
}
