//! The handle: configuration, connections, and what is known about nodes' health.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::awake::Awake;
use crate::dial::Dials;
use crate::longest::Longest;
use crate::rpc::Rpc;
use crate::{Config, Result};

/// A handle to one cluster. Cheap to clone; all clones share connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
    /// Content one transfer through this handle may hold.
    pub(crate) memory_bytes: u64,
}

pub(crate) struct Inner {
    pub config: Config,
    pub rpc: Rpc,
    pub dials: Dials,
    pub longest: Longest,
    pub awake: Awake,
}

impl Client {
    /// Prepares a client. No server is asked yet: connections are made by the first call, and again
    /// whenever one breaks, so a client made before the cluster is up works once it is.
    ///
    /// # Errors
    /// `invalid_argument` when the configuration cannot be used.
    pub async fn connect(config: Config) -> Result<Self> {
        let longest = Longest::default();
        let awake = Awake::watch();
        let rpc = Rpc::new(&config, longest.clone(), awake.clone())?;
        let dials = Dials::new(&config)?;
        let memory_bytes = config.memory_bytes;
        Ok(Self { memory_bytes, inner: Arc::new(Inner { config, rpc, dials, longest, awake }) })
    }

    /// A client by a `dfsctl.toml`.
    pub async fn from_config_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::connect(Config::from_file(path)?).await
    }

    /// The configuration in use.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// The longest that one operation took so far, with its retries, through this handle or a clone:
    /// a call of the metadata service, a chunk made durable, or a part of a chunk read. Transfers are
    /// made of many. Precise to 1 µs; zero before the first operation.
    pub fn longest_operation(&self) -> Duration {
        self.inner.longest.get()
    }

    /// The same client with another memory bound per transfer, for programs that run many at once.
    pub fn with_memory_bytes(&self, bytes: u64) -> Self {
        Self { memory_bytes: bytes, ..self.clone() }
    }

    pub(crate) fn operation(&self) -> Duration {
        self.inner.config.operation_deadline
    }

    pub(crate) fn patience(&self) -> Duration {
        self.inner.config.transfer_patience
    }
}

/// A compile-time check: programs spawn these calls, so their futures must be able to move between threads. A put
/// once borrowed its source over a call, and no task of a multi-threaded runtime could put anything.
#[cfg(test)]
const _: fn(Client) = |client| {
    fn moves<T: Send>(_: T) {}
    moves(client.put("/b/k", crate::Source::file("f"), crate::PutOptions::default()));
    moves(client.read("/b/k"));
    moves(client.list(crate::Listing::default()));
    moves(client.delete("/b/k", crate::Condition::default(), false));
};
