//! The folder of a dev cluster: what lies where, how it is written, and its two locks.
//!
//! ```text
//! DIR/                      mode 0700, files 0600
//!   cluster.json            the processes, for programs; written anew after each change
//!   dfsctl.toml             what dfsctl needs to reach the cluster
//!   plan.json               the servers with their ports and last processes: what dev goes by
//!   ca.pem  ca.key          the cluster's authority
//!   master.key  admin.key   outside every data directory
//!   m1/  n1/ ..             one folder a server: cert.pem, key.pem, server.log, data/
//!   state.lock  up.lock
//! ```
//!
//! Every file is replaced whole (written beside it, fsynced, renamed), so a reader or a restart never
//! sees half of one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{conflict, not_found};
use crate::cli::{CliError, private_file};
use crate::config::default_dev_dir;

/// How long a command waits for another one to finish its change.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

/// The folder of one server.
pub(super) struct ServerFolder {
    pub dir: PathBuf,
    pub data: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub log: PathBuf,
}

/// Held while a command changes the cluster; the kernel frees it when the process ends, however.
pub(super) struct Lock {
    _file: File,
}

impl Layout {
    /// The folder meant by `--data-dir`, or the default one. Need not exist yet.
    pub fn resolve(data_dir: Option<PathBuf>) -> Result<Self, CliError> {
        let given = match data_dir {
            Some(dir) => dir,
            None => configured().or_else(default_dev_dir).ok_or_else(|| {
                CliError::usage("neither HOME nor XDG_DATA_HOME is set: name a folder with --data-dir")
            })?,
        };
        let root = std::path::absolute(&given)
            .map_err(|error| CliError::io(format!("finding {}", given.display()), error))?;
        // Servers are recognised by this path in their arguments: one spelling of it.
        Ok(Self { root: root.canonicalize().unwrap_or(root) })
    }

    /// Makes the folder if need be. A folder with files of somebody else's is refused.
    pub fn prepare(&mut self) -> Result<(), CliError> {
        let doing = |what: &str, root: &Path| format!("{what} {}", root.display());
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.root)
            .map_err(|error| CliError::io(doing("making", &self.root), error))?;
        self.root =
            self.root.canonicalize().map_err(|error| CliError::io(doing("finding", &self.root), error))?;
        let mut entries =
            fs::read_dir(&self.root).map_err(|error| CliError::io(doing("reading", &self.root), error))?;
        if entries.next().is_some() && !self.state_lock().is_file() {
            return Err(conflict(format!(
                "{} has files, but is no dev cluster's folder",
                self.root.display()
            ))
            .with_hint("name an empty or new folder with --data-dir"));
        }
        fs::set_permissions(&self.root, fs::Permissions::from_mode(0o700))
            .map_err(|error| CliError::io(doing("setting the mode of", &self.root), error))
    }

    /// The folder as it must be for every command but `up`.
    pub fn existing(self) -> Result<Self, CliError> {
        if self.plan().is_file() {
            Ok(self)
        } else {
            Err(not_found(format!("there is no dev cluster in {}", self.root.display()))
                .with_hint("`dfsctl dev up` makes one; --data-dir DIR names another folder"))
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
    pub fn plan(&self) -> PathBuf {
        self.root.join("plan.json")
    }
    pub fn cluster_file(&self) -> PathBuf {
        self.root.join("cluster.json")
    }
    pub fn config(&self) -> PathBuf {
        self.root.join("dfsctl.toml")
    }
    pub fn ca(&self) -> PathBuf {
        self.root.join("ca.pem")
    }
    pub fn ca_key(&self) -> PathBuf {
        self.root.join("ca.key")
    }
    pub fn master_key(&self) -> PathBuf {
        self.root.join("master.key")
    }
    pub fn admin_key(&self) -> PathBuf {
        self.root.join("admin.key")
    }
    fn state_lock(&self) -> PathBuf {
        self.root.join("state.lock")
    }

    pub fn server(&self, id: &str) -> ServerFolder {
        let dir = self.root.join(id);
        ServerFolder {
            data: dir.join("data"),
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            log: dir.join("server.log"),
            dir,
        }
    }

    /// Whether dfsctl finds this cluster without being told.
    pub fn is_default(&self) -> bool {
        default_dev_dir().is_some_and(|dir| dir.canonicalize().unwrap_or(dir) == self.root)
    }

    /// Waits for its turn to change the cluster.
    pub async fn lock(&self) -> Result<Lock, CliError> {
        let path = self.state_lock();
        let started = Instant::now();
        loop {
            if let Some(lock) = try_lock(&path)? {
                return Ok(lock);
            }
            if started.elapsed() > LOCK_PATIENCE {
                return Err(conflict(format!(
                    "another dfsctl has been changing {} for more than {} seconds",
                    self.root.display(),
                    LOCK_PATIENCE.as_secs()
                )));
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    /// Makes sure that no other `up` runs on this folder, for as long as the answer is kept.
    pub fn lock_up(&self) -> Result<Lock, CliError> {
        try_lock(&self.root.join("up.lock"))?.ok_or_else(|| {
            conflict(format!("another `dfsctl dev up` is running on {}", self.root.display()))
                .with_hint("`dfsctl dev status` shows its servers, `dfsctl dev down` ends them")
        })
    }
}

/// The folder `DFSCTL_CONFIG` points into, if a dev cluster is there.
fn configured() -> Option<PathBuf> {
    let config = PathBuf::from(std::env::var_os("DFSCTL_CONFIG")?);
    let folder = std::path::absolute(config).ok()?.parent()?.to_owned();
    folder.join("plan.json").is_file().then_some(folder)
}

fn try_lock(path: &Path) -> Result<Option<Lock>, CliError> {
    let doing = || format!("locking {}", path.display());
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| CliError::io(doing(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(CliError::io(doing(), error)),
    }
}

/// Makes a folder of mode 0700, or is content with one.
pub(super) fn make_folder(path: &Path) -> Result<(), CliError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| CliError::io(format!("making {}", path.display()), error))
}

/// Replaces `path` with a file of mode 0600, all or nothing. Who writes holds the lock.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    private_file::replace(path, bytes, private_file::OWNER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn folders_and_files_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::resolve(Some(dir.path().join("a/b"))).unwrap();
        layout.prepare().unwrap();
        assert_eq!(mode(layout.root()), 0o700);
        let file = layout.admin_key();
        for text in ["one", "two"] {
            write_private(&file, text.as_bytes()).unwrap();
            assert_eq!((fs::read_to_string(&file).unwrap().as_str(), mode(&file)), (text, 0o600));
        }
        assert!(Layout::resolve(Some(dir.path().join("c"))).unwrap().existing().is_err());
    }

    #[test]
    fn a_folder_of_somebody_elses_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        let mut layout = Layout::resolve(Some(dir.path().to_owned())).unwrap();
        assert!(layout.prepare().unwrap_err().message.contains("no dev cluster's folder"));
    }

    #[tokio::test]
    async fn one_up_and_one_change_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut layout = Layout::resolve(Some(dir.path().to_owned())).unwrap();
        layout.prepare().unwrap();
        let up = layout.lock_up().unwrap();
        assert!(layout.lock_up().err().unwrap().message.contains("another `dfsctl dev up`"));
        drop(up);
        layout.lock_up().unwrap();
        let lock = layout.lock().await.unwrap();
        assert!(try_lock(&layout.state_lock()).unwrap().is_none());
        drop(lock);
        layout.lock().await.unwrap();
    }
}
