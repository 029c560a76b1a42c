//! Error codes: one closed list for the log, the wire, REST, the SDK and dfsctl.

use std::fmt;

macro_rules! codes {
    ($(#[doc = $meaning:literal] $name:ident = $number:literal, $word:literal, $http:literal, $exit:literal;)*) => {
        /// What went wrong, as every face of the system says it. Numbers live in the Raft log and
        /// on the wire and are never reused; words are the `code` of problem documents.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum ErrorCode {
            $(#[doc = $meaning] $name = $number,)*
        }

        impl ErrorCode {
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            /// The stable word, such as `not_found`.
            pub fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $word,)* }
            }

            /// One sentence on what it means, as above.
            pub fn meaning(self) -> &'static str {
                match self { $(ErrorCode::$name => $meaning.trim_ascii(),)* }
            }

            /// The HTTP status of a problem document with this code.
            pub fn http_status(self) -> u16 {
                match self { $(ErrorCode::$name => $http,)* }
            }

            /// dfsctl's exit code.
            pub fn exit_code(self) -> u8 {
                match self { $(ErrorCode::$name => $exit,)* }
            }

            pub fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(ErrorCode::$name),)* _ => None }
            }

            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(ErrorCode::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// A field has a value outside its documented range or form.
    InvalidArgument = 1, "invalid_argument", 400, 2;
    /// A bucket name or key breaks the rules for names.
    InvalidName = 2, "invalid_name", 400, 2;
    /// A list, plan or message is longer than its limit.
    LimitExceeded = 3, "limit_exceeded", 413, 1;
    /// No credential was given, or it is not one of this cluster's.
    Unauthenticated = 4, "unauthenticated", 401, 5;
    /// The caller lacks the right.
    PermissionDenied = 5, "permission_denied", 403, 5;
    /// No such bucket, or none this caller may see.
    BucketNotFound = 6, "bucket_not_found", 404, 3;
    /// No such file or version, or none this caller may see.
    NotFound = 7, "not_found", 404, 3;
    /// The name is taken.
    AlreadyExists = 8, "already_exists", 409, 4;
    /// `if_version` named another version than the current one.
    VersionMismatch = 9, "version_mismatch", 412, 4;
    /// The bucket still has files.
    BucketNotEmpty = 10, "bucket_not_empty", 409, 4;
    /// No such upload, or it expired, was aborted or forgotten.
    UploadNotFound = 11, "upload_not_found", 404, 3;
    /// Some chunks must be sent or touched again before the commit can count them: see the details.
    ChunksMissing = 12, "chunks_missing", 409, 4;
    /// A receipt is forged, foreign, stale or does not cover its chunk.
    ReceiptRefused = 13, "receipt_refused", 403, 5;
    /// A grant is forged, foreign, expired or does not cover the call.
    GrantRefused = 14, "grant_refused", 403, 5;
    /// The manifest does not add up: gaps, wrong counts or sizes.
    ManifestMismatch = 15, "manifest_mismatch", 409, 4;
    /// Too few live nodes with room for the policy.
    NotEnoughNodes = 16, "not_enough_nodes", 503, 6;
    /// No space: a node's disk, or the metadata service's reserve.
    NoSpace = 17, "no_space", 507, 6;
    /// Bytes do not hash to what was committed for them.
    Integrity = 18, "integrity", 500, 7;
    /// No leader, or the server is starting, draining or cut off. Retry, anywhere.
    Unavailable = 19, "unavailable", 503, 6;
    /// The deadline passed before anything was done.
    Timeout = 20, "timeout", 504, 6;
    /// The write was proposed and its outcome is not known; retry with the same request id.
    UnknownOutcome = 21, "unknown_outcome", 504, 6;
    /// The request's last seen position has left the at-most-once window: it was never run.
    RequestTooOld = 22, "request_too_old", 409, 4;
    /// Too much is waiting already. Retry later.
    Overloaded = 23, "overloaded", 429, 6;
    /// No such node.
    NodeNotFound = 24, "node_not_found", 404, 3;
    /// The node's state or incarnation does not allow it.
    NodeConflict = 25, "node_conflict", 409, 4;
    /// No such chunk, or none this caller may see.
    ChunkNotFound = 26, "chunk_not_found", 404, 3;
    /// The cluster, a member or its feature level does not allow it now.
    FailedPrecondition = 27, "failed_precondition", 409, 4;
    /// The caller asked for something this version does not do.
    Unimplemented = 28, "unimplemented", 501, 1;
    /// A fault of ours; the log has it under the request id.
    Internal = 29, "internal", 500, 1;
    /// An I/O error of a disk.
    Io = 30, "io", 500, 1;
    /// No such principal.
    PrincipalNotFound = 31, "principal_not_found", 404, 3;
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error as it crosses crates and the wire: a code for programs, a sentence for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct DfsError {
    pub code: ErrorCode,
    pub message: String,
    /// For `chunks_missing`: what to do with which chunk index of the upload.
    pub chunks: Vec<ChunkNeed>,
}

/// A chunk that a commit could not count, and what would make it count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkNeed {
    pub index: u32,
    pub need: Need,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Send the bytes again under a new plan.
    Send,
    /// A node still has them, but its epoch is too old: put to it again, which only touches.
    Touch,
}

impl DfsError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), chunks: Vec::new() }
    }

    pub fn chunks_missing(message: impl Into<String>, chunks: Vec<ChunkNeed>) -> Self {
        Self { code: ErrorCode::ChunksMissing, message: message.into(), chunks }
    }

    /// The same error with `context: ` before its sentence.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// Whether the same call may succeed later without anything else changing.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.code,
            ErrorCode::Unavailable | ErrorCode::Timeout | ErrorCode::UnknownOutcome | ErrorCode::Overloaded
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_round_trip_and_are_unique() {
        let mut words = HashSet::new();
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_number(*code as u32), Some(*code));
            assert_eq!(ErrorCode::from_word(code.as_str()), Some(*code));
            assert!(words.insert(code.as_str()));
        }
        assert_eq!(ErrorCode::from_number(0), None);
    }
}
