//! One TLS port: accepts, shakes hands beside the accept loop, and yields the connections that came
//! through. A peer that is slow, speaks something else or shows a wrong certificate costs a task
//! for at most the handshake deadline; a failed accept never ends the loop.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dfs_types::limits;
use futures::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::error::TransportError;
use crate::stream::PeerStream;
use crate::tls::Tls;

/// Finished handshakes that may wait for whoever serves them.
const READY_CONNECTIONS: usize = 64;
/// Waits after an accept that failed for want of file descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// How many connections a port holds, and how long a handshake may take.
#[derive(Clone, Copy, Debug)]
pub struct ListenLimits {
    /// All connections, those in their handshake included; one more is closed at once.
    pub connections: usize,
    /// Of them, only servers of the cluster may use the last so many.
    pub for_servers: usize,
    pub handshake: Duration,
}

impl Default for ListenLimits {
    fn default() -> Self {
        Self {
            connections: limits::MAX_CONNECTIONS,
            for_servers: limits::CONNECTIONS_FOR_SERVERS,
            handshake: Duration::from_millis(limits::HANDSHAKE_DEADLINE_MS),
        }
    }
}

impl ListenLimits {
    /// As usual, but at most half of the files that the process may open: what is behind the port needs
    /// the others, and a server that cannot open its own files for the crowd at its door is of no use.
    pub fn with_open_files(open_files: u64) -> Self {
        let usual = Self::default();
        let most = usize::try_from(open_files / 2).unwrap_or(usize::MAX);
        let connections = usual.connections.min(most);
        Self { connections, for_servers: usual.for_servers.min(connections / 2), ..usual }
    }
}

/// A connection's place among the allowed ones, given back on drop.
pub(crate) struct Slot {
    _all: OwnedSemaphorePermit,
    _anonymous: Option<OwnedSemaphorePermit>,
}

/// A bound port. As a [`Stream`] of connections it fits `tonic`'s `serve_with_incoming`;
/// [`crate::serve`](fn@crate::serve) serves an axum router (gRPC routes included) on it.
/// Dropping it closes the port.
pub struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<PeerStream>,
    accepting: AbortHandle,
}

impl TlsListener {
    /// Binds `address` (`ip:port`; port 0 picks a free one) and starts accepting.
    /// `tls` must be a server's.
    pub async fn bind(address: &str, tls: Tls, limits: ListenLimits) -> Result<Self, TransportError> {
        if tls.current().server_config().is_none() {
            return Err(TransportError::Credentials("a listener needs a server's certificate".to_owned()));
        }
        let failed = |source| TransportError::Bind { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let (sender, ready) = mpsc::channel(READY_CONNECTIONS);
        let accepting = tokio::spawn(accept_loop(listener, tls, limits, sender)).abort_handle();
        Ok(Self { address: bound, ready, accepting })
    }

    /// The address in use, with the port the system picked.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection whose handshake is done. Cancel safe.
    pub async fn accept(&mut self) -> Option<PeerStream> {
        self.ready.recv().await
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Stream for TlsListener {
    type Item = io::Result<PeerStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx).map(|stream| stream.map(Ok))
    }
}

async fn accept_loop(listener: TcpListener, tls: Tls, limits: ListenLimits, ready: mpsc::Sender<PeerStream>) {
    let all = Arc::new(Semaphore::new(limits.connections));
    let anonymous = Arc::new(Semaphore::new(limits.connections.saturating_sub(limits.for_servers)));
    let mut crowded = false;
    loop {
        let (socket, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for now");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&all).try_acquire_owned() else {
            // Once per crowd, or the log would grow with it.
            if !std::mem::replace(&mut crowded, true) {
                tracing::warn!(%remote, limit = limits.connections, "too many connections: closing new ones");
            }
            continue;
        };
        crowded = false;
        let (tls, ready, anonymous) = (tls.clone(), ready.clone(), Arc::clone(&anonymous));
        tokio::spawn(async move {
            match timeout(limits.handshake, handshake(socket, remote, &tls, permit, anonymous)).await {
                // A closed receiver means the server is going down: the connection just ends.
                Ok(Ok(stream)) => drop(ready.send(stream).await),
                Ok(Err(error)) => tracing::debug!(%remote, %error, "handshake refused"),
                Err(_) => tracing::debug!(%remote, "handshake took too long"),
            }
        });
    }
}

async fn handshake(
    socket: TcpStream,
    remote: SocketAddr,
    tls: &Tls,
    permit: OwnedSemaphorePermit,
    anonymous: Arc<Semaphore>,
) -> io::Result<PeerStream> {
    socket.set_nodelay(true)?;
    let config = tls.current().server_config().ok_or_else(|| io::Error::other("no server certificate"))?;
    let stream = TlsAcceptor::from(config).accept(socket).await?;
    let session = stream.get_ref().1;
    if session.alpn_protocol().is_none() {
        return Err(io::Error::other("the peer named no protocol (ALPN h2 or http/1.1)"));
    }
    let place = match session.peer_certificates() {
        Some(_) => None,
        None => {
            Some(anonymous.try_acquire_owned().map_err(|_| io::Error::other("too many client connections"))?)
        }
    };
    Ok(PeerStream::new(stream, remote, Slot { _all: permit, _anonymous: place }))
}

/// Whether only the connection that was about to be accepted is lost, and the next may be fine.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::ConnectionAborted | K::ConnectionReset | K::ConnectionRefused | K::Interrupted)
}
