//! When to try again: the pure part. Pauses grow from 25 ms to 500 ms and are jittered, so that many
//! clients of a cluster that lost its leader do not come back in step.

use std::time::Duration;

use dfs_proto::status::{ERROR_TRAILER, from_status};
use dfs_types::{DfsError, Entropy, ErrorCode, OsEntropy};
use tonic::{Code, Status};

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The least time one attempt gets; later attempts get half of what is left if that is more, so that
/// a server that hangs costs seconds and a call that is slow by nature still ends.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(3);

/// Pauses between attempts.
#[derive(Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    pub fn new() -> Self {
        Self::default()
    }

    /// The pause before the next attempt: a random part, at least half, of a bound that doubles.
    pub fn pause(&mut self) -> Duration {
        let random = u64::from_le_bytes(OsEntropy.array());
        let bound = bound(self.attempts);
        self.attempts += 1;
        let half = bound.as_micros() as u64 / 2;
        Duration::from_micros(half + random % (half + 1))
    }
}

fn bound(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.min(8)).min(LONGEST_PAUSE)
}

/// What one attempt may take when `remaining` of the call's time is left.
pub(crate) fn attempt_time(attempt: u32, remaining: Duration) -> Duration {
    let fair = if attempt == 0 { SHORTEST_ATTEMPT } else { SHORTEST_ATTEMPT.max(remaining / 2) };
    fair.min(remaining)
}

/// What a failed attempt means for the call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer is final.
    Final(DfsError),
    /// Nothing was done; another server or a later moment may do it.
    NotRun(DfsError),
    /// It may have been done; only the same request id may be tried again.
    Ambiguous(DfsError),
}

/// Judges a status. One with our trailer was answered by a server that knows what it did; one
/// without came from a broken or closing connection, unless its code says that the call was refused.
pub(crate) fn judge(status: &Status) -> Verdict {
    let ours = status.metadata().get_bin(ERROR_TRAILER).is_some();
    let error = from_status(status);
    if ours {
        return match error.code {
            ErrorCode::Unavailable | ErrorCode::Overloaded => Verdict::NotRun(error),
            ErrorCode::UnknownOutcome | ErrorCode::Timeout => Verdict::Ambiguous(error),
            _ => Verdict::Final(error),
        };
    }
    match status.code() {
        Code::Unavailable
        | Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::Aborted
        | Code::DeadlineExceeded => {
            Verdict::Ambiguous(DfsError::new(ErrorCode::Unavailable, describe(status)))
        }
        _ => Verdict::Final(error),
    }
}

/// A transport status in words, with the innermost cause, which is the one that helps.
fn describe(status: &Status) -> String {
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::status::to_status;

    #[test]
    fn pauses_grow_to_a_bound() {
        let bounds: Vec<u128> = (0..12).map(|n| bound(n).as_millis()).collect();
        assert_eq!(bounds[..6], [25, 50, 100, 200, 400, 500]);
        assert_eq!(bounds[11], 500);
        let mut backoff = Backoff::new();
        for n in 0..40 {
            let pause = backoff.pause();
            assert!(pause <= bound(n) && pause >= bound(n) / 2 - Duration::from_micros(1), "{n}: {pause:?}");
        }
    }

    #[test]
    fn attempts_fit_the_deadline() {
        let ten = Duration::from_secs(10);
        assert_eq!(attempt_time(0, ten), Duration::from_secs(3));
        assert_eq!(attempt_time(1, Duration::from_secs(7)), Duration::from_millis(3500));
        assert_eq!(attempt_time(5, Duration::from_secs(1)), Duration::from_secs(1));
    }

    #[test]
    fn only_a_server_that_says_so_did_nothing() {
        let ours = |code| judge(&to_status(&DfsError::new(code, "x")));
        assert!(matches!(ours(ErrorCode::Unavailable), Verdict::NotRun(_)));
        assert!(matches!(ours(ErrorCode::UnknownOutcome), Verdict::Ambiguous(_)));
        assert!(matches!(ours(ErrorCode::VersionMismatch), Verdict::Final(_)));
        assert!(matches!(ours(ErrorCode::Internal), Verdict::Final(_)));
        assert!(matches!(judge(&Status::unavailable("reset")), Verdict::Ambiguous(_)));
        assert!(matches!(judge(&Status::internal("h2 error")), Verdict::Ambiguous(_)));
        assert!(matches!(judge(&Status::unauthenticated("no")), Verdict::Final(_)));
    }
}
