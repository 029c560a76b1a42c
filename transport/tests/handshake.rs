//! Real handshakes over loopback: who gets in, who is turned away, and that the server lives on.

mod bench;

use bench::{Cluster, DEADLINE, ask, metadata, node, wait};
use dfs_types::ClusterId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use transport::{Expect, ListenLimits, Role, TlsListener, TransportError};

/// Dials `server` as `client` and tells whether the handshake and one exchange went through.
/// In TLS 1.3 the client side finishes before the server has looked at its certificate, so only the
/// exchange shows a refusal by the server.
async fn check(server: &transport::Tls, client: &transport::Tls, expect: Expect) -> Result<String, String> {
    let serving = bench::who_am_i(server.clone(), ListenLimits::default()).await;
    let answer = ask(serving.address, client, expect).await;
    let still =
        ask(serving.address, &serving.good_client, Expect::any(server.identity().unwrap().role)).await;
    assert_eq!(still.as_deref(), Ok("nobody"), "the server must live on");
    serving.stop().await;
    answer
}

#[tokio::test]
async fn the_server_meant_is_accepted_and_learns_who_calls() {
    let cluster = Cluster::new(1);
    let server = cluster.server(Role::ChunkServer, "n1");
    for expect in [Expect::any(Role::ChunkServer), node("n1")] {
        let caller = cluster.server(Role::MetadataServer, "m1");
        assert_eq!(
            check(&server, &caller, expect.clone()).await.as_deref(),
            Ok("dfs://01010101-0101-0101-0101-010101010101/metadata-server/m1")
        );
        assert_eq!(check(&server, &cluster.client(), expect).await.as_deref(), Ok("nobody"));
    }
}

#[tokio::test]
async fn another_role_or_id_than_meant_is_refused_by_the_dialler() {
    let cluster = Cluster::new(1);
    let server = cluster.server(Role::ChunkServer, "n1");
    for expect in [Expect::any(Role::MetadataServer), metadata("n1"), node("n2")] {
        let error = check(&server, &cluster.client(), expect.clone()).await.unwrap_err();
        assert!(error.contains("NotValidForName"), "{expect:?}: {error}");
    }
}

#[tokio::test]
async fn a_foreign_authority_is_refused_by_both_sides() {
    // The same cluster id under another key: names alone prove nothing.
    let (ours, theirs) = (Cluster::new(1), Cluster::new(1));
    let server = ours.server(Role::ChunkServer, "n1");
    let error = check(&server, &theirs.client(), node("n1")).await.unwrap_err();
    assert!(error.contains("UnknownIssuer") || error.contains("BadSignature"), "{error}");
    // A caller that trusts our authority but shows a certificate of another.
    let impostor = ours.trusting_but_shown_by(&theirs, Role::MetadataServer, "m1");
    assert!(check(&server, &impostor, node("n1")).await.is_err());
}

#[tokio::test]
async fn another_cluster_of_the_same_authority_is_refused_by_both_sides() {
    let (one, two) = Cluster::two_of_one_authority();
    let server = one.server(Role::ChunkServer, "n1");
    let caller = two.server(Role::MetadataServer, "m1");
    assert!(check(&server, &caller, node("n1")).await.is_err());
    // Trusting both authorities, a client of the other cluster is not served by this one.
    let stranger = transport::Tls::client(one.ca_pem().as_bytes(), Some(two.id)).unwrap();
    let error = check(&server, &stranger, node("n1")).await.unwrap_err();
    assert!(error.contains("NotValidForName"), "{error}");
    let nobodys = transport::Tls::client(one.ca_pem().as_bytes(), Some(ClusterId([9; 16])));
    assert!(nobodys.is_err());
}

#[tokio::test]
async fn plaintext_silence_and_old_tls_leave_the_server_alive() {
    let cluster = Cluster::new(1);
    let limits = ListenLimits { handshake: std::time::Duration::from_millis(200), ..Default::default() };
    let serving = bench::who_am_i(cluster.server(Role::ChunkServer, "n1"), limits).await;

    let mut plain = TcpStream::connect(serving.address).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = wait(plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");

    // Says nothing: closed at the handshake deadline.
    let mut silent = TcpStream::connect(serving.address).await.unwrap();
    let _ = wait(silent.read_to_end(&mut answer)).await;

    // A ClientHello that offers TLS 1.2 only, complete and well formed.
    let mut old = TcpStream::connect(serving.address).await.unwrap();
    old.write_all(&bench::client_hello_tls12()).await.unwrap();
    answer.clear();
    let _ = wait(old.read_to_end(&mut answer)).await;
    assert_eq!(answer.first(), Some(&21), "a TLS alert: {answer:?}");

    // Goes away after a ClientHello, whole and cut in two.
    for length in [5, 40, usize::MAX] {
        let hello = bench::client_hello_tls12();
        let mut gone = TcpStream::connect(serving.address).await.unwrap();
        gone.write_all(&hello[..hello.len().min(length)]).await.unwrap();
        drop(gone);
    }
    let answer = ask(serving.address, &serving.good_client, node("n1")).await;
    assert_eq!(answer.as_deref(), Ok("nobody"));
    serving.stop().await;
}

#[tokio::test]
async fn a_peer_without_alpn_is_refused() {
    let cluster = Cluster::new(1);
    let serving = bench::who_am_i(cluster.server(Role::ChunkServer, "n1"), ListenLimits::default()).await;
    let dialer = transport::Dialer::new(cluster.client());
    let mut stream = dialer.open(&serving.address.to_string(), &node("n1"), &[]).await.unwrap();
    let _ = stream.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = wait(stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{answer:?}");
    serving.stop().await;
}

#[tokio::test]
async fn certificates_are_replaced_while_serving() {
    let cluster = Cluster::new(1);
    let server = cluster.server(Role::ChunkServer, "n1");
    let other = cluster.pems(Role::ChunkServer, "n2");
    let ca = cluster.ca_pem();
    let refused = server.replace(ca.as_bytes(), other.cert_pem.as_bytes(), other.key_pem.as_bytes());
    assert!(refused.unwrap_err().to_string().contains("another server"));
    let new = cluster.pems(Role::ChunkServer, "n1");
    server.replace(ca.as_bytes(), new.cert_pem.as_bytes(), new.key_pem.as_bytes()).unwrap();
    assert_eq!(check(&server, &cluster.client(), node("n1")).await.as_deref(), Ok("nobody"));
}

#[test]
fn unfit_material_is_refused_at_the_start() {
    let (cluster, foreign) = (Cluster::new(1), Cluster::new(2));
    let (one, two) = (cluster.pems(Role::ChunkServer, "n1"), cluster.pems(Role::ChunkServer, "n2"));
    let ca = cluster.ca_pem();
    let check = |ca: &str, cert: &str, key: &str| {
        transport::Tls::server(ca.as_bytes(), cert.as_bytes(), key.as_bytes()).map(|_| ()).unwrap_err()
    };
    for error in [
        check(&ca, &one.cert_pem, &two.key_pem),
        check(&foreign.ca_pem(), &one.cert_pem, &one.key_pem),
        check("", &one.cert_pem, &one.key_pem),
        check(&ca, "nonsense", &one.key_pem),
        check(&ca, &one.cert_pem, ""),
        check(&ca, &ca, &one.key_pem),
    ] {
        assert!(matches!(error, TransportError::Credentials(_)), "{error}");
    }
}

#[test]
fn an_authority_reads_back_what_it_wrote() {
    let cluster = Cluster::new(7);
    let again = transport::Authority::load(&cluster.ca_pem(), &cluster.ca_key()).unwrap();
    assert_eq!(again.cluster(), ClusterId([7; 16]));
    let issued = again
        .issue(&bench::identity(7, Role::ChunkServer, "n1"), &["host.example".into()], &bench::clock())
        .unwrap();
    transport::Tls::server(
        cluster.ca_pem().as_bytes(),
        issued.cert_pem.as_bytes(),
        issued.key_pem.as_bytes(),
    )
    .unwrap();
    assert!(again.issue(&bench::identity(8, Role::ChunkServer, "n1"), &[], &bench::clock()).is_err());
    assert!(
        again.issue(&bench::identity(7, Role::ChunkServer, "n1"), &["ü".into()], &bench::clock()).is_err()
    );
}

#[tokio::test]
async fn only_a_server_may_listen_and_a_taken_port_says_so() {
    let cluster = Cluster::new(1);
    let limits = ListenLimits::default();
    assert!(TlsListener::bind("127.0.0.1:0", cluster.client(), limits).await.is_err());
    let server = cluster.server(Role::ChunkServer, "n1");
    let first = TlsListener::bind("127.0.0.1:0", server.clone(), limits).await.unwrap();
    let second = TlsListener::bind(&first.local_addr().to_string(), server, limits).await;
    assert!(matches!(second.map(|_| ()), Err(TransportError::Bind { .. })));
    tokio::time::timeout(DEADLINE, async { drop(first) }).await.unwrap();
}
