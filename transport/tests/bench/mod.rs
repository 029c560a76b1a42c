//! Test bench: clusters with certificates, a server that tells callers who they are, and callers.
#![allow(dead_code)]

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use dfs_types::{ClusterId, NodeId, SystemClock};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tower::ServiceExt;
use transport::{
    Authority, Dialer, Expect, Identity, Issued, ListenLimits, PeerIdentity, Role, ServeOptions, Tls,
    TlsListener, serve,
};

pub const DEADLINE: Duration = Duration::from_secs(20);

/// Awaits with a bound, so that a hang is a failure with a place.
#[track_caller]
pub fn wait<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(DEADLINE, work).await {
            Ok(done) => done,
            Err(_) => panic!("no end in sight at {place}"),
        }
    }
}

pub fn clock() -> SystemClock {
    SystemClock::new()
}

pub fn identity(cluster: u8, role: Role, id: &str) -> Identity {
    Identity::new(ClusterId([cluster; 16]), role, NodeId::new(id).unwrap())
}

pub fn node(id: &str) -> Expect {
    Expect::server(Role::ChunkServer, NodeId::new(id).unwrap())
}

pub fn metadata(id: &str) -> Expect {
    Expect::server(Role::MetadataServer, NodeId::new(id).unwrap())
}

/// A cluster's authority, and another whose key it uses, if two clusters share one.
pub struct Cluster {
    pub id: ClusterId,
    authority: Authority,
    byte: u8,
    /// Of the cluster that made the key, where it is shared.
    trusted: String,
}

impl Cluster {
    pub fn new(byte: u8) -> Self {
        let id = ClusterId([byte; 16]);
        let authority = Authority::create(id, &clock()).unwrap();
        let trusted = authority.cert_pem().to_owned();
        Self { id, authority, byte, trusted }
    }

    /// Two clusters that trust one set of roots: each other's.
    pub fn two_of_one_authority() -> (Self, Self) {
        let (mut one, mut two) = (Self::new(1), Self::new(2));
        one.trusted = format!("{}{}", one.authority.cert_pem(), two.authority.cert_pem());
        two.trusted = format!("{}{}", two.authority.cert_pem(), one.authority.cert_pem());
        (one, two)
    }

    pub fn ca_pem(&self) -> String {
        self.trusted.clone()
    }

    pub fn ca_key(&self) -> String {
        self.authority.key_pem()
    }

    pub fn pems(&self, role: Role, id: &str) -> Issued {
        self.authority.issue(&identity(self.byte, role, id), &[], &clock()).unwrap()
    }

    pub fn server(&self, role: Role, id: &str) -> Tls {
        let own = self.pems(role, id);
        Tls::server(self.trusted.as_bytes(), own.cert_pem.as_bytes(), own.key_pem.as_bytes()).unwrap()
    }

    pub fn client(&self) -> Tls {
        Tls::client(self.trusted.as_bytes(), None).unwrap()
    }

    /// Trusts this cluster's authority and another's, and shows a certificate of the other.
    pub fn trusting_but_shown_by(&self, other: &Self, role: Role, id: &str) -> Tls {
        let both = format!("{}{}", other.trusted, self.trusted);
        let own = other.pems(role, id);
        Tls::server(both.as_bytes(), own.cert_pem.as_bytes(), own.key_pem.as_bytes()).unwrap()
    }
}

pub struct Serving {
    pub address: SocketAddr,
    pub good_client: Tls,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    pub async fn stop(self) {
        let _ = self.stop.send(());
        wait(self.task).await.unwrap();
    }
}

/// The caller's identity, or `nobody`.
pub async fn who(Extension(peer): Extension<PeerIdentity>) -> String {
    peer.0.map_or("nobody".to_owned(), |identity| identity.uri())
}

pub async fn who_am_i(tls: Tls, limits: ListenLimits) -> Serving {
    start(tls, limits, Router::new().route("/who", get(who))).await
}

pub async fn start(tls: Tls, limits: ListenLimits, router: Router) -> Serving {
    start_with(tls, limits, router, ServeOptions::default()).await
}

pub async fn start_with(tls: Tls, limits: ListenLimits, router: Router, options: ServeOptions) -> Serving {
    let ca = tls.ca_pem();
    let listener = TlsListener::bind("127.0.0.1:0", tls, limits).await.unwrap();
    start_on(listener, Tls::client(&ca, None).unwrap(), router, options)
}

pub fn start_on(listener: TlsListener, good_client: Tls, router: Router, options: ServeOptions) -> Serving {
    let address = listener.local_addr();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopped.await;
    };
    Serving { address, good_client, stop, task: tokio::spawn(serve(listener, router, shutdown, options)) }
}

/// `GET /who` over HTTP/2 on a channel of the dialler.
pub fn ask(
    address: SocketAddr,
    tls: &Tls,
    expect: Expect,
) -> impl Future<Output = Result<String, String>> + use<> {
    let channel = Dialer::new(tls.clone()).channel(&address.to_string(), expect);
    async move { ask_on(channel.map_err(|e| e.to_string())?).await }
}

pub async fn ask_on(channel: Channel) -> Result<String, String> {
    let request = http::Request::get("/who").body(tonic::body::Body::empty()).unwrap();
    let response = wait(channel.oneshot(request)).await.map_err(|e| format!("{e:?}"))?;
    let body = wait(response.into_body().collect()).await.map_err(|e| format!("{e:?}"))?;
    String::from_utf8(body.to_bytes().to_vec()).map_err(|e| e.to_string())
}

/// The same over HTTP/1.1.
pub async fn ask_http1(address: SocketAddr, tls: &Tls) -> Result<String, String> {
    let dialer = Dialer::new(tls.clone());
    let expect = Expect::any(Role::ChunkServer);
    let stream =
        dialer.open(&address.to_string(), &expect, &[b"http/1.1"]).await.map_err(|e| e.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    tokio::spawn(connection);
    let request = http::Request::get("/who").header("host", "x").body(Empty::<bytes::Bytes>::new()).unwrap();
    let response = wait(sender.send_request(request)).await.map_err(|e| e.to_string())?;
    let body = wait(response.into_body().collect()).await.map_err(|e| e.to_string())?;
    String::from_utf8(body.to_bytes().to_vec()).map_err(|e| e.to_string())
}

/// A well-formed ClientHello of TLS 1.2: one record, one cipher, no extension that names TLS 1.3.
pub fn client_hello_tls12() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.push(0); // no session
    body.extend([0, 2, 0xc0, 0x2b]); // ECDHE_ECDSA_AES128_GCM_SHA256
    body.extend([1, 0]); // no compression
    let extensions = [
        0, 10, 0, 4, 0, 2, 0, 29, // groups: x25519
        0, 13, 0, 4, 0, 2, 4, 3, // signatures: ecdsa_secp256r1_sha256
    ];
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut handshake = vec![1, 0];
    handshake.extend((body.len() as u16).to_be_bytes());
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((handshake.len() as u16).to_be_bytes());
    record.extend(handshake);
    record
}
