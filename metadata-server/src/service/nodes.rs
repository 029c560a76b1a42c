//! Chunk servers: registration, heartbeats, lists, removal.

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::{MAX_ADDRESS_BYTES, MAX_DOMAIN_BYTES};
use dfs_types::{ChunkId, ClusterId, DfsError, ErrorCode, Incarnation, NodeId, RealmId};
use metadata_core::query::{self, NodeView};
use metadata_core::rows::ChunkKey;

use super::session::Session;

/// Faults taken from one heartbeat.
const MAX_FAULTS: usize = 256;

impl Session {
    pub(super) fn node_info(&self, found: &NodeView) -> Result<v1::NodeInfo, DfsError> {
        let at = self.operations.node_at(found.row.clone())?;
        let life = self.parts().book.life(&at.node).filter(|life| life.incarnation == at.incarnation);
        Ok(v1::NodeInfo {
            node_id: found.row.node_id.clone(),
            address: found.row.address.clone(),
            incarnation: found.row.incarnation.clone(),
            domain: found.row.domain.clone(),
            state: found.row.state,
            is_alive: at.alive,
            last_heartbeat_unix_ms: life.as_ref().map_or(0, |life| life.heard_unix_ms),
            capacity: life.as_ref().map_or(found.row.capacity, |life| life.capacity),
            used: life.as_ref().map_or(found.seat.bytes, |life| life.used),
            chunks: found.seat.chunks,
            version: life.map_or_else(String::new, |life| life.version),
        })
    }

    pub(super) async fn list_nodes(
        &self,
        _: v1::ListNodesRequest,
    ) -> Result<v1::ListNodesResponse, DfsError> {
        let view = self.view().await?;
        let nodes = query::nodes(&view)?;
        let nodes = nodes.iter().map(|node| self.node_info(node)).collect::<Result<_, _>>()?;
        Ok(v1::ListNodesResponse { nodes, position: view.position().0 })
    }

    pub(super) async fn get_node(&self, request: v1::GetNodeRequest) -> Result<v1::NodeInfo, DfsError> {
        let id = NodeId::new(request.node_id.as_str())?;
        let view = self.view().await?;
        let found = query::node(&view, id.as_str())?
            .ok_or_else(|| DfsError::new(ErrorCode::NodeNotFound, format!("there is no node {id}")))?;
        self.node_info(&found)
    }

    pub(super) async fn remove_node(
        &self,
        request: v1::RemoveNodeRequest,
    ) -> Result<v1::CommitPosition, DfsError> {
        let id = NodeId::new(request.node_id.as_str())?;
        let kind = Kind::DropNode(v1::DropNode { node_id: id.to_string() });
        let result = self.propose(&request.mutation, kind).await?;
        self.parts().book.forget(&id);
        Ok(v1::CommitPosition { position: result.position })
    }

    /// A chunk server begins, or speaks to this leader for the first time: what changed is proposed,
    /// and the node gets the secret its grants and receipts are made with.
    pub(super) async fn register_node(
        &self,
        request: v1::RegisterNodeRequest,
    ) -> Result<v1::RegisterNodeResponse, DfsError> {
        let node = NodeId::new(request.node_id.as_str())?;
        let incarnation = Incarnation::from_slice(&request.incarnation)?;
        let bounded = request.address.len() <= MAX_ADDRESS_BYTES && request.domain.len() <= MAX_DOMAIN_BYTES;
        if !bounded || request.address.is_empty() || incarnation == Incarnation::default() {
            return Err(DfsError::new(
                ErrorCode::InvalidArgument,
                "a node registers with its incarnation, its address and at most 255 bytes of domain",
            ));
        }
        let cluster = self.parts().cluster;
        if !request.cluster_id.is_empty() && ClusterId::from_slice(&request.cluster_id)? != cluster {
            return Err(DfsError::new(
                ErrorCode::NodeConflict,
                "the node's directory belongs to another cluster",
            ));
        }
        let view = self.view().await?;
        let known = query::node(&view, node.as_str())?.map(|found| found.row);
        let same = known.as_ref().filter(|row| row.incarnation == request.incarnation);
        let unchanged = same.is_some_and(|row| {
            row.address == request.address
                && row.domain == request.domain
                && row.capacity == request.capacity
                && row.state() != v1::NodeState::Removed
        });
        if !unchanged {
            let wrapped_secret = match same {
                Some(row) => row.wrapped_secret.clone(),
                None => {
                    let secret = self.parts().keyring.draw();
                    self.parts().keyring.wrap_node_secret(&incarnation, &secret).into()
                }
            };
            self.propose_as_cluster(Kind::RegisterNode(v1::RegisterNode {
                node_id: node.to_string(),
                incarnation: request.incarnation.clone(),
                address: request.address.clone(),
                domain: request.domain.clone(),
                capacity: request.capacity,
                wrapped_secret,
            }))
            .await?;
            tracing::info!(node = %node, address = request.address, "node registered");
        }
        // Two registrations may have raced: what counts is the row.
        let view = if unchanged { view } else { self.local()? };
        let row = query::node(&view, node.as_str())?
            .map(|found| found.row)
            .filter(|row| row.incarnation == request.incarnation)
            .ok_or_else(|| {
                DfsError::new(ErrorCode::NodeConflict, "another incarnation of the node registered")
            })?;
        let secret = self.parts().keyring.node_secret(&incarnation, &row.wrapped_secret)?;
        let clock = query::clock(&view)?;
        let now = (self.operations.now(), self.parts().clock.unix_millis());
        self.parts().book.registered(&node, &request, incarnation, now);
        Ok(v1::RegisterNodeResponse {
            cluster_id: cluster.to_vec().into(),
            node_secret: bytes::Bytes::copy_from_slice(secret.expose()),
            cluster_time_ms: clock.cluster_ms,
            epoch_floor: clock.epoch_floor,
            position: view.position().0,
        })
    }

    pub(super) async fn heartbeat(
        &self,
        request: v1::HeartbeatRequest,
    ) -> Result<v1::HeartbeatResponse, DfsError> {
        let node = NodeId::new(request.node_id.as_str())?;
        let incarnation = Incarnation::from_slice(&request.incarnation)?;
        let now = (self.operations.now(), self.parts().clock.unix_millis());
        let heard = self.parts().book.heard(&node, &request, incarnation, now);
        if heard {
            for fault in request.faults.iter().take(MAX_FAULTS) {
                let key = ChunkKey {
                    realm: RealmId::from_slice(&fault.realm_id)?,
                    chunk: ChunkId::from_slice(&fault.chunk_id)?,
                };
                self.parts().book.report_fault(&node, key);
            }
        }
        let view = self.local()?;
        let clock = query::clock(&view)?;
        Ok(v1::HeartbeatResponse {
            cluster_time_ms: clock.cluster_ms,
            epoch_floor: clock.epoch_floor,
            register_again: !heard,
            position: view.position().0,
            interval_ms: self.parts().node_heartbeat_ms,
        })
    }
}
