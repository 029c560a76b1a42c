//! Where a server's certificates are, and their contents: read at start, and again when it is told to.

use std::path::{Path, PathBuf};

use dfs_types::{DfsError, ErrorCode};
use zeroize::Zeroizing;

use crate::secret_file;

/// A certificate file larger than this is none.
const MAX_BYTES: u64 = 1024 * 1024;

/// The three files, as named in the settings.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Their contents, PEM.
pub struct Pem {
    pub ca: Vec<u8>,
    pub cert: Vec<u8>,
    pub key: Zeroizing<Vec<u8>>,
}

impl CertificateFiles {
    /// # Errors
    /// `io` for a file that cannot be read, `failed_precondition` for a key that others may read.
    pub fn read(&self) -> Result<Pem, DfsError> {
        Ok(Pem { ca: open(&self.ca)?, cert: open(&self.cert)?, key: secret_file::read(&self.key)? })
    }
}

fn open(path: &Path) -> Result<Vec<u8>, DfsError> {
    let failed = |error: std::io::Error| DfsError::new(ErrorCode::Io, format!("{}: {error}", path.display()));
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(DfsError::new(
            ErrorCode::FailedPrecondition,
            format!("{}: not a file of certificates", path.display()),
        ));
    }
    std::fs::read(path).map_err(failed)
}
