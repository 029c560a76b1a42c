//! The cluster's errors in the words of `object_store`. The match names every code: a new one must be
//! placed here before this compiles.

use dfs_client::{DfsError, ErrorCode};
use object_store::Error;

use crate::STORE;

/// What happened to `path`. The cluster's error stays as the source.
pub(crate) fn error(error: DfsError, path: impl Into<String>) -> Error {
    let path = path.into();
    let code = error.code;
    let source = Box::new(error);
    match code {
        ErrorCode::NotFound
        | ErrorCode::BucketNotFound
        | ErrorCode::UploadNotFound
        | ErrorCode::ChunkNotFound
        | ErrorCode::NodeNotFound
        | ErrorCode::PrincipalNotFound => Error::NotFound { path, source },
        ErrorCode::AlreadyExists => Error::AlreadyExists { path, source },
        ErrorCode::VersionMismatch => Error::Precondition { path, source },
        ErrorCode::Unauthenticated => Error::Unauthenticated { path, source },
        ErrorCode::PermissionDenied | ErrorCode::GrantRefused | ErrorCode::ReceiptRefused => {
            Error::PermissionDenied { path, source }
        }
        ErrorCode::Unimplemented => Error::NotSupported { source },
        ErrorCode::InvalidArgument
        | ErrorCode::InvalidName
        | ErrorCode::LimitExceeded
        | ErrorCode::BucketNotEmpty
        | ErrorCode::ChunksMissing
        | ErrorCode::ManifestMismatch
        | ErrorCode::NotEnoughNodes
        | ErrorCode::NoSpace
        | ErrorCode::Integrity
        | ErrorCode::Unavailable
        | ErrorCode::Timeout
        | ErrorCode::UnknownOutcome
        | ErrorCode::RequestTooOld
        | ErrorCode::Overloaded
        | ErrorCode::NodeConflict
        | ErrorCode::FailedPrecondition
        | ErrorCode::Internal
        | ErrorCode::Io => Error::Generic { store: STORE, source },
    }
}

/// As [`error`], for a change that wanted its target to be free.
pub(crate) fn taken(failed: DfsError, path: impl Into<String>) -> Error {
    match failed.code {
        ErrorCode::VersionMismatch => Error::AlreadyExists { path: path.into(), source: Box::new(failed) },
        _ => error(failed, path),
    }
}

pub(crate) fn generic(message: impl Into<String>) -> Error {
    Error::Generic { store: STORE, source: message.into().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_keeps_its_error_as_the_source() {
        for code in ErrorCode::ALL {
            let mapped = error(DfsError::new(*code, "why"), "a/b");
            let source = std::error::Error::source(&mapped).expect("a source");
            let kept = source.downcast_ref::<DfsError>().expect("the cluster's error");
            assert_eq!(kept.code, *code);
        }
        let taken = taken(DfsError::new(ErrorCode::VersionMismatch, "why"), "a");
        assert!(matches!(taken, Error::AlreadyExists { .. }));
    }
}
