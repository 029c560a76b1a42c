//! How a command ends: exit codes of the CLI and errors that say what to do next.

use std::fmt;

use dfs_types::{DfsError, ErrorCode};

/// The code of an error that nobody is left to read: stdout was closed.
pub(crate) const BROKEN_PIPE: &str = "broken_pipe";

/// dfsctl's exit codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    /// Failed, or done in part.
    Failed = 1,
    Usage = 2,
    NotFound = 3,
    Conflict = 4,
    Denied = 5,
    /// Unavailable or timed out.
    Unavailable = 6,
    Integrity = 7,
    /// Ctrl-C.
    Interrupted = 130,
}

impl Exit {
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<ErrorCode> for Exit {
    fn from(code: ErrorCode) -> Self {
        match code.exit_code() {
            0 => Exit::Ok,
            2 => Exit::Usage,
            3 => Exit::NotFound,
            4 => Exit::Conflict,
            5 => Exit::Denied,
            6 => Exit::Unavailable,
            7 => Exit::Integrity,
            _ => Exit::Failed,
        }
    }
}

/// Why a command failed: what happened, and what to do next if we know.
#[derive(Debug)]
pub struct CliError {
    pub exit: Exit,
    /// The stable word of the code, for `--output json`.
    pub code: &'static str,
    pub message: String,
    pub hint: Option<String>,
}

impl CliError {
    pub fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, code: "usage", message: message.into(), hint: None }
    }

    pub fn failed(message: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, code: "failed", message: message.into(), hint: None }
    }

    pub fn interrupted(message: impl Into<String>) -> Self {
        Self { exit: Exit::Interrupted, code: "interrupted", message: message.into(), hint: None }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// An error that has this hint if it is of this code.
    pub fn hinted(error: DfsError, code: ErrorCode, hint: impl FnOnce() -> String) -> Self {
        let of_code = error.code == code;
        let error = Self::from(error);
        if of_code { error.with_hint(hint()) } else { error }
    }

    /// An I/O error of this machine, with what was being done: `reading a.txt`.
    pub fn io(doing: impl fmt::Display, error: std::io::Error) -> Self {
        let (exit, code) = match error.kind() {
            std::io::ErrorKind::NotFound => (Exit::NotFound, "io"),
            std::io::ErrorKind::PermissionDenied => (Exit::Denied, "io"),
            std::io::ErrorKind::BrokenPipe => (Exit::Failed, BROKEN_PIPE),
            _ => (Exit::Failed, "io"),
        };
        Self { exit, code, message: format!("{doing}: {error}"), hint: None }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}

impl From<DfsError> for CliError {
    fn from(error: DfsError) -> Self {
        let hint = hint(&error);
        Self { exit: error.code.into(), code: error.code.as_str(), message: error.message, hint }
    }
}

/// What a person can do about an error, where that is not plain from its sentence.
fn hint(error: &DfsError) -> Option<String> {
    let hint = match error.code {
        ErrorCode::BucketNotFound => {
            "create it with `dfsctl bucket create NAME`; `dfsctl bucket ls` lists those there are"
        }
        ErrorCode::Unauthenticated => {
            "the API key is not one of this cluster's: check api_key_file in dfsctl.toml"
        }
        ErrorCode::PermissionDenied => "ask an administrator of the cluster for the right",
        ErrorCode::VersionMismatch => {
            "somebody changed it meanwhile: `dfsctl stat` shows the current version"
        }
        ErrorCode::BucketNotEmpty => {
            "`dfsctl rm -r --purge dfs://BUCKET/` empties it for good, deleted files that are kept too"
        }
        ErrorCode::NotEnoughNodes => "`dfsctl node ls` shows which chunk servers are up",
        ErrorCode::NoSpace => "`dfsctl node ls` shows the free space; add a chunk server or delete files",
        ErrorCode::Unavailable | ErrorCode::Timeout => {
            "is the cluster up? `dfsctl cluster status`; for a dev cluster: `dfsctl dev status`, `dfsctl dev up`"
        }
        ErrorCode::UnknownOutcome => "look with `dfsctl stat` before doing it again",
        ErrorCode::Overloaded => "try again in a moment",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_keeps_its_exit_code() {
        for code in ErrorCode::ALL {
            assert_eq!(Exit::from(*code).code(), code.exit_code(), "{code}");
        }
    }
}
