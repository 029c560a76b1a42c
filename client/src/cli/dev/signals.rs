//! Being told to end: Ctrl-C, SIGTERM, or the terminal going away.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::CliError;

pub(super) struct Signals([Signal; 3]);

impl Signals {
    /// From now on these signals do not end the process by themselves.
    pub fn watch() -> Result<Self, CliError> {
        let watch = |kind| signal(kind).map_err(|error| CliError::io("watching for signals", error));
        Ok(Self([
            watch(SignalKind::interrupt())?,
            watch(SignalKind::terminate())?,
            watch(SignalKind::hangup())?,
        ]))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
