//! An authority for one cluster: makes its certificate once and issues one to each server.
//! ECDSA P-256 throughout. The authority's key signs whoever may call itself a server of the
//! cluster: keep it off the servers.

use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use dfs_types::{Clock, ClusterId};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use crate::error::{TransportError, credentials};
use crate::identity::{Identity, authority_uri};
use crate::tls::{certificates, clusters_of_authorities};

const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_DAYS: u32 = 3650;
const SERVER_DAYS: u32 = 1825;

/// The authority of one cluster. Holds its private key: no Debug, no Clone.
pub struct Authority {
    cluster: ClusterId,
    cert_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A server's certificate and private key, both PEM.
pub struct Issued {
    pub cert_pem: String,
    /// Secret: write it with mode 0600.
    pub key_pem: String,
}

impl Authority {
    /// A new authority, valid for ten years from a day before `clock`'s now.
    pub fn create(cluster: ClusterId, clock: &dyn Clock) -> Result<Self, TransportError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| credentials("CA key", e))?;
        let mut params = authority_params(cluster)?;
        (params.not_before, params.not_after) = validity(clock, AUTHORITY_DAYS);
        let cert = params.self_signed(&key).map_err(|e| credentials("CA certificate", e))?;
        Ok(Self { cluster, cert_pem: cert.pem(), issuer: Issuer::new(params, key) })
    }

    /// The authority kept as `cert_pem` and `key_pem`, as [`Authority::create`] made them.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, TransportError> {
        let chain = certificates(cert_pem.as_bytes())?;
        let cluster = clusters_of_authorities(&chain)
            .first()
            .copied()
            .ok_or_else(|| TransportError::Credentials("the CA certificate names no cluster".to_owned()))?;
        let key = KeyPair::from_pem(key_pem).map_err(|e| credentials("CA key", e))?;
        Ok(Self {
            cluster,
            cert_pem: cert_pem.to_owned(),
            issuer: Issuer::new(authority_params(cluster)?, key),
        })
    }

    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What every process of the cluster and every client needs to trust it. Not secret.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// Secret: write it with mode 0600.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for one server, valid for five years: for `localhost`, both loopback addresses
    /// and `names` (DNS names or IP addresses, without a port), so that curl accepts it too.
    pub fn issue(
        &self,
        identity: &Identity,
        names: &[String],
        clock: &dyn Clock,
    ) -> Result<Issued, TransportError> {
        if identity.cluster != self.cluster {
            return Err(TransportError::Credentials(format!(
                "this CA is for cluster {}, not {}",
                self.cluster, identity.cluster
            )));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("{} {}", identity.role, identity.id));
        params.subject_alt_names = alternative_names(identity, names)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = validity(clock, SERVER_DAYS);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| credentials("key", e))?;
        let cert = params.signed_by(&key, &self.issuer).map_err(|e| credentials("certificate", e))?;
        Ok(Issued { cert_pem: cert.pem(), key_pem: key.serialize_pem() })
    }
}

fn authority_params(cluster: ClusterId) -> Result<CertificateParams, TransportError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("dfs cluster {cluster}"));
    params.subject_alt_names = vec![uri(&authority_uri(cluster))?];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn alternative_names(identity: &Identity, names: &[String]) -> Result<Vec<SanType>, TransportError> {
    let mut texts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    for name in names {
        if !texts.contains(name) {
            texts.push(name.clone());
        }
    }
    let mut all = vec![uri(&identity.uri())?];
    for text in texts {
        all.push(match text.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(
                text.as_str().try_into().map_err(|e| credentials(&format!("name {text:?}"), e))?,
            ),
        });
    }
    Ok(all)
}

fn uri(text: &str) -> Result<SanType, TransportError> {
    Ok(SanType::URI(text.try_into().map_err(|e| credentials(&format!("URI {text:?}"), e))?))
}

/// From a day ago, so that a machine whose clock is a little behind accepts it, for `days`.
fn validity<T: From<std::time::SystemTime>>(clock: &dyn Clock, days: u32) -> (T, T) {
    let now = UNIX_EPOCH + Duration::from_millis(clock.unix_millis());
    ((now - DAY).into(), (now + DAY * days).into())
}
