//! What can go wrong while keys are loaded, connections made and ports bound.

use std::io;

use dfs_types::{DfsError, ErrorCode};

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Certificates or keys that cannot be used: the operator must act.
    #[error("certificates: {0}")]
    Credentials(String),
    /// The text is not `dfs://<cluster>/<role>/<id>`.
    #[error("{0:?} is not the identity of a server")]
    Identity(String),
    #[error("cannot listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    /// `address` is not `host:port`.
    #[error("{0:?} is not host:port")]
    Address(String),
    #[error("cannot reach {address}: {source}")]
    Connect { address: String, source: io::Error },
    #[error("no connection to {address} within {milliseconds} ms")]
    Deadline { address: String, milliseconds: u64 },
}

impl From<TransportError> for DfsError {
    fn from(error: TransportError) -> Self {
        let code = match &error {
            TransportError::Credentials(_) | TransportError::Identity(_) | TransportError::Address(_) => {
                ErrorCode::InvalidArgument
            }
            TransportError::Bind { .. } => ErrorCode::Io,
            TransportError::Connect { .. } | TransportError::Deadline { .. } => ErrorCode::Unavailable,
        };
        DfsError::new(code, error.to_string())
    }
}

/// Shorthand for the many libraries whose error is only a sentence to us.
pub(crate) fn credentials(context: &str, error: impl std::fmt::Display) -> TransportError {
    TransportError::Credentials(format!("{context}: {error}"))
}
