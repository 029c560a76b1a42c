//! A connection that a peer opened to us, after its handshake.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::heads::{Heads, SPOILED};
use crate::identity::{Identity, PeerIdentity};
use crate::listen::Slot;
use crate::tls::identity_of;

/// Request extension under `tonic`'s own server; under [`crate::serve`](fn@crate::serve) every
/// request has [`PeerIdentity`] and axum's `ConnectInfo<SocketAddr>` as extensions of their own.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    pub identity: PeerIdentity,
    pub remote: SocketAddr,
}

/// The stream: forwards vectored writes, without which every frame would be copied once more, and looks at the
/// heads of HTTP/1 requests (`heads.rs`).
pub struct PeerStream {
    inner: TlsStream<TcpStream>,
    info: PeerInfo,
    heads: Heads,
    /// What is left to read of a connection whose head was refused.
    spoiled: Option<&'static [u8]>,
    /// Gives the place among the allowed connections back when the stream is dropped.
    _slot: Slot,
}

impl PeerStream {
    pub(crate) fn new(inner: TlsStream<TcpStream>, remote: SocketAddr, slot: Slot) -> Self {
        let certificate = inner.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity = PeerIdentity(certificate.and_then(identity_of));
        let http2 = inner.get_ref().1.alpn_protocol() == Some(b"h2");
        let info = PeerInfo { identity, remote };
        Self { inner, info, heads: Heads::new(http2), spoiled: None, _slot: slot }
    }

    pub fn identity(&self) -> Option<&Identity> {
        self.info.identity.0.as_ref()
    }

    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    /// Whether the two sides agreed on HTTP/2; otherwise it is HTTP/1.1.
    pub fn is_http2(&self) -> bool {
        self.inner.get_ref().1.alpn_protocol() == Some(b"h2")
    }
}

impl Connected for PeerStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        if this.spoiled.is_none() {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
            if let Some(at) = this.heads.check(&buffer.filled()[before..]) {
                buffer.set_filled(before + at);
                this.spoiled = Some(SPOILED);
            }
        }
        if let Some(left) = &mut this.spoiled {
            // In place of all that came; then the end.
            let (now, later) = left.split_at(left.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *left = later;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
