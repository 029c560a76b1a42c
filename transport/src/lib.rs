//! How processes of a cluster reach each other: TLS 1.3 and nothing else, one port a server, and an
//! identity in every server's certificate that each side checks.
//!
//! - [`identity`]: who a server is, as a SAN URI of its certificate.
//! - [`ca`]: an authority for one cluster, for `dfsctl dev` and for operators without their own.
//! - [`tls`]: the loaded certificates of this process, replaceable while it runs.
//! - [`listen`], [`serve`](mod@serve): accepting connections and serving REST and gRPC on them.
//! - [`dial`], [`pool`]: gRPC channels to a server of a known role and id.
//! - [`probe`](mod@probe): is a server alive, is it ready?
//!
//! Nothing here is written to disk, and no certificate is trusted for the name of its host alone.

pub mod ca;
pub mod dial;
pub mod error;
mod heads;
pub mod identity;
pub mod listen;
pub mod pool;
pub mod probe;
pub mod serve;
pub mod stream;
pub mod tls;
mod verify;

pub use ca::{Authority, Issued};
pub use dial::{Dialer, Expect};
pub use error::TransportError;
pub use identity::{Identity, PeerIdentity, Role, require_peer};
pub use listen::{ListenLimits, TlsListener};
pub use pool::ChannelPool;
pub use probe::probe;
pub use serve::{ServeOptions, serve, tuned_server};
pub use stream::{PeerInfo, PeerStream};
pub use tls::Tls;
