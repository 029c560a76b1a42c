//! Errors on the wire: a gRPC status for any client, and an `ErrorDetail` in `dfs-error-bin` for ours.

use dfs_types::error::{ChunkNeed, Need};
use dfs_types::{DfsError, ErrorCode};
use prost::Message;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::v1;

/// The trailer that carries an encoded [`v1::ErrorDetail`].
pub const ERROR_TRAILER: &str = "dfs-error-bin";

impl From<&DfsError> for v1::ErrorDetail {
    fn from(error: &DfsError) -> Self {
        let chunks = error
            .chunks
            .iter()
            .map(|chunk| v1::ChunkNeed { index: chunk.index, touch: chunk.need == Need::Touch })
            .collect();
        Self { code: error.code as u32, message: error.message.clone(), chunks }
    }
}

impl From<v1::ErrorDetail> for DfsError {
    fn from(detail: v1::ErrorDetail) -> Self {
        let need = |touch| if touch { Need::Touch } else { Need::Send };
        Self {
            code: ErrorCode::from_number(detail.code).unwrap_or(ErrorCode::Internal),
            message: detail.message,
            chunks: detail.chunks.iter().map(|c| ChunkNeed { index: c.index, need: need(c.touch) }).collect(),
        }
    }
}

/// The gRPC code a client without our trailer sees.
pub fn grpc_code(code: ErrorCode) -> Code {
    use ErrorCode as E;
    match code {
        E::InvalidArgument | E::InvalidName => Code::InvalidArgument,
        E::LimitExceeded | E::NoSpace | E::Overloaded => Code::ResourceExhausted,
        E::Unauthenticated => Code::Unauthenticated,
        E::PermissionDenied | E::ReceiptRefused | E::GrantRefused => Code::PermissionDenied,
        E::BucketNotFound
        | E::NotFound
        | E::UploadNotFound
        | E::NodeNotFound
        | E::ChunkNotFound
        | E::PrincipalNotFound => Code::NotFound,
        E::AlreadyExists => Code::AlreadyExists,
        E::VersionMismatch
        | E::BucketNotEmpty
        | E::ChunksMissing
        | E::ManifestMismatch
        | E::RequestTooOld
        | E::NodeConflict
        | E::FailedPrecondition => Code::FailedPrecondition,
        E::NotEnoughNodes | E::Unavailable => Code::Unavailable,
        E::Integrity => Code::DataLoss,
        E::Timeout => Code::DeadlineExceeded,
        E::UnknownOutcome => Code::Unknown,
        E::Unimplemented => Code::Unimplemented,
        E::Internal | E::Io => Code::Internal,
    }
}

pub fn to_status(error: &DfsError) -> Status {
    let mut trailers = MetadataMap::new();
    let detail = v1::ErrorDetail::from(error).encode_to_vec();
    trailers.insert_bin(ERROR_TRAILER, MetadataValue::from_bytes(&detail));
    Status::with_metadata(grpc_code(error.code), error.message.clone(), trailers)
}

/// The error behind a status: ours word for word, a foreign one by its gRPC code.
pub fn from_status(status: &Status) -> DfsError {
    let ours = status
        .metadata()
        .get_bin(ERROR_TRAILER)
        .and_then(|value| value.to_bytes().ok())
        .and_then(|bytes| v1::ErrorDetail::decode(bytes).ok());
    if let Some(detail) = ours {
        return detail.into();
    }
    let code = match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::NotFound,
        Code::AlreadyExists => ErrorCode::AlreadyExists,
        Code::PermissionDenied => ErrorCode::PermissionDenied,
        Code::Unauthenticated => ErrorCode::Unauthenticated,
        Code::ResourceExhausted => ErrorCode::LimitExceeded,
        Code::FailedPrecondition => ErrorCode::FailedPrecondition,
        Code::DeadlineExceeded => ErrorCode::Timeout,
        Code::Unimplemented => ErrorCode::Unimplemented,
        Code::DataLoss => ErrorCode::Integrity,
        Code::Internal => ErrorCode::Internal,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Aborted | Code::Unavailable => {
            ErrorCode::Unavailable
        }
    };
    DfsError::new(code, status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for code in ErrorCode::ALL {
            let error = DfsError {
                code: *code,
                message: format!("about {code}"),
                chunks: vec![ChunkNeed { index: 3, need: Need::Touch }],
            };
            assert_eq!(from_status(&to_status(&error)), error);
        }
    }
}
