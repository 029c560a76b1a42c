//! Who a server is: cluster, role and id, carried as the SAN URI `dfs://<cluster>/<role>/<id>` of
//! its certificate. Users never hold certificates of the cluster's authority.

use std::fmt;
use std::str::FromStr;

use dfs_types::{ClusterId, DfsError, ErrorCode, NodeId};

use crate::error::TransportError;

const SCHEME: &str = "dfs://";

/// What kind of server a certificate speaks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Role {
    MetadataServer,
    ChunkServer,
}

impl Role {
    /// The word in URIs, logs and cluster.json.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::MetadataServer => "metadata-server",
            Role::ChunkServer => "chunk-server",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = TransportError;
    fn from_str(text: &str) -> Result<Self, TransportError> {
        match text {
            "metadata-server" => Ok(Role::MetadataServer),
            "chunk-server" => Ok(Role::ChunkServer),
            _ => Err(TransportError::Identity(text.to_owned())),
        }
    }
}

/// One server of one cluster. Ids of both roles follow the rules of [`NodeId`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    pub cluster: ClusterId,
    pub role: Role,
    pub id: NodeId,
}

impl Identity {
    pub fn new(cluster: ClusterId, role: Role, id: NodeId) -> Self {
        Self { cluster, role, id }
    }

    /// `dfs://<cluster>/<role>/<id>`.
    pub fn uri(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}/{}", self.cluster, self.role, self.id)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

impl FromStr for Identity {
    type Err = TransportError;
    /// Strict: exactly what [`Identity::uri`] writes, so that one server has one spelling.
    fn from_str(text: &str) -> Result<Self, TransportError> {
        let wrong = || TransportError::Identity(text.to_owned());
        let mut parts = text.strip_prefix(SCHEME).ok_or_else(wrong)?.split('/');
        let (Some(cluster), Some(role), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let identity = Self {
            cluster: cluster.parse().map_err(|_| wrong())?,
            role: role.parse().map_err(|_| wrong())?,
            id: NodeId::new(id).map_err(|_| wrong())?,
        };
        if identity.uri() == text { Ok(identity) } else { Err(wrong()) }
    }
}

/// The URI by which an authority's own certificate names its cluster.
pub(crate) fn authority_uri(cluster: ClusterId) -> String {
    format!("{SCHEME}{cluster}")
}

pub(crate) fn authority_cluster(uri: &str) -> Option<ClusterId> {
    uri.strip_prefix(SCHEME)?.parse().ok()
}

/// Request extension: the server at the other end, or `None` for a caller without a certificate,
/// who must show an API key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PeerIdentity(pub Option<Identity>);

impl PeerIdentity {
    /// The peer, if it is a server of `role`; the cluster was checked at the handshake.
    pub fn require(&self, role: Role) -> Result<&Identity, DfsError> {
        match &self.0 {
            Some(identity) if identity.role == role => Ok(identity),
            Some(identity) => Err(DfsError::new(
                ErrorCode::PermissionDenied,
                format!("only a {role} may call this, not {}", identity.id),
            )),
            None => Err(DfsError::new(
                ErrorCode::Unauthenticated,
                format!("only a {role} with its certificate may call this"),
            )),
        }
    }
}

/// The peer of a request if it is a server of `role`. Works on the extensions of both
/// `http::Request` and `tonic::Request`; a request that came in some other way than through this
/// crate has no peer and is refused.
pub fn require_peer(extensions: &http::Extensions, role: Role) -> Result<&Identity, DfsError> {
    match extensions.get::<PeerIdentity>() {
        Some(peer) => peer.require(role),
        None => Err(DfsError::new(ErrorCode::Unauthenticated, "the connection has no peer identity")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_reads_back() {
        let identity =
            Identity::new(ClusterId([7; 16]), Role::ChunkServer, NodeId::new("rack-1.n7").unwrap());
        assert_eq!(identity.uri().parse::<Identity>().unwrap(), identity);
        assert_eq!(identity.uri(), "dfs://07070707-0707-0707-0707-070707070707/chunk-server/rack-1.n7");
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "dfs://",
            "dfs://07070707-0707-0707-0707-070707070707",
            "dfs://07070707-0707-0707-0707-070707070707/chunk-server",
            "dfs://07070707-0707-0707-0707-070707070707/chunk-server/",
            "dfs://07070707-0707-0707-0707-070707070707/chunk-server/n1/x",
            "dfs://07070707070707070707070707070707/chunk-server/n1",
            "dfs://07070707-0707-0707-0707-070707070707/user/n1",
            "https://07070707-0707-0707-0707-070707070707/chunk-server/n1",
            "dfs://07070707-0707-0707-0707-070707070707/chunk-server/N1",
        ] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }
}
