//! TLS to a collector, by the variables every OpenTelemetry program knows. A collector belongs to no
//! cluster, so this is the ordinary TLS of servers with host names (1.3), not that of `transport`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dfs_types::limits::{TRACE_HANDSHAKE_MS, TRACE_PEM_BYTES};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// A PEM file of the authorities that the collector's certificate may come from. Required for `https://`:
/// the system's own are not looked for, as images have none; where they are wanted, name their file.
pub const CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CERTIFICATE";
/// PEM files of the certificate to show and its key, both or neither.
pub const CLIENT_CERTIFICATE: &str = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE";
pub const CLIENT_KEY: &str = "OTEL_EXPORTER_OTLP_CLIENT_KEY";

/// Of `https://` without a port.
const USUAL_PORT: u16 = 443;

/// Whom to trust, and what to show.
pub(crate) struct Tls(Arc<ClientConfig>);

impl Tls {
    /// # Errors
    /// Which variable or file will not do, and why.
    pub(crate) fn from_environment() -> Result<Self, String> {
        Self::from(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    fn from(path_of: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, String> {
        let Some(path) = path_of(CERTIFICATE) else {
            return Err(format!(
                "an https:// collector needs {CERTIFICATE}, a PEM file with the authority of its certificate \
                 (such as /etc/ssl/certs/ca-certificates.crt)"
            ));
        };
        let mut roots = RootCertStore::empty();
        // A system's bundle may hold one that rustls has no use for.
        let (added, _) = roots.add_parsable_certificates(certificates(CERTIFICATE, &path)?);
        if added == 0 {
            return Err(format!("{CERTIFICATE}: {} holds no authority", path.display()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut config = match (path_of(CLIENT_CERTIFICATE), path_of(CLIENT_KEY)) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain = certificates(CLIENT_CERTIFICATE, &certificate)?;
                // What is wrong with a key is not repeated: it might quote it.
                let secret = PrivateKeyDer::from_pem_slice(&read(CLIENT_KEY, &key)?)
                    .map_err(|_| format!("{CLIENT_KEY}: {} holds no private key in PEM", key.display()))?;
                builder
                    .with_client_auth_cert(chain, secret)
                    .map_err(|error| format!("{CLIENT_CERTIFICATE} and {CLIENT_KEY}: {error}"))?
            }
            _ => {
                return Err(format!(
                    "{CLIENT_CERTIFICATE} and {CLIENT_KEY} go together: set both or neither"
                ));
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self(Arc::new(config)))
    }

    /// Connects when something is to be sent, and again after a connection broke.
    pub(crate) fn channel(self, url: &str, limit: Duration) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
        let host = endpoint.uri().host().ok_or("it names no host")?.to_owned();
        let address =
            (host.trim_matches(['[', ']']).to_owned(), endpoint.uri().port_u16().unwrap_or(USUAL_PORT));
        let name = ServerName::try_from(address.0.clone()).map_err(|error| format!("{host}: {error}"))?;
        let connector = TlsConnector::from(self.0);
        let connect = tower::service_fn(move |_| {
            let (address, name, connector) = (address.clone(), name.clone(), connector.clone());
            let attempt = async move {
                let socket = TcpStream::connect(address).await?;
                connector.connect(name, socket).await.map(TokioIo::new)
            };
            async {
                let limit = Duration::from_millis(TRACE_HANDSHAKE_MS);
                timeout(limit, attempt)
                    .await
                    .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
            }
        });
        Ok(endpoint.timeout(limit).connect_with_connector_lazy(connect))
    }
}

fn certificates(variable: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(&read(variable, path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("{variable}: {} does not read as PEM: {error}", path.display()))?;
    match found.is_empty() {
        true => Err(format!("{variable}: {} holds no certificate in PEM", path.display())),
        false => Ok(found),
    }
}

fn read(variable: &str, path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(TRACE_PEM_BYTES + 1).read_to_end(&mut text))
        .map_err(|error| format!("{variable}: {}: {error}", path.display()))?;
    match text.len() as u64 > TRACE_PEM_BYTES {
        true => Err(format!("{variable}: {} is longer than {TRACE_PEM_BYTES} bytes", path.display())),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Variable, the name of the file that it names, and what is in it, if it is there.
    type File<'a> = (&'a str, &'a str, Option<&'a str>);

    fn refusal(files: &[File<'_>]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        for (_, name, text) in files {
            if let Some(text) = text {
                std::fs::write(dir.path().join(name), text).unwrap();
            }
        }
        let path_of = |wanted: &str| {
            let (_, name, _) = files.iter().find(|(variable, ..)| *variable == wanted)?;
            Some(dir.path().join(name))
        };
        Tls::from(path_of).err()
    }

    #[test]
    fn what_will_not_do_is_named() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        let authority = (CERTIFICATE, "ca.pem", Some(certificate.as_str()));
        let shown = (CLIENT_CERTIFICATE, "cert.pem", Some(certificate.as_str()));
        assert_eq!(refusal(&[authority]), None);
        assert_eq!(refusal(&[authority, shown, (CLIENT_KEY, "key.pem", Some(&key))]), None);

        let long = "x".repeat(usize::try_from(TRACE_PEM_BYTES).unwrap() + 1);
        let refused: &[(&[File<'_>], &str)] = &[
            (&[], "needs OTEL_EXPORTER_OTLP_CERTIFICATE"),
            (&[(CERTIFICATE, "ca.pem", None)], "ca.pem: No such file"),
            (&[(CERTIFICATE, "ca.pem", Some(""))], "holds no certificate"),
            (&[(CERTIFICATE, "ca.pem", Some(&key))], "holds no certificate"),
            (&[(CERTIFICATE, "ca.pem", Some(&certificate[..100]))], "ca.pem"),
            (&[(CERTIFICATE, "ca.pem", Some(&long))], "longer than"),
            (&[authority, shown], "go together"),
            (&[authority, (CLIENT_KEY, "key.pem", Some(&key))], "go together"),
            (&[authority, shown, (CLIENT_KEY, "key.pem", Some(&certificate))], "no private key"),
        ];
        for (files, why) in refused {
            let error = refusal(files).unwrap();
            assert!(error.contains(why), "{error}");
        }
    }
}
