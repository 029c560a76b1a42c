//! The gRPC faces of the operations: read the credential, then hand the message on unchanged.

use std::time::Duration;

use dfs_proto::status::to_status;
use dfs_proto::v1;
use dfs_proto::v1::cluster_server::Cluster;
use dfs_proto::v1::metadata_server::Metadata;
use dfs_types::{DfsError, ErrorCode, NodeId};
use tonic::{Request, Response, Status};
use transport::{Role, require_peer};

use super::call::{Call, Who};
use super::methods::metadata_methods;
use super::route::Operation;
use super::{Operations, auth};

/// The `Metadata` service: callers show an API key.
#[derive(Clone)]
pub struct MetadataService(pub Operations);

/// The `Cluster` service: chunk servers show their certificate.
#[derive(Clone)]
pub struct ClusterService(pub Operations);

impl MetadataService {
    async fn answer<R: Operation>(&self, request: Request<R>) -> Result<Response<R::Response>, Status> {
        let limit = time_limit(request.metadata());
        let call = auth::authenticate(&self.0, request.metadata().as_ref(), limit).await;
        let answer = match call {
            Ok(call) => self.0.call(&call, request.into_inner()).await,
            Err(error) => Err(error),
        };
        answer.map(Response::new).map_err(|error| to_status(&error))
    }
}

/// The caller's own deadline: `grpc-timeout`, up to eight digits and a unit.
fn time_limit(metadata: &tonic::metadata::MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

macro_rules! metadata_service {
    ($($name:ident, $function:ident, $request:ident, $response:ident;)*) => {
        #[tonic::async_trait]
        impl Metadata for MetadataService {
            $(
                async fn $function(&self, request: Request<v1::$request>) -> Result<Response<v1::$response>, Status> {
                    self.answer(request).await
                }
            )*
        }
    };
}
metadata_methods!(metadata_service);

impl ClusterService {
    /// The node's certificate must be of the node the message names.
    async fn answer<R: Operation>(
        &self,
        named: String,
        request: Request<R>,
    ) -> Result<Response<R::Response>, Status> {
        let admitted = require_peer(request.extensions(), Role::ChunkServer).and_then(|peer| {
            let node = NodeId::new(named)?;
            if peer.id == node {
                return Ok(node);
            }
            let message = format!("the certificate is of {}, the message of {node}", peer.id);
            Err(DfsError::new(ErrorCode::PermissionDenied, message))
        });
        let answer = match admitted {
            Ok(node) => {
                let call = Call::new(Who::Node(node), time_limit(request.metadata()));
                self.0.call(&call, request.into_inner()).await
            }
            Err(error) => Err(error),
        };
        answer.map(Response::new).map_err(|error| to_status(&error))
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn register_node(
        &self,
        request: Request<v1::RegisterNodeRequest>,
    ) -> Result<Response<v1::RegisterNodeResponse>, Status> {
        let named = request.get_ref().node_id.clone();
        self.answer(named, request).await
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let named = request.get_ref().node_id.clone();
        self.answer(named, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_limits() {
        let limit = |text: &str| {
            let mut metadata = tonic::metadata::MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            time_limit(&metadata)
        };
        assert_eq!(limit("250m"), Some(Duration::from_millis(250)));
        assert_eq!(limit("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "1", "x", "-1S", "1000000000S", "1x"] {
            assert_eq!(limit(bad), None, "{bad:?}");
        }
    }
}
