//! Chunk servers: registration, heartbeats, lists, removal.

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::{MAX_ADDRESS_BYTES, MAX_DOMAIN_BYTES, MAX_LIST_ROWS_EXAMINED};
use dfs_types::{ChunkId, ClusterId, DfsError, ErrorCode, Incarnation, NodeId, RealmId};
use metadata_core::kv::KvRead;
use metadata_core::query::{self, ChunkView, CopyView, NodeView};
use metadata_core::rows::ChunkKey;

use super::session::Session;

/// Faults taken from one heartbeat.
const MAX_FAULTS: usize = 256;

/// Rows of a node looked at to say what it alone has.
const MAX_LOOKED_AT: usize = MAX_LIST_ROWS_EXAMINED as usize;

fn find(kv: &dyn KvRead, id: &NodeId) -> Result<NodeView, DfsError> {
    query::node(kv, id.as_str())?
        .ok_or_else(|| DfsError::new(ErrorCode::NodeNotFound, format!("there is no node {id}")))
}

/// Chunks at this seat that are wanted and have no copy elsewhere that counts.
fn only_here(kv: &dyn KvRead, seat: u32) -> Result<u64, DfsError> {
    let chunks = query::chunks_of_node(kv, seat, None, MAX_LOOKED_AT)?;
    let alone = |chunk: &&ChunkView| {
        let elsewhere = |copy: &CopyView| copy.holder.seat != seat && copy.counts();
        chunk.wanted > 0 && !chunk.copies.iter().any(elsewhere)
    };
    Ok(chunks.iter().filter(alone).count() as u64)
}

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
            absent_chunks: life.as_ref().map_or(0, |life| life.absence.absent),
            absence_held: life.as_ref().is_some_and(|life| life.absence.held),
            chunks_only_here: 0,
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
        let found = find(&view, &id)?;
        let mut info = self.node_info(&found)?;
        if matches!(info.state(), v1::NodeState::Draining | v1::NodeState::Down) {
            info.chunks_only_here = only_here(&view, found.row.seat)?;
        }
        Ok(info)
    }

    pub(super) async fn drain_node(&self, request: v1::DrainNodeRequest) -> Result<v1::NodeInfo, DfsError> {
        let id = NodeId::new(request.node_id.as_str())?;
        let found = find(&self.view().await?, &id)?;
        if found.row.state() != v1::NodeState::Draining {
            self.set_node_state(&request.mutation, &found, v1::NodeState::Draining).await?;
        }
        self.node_info(&find(&self.local()?, &id)?)
    }

    pub(super) async fn resume_node(&self, request: v1::ResumeNodeRequest) -> Result<v1::NodeInfo, DfsError> {
        let id = NodeId::new(request.node_id.as_str())?;
        let found = find(&self.view().await?, &id)?;
        if found.row.state() == v1::NodeState::Draining {
            // Its copies would count at once, and nobody has heard that they are there.
            if !self.operations.node_at(found.row.clone())?.alive {
                return Err(DfsError::new(
                    ErrorCode::NodeConflict,
                    format!(
                        "node {id} sends no heartbeats: start it, then resume it; or let the drain go on and remove it"
                    ),
                ));
            }
            self.set_node_state(&request.mutation, &found, v1::NodeState::Up).await?;
        }
        self.node_info(&find(&self.local()?, &id)?)
    }

    async fn set_node_state(
        &self,
        mutation: &Option<v1::Mutation>,
        found: &NodeView,
        state: v1::NodeState,
    ) -> Result<(), DfsError> {
        let kind = Kind::SetNodeState(v1::SetNodeState {
            node_id: found.row.node_id.clone(),
            incarnation: found.row.incarnation.clone(),
            state: state.into(),
        });
        self.propose(mutation, kind).await?;
        tracing::warn!(
            node = found.row.node_id,
            state = state.as_str_name(),
            "an operator changed the node's state"
        );
        Ok(())
    }

    pub(super) async fn confirm_loss(
        &self,
        request: v1::ConfirmLossRequest,
    ) -> Result<v1::NodeInfo, DfsError> {
        let id = NodeId::new(request.node_id.as_str())?;
        let found = find(&self.view().await?, &id)?;
        let Some(absence) = self.parts().book.confirm_loss(&id) else {
            return Err(DfsError::new(
                ErrorCode::FailedPrecondition,
                format!("no loss on node {id} waits to be accepted: see `dfsctl node show {id}`"),
            ));
        };
        tracing::warn!(node = %id, absent = absence.absent, listed = absence.listed, "an operator accepted the loss");
        self.node_info(&found)
    }

    pub(super) async fn remove_node(
        &self,
        request: v1::RemoveNodeRequest,
    ) -> Result<v1::CommitPosition, DfsError> {
        let id = NodeId::new(request.node_id.as_str())?;
        let kind = Kind::DropNode(v1::DropNode { node_id: id.to_string() });
        match self.propose(&request.mutation, kind).await {
            Ok(result) => {
                self.parts().book.forget(&id);
                Ok(v1::CommitPosition { position: result.position })
            }
            Err(error) if error.code == ErrorCode::NodeConflict => Err(self.why_not_removed(&id, error)?),
            Err(error) => Err(error),
        }
    }

    /// What keeps a node from being removed, and what to do about it.
    fn why_not_removed(&self, id: &NodeId, refused: DfsError) -> Result<DfsError, DfsError> {
        let view = self.local()?;
        let Some(found) = query::node(&view, id.as_str())? else { return Ok(refused) };
        if found.seat.chunks == 0 {
            let next = format!("{}; empty it first: dfsctl node drain {id} --wait", refused.message);
            return Ok(DfsError::new(refused.code, next));
        }
        let alive = self.operations.node_at(found.row.clone())?.alive;
        let (chunks, only_here) = (found.seat.chunks, only_here(&view, found.row.seat)?);
        let draining = found.row.state() == v1::NodeState::Draining;
        let holds = match only_here {
            0 => format!("node {id} still holds {chunks} chunks"),
            _ => format!("node {id} still holds {chunks} chunks, {only_here} of them with no other copy"),
        };
        let next = match (draining, only_here > 0 && !alive) {
            (_, true) => format!("start {id} so that they can be copied, or delete the files they belong to"),
            (false, false) => format!("empty it first: dfsctl node drain {id} --wait"),
            (true, false) => format!("its drain is under way: dfsctl node drain {id} --wait"),
        };
        Ok(DfsError::new(ErrorCode::NodeConflict, format!("{holds}; {next}")))
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
            redundancy: self.parts().book.redundancy(),
        })
    }
}
