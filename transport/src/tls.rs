//! The certificates of this process, loaded and checked once, and replaceable while it runs:
//! connections made after [`Tls::replace`] use the new ones, those already open stay as they are.

use std::fmt;
use std::sync::{Arc, RwLock};

use dfs_types::ClusterId;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;

use crate::dial::Expect;
use crate::error::{TransportError, credentials};
use crate::identity::{Identity, Role, authority_cluster};
use crate::verify::{ClientIdentityVerifier, ServerIdentityVerifier};

/// A cheap handle, shared by the listener and the dialler of a process.
#[derive(Clone)]
pub struct Tls {
    loaded: Arc<RwLock<Arc<Loaded>>>,
}

pub(crate) struct Loaded {
    pub cluster: ClusterId,
    pub identity: Option<Identity>,
    ca_pem: Vec<u8>,
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    own: Option<Own>,
}

/// A server's chain and key, as rustls wants them for each direction.
struct Own {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    server: Arc<ServerConfig>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.identity() {
            Some(identity) => write!(f, "Tls({identity})"),
            None => write!(f, "Tls(client of {})", self.cluster()),
        }
    }
}

impl Tls {
    /// For a server: it learns its cluster and its name from its own certificate, which must be of
    /// the given authority and go with the key.
    pub fn server(ca_pem: &[u8], cert_pem: &[u8], key_pem: &[u8]) -> Result<Self, TransportError> {
        Ok(Self::from_loaded(Loaded::server(ca_pem, cert_pem, key_pem)?))
    }

    /// For a client, which has no certificate. Without `cluster` the authority's certificate must
    /// name its cluster, as ours do.
    pub fn client(ca_pem: &[u8], cluster: Option<ClusterId>) -> Result<Self, TransportError> {
        Ok(Self::from_loaded(Loaded::client(ca_pem, cluster)?))
    }

    fn from_loaded(loaded: Loaded) -> Self {
        Self { loaded: Arc::new(RwLock::new(Arc::new(loaded))) }
    }

    /// Puts new certificates of the same server in place; anything else is refused and the old
    /// ones stay.
    pub fn replace(&self, ca_pem: &[u8], cert_pem: &[u8], key_pem: &[u8]) -> Result<(), TransportError> {
        let new = Loaded::server(ca_pem, cert_pem, key_pem)?;
        if new.identity != self.identity() {
            return Err(TransportError::Credentials(
                "the new certificate is of another server; restart to change the identity".to_owned(),
            ));
        }
        *self.loaded.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(new);
        Ok(())
    }

    /// Fails unless the certificate is of this server.
    pub fn must_be(&self, role: Role, id: &str) -> Result<(), TransportError> {
        match self.identity() {
            Some(own) if own.role == role && own.id.as_str() == id => Ok(()),
            Some(own) => Err(TransportError::Credentials(format!(
                "the certificate is of {} {}, not of {role} {id}",
                own.role, own.id
            ))),
            None => {
                Err(TransportError::Credentials("the certificate names no server of a cluster".to_owned()))
            }
        }
    }

    pub fn cluster(&self) -> ClusterId {
        self.current().cluster
    }

    /// This server, or `None` for a client.
    pub fn identity(&self) -> Option<Identity> {
        self.current().identity.clone()
    }

    /// The trusted certificates as they were given, PEM.
    pub fn ca_pem(&self) -> Vec<u8> {
        self.current().ca_pem.clone()
    }

    pub(crate) fn current(&self) -> Arc<Loaded> {
        Arc::clone(&self.loaded.read().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

impl Loaded {
    fn server(ca_pem: &[u8], cert_pem: &[u8], key_pem: &[u8]) -> Result<Self, TransportError> {
        let provider = provider();
        let (roots, _) = roots(ca_pem)?;
        let chain = certificates(cert_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|e| credentials("key", e))?;
        let identity = identity_of(&chain[0]).ok_or_else(|| {
            TransportError::Credentials("the certificate names no server of a cluster".to_owned())
        })?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider)
            .map_err(|e| credentials("the key does not go with the certificate", e))?;

        let verifier =
            ClientIdentityVerifier::new(Arc::clone(&roots), Arc::clone(&provider), identity.cluster)?;
        verifier.check_own(&chain)?;
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| credentials("TLS", e))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| credentials("certificate", e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // No resumption: a resumed session would keep the identity of a replaced authority alive.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let own = Own { chain, key, server: Arc::new(config) };
        Ok(Self {
            cluster: identity.cluster,
            identity: Some(identity),
            ca_pem: ca_pem.to_vec(),
            provider,
            roots,
            own: Some(own),
        })
    }

    fn client(ca_pem: &[u8], cluster: Option<ClusterId>) -> Result<Self, TransportError> {
        let (roots, named) = roots(ca_pem)?;
        let cluster = match (cluster, named.first()) {
            (Some(given), Some(first)) if !named.contains(&given) => {
                return Err(TransportError::Credentials(format!(
                    "the CA is of cluster {first}, not {given}"
                )));
            }
            (Some(cluster), _) | (None, Some(&cluster)) => cluster,
            (None, None) => {
                return Err(TransportError::Credentials(
                    "the CA certificate names no cluster, and no cluster id was given".to_owned(),
                ));
            }
        };
        Ok(Self { cluster, identity: None, ca_pem: ca_pem.to_vec(), provider: provider(), roots, own: None })
    }

    pub(crate) fn server_config(&self) -> Option<Arc<ServerConfig>> {
        self.own.as_ref().map(|own| Arc::clone(&own.server))
    }

    /// A configuration that accepts only the server meant, and shows our certificate if we have one.
    pub(crate) fn client_config(
        &self,
        expect: &Expect,
        alpn: &[&[u8]],
    ) -> Result<ClientConfig, TransportError> {
        let verifier = ServerIdentityVerifier::new(
            Arc::clone(&self.roots),
            Arc::clone(&self.provider),
            self.cluster,
            expect.clone(),
        );
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| credentials("TLS", e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.own {
            Some(own) => builder
                .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
                .map_err(|e| credentials("certificate", e))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = rustls::client::Resumption::disabled();
        // Identities are in the URI; host names are not looked at, so none is sent.
        config.enable_sni = false;
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TransportError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| credentials("certificate", e))?;
    if chain.is_empty() {
        return Err(TransportError::Credentials("no certificate in the file".to_owned()));
    }
    Ok(chain)
}

fn roots(ca_pem: &[u8]) -> Result<(Arc<RootCertStore>, Vec<ClusterId>), TransportError> {
    let chain = certificates(ca_pem)?;
    let mut store = RootCertStore::empty();
    for certificate in &chain {
        store.add(certificate.clone()).map_err(|e| credentials("CA certificate", e))?;
    }
    Ok((Arc::new(store), clusters_of_authorities(&chain)))
}

/// The clusters that authorities' own certificates name; those of other makers name none.
pub(crate) fn clusters_of_authorities(chain: &[CertificateDer<'_>]) -> Vec<ClusterId> {
    chain.iter().flat_map(uris).filter_map(|uri| authority_cluster(&uri)).collect()
}

/// The server a certificate speaks for: exactly one `dfs://` URI, well formed, or nothing.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let mut ours = uris(certificate).into_iter().filter(|uri| uri.starts_with("dfs:"));
    let (first, second) = (ours.next()?, ours.next());
    if second.is_some() { None } else { first.parse().ok() }
}

fn uris(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(text) => Some((*text).to_owned()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(uri).collect()
}
