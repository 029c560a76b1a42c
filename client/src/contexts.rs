//! Several clusters by name: `contexts.toml` in the user's configuration folder, which `dfsctl context`
//! writes and every lookup of a configuration reads.
//!
//! ```toml
//! current = "prod"
//!
//! [contexts]
//! prod = "/home/ann/prod/dfsctl.toml"
//! ```
//!
//! Crash promise: the file is replaced whole; a crash leaves the old or the new one.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dfs_types::{DfsError, ErrorCode};
use serde::{Deserialize, Serialize};

use crate::Result;

/// Longest name of a context, in bytes.
const MAX_NAME_BYTES: usize = 63;

/// The named clusters of a user.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contexts {
    /// The one used when nothing else is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Name to `dfsctl.toml`, absolute.
    #[serde(default)]
    pub contexts: BTreeMap<String, PathBuf>,
}

impl Contexts {
    /// What the file says; nothing when there is none.
    ///
    /// # Errors
    /// `invalid_argument` when it cannot be read or is not such a file.
    pub fn load(file: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(invalid(format!("cannot read {}: {error}", file.display()))),
        };
        toml::from_str(&text).map_err(|error| invalid(format!("{}: {error}", file.display())))
    }

    /// Replaces the file, mode 0600, with its folder.
    ///
    /// # Errors
    /// `io`.
    pub fn store(&self, file: &Path) -> Result<()> {
        let failed =
            |error: std::io::Error| DfsError::new(ErrorCode::Io, format!("{}: {error}", file.display()));
        let text = toml::to_string(self).map_err(|error| invalid(error.to_string()))?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        // Named by the process, so that two writers do not mix their bytes: the last one stands.
        let fresh = file.with_extension(format!("toml.{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let mut out =
            options.write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(failed)?;
        out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(failed)?;
        std::fs::rename(&fresh, file).map_err(failed)
    }

    /// The configuration of this name.
    ///
    /// # Errors
    /// `not_found`, with the names that there are.
    pub fn get(&self, name: &str) -> Result<PathBuf> {
        self.contexts.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            DfsError::new(
                ErrorCode::NotFound,
                format!("no context {name:?} (there are: {known}); `dfsctl context add NAME FILE` makes one"),
            )
        })
    }

    /// Notes a cluster. The first one becomes the current one.
    ///
    /// # Errors
    /// `invalid_argument` for a name that is no plain word; `already_exists`.
    pub fn add(&mut self, name: &str, config: PathBuf) -> Result<()> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(plain) {
            return Err(invalid(format!(
                "{name:?} is no name: use 1 to {MAX_NAME_BYTES} letters, digits, dashes, dots"
            )));
        }
        if let Some(there) = self.contexts.get(name) {
            return Err(DfsError::new(
                ErrorCode::AlreadyExists,
                format!("context {name} is {} already; `dfsctl context rm {name}` first", there.display()),
            ));
        }
        self.contexts.insert(name.to_owned(), config);
        self.current.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    /// Forgets a name; the cluster and its dfsctl.toml stay.
    ///
    /// # Errors
    /// `not_found`.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        self.get(name)?;
        self.contexts.remove(name);
        self.current.take_if(|current| current == name);
        Ok(())
    }
}

fn invalid(message: String) -> DfsError {
    DfsError::new(ErrorCode::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_kept_and_the_first_is_current() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/contexts.toml");
        let mut contexts = Contexts::load(&file).unwrap();
        assert_eq!(contexts, Contexts::default());
        contexts.add("prod", "/p/dfsctl.toml".into()).unwrap();
        contexts.add("test.1", "/t/dfsctl.toml".into()).unwrap();
        assert_eq!(contexts.add("prod", "/x".into()).unwrap_err().code, ErrorCode::AlreadyExists);
        for bad in ["", "a b", "a/b", "ü", &"x".repeat(64)] {
            assert_eq!(contexts.add(bad, "/x".into()).unwrap_err().code, ErrorCode::InvalidArgument);
        }
        contexts.store(&file).unwrap();
        let mut again = Contexts::load(&file).unwrap();
        assert_eq!(again, contexts);
        assert_eq!(again.current.as_deref(), Some("prod"));
        again.remove("prod").unwrap();
        assert_eq!(again.current, None, "what is gone is not current");
        let error = again.get("prod").unwrap_err();
        assert!(error.code == ErrorCode::NotFound && error.message.contains("test.1"), "{error}");
        std::fs::write(&file, "current = 1").unwrap();
        assert_eq!(Contexts::load(&file).unwrap_err().code, ErrorCode::InvalidArgument);
        assert_eq!(std::fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no other file stays");
    }
}
