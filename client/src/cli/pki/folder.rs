//! What lies where:
//!
//! ```text
//! DIR/
//!   authority/   ca.key master.key admin.key ca.pem    0700, files 0600: off the servers, backed up
//!   client/      dfsctl.toml ca.pem admin.key
//!   m1/          ca.pem cert.pem key.pem master.key admin.key
//!   n1/          ca.pem cert.pem key.pem
//! ```
//!
//! `authority/` appears whole, by one rename, so it is there with everything in it or not at all. A
//! server's certificate is written after its key: with both there, the pair counts. Any of the folders
//! may be a mount of its own, but for `authority/`.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use transport::ca::Authority;
use zeroize::Zeroizing;

use crate::cli::{CliError, private_file};

pub(super) struct Folder {
    root: PathBuf,
    group_read: bool,
}

impl Folder {
    /// Makes the folder if need be.
    pub fn new(root: &Path, group_read: bool) -> Result<Self, CliError> {
        let root = std::path::absolute(root)
            .map_err(|error| CliError::io(format!("finding {}", root.display()), error))?;
        let folder = Self { root, group_read };
        folder.make(&folder.root)?;
        Ok(folder)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn authority_dir(&self) -> PathBuf {
        self.root.join("authority")
    }
    pub fn client(&self) -> PathBuf {
        self.root.join("client")
    }
    pub fn server(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// The authority kept here, if there is one.
    pub fn authority(&self) -> Result<Option<Authority>, CliError> {
        let dir = self.authority_dir();
        if !dir.exists() {
            return Ok(None);
        }
        let authority = Authority::load(&read(&dir.join("ca.pem"))?, &read(&dir.join("ca.key"))?)
            .map_err(|error| CliError::failed(format!("{}: {error}", dir.display())))?;
        Ok(Some(authority))
    }

    /// Writes `files` as `authority/`, all or nothing; never over another one.
    pub fn write_authority(&self, files: &[(&str, &[u8])]) -> Result<(), CliError> {
        let new = self.root.join("authority.new");
        let io = |error| CliError::io(format!("making {}", new.display()), error);
        if new.exists() {
            // Left by a crash. Nothing was issued by it: that begins after the rename.
            fs::remove_dir_all(&new).map_err(io)?;
        }
        DirBuilder::new().mode(0o700).create(&new).map_err(io)?;
        for (name, bytes) in files {
            private_file::replace(&new.join(name), bytes, private_file::OWNER)?;
        }
        // Refused by the kernel if authority/ came to be meanwhile and has files.
        fs::rename(&new, self.authority_dir()).map_err(io)?;
        File::open(&self.root).and_then(|root| root.sync_all()).map_err(io)
    }

    /// Makes a folder that servers or people get to see, or is content with one.
    pub fn make(&self, path: &Path) -> Result<(), CliError> {
        let io = |error| CliError::io(format!("making {}", path.display()), error);
        if path.is_dir() {
            return Ok(());
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let mode = if self.group_read { 0o750 } else { 0o700 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(io)
    }

    pub fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), CliError> {
        let mode = if self.group_read { private_file::OWNER_AND_GROUP } else { private_file::OWNER };
        private_file::replace(path, bytes, mode)
    }

    /// Copies a file of the authority's into another folder, if it is not there.
    pub fn copy(&self, name: &str, folder: &Path) -> Result<(), CliError> {
        let to = folder.join(name);
        if to.exists() {
            return Ok(());
        }
        self.write(&to, read(&self.authority_dir().join(name))?.as_bytes())
    }
}

pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, CliError> {
    fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| CliError::io(format!("reading {}", path.display()), error))
}
