//! Calling a server: resolves its address anew at each connect (a restarted pod has another IP),
//! and gives up unless the certificate there is of the server meant.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dfs_types::{NodeId, limits};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::error::TransportError;
use crate::identity::{Identity, Role};
use crate::tls::Tls;

/// The server a caller means; the cluster is always the caller's own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Expect {
    pub role: Role,
    /// `None`: any server of the role, for callers who know only addresses.
    pub id: Option<NodeId>,
}

impl Expect {
    pub fn any(role: Role) -> Self {
        Self { role, id: None }
    }

    pub fn server(role: Role, id: NodeId) -> Self {
        Self { role, id: Some(id) }
    }

    pub(crate) fn admits(&self, identity: &Identity) -> bool {
        identity.role == self.role && self.id.as_ref().is_none_or(|id| *id == identity.id)
    }
}

/// Opens connections with this process's certificates. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    tls: Tls,
    deadline: Duration,
}

impl Dialer {
    /// Connects within five seconds or not at all: resolving, TCP and handshake together.
    pub fn new(tls: Tls) -> Self {
        Self { tls, deadline: Duration::from_millis(limits::CONNECT_DEADLINE_MS) }
    }

    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// A channel to `address` (`host:port`) that connects with its first call, and again after a
    /// connection broke; each failed attempt fails the calls that waited for it as unavailable.
    pub fn channel(&self, address: &str, expect: Expect) -> Result<Channel, TransportError> {
        let dialer = self.clone();
        let target: Arc<str> = address.into();
        let connector = service_fn(move |_: Uri| {
            let (dialer, target, expect) = (dialer.clone(), Arc::clone(&target), expect.clone());
            async move { dialer.open(&target, &expect, &[b"h2"]).await.map(TokioIo::new) }
        });
        Ok(endpoint(address)?.connect_with_connector_lazy(connector))
    }

    /// One TLS connection to the server meant, for callers with a protocol of their own
    /// (`http/1.1` over hyper, say). `alpn` lists what the caller speaks, best first.
    pub async fn open(
        &self,
        address: &str,
        expect: &Expect,
        alpn: &[&[u8]],
    ) -> Result<TlsStream<TcpStream>, TransportError> {
        let config = self.tls.current().client_config(expect, alpn)?;
        let attempt = async {
            let socket = connect_tcp(address).await?;
            socket.set_nodelay(true)?;
            // Never looked at (see `verify`) and never sent; the API wants a name all the same.
            let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([127, 0, 0, 1])));
            TlsConnector::from(Arc::new(config)).connect(name, socket).await
        };
        match timeout(self.deadline, attempt).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(source)) => Err(TransportError::Connect { address: address.to_owned(), source }),
            Err(_) => Err(TransportError::Deadline {
                address: address.to_owned(),
                milliseconds: self.deadline.as_millis() as u64,
            }),
        }
    }
}

/// Tries the addresses a name has in turn; one that does not answer costs two seconds at most.
async fn connect_tcp(address: &str) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = lookup_host(address).await?.collect();
    let each = Duration::from_millis(limits::CONNECT_ATTEMPT_DEADLINE_MS);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(each, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{address} does not answer")),
        }
    }
    Err(last)
}

fn endpoint(address: &str) -> Result<Endpoint, TransportError> {
    let wrong = || TransportError::Address(address.to_owned());
    let uri: Uri = format!("https://{address}").parse().map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    if authority.as_str() != address || authority.port_u16().is_none() || address.contains('@') {
        return Err(wrong());
    }
    Ok(Endpoint::from(uri)
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::HTTP2_MAX_FRAME_BYTES)
        .http2_max_header_list_size(limits::MAX_HEADER_LIST_BYTES)
        .http2_keep_alive_interval(Duration::from_millis(limits::KEEPALIVE_INTERVAL_MS))
        .keep_alive_timeout(Duration::from_millis(limits::KEEPALIVE_TIMEOUT_MS))
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["127.0.0.1:80", "[::1]:80", "metadata-0.metadata:8080"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", "localhost", "localhost:", "localhost:99999", "a b:80", "host:80/path", "u@host:80"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }
}
