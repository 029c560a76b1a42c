//! Asking a server whether it is alive or ready, with its identity checked, as every caller does: for
//! `dfsctl dev` and for a server's own `--probe`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use dfs_types::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::dial::{Dialer, Expect};
use crate::error::{TransportError, credentials};
use crate::identity::Role;
use crate::tls::Tls;

/// A server that takes longer than this is not well.
pub const PROBE_DEADLINE: Duration = Duration::from_secs(2);
const MAX_ANSWER_BYTES: u64 = 16 * 1024;

/// What the server there answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// None: it closed the connection without an answer in HTTP/1.1.
    pub status: Option<u16>,
    /// JSON, as a rule.
    pub body: String,
}

/// `GET path`, without a credential. Ends within two seconds.
///
/// # Errors
/// Nobody is there in time, or somebody else than the server meant.
pub async fn probe(
    dialer: &Dialer,
    address: &str,
    expect: &Expect,
    path: &str,
) -> Result<Answer, TransportError> {
    timeout(PROBE_DEADLINE, get(dialer, address, expect, path)).await.unwrap_or_else(|_| {
        Err(TransportError::Deadline {
            address: address.to_owned(),
            milliseconds: PROBE_DEADLINE.as_millis() as u64,
        })
    })
}

async fn get(dialer: &Dialer, address: &str, expect: &Expect, path: &str) -> Result<Answer, TransportError> {
    let mut stream = dialer.open(address, expect, &[b"http/1.1"]).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|source| TransportError::Connect { address: address.to_owned(), source })?;
    let mut bytes = Vec::new();
    // The end may come as a reset or without TLS's goodbye: what came before it is the answer.
    let _ = stream.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes).await;
    Ok(read_answer(&bytes))
}

fn read_answer(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let status = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Answer { status, body: body.to_owned() }
}

/// Asks the server of this machine that listens at `listen` (`ip:port`), with the authority's certificate
/// in the file `ca`.
///
/// # Errors
/// As [`probe`](fn@probe), and for what is no address or no certificate.
pub async fn probe_own(
    ca: &Path,
    role: Role,
    id: NodeId,
    listen: &str,
    path: &str,
) -> Result<Answer, TransportError> {
    let pem = std::fs::read(ca).map_err(|e| credentials(&ca.display().to_string(), e))?;
    let listen = listen.parse().map_err(|_| TransportError::Address(listen.to_owned()))?;
    let dialer = Dialer::new(Tls::client(&pem, None)?);
    probe(&dialer, &own_address(listen).to_string(), &Expect::server(role, id), path).await
}

/// Where a server that listens at `listen` is reached from its own machine.
fn own_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_garbage_is_none() {
        let answer = read_answer(b"HTTP/1.1 503 X\r\ncontent-length: 2\r\n\r\n{}");
        assert_eq!(answer, Answer { status: Some(503), body: "{}".into() });
        for garbage in [&b""[..], b"\x15\x03\x03", b"HTTP/1.1 \xff\xff\xff", b"HTTP/1.1 2", b"}{"] {
            assert_eq!(read_answer(garbage).status, None);
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_on_loopback() {
        let own = |text: &str| own_address(text.parse().unwrap()).to_string();
        assert_eq!(own("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(own("[::]:80"), "[::1]:80");
        assert_eq!(own("10.0.0.1:80"), "10.0.0.1:80");
    }
}
