//! Writing files that hold keys: whole or not at all, readable by nobody that was not meant.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::CliError;

/// For the owner alone.
pub(super) const OWNER: u32 = 0o600;
/// For the owner, and readable for the group.
pub(super) const OWNER_AND_GROUP: u32 = 0o640;

/// Replaces `path` with a file of this mode: written beside it, fsynced, renamed, the folder fsynced.
/// A crash leaves the old file or the new one. For one writer at a time.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CliError> {
    let write = || -> std::io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = folder.join(name);
        // One that a crash left behind.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().create_new(true).write(true).mode(OWNER).open(&new)?;
        // Said again: a umask takes bits away from what open was told.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|error| CliError::io(format!("writing {}", path.display()), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_what_was_asked_and_leftovers_do_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(dir.path().join("key.new"), "half").unwrap();
        for (text, mode) in [("one", OWNER), ("two", OWNER_AND_GROUP), ("three", OWNER)] {
            replace(&path, text.as_bytes(), mode).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
