//! The end of a server: SIGTERM or SIGINT asks for a graceful one, a second signal ends the process
//! where it stands (which every store must survive anyway).

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit status after a second signal: 128 + SIGINT, as shells say it.
const IMPATIENT_EXIT: i32 = 130;

/// A cheap handle. The token it holds is what every part of the server waits for.
#[derive(Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Without signals: for tests and for servers inside another process.
    pub fn manual() -> Self {
        Self::default()
    }

    /// Listens to SIGTERM and SIGINT from here on.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::default();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // A file that may not grow further (`ulimit -f`) is an error of the write, not the end of the process.
        // Once taken, a signal never has its default effect again.
        drop(signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        let token = shutdown.token.clone();
        tokio::spawn(async move {
            let name = either(&mut terminate, &mut interrupt).await;
            tracing::info!(signal = name, "stopping");
            token.cancel();
            let name = either(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = name, "stopping at once");
            std::process::exit(IMPATIENT_EXIT);
        });
        Ok(shutdown)
    }

    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Asks for the end, as a signal would.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Ready once the end was asked for.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Calls `reload` at each SIGHUP until shutdown: for certificates and what else can change in place.
pub fn on_hangup(shutdown: &Shutdown, mut reload: impl FnMut() + Send + 'static) -> std::io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let token = shutdown.token();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                received = hangup.recv() => match received {
                    Some(()) => reload(),
                    None => return,
                },
            }
        }
    });
    Ok(())
}
