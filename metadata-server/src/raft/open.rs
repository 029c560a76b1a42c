//! Opening a data directory, and deciding whether what is in it may still vote.
//!
//! A member whose log is shorter than its witness says, whose log and state leave a gap between
//! them, or whose identity marks do not agree has lost something it may have acknowledged. It must never
//! vote under that id again: its files are moved to `damaged/`, and the directory is formatted anew
//! with another raft id. Such a blank member waits until it is added (`dfsctl cluster members add`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::LogIdOptionExt;
use tokio::sync::mpsc;

use super::api::RaftSettings;
use super::files;
use super::identity::{DirectoryLock, Identity, IdentityError};
use super::log_store::{LogError, LogStore, RawLog};
use super::machine::Machine;
use super::slots::{Slots, Witness};
use super::state_store::{StateError, StateStore};
use crate::kv::StoreOptions;

/// Written by a running member that found out about its own loss.
const LOST_MARK: &str = "lost";
const DAMAGED: &str = "damaged";
/// Everything that belongs to one raft id.
const PARTS: [&str; 6] = ["log", "slots", "state", "snapshots", "incoming", LOST_MARK];

pub struct Opened {
    pub identity: Identity,
    pub log: LogStore,
    pub state: Arc<StateStore>,
    /// What both databases share.
    pub options: StoreOptions,
    /// Yields None when both databases are closed and the directory is free.
    pub closed: mpsc::Receiver<()>,
}

/// The server must not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("data directory {0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("data directory {0} is in use by another process")]
    InUse(PathBuf),
    #[error("data directory {dir} belongs to member {found:?}, not {wanted:?}")]
    Foreign { dir: PathBuf, found: String, wanted: String },
    #[error("data directory {0} belongs to another cluster")]
    ForeignCluster(PathBuf),
    #[error("data directory {0}: {1}")]
    Identity(PathBuf, IdentityError),
    #[error("data directory {0}: {1}")]
    Refused(PathBuf, String),
}

/// Why the present content is given up, or why the server must not start.
enum Trouble {
    Lost(String),
    Refuse(String),
}

fn of_rocks(what: &str, error: &rocksdb::Error) -> Trouble {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => Trouble::Lost(format!("{what}: {error}")),
        // A disk that does not answer may answer later; its content is not given up for that.
        _ => Trouble::Refuse(format!("{what}: {error}")),
    }
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Rocks(error) => of_rocks("log", &error),
            LogError::Damaged(why) => Trouble::Lost(format!("log: {why}")),
        }
    }
}

impl From<StateError> for Trouble {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Rocks(error) => of_rocks("state", &error),
            StateError::Io(error) => Trouble::Refuse(format!("state: {error}")),
            StateError::Kv(error) => Trouble::Lost(format!("state: {error}")),
            StateError::Damaged(why) | StateError::Apply(why) => Trouble::Lost(why),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Refuse(error.to_string())
    }
}

/// Opens or formats `settings.data_dir`. Blocks.
pub fn open(settings: &RaftSettings, machine: Arc<dyn Machine>) -> Result<Opened, OpenError> {
    let dir = settings.data_dir.as_path();
    let failed = |error| OpenError::Io(dir.to_owned(), error);
    make_private(dir).map_err(failed)?;
    let (lock, closed) =
        DirectoryLock::take(dir).map_err(failed)?.ok_or_else(|| OpenError::InUse(dir.to_owned()))?;
    let lock = Arc::new(lock);
    // Before the databases need room: a disk that is nearly full gets back the ballast.
    settings.space.look().map_err(failed)?;
    let mut options = StoreOptions::new(settings.compression, settings.block_cache_bytes);
    let fresh = !PARTS.iter().any(|part| dir.join(part).exists());
    let found = match Identity::read(dir) {
        Ok(Some(identity)) => {
            if identity.name != settings.name {
                return Err(OpenError::Foreign {
                    dir: dir.to_owned(),
                    found: identity.name,
                    wanted: settings.name.clone(),
                });
            }
            if identity.cluster != *settings.cluster.as_bytes() {
                return Err(OpenError::ForeignCluster(dir.to_owned()));
            }
            open_parts(dir, &options, settings, &identity, Arc::clone(&machine), Arc::clone(&lock))
                .map(|parts| Some((identity, parts)))
        }
        Ok(None) if fresh => Ok(None),
        Ok(None) => Err(Trouble::Lost("the identity file is missing".into())),
        Err(IdentityError::Damaged) => Err(Trouble::Lost("the identity file is damaged".into())),
        Err(error) => return Err(OpenError::Identity(dir.to_owned(), error)),
    };
    let opened = match found {
        Ok(opened) => opened,
        Err(Trouble::Refuse(why)) => return Err(OpenError::Refused(dir.to_owned(), why)),
        Err(Trouble::Lost(why)) => {
            tracing::error!(
                why,
                "this member lost what it may have acknowledged: it starts blank with a new raft id and waits to \
                 be added again"
            );
            set_aside(dir).map_err(failed)?;
            // What was found in the old databases is not said of the new ones.
            options = StoreOptions::new(settings.compression, settings.block_cache_bytes);
            None
        }
    };
    let (identity, (log, state)) = match opened {
        Some(opened) => opened,
        None => format(dir, &options, settings, machine, lock).map_err(|trouble| match trouble {
            Trouble::Lost(why) | Trouble::Refuse(why) => OpenError::Refused(dir.to_owned(), why),
        })?,
    };
    Ok(Opened { identity, log, state, options, closed })
}

type Parts = (LogStore, Arc<StateStore>);

fn format(
    dir: &Path,
    options: &StoreOptions,
    settings: &RaftSettings,
    machine: Arc<dyn Machine>,
    lock: Arc<DirectoryLock>,
) -> Result<(Identity, Parts), Trouble> {
    let identity = Identity::draw(&settings.name, settings.cluster);
    let raft_id = identity.raft_id;
    let raw = RawLog::create(&dir.join("log"), options, raft_id)?;
    let slots = Slots::create(&dir.join("slots"), Witness { raft_id, ..Default::default() })?;
    let state = StateStore::create(dir, options, raft_id, machine, lock)?;
    files::sync_dir(dir)?;
    // Last: without it nothing above counts.
    identity.write(dir)?;
    let log = LogStore::new(raw, slots, Arc::clone(&state) as _, Arc::clone(&settings.space))?;
    Ok((identity, (log, state)))
}

fn open_parts(
    dir: &Path,
    options: &StoreOptions,
    settings: &RaftSettings,
    identity: &Identity,
    machine: Arc<dyn Machine>,
    lock: Arc<DirectoryLock>,
) -> Result<Parts, Trouble> {
    let lost = |why: String| Err(Trouble::Lost(why));
    if dir.join(LOST_MARK).exists() {
        let why = fs::read_to_string(dir.join(LOST_MARK)).unwrap_or_default();
        return lost(format!("it found out while it ran: {why}"));
    }
    for part in ["log", "slots", "state"] {
        if !dir.join(part).exists() {
            return lost(format!("{part} is missing"));
        }
    }
    let Some((slots, witness)) = Slots::open(&dir.join("slots"))? else {
        return lost("both slots of the witness file are damaged".into());
    };
    let raw = RawLog::open(&dir.join("log"), options)?;
    if raw.raft_id()? != Some(identity.raft_id) || witness.raft_id != identity.raft_id {
        return lost("the log, its witness and the identity file do not belong together".into());
    }
    raw.verify()?;
    let bounds = raw.bounds()?;
    if witness.vote.is_some_and(|vote| bounds.vote.is_none_or(|kept| kept < vote)) {
        return lost(format!("the log forgot the vote {:?}: it has {:?}", witness.vote, bounds.vote));
    }
    if witness.last > bounds.last {
        return lost(format!("the log ends at {:?}, but ended at {:?}", bounds.last, witness.last));
    }
    let state = StateStore::open(dir, options, identity.raft_id, machine, lock)?;
    let (applied, _) = state.applied_state()?;
    // The log must begin at or before what is to be applied next. It may end before it: a snapshot
    // was installed and the crash came before the purge.
    let begins = raw.first()?.map_or(bounds.purged.next_index(), |first| first.index);
    if begins > applied.next_index() && (bounds.purged.is_some() || begins > 0) {
        return lost(format!("the log begins at {begins}, but the state ends at {applied:?}"));
    }
    if let Some(applied) = applied
        && let Some(there) = raw.entry_id(applied.index)?
        && there != applied
    {
        return lost(format!("entry {there} of the log contradicts the applied entry {applied}"));
    }
    let log = LogStore::new(raw, slots, Arc::clone(&state) as _, Arc::clone(&settings.space))?;
    Ok((log, state))
}

/// Moves what is there to `damaged/`, for people to look at; the one before goes.
fn set_aside(dir: &Path) -> io::Result<()> {
    // First: from here on the rest counts for nothing, wherever a crash comes.
    Identity::remove(dir)?;
    let damaged = dir.join(DAMAGED);
    files::remove_tree(&damaged)?;
    fs::create_dir(&damaged)?;
    for part in PARTS {
        match fs::rename(dir.join(part), damaged.join(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    files::sync_dir(&damaged)?;
    files::sync_dir(dir)
}

/// Makes sure that this raft id never votes again, even if the process ends right now.
pub fn mark_lost(dir: &Path, why: &str) -> io::Result<()> {
    files::replace(dir, LOST_MARK, why.as_bytes())
}

fn make_private(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}
