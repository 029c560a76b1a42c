//! Writing files below a directory without ever leaving it: every step is relative to an open
//! directory and follows no symbolic link, so neither a hostile key nor a link that was planted (even
//! while we run) leads outside. A file appears under its name only when it is whole and fsynced;
//! until then, and after a crash, there is at most a `.dfs-*.part`, which is removed when writing fails.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use dfs_types::ids::hex;
use dfs_types::{Entropy, OsEntropy};
use rustix::fs::{AtFlags, Mode, OFlags, fsync, mkdirat, open, openat, renameat, unlinkat};
use rustix::io::Errno;

/// An open directory below which files are written.
pub(crate) struct Root {
    dir: OwnedFd,
}

impl Root {
    /// Opens `path`, which the caller chose and may be a link, and makes it if it is missing.
    pub fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { dir: open(path, flags, Mode::empty())? })
    }

    /// Begins the file at `parts`, which must be plain names (`address::local_parts`). Directories on
    /// the way are made; one that is a link is an error.
    pub fn create(&self, parts: &[&str]) -> io::Result<NewFile> {
        let Some((name, directories)) = parts.split_last() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a file needs a name"));
        };
        for part in parts {
            // The caller checked; a mistake there must not become an escape here.
            if part.is_empty() || *part == "." || *part == ".." || part.contains(['/', '\0']) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain name"));
            }
        }
        let mut dir = self.dir.try_clone()?;
        for directory in directories {
            match mkdirat(&dir, *directory, Mode::from_raw_mode(0o777)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            dir = openat(&dir, *directory, flags, Mode::empty()).map_err(|error| match error {
                Errno::LOOP | Errno::NOTDIR => io::Error::other(format!(
                    "{directory:?} on the way is a link or no directory; not followed"
                )),
                other => other.into(),
            })?;
        }
        let temporary = format!(".dfs-{}.part", hex(&OsEntropy.array::<8>()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&dir, temporary.as_str(), flags, Mode::from_raw_mode(0o666))?;
        Ok(NewFile { dir, temporary, name: (*name).to_owned(), file: File::from(file), kept: false })
    }
}

/// A file being written. Dropped before [`NewFile::keep`], it leaves nothing.
pub(crate) struct NewFile {
    dir: OwnedFd,
    temporary: String,
    name: String,
    file: File,
    kept: bool,
}

impl NewFile {
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Makes it durable and gives it its name, replacing a file or a link of that name.
    pub fn keep(mut self) -> io::Result<()> {
        fsync(&self.file)?;
        renameat(&self.dir, self.temporary.as_str(), &self.dir, self.name.as_str())?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing better can be done about a leftover than to leave it.
            let _ = unlinkat(&self.dir, self.temporary.as_str(), AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn write(root: &Root, parts: &[&str], content: &[u8]) -> io::Result<()> {
        let mut file = root.create(parts)?;
        file.write(content)?;
        file.keep()
    }

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(&dir.path().join("out")).unwrap();
        write(&root, &["a", "-rf", "ü b"], b"one").unwrap();
        write(&root, &["a", "-rf", "ü b"], b"two").unwrap();
        assert_eq!(std::fs::read(dir.path().join("out/a/-rf/ü b")).unwrap(), b"two");
        let mut dropped = root.create(&["a", "half"]).unwrap();
        dropped.write(b"x").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read_dir(dir.path().join("out/a")).unwrap().count(), 1);
    }

    #[test]
    fn nothing_leads_outside() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("target"), b"safe").unwrap();
        let root = Root::open(&dir.path().join("out")).unwrap();
        symlink(&outside, dir.path().join("out/link")).unwrap();
        symlink(outside.join("target"), dir.path().join("out/file")).unwrap();
        assert!(write(&root, &["link", "planted"], b"x").is_err());
        assert!(!outside.join("planted").exists());
        for parts in [&["..", "x"][..], &["a/b"], &["."], &[""], &["a\0"], &[]] {
            assert!(write(&root, parts, b"x").is_err(), "{parts:?}");
        }
        // A link in the place of the file is replaced, not written through.
        write(&root, &["file"], b"new").unwrap();
        assert_eq!(std::fs::read(outside.join("target")).unwrap(), b"safe");
        assert_eq!(std::fs::read(dir.path().join("out/file")).unwrap(), b"new");
    }
}
