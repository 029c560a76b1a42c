//! Reading a file that holds a key: refused if anybody could have read or changed it who was not meant.
//!
//! A file of our own: for us alone. One of root's may also be readable, not writable, for a group that
//! this process is in: so an administrator hands a key to a server that runs as another user, and so
//! Kubernetes mounts a secret (root's, mode 0440, group `fsGroup`). Root alone could make it so.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use dfs_types::{DfsError, ErrorCode};
use zeroize::Zeroizing;

/// Key files are short; anything longer is another kind of file.
const MAX_BYTES: u64 = 64 * 1024;

/// The content of a secret file: a regular file (a symlink to one is fine, as Kubernetes makes them),
/// of ours or root's, with no right for others, and none for the group but to read what is root's and of a
/// group of ours; not empty, at most 64 KiB.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, DfsError> {
    let io = |error: std::io::Error| {
        DfsError::new(ErrorCode::Io, format!("secret file {}: {error}", path.display()))
    };
    let refuse = |reason: String| {
        DfsError::new(ErrorCode::FailedPrecondition, format!("secret file {}: {reason}", path.display()))
    };
    // NONBLOCK: opening a FIFO that was put in the file's place must not hang the start.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32)
        .open(path)
        .map_err(io)?;
    // The open file is looked at, not the path, which might point elsewhere by now.
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(refuse("is not a regular file".into()));
    }
    let owner = metadata.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(refuse(format!("belongs to user {owner}, not to the one running this")));
    }
    let rights = metadata.mode() & 0o7777;
    if rights & !allowed(owner, metadata.gid()) & 0o077 != 0 {
        return Err(refuse(format!(
            "others may use it (mode {rights:04o}); run: chmod 600 {}",
            path.display()
        )));
    }
    if metadata.len() > MAX_BYTES {
        return Err(refuse(format!("is {} bytes long, more than a key", metadata.len())));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize));
    file.by_ref().take(MAX_BYTES).read_to_end(&mut bytes).map_err(io)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(refuse("is empty".into()));
    }
    Ok(bytes)
}

/// The rights that a key file of this owner and group may grant.
fn allowed(owner: u32, group: u32) -> u32 {
    let us = rustix::process::geteuid().as_raw();
    let mut groups = vec![rustix::process::getegid().as_raw()];
    groups.extend(rustix::process::getgroups().iter().flatten().map(|group| group.as_raw()));
    allowed_to(us, &groups, owner, group)
}

/// [`allowed`] for a process of user `us` in `groups`.
fn allowed_to(us: u32, groups: &[u32], owner: u32, group: u32) -> u32 {
    // A process of root's needs no group to read, so its being in one says nothing.
    if owner == 0 && us != 0 && groups.contains(&group) { 0o640 } else { 0o600 }
}

/// [`read`] as text without the white space around it.
pub fn read_text(path: &Path) -> Result<Zeroizing<String>, DfsError> {
    let bytes = read(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        DfsError::new(ErrorCode::FailedPrecondition, format!("secret file {}: is not text", path.display()))
    })?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn check(mode: u32, content: &[u8]) -> Result<String, DfsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        read_text(file.path()).map(|text| text.to_string())
    }

    #[test]
    fn only_the_owner_may_read_a_key() {
        assert_eq!(check(0o600, b" key \n").unwrap(), "key");
        for mode in [0o640, 0o604, 0o620, 0o602, 0o610, 0o666] {
            assert_eq!(check(mode, b"key").unwrap_err().code, ErrorCode::FailedPrecondition, "{mode:o}");
        }
    }

    #[test]
    fn root_may_hand_a_key_to_a_group_of_ours() {
        let (us, group) = (10001, 20000);
        assert_eq!(allowed_to(us, &[10001, group], 0, group), 0o640);
        assert_eq!(allowed_to(us, &[10001], 0, group), 0o600);
        assert_eq!(allowed_to(us, &[10001, group], us, group), 0o600);
        assert_eq!(allowed_to(0, &[0, group], 0, group), 0o600);
    }

    #[test]
    fn what_is_not_a_key_file_is_refused() {
        assert!(check(0o600, b"").is_err());
        assert!(check(0o600, b" \n").is_err());
        assert!(check(0o600, &vec![b'x'; MAX_BYTES as usize + 1]).is_err());
        assert!(read(Path::new("/does/not/exist")).is_err());
        assert!(read(Path::new("/")).is_err());
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
        assert!(read(&fifo).is_err());
    }
}
