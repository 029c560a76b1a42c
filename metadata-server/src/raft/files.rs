//! File steps that survive a power loss: what is renamed is synced first, and the directory after.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Replaces `dir/name` with `bytes`: after a crash it has the old content or the new, whole.
pub fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    write_aside(dir, name, bytes)?;
    fs::rename(aside(dir, name), dir.join(name))?;
    sync_dir(dir)
}

/// The first half of [`replace`]: the new content, durable under another name.
pub fn write_aside(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(aside(dir, name))?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub fn aside(dir: &Path, name: &str) -> std::path::PathBuf {
    dir.join(format!("{name}.new"))
}

/// Removes a directory with all it holds; one that does not exist is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Copies a checkpoint into the new directory `to`: hard links for tables and blobs, which never
/// change, real copies for the rest. Everything is durable when it returns, `to`'s own name apart.
pub fn clone_checkpoint(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for file in fs::read_dir(from)? {
        let file = file?;
        let target = to.join(file.file_name());
        let immutable = Path::new(&file.file_name()).extension().is_some_and(|e| e == "sst" || e == "blob");
        if !immutable || fs::hard_link(file.path(), &target).is_err() {
            fs::copy(file.path(), &target)?;
        }
        File::open(&target)?.sync_all()?;
    }
    sync_dir(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replacing_leaves_one_file_with_the_new_content() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "f", b"one").unwrap();
        replace(dir.path(), "f", b"two").unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
