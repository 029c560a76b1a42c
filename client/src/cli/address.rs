//! Addresses of the cluster, `dfs://bucket/key` or `/bucket/key`, and how names of one side become
//! names of the other. Pure; whether something exists is the callers' question.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use dfs_types::path::split_path;
use dfs_types::{DfsPath, Key};

use super::CliError;

/// A bucket and a key that may be empty (the whole bucket) or end with a slash (a directory).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub bucket: String,
    pub key: String,
}

impl Address {
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let (bucket, key) = split_path(text).map_err(|error| CliError::usage(error.message))?;
        Ok(Self { bucket: bucket.as_str().to_owned(), key: key.to_owned() })
    }

    /// Whether it can only mean a directory.
    pub fn is_directory(&self) -> bool {
        self.key.is_empty() || self.key.ends_with('/')
    }

    /// The prefix under which the files of this directory are.
    pub fn prefix(&self) -> String {
        if self.is_directory() { self.key.clone() } else { format!("{}/", self.key) }
    }

    /// The last name: of the key, or of the bucket for all of it.
    pub fn name(&self) -> &str {
        let name = self.key.trim_end_matches('/').rsplit('/').next().unwrap_or("");
        if name.is_empty() { &self.bucket } else { name }
    }

    /// `name` inside this directory.
    pub fn join(&self, name: &str) -> Self {
        Self { bucket: self.bucket.clone(), key: format!("{}{name}", self.prefix()) }
    }

    /// The address of a file.
    pub fn file(&self) -> Result<DfsPath, CliError> {
        if self.is_directory() {
            return Err(CliError::usage(format!("{self} names a directory: name a file, or use -r")));
        }
        self.to_string().parse::<DfsPath>().map_err(|error| CliError::usage(error.message))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "dfs://{}/{}", self.bucket, self.key)
    }
}

/// The last name of a local path: `None` for `.`, `..`, `/` and `dir/.`, whose content is meant.
pub(crate) fn local_name(path: &Path) -> Option<&OsStr> {
    // `Path::file_name` ignores a trailing `/.`, which for cp means "the content of".
    let text = path.as_os_str().as_encoded_bytes();
    if text.ends_with(b"/.") { None } else { path.file_name() }
}

/// The key of a file found under a directory, or why it can have none.
pub(crate) fn key_of(relative: &Path) -> Result<String, String> {
    let mut key = String::new();
    for part in relative {
        let part = part.to_str().ok_or_else(|| "its name is not valid UTF-8".to_owned())?;
        if !key.is_empty() {
            key.push('/');
        }
        key.push_str(part);
    }
    Key::new(key).map(|key| key.as_str().to_owned()).map_err(|error| error.message)
}

/// Where a key lands under a local directory: its parts, each a plain file name. Keys that would leave
/// the directory, or that no file system can tell from others, are refused.
pub(crate) fn local_parts(key: &str) -> Result<Vec<&str>, String> {
    let parts: Vec<&str> = key.split('/').collect();
    for part in &parts {
        let why = match *part {
            "" => "it has an empty name between slashes",
            "." | ".." => "it has a name . or ..",
            part if part.contains('\0') => "it contains a NUL byte",
            _ => continue,
        };
        return Err(format!("its key cannot be a local path: {why}"));
    }
    Ok(parts)
}

/// Joins checked parts, for messages.
pub(crate) fn joined(root: &Path, parts: &[&str]) -> PathBuf {
    parts.iter().fold(root.to_owned(), |path, part| path.join(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_both_spellings() {
        let file = Address::parse("dfs://photos/2026/a b.jpg").unwrap();
        assert_eq!(file, Address::parse("/photos/2026/a b.jpg").unwrap());
        assert_eq!(
            (file.name(), file.prefix().as_str(), file.is_directory()),
            ("a b.jpg", "2026/a b.jpg/", false)
        );
        let bucket = Address::parse("dfs://photos").unwrap();
        assert_eq!((bucket.name(), bucket.prefix().as_str()), ("photos", ""));
        assert_eq!(bucket.join("x").to_string(), "dfs://photos/x");
        assert_eq!(Address::parse("/photos/d/").unwrap().join("x").key, "d/x");
        assert_eq!(Address::parse("/photos/d").unwrap().join("x").key, "d/x");
        assert_eq!(Address::parse("/photos/d/").unwrap().name(), "d");
        assert!(bucket.file().is_err());
        for bad in ["photos/a", "dfs://P/a", ""] {
            assert_eq!(Address::parse(bad).unwrap_err().exit, super::super::Exit::Usage, "{bad}");
        }
    }

    #[test]
    fn only_plain_names_become_local_paths() {
        assert_eq!(local_parts("a/-rf/ü b").unwrap(), ["a", "-rf", "ü b"]);
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a/./b", "a//b", "a/", "..", "a\0b"] {
            assert!(local_parts(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn local_files_become_keys() {
        assert_eq!(key_of(Path::new("d/-x/ü b")).unwrap(), "d/-x/ü b");
        assert!(key_of(Path::new(&"k".repeat(1025))).is_err());
        use std::os::unix::ffi::OsStrExt;
        assert!(key_of(Path::new(OsStr::from_bytes(b"\xff"))).is_err());
        assert_eq!(local_name(Path::new("a/b/")), Some(OsStr::new("b")));
        assert_eq!(local_name(Path::new("a/.")), None);
        assert_eq!(local_name(Path::new("..")), None);
    }
}
