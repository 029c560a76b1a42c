//! Channels kept by address and expected server, so that calls to the same server share one
//! connection. Bounded: when full, the channel unused for longest makes room.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dfs_types::limits::MAX_POOLED_CHANNELS;
use tonic::transport::Channel;

use crate::dial::{Dialer, Expect};
use crate::error::TransportError;

/// A cheap handle; clones share the channels.
#[derive(Clone)]
pub struct ChannelPool {
    dialer: Dialer,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    channels: BTreeMap<(String, Expect), (Channel, u64)>,
    /// Counts uses: the stamp of the latest.
    uses: u64,
}

impl ChannelPool {
    pub fn new(dialer: Dialer) -> Self {
        Self { dialer, kept: Arc::default() }
    }

    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The channel to `address`, made without connecting if there is none yet.
    pub fn get(&self, address: &str, expect: &Expect) -> Result<Channel, TransportError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.uses += 1;
        let stamp = kept.uses;
        let key = (address.to_owned(), expect.clone());
        if let Some((channel, used)) = kept.channels.get_mut(&key) {
            *used = stamp;
            return Ok(channel.clone());
        }
        let channel = self.dialer.channel(address, expect.clone())?;
        if kept.channels.len() >= MAX_POOLED_CHANNELS {
            let oldest = kept.channels.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                kept.channels.remove(&oldest);
            }
        }
        kept.channels.insert(key, (channel.clone(), stamp));
        Ok(channel)
    }

    /// Forgets the channel: calls already on it finish, the next [`ChannelPool::get`] connects anew.
    /// For a connection that still looks alive but does not answer.
    pub fn discard(&self, address: &str, expect: &Expect) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.channels.remove(&(address.to_owned(), expect.clone()));
    }

    /// Forgets all channels, after certificates were replaced.
    pub fn discard_all(&self) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).channels.clear();
    }
}
