//! Spans on their way to collectors: over TLS, with headers, with a certificate to show; and to collectors
//! that nobody should trust, that are not there, or that say nothing.
//!
//! Traces are started once in a process and by its environment, so each test runs itself again as a child
//! with the environment it wants, and looks at what the collector got and what the child said.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

const CHILD: &str = "TRACES_TEST_SPANS";
const FLUSH: Duration = Duration::from_secs(5);
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// What a child is: a program that makes so many spans and ends.
fn child() -> bool {
    let Ok(spans) = std::env::var(CHILD) else { return false };
    let spans: u32 = spans.parse().unwrap();
    match traces::layer("tested", "one") {
        Ok(layer) => {
            let log = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::stderr);
            tracing_subscriber::registry().with(layer).with(log).init();
        }
        Err(error) => {
            println!("refused: {error}");
            return true;
        }
    }
    let before = resident_kib();
    let begun = Instant::now();
    for _ in 0..spans {
        tracing::info_span!(target: "dfs_client", "asked", otel.kind = "client").in_scope(|| ());
    }
    println!("made {}", begun.elapsed().as_millis());
    let begun = Instant::now();
    traces::flush(FLUSH);
    println!("flushed {}", begun.elapsed().as_millis());
    println!("grown {}", resident_kib().saturating_sub(before));
    true
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs the test of that name as a child; gives all it printed.
fn run_child(test: &str, spans: u32, environment: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(CHILD, spans.to_string());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let printed = [&output.stdout[..], &output.stderr].concat();
    let printed = String::from_utf8(printed).unwrap();
    assert!(output.status.success(), "{printed}");
    printed
}

/// A figure that the child printed.
fn figure(printed: &str, name: &str) -> u64 {
    let line = printed.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {printed}")).parse().unwrap()
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// TLS of a server with a certificate of ours, which may want one of ours from who calls.
    fn server(&self, wants_certificate: bool) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
        let builder = match wants_certificate {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
                let roots = Arc::new(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (certificate, key) = self.issue();
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }

    /// Certificate and key, PEM.
    fn issue(&self) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn listen() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Names of spans, each with the header `authorization` of its call.
type Got = Vec<(String, Option<String>)>;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Got>>);

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let header = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let spans = request.into_inner().resource_spans.into_iter();
        let spans = spans.flat_map(|of| of.scope_spans).flat_map(|scope| scope.spans);
        self.0.lock().unwrap().extend(spans.map(|span| (span.name, header.clone())));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector with a certificate; ends when it is dropped.
struct Collector {
    address: SocketAddr,
    kept: Kept,
    _runtime: Runtime,
}

impl Collector {
    fn start(authority: &Authority, wants_certificate: bool) -> Self {
        let (listener, plain) = (listen(), listen());
        let address = listener.local_addr().unwrap();
        let kept = Kept::default();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tls = TlsAcceptor::from(Arc::new(authority.server(wants_certificate)));
        let router = Server::builder().add_service(TraceServiceServer::new(kept.clone()));
        let behind = plain.local_addr().unwrap();
        runtime.spawn(async move {
            let plain = TcpListenerStream::new(tokio::net::TcpListener::from_std(plain).unwrap());
            router.serve_with_incoming(plain).await
        });
        // TLS ends here, as at a collector behind a proxy.
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let tls = tls.clone();
                tokio::spawn(async move {
                    let mut outside = tls.accept(socket).await?;
                    let mut inside = tokio::net::TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut outside, &mut inside).await
                });
            }
        });
        Self { address, kept, _runtime: runtime }
    }

    fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    fn got(&self) -> Got {
        std::mem::take(&mut *self.kept.0.lock().unwrap())
    }
}

fn file(folder: &Path, name: &str, text: &str) -> String {
    let path: PathBuf = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn one(header: Option<&str>) -> Got {
    vec![("asked".to_owned(), header.map(str::to_owned))]
}

#[test]
fn spans_go_over_tls_with_headers() {
    if child() {
        return;
    }
    let run = |environment: &[(&str, &str)]| run_child("spans_go_over_tls_with_headers", 1, environment);
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let collector = Collector::start(&authority, false);
    let ca = file(folder.path(), "ca.pem", &authority.pem);
    for host in ["localhost", "127.0.0.1"] {
        let url = collector.url(host);
        let printed = run(&[
            (traces::ENDPOINT, &url),
            (traces::CERTIFICATE, &ca),
            (HEADERS, "authorization=Bearer%20hush"),
        ]);
        assert_eq!(collector.got(), one(Some("Bearer hush")), "{printed}");
        assert!(!printed.contains("hush"), "{printed}");
    }
    let url = collector.url("localhost");
    let printed = run(&[(traces::ENDPOINT, &url)]);
    assert!(printed.contains("refused: no traces: an https:// collector needs"), "{printed}");
    // Without TLS the same port gets nothing out of us.
    let plain = url.replace("https", "http");
    let printed = run(&[(traces::ENDPOINT, &plain)]);
    assert!(printed.contains("traces cannot be sent"), "{printed}");
    assert_eq!(collector.got(), []);
}

#[test]
fn a_collector_of_another_authority_gets_nothing() {
    if child() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start(&Authority::new(), false);
    let ca = file(folder.path(), "ca.pem", &Authority::new().pem);
    let environment = [(traces::ENDPOINT, &*collector.url("localhost")), (traces::CERTIFICATE, &ca)];
    let printed = run_child("a_collector_of_another_authority_gets_nothing", 1, &environment);
    assert!(printed.contains("traces cannot be sent") && printed.contains("certificate"), "{printed}");
    assert_eq!(collector.got(), []);
}

#[test]
fn a_collector_may_want_a_certificate() {
    if child() {
        return;
    }
    let run = |environment: &[(&str, &str)]| run_child("a_collector_may_want_a_certificate", 1, environment);
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let collector = Collector::start(&authority, true);
    let (certificate, key) = authority.issue();
    let (ca, certificate, key) = (
        file(folder.path(), "ca.pem", &authority.pem),
        file(folder.path(), "cert.pem", &certificate),
        file(folder.path(), "key.pem", &key),
    );
    let url = collector.url("localhost");
    let without = [(traces::ENDPOINT, &*url), (traces::CERTIFICATE, &*ca)];
    let printed = run(&without);
    assert!(printed.contains("traces cannot be sent"), "{printed}");
    assert_eq!(collector.got(), []);
    let shown = [(traces::CLIENT_CERTIFICATE, &*certificate), (traces::CLIENT_KEY, &*key)];
    let printed = run(&[without, shown].concat());
    assert_eq!(collector.got(), one(None), "{printed}");
}

/// One that refuses connections, and one that takes them and says nothing, which is worse.
#[test]
fn a_collector_that_is_down_costs_neither_memory_nor_time() {
    if child() {
        return;
    }
    const SPANS: u32 = 200_000;
    let folder = tempfile::tempdir().unwrap();
    let ca = file(folder.path(), "ca.pem", &Authority::new().pem);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().map(|address| (silent, address.port())).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // Who refuses is given up at once; whoever says nothing, at the end of the time for it.
    for (port, patience) in [(free, FLUSH), (silent.1, FLUSH + Duration::from_secs(2))] {
        let url = format!("https://127.0.0.1:{port}");
        let environment = [(traces::ENDPOINT, &*url), (traces::CERTIFICATE, &*ca)];
        let test = "a_collector_that_is_down_costs_neither_memory_nor_time";
        let printed = run_child(test, SPANS, &environment);
        println!("{printed}");
        assert!(printed.contains("traces cannot be sent") || port == silent.1, "{printed}");
        // All spans kept would be more than a hundred MiB.
        assert!(figure(&printed, "grown") < 48 << 10, "{printed}");
        assert!(figure(&printed, "made") < 20_000, "{printed}");
        let flushed = Duration::from_millis(figure(&printed, "flushed"));
        assert!(flushed < patience, "{printed}");
    }
}
