//! Told when a database finds its own files corrupt while it runs: a block, blob or log record whose
//! checksum is wrong. An I/O error is none of it, the disk may answer later.
//!
//! Found while the directory is opened, the same is decided in `raft/open.rs`.

use rocksdb::ErrorKind;
use tokio::sync::watch;

/// A handle; clones share the finding.
#[derive(Clone)]
pub struct Damage(watch::Sender<Option<String>>);

impl Default for Damage {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Damage {
    /// Takes note if the error says that bytes are wrong. The first finding stays.
    pub fn note(&self, error: &rocksdb::Error) {
        if error.kind() != ErrorKind::Corruption {
            return;
        }
        self.0.send_if_modified(|found| {
            let first = found.is_none();
            if first {
                tracing::error!(%error, "this server's own database is damaged");
                *found = Some(error.to_string());
            }
            first
        });
    }

    pub fn watch(&self) -> watch::Receiver<Option<String>> {
        self.0.subscribe()
    }
}
