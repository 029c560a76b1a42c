//! Chunks by id: where they are, reports about replicas, and locations added by hand.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::{ChunkId, DfsError, ErrorCode, NodeId, RealmId, TaskId};
use metadata_core::kv::KvRead;
use metadata_core::query::{self, ChunkView};
use metadata_core::rows::ChunkKey;

use super::Operations;
use super::grants::{NodeAt, NodeTable};
use super::session::{Session, cluster_row};
use crate::raft::StateView;

/// How long a node may take to read and hash a chunk.
const PROBE_LIMIT: Duration = Duration::from_secs(5);

/// What a node itself said of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    Present,
    /// Its bytes do not hash to their id.
    Corrupt,
    Absent,
    /// It says nothing now, as while its index is being rebuilt, or nothing that is to be believed.
    Unknown,
}

pub(crate) fn chunk_ref(key: &ChunkKey) -> v1::ChunkRef {
    v1::ChunkRef { realm_id: key.realm.to_vec().into(), chunk_id: key.chunk.to_vec().into() }
}

/// The location of a copy, as commands name it.
pub(crate) fn location_change(key: &ChunkKey, at: &NodeAt, epoch: u64) -> v1::LocationChange {
    v1::LocationChange {
        chunk: Some(chunk_ref(key)),
        stored: Some(v1::StoredAt {
            node_id: at.node.to_string(),
            incarnation: at.incarnation.to_vec().into(),
            epoch,
        }),
    }
}

pub(super) fn locations_message(index: u32, chunk: &ChunkView, position: u64) -> v1::ChunkLocations {
    v1::ChunkLocations {
        chunk_id: chunk.key.chunk.to_vec().into(),
        index,
        sealed_length: chunk.sealed_length,
        present: chunk.present,
        wanted: chunk.wanted,
        locations: chunk
            .copies
            .iter()
            .map(|copy| v1::Location {
                node_id: copy.holder.node_id.clone(),
                domain: copy.holder.domain.clone(),
                node_state: copy.holder.state.into(),
                doubted: copy.doubted,
                epoch: copy.epoch,
            })
            .collect(),
        position,
        realm_id: chunk.key.realm.to_vec().into(),
    }
}

impl Operations {
    /// Asks a node to read and hash a chunk.
    pub(crate) async fn probe(&self, at: &NodeAt, key: &ChunkKey) -> Result<Found, DfsError> {
        let request = v1::ProbeRequest {
            incarnation: at.incarnation.to_vec().into(),
            chunks: vec![v1::ChunkKey {
                realm_id: key.realm.to_vec().into(),
                chunk_id: key.chunk.to_vec().into(),
            }],
            verify: true,
        };
        let answer = self.parts.nodes.probe(&at.target(), request, PROBE_LIMIT).await?;
        let state = answer.results.first().map(v1::ProbeResult::state).unwrap_or_default();
        Ok(match state {
            v1::ProbeState::Present => Found::Present,
            // So much is absent there that its word is not acted on (leader/inventory.rs).
            v1::ProbeState::Absent if self.parts.book.holds_absence(&at.node, at.incarnation) => {
                Found::Unknown
            }
            v1::ProbeState::Absent => Found::Absent,
            v1::ProbeState::Corrupt => Found::Corrupt,
            v1::ProbeState::Unknown | v1::ProbeState::Unspecified => Found::Unknown,
        })
    }

    /// Asks a node to touch a chunk; the location its receipt proves, or None if it has not got it.
    pub(crate) async fn touch(
        &self,
        table: &NodeTable,
        at: &NodeAt,
        key: &ChunkKey,
        view: &StateView,
    ) -> Result<Option<v1::LocationChange>, DfsError> {
        Ok(self.touch_all(table, at, &[*key], view).await?.pop().flatten())
    }

    /// [`Operations::touch`] for up to 256 chunks, answered in their order.
    pub(crate) async fn touch_all(
        &self,
        table: &NodeTable,
        at: &NodeAt,
        keys: &[ChunkKey],
        view: &StateView,
    ) -> Result<Vec<Option<v1::LocationChange>>, DfsError> {
        let task = TaskId(self.draw16());
        let chunk = |key: &ChunkKey| v1::ChunkKey {
            realm_id: key.realm.to_vec().into(),
            chunk_id: key.chunk.to_vec().into(),
        };
        let request = v1::TouchRequest {
            incarnation: at.incarnation.to_vec().into(),
            task_id: task.to_vec().into(),
            epoch: view.position().0,
            chunks: keys.iter().map(chunk).collect(),
        };
        let answer = self.parts.nodes.touch(&at.target(), request, PROBE_LIMIT).await?;
        let mut answers = answer.receipts.into_iter();
        let mut touched = Vec::with_capacity(keys.len());
        for key in keys {
            let bytes = answers.next().unwrap_or_default();
            let receipt = match bytes.is_empty() {
                true => None,
                false => self.check_receipt(table, &bytes, task.0, key.realm)?,
            };
            let own = receipt.filter(|receipt| {
                receipt.stored.node_id == at.node.as_str()
                    && receipt.chunks.iter().any(|(chunk, _)| *chunk == key.chunk)
            });
            touched.push(own.map(|receipt| v1::LocationChange {
                chunk: Some(chunk_ref(key)),
                stored: Some(receipt.stored),
            }));
        }
        Ok(touched)
    }
}

impl Session {
    /// Somebody could not read a copy. The node itself is asked, and what it says decides; the
    /// answer is the same whether the chunk exists or not.
    pub(super) async fn report_replica(
        &self,
        request: v1::ReportReplicaRequest,
    ) -> Result<v1::ReportReplicaResponse, DfsError> {
        let key = ChunkKey {
            realm: RealmId::from_slice(&request.realm_id)?,
            chunk: ChunkId::from_slice(&request.chunk_id)?,
        };
        let node = NodeId::new(request.node_id.as_str())?;
        let done = Ok(v1::ReportReplicaResponse {});
        match request.problem() {
            v1::report_replica_request::Problem::Unspecified => {
                return Err(DfsError::new(
                    ErrorCode::InvalidArgument,
                    "a report must say what the problem is",
                ));
            }
            // Heartbeats say whether a node is there.
            v1::report_replica_request::Problem::Unreachable => return done,
            v1::report_replica_request::Problem::Missing | v1::report_replica_request::Problem::Corrupt => {}
        }
        // The probe must come after a view that lists the location: what the node says then is newer.
        let view = self.view().await?;
        let table = NodeTable::load(&self.operations, &view)?;
        let Some(chunk) = query::chunk(&view, key)? else { return done };
        let Some(at) = table.get(&node) else { return done };
        let Some(copy) =
            chunk.copies.iter().find(|copy| table.holder(copy).is_some_and(|holder| holder.node == node))
        else {
            return done;
        };
        if copy.doubted {
            return done;
        }
        let changes = vec![location_change(&key, at, copy.epoch)];
        match self.operations.probe(at, &key).await {
            Ok(Found::Present) => {}
            Ok(Found::Absent | Found::Corrupt) => {
                tracing::warn!(node = %node, chunk = %key.chunk, "a copy is lost: struck off");
                self.propose_as_cluster(Kind::StrikeLocations(v1::StrikeLocations { changes })).await?;
            }
            Ok(Found::Unknown) | Err(_) => {
                self.propose_as_cluster(Kind::DoubtLocations(v1::DoubtLocations { changes })).await?;
            }
        }
        done
    }

    /// The chunk a caller means: of a file it may read, or of a realm of its own.
    fn find_chunk(
        &self,
        kv: &dyn KvRead,
        chunk: ChunkId,
        file: &Option<v1::FileSelector>,
    ) -> Result<(u32, ChunkView), DfsError> {
        let missing = || DfsError::new(ErrorCode::ChunkNotFound, format!("there is no chunk {chunk}"));
        if file.as_ref().is_some_and(|file| file.by.is_some()) {
            let (_, row) = self.find_content(kv, file)?;
            return query::chunk_of_version(kv, &row, chunk)?.ok_or_else(missing);
        }
        let own = RealmId::from_slice(&self.principal()?.realm_id)?;
        let shared = RealmId::from_slice(&cluster_row(kv)?.shared_realm_id)?;
        for realm in [own, shared] {
            if let Some(found) = query::chunk(kv, ChunkKey { realm, chunk })? {
                return Ok((0, found));
            }
        }
        Err(missing())
    }

    pub(super) async fn get_chunk_locations(
        &self,
        request: v1::GetChunkLocationsRequest,
    ) -> Result<v1::ChunkLocations, DfsError> {
        let chunk = ChunkId::from_slice(&request.chunk_id)?;
        let view = self.view().await?;
        let (index, found) = self.find_chunk(&view, chunk, &request.file)?;
        Ok(locations_message(index, &found, view.position().0))
    }

    pub(super) async fn put_chunk_location(
        &self,
        request: v1::PutChunkLocationRequest,
    ) -> Result<v1::ChunkLocations, DfsError> {
        let chunk = ChunkId::from_slice(&request.chunk_id)?;
        let node = NodeId::new(request.node_id.as_str())?;
        let view = self.view().await?;
        let (index, found) = self.find_chunk(&view, chunk, &request.file)?;
        let table = NodeTable::load(&self.operations, &view)?;
        let at = table
            .get(&node)
            .ok_or_else(|| DfsError::new(ErrorCode::NodeNotFound, format!("there is no node {node}")))?;
        // Not `unavailable`, which would have the call tried again until its deadline as if this
        // server did not lead.
        let silent = |why: &str| {
            DfsError::new(
                ErrorCode::NodeConflict,
                format!("node {node} cannot be asked for the chunk: {why}"),
            )
        };
        if !at.alive {
            return Err(silent("it sends no heartbeats"));
        }
        let touched = self.operations.touch(&table, at, &found.key, &view).await;
        let change = touched.map_err(|error| match error.code {
            ErrorCode::Unavailable | ErrorCode::Timeout => silent(&error.message),
            _ => error,
        });
        let change = change?.ok_or_else(|| {
            DfsError::new(ErrorCode::NodeConflict, format!("node {node} does not have chunk {chunk}"))
        })?;
        let kind = Kind::AddLocations(v1::AddLocations { changes: vec![change] });
        let result = self.propose(&request.mutation, kind).await?;
        let after = query::chunk(&self.local()?, found.key)?
            .ok_or_else(|| DfsError::new(ErrorCode::ChunkNotFound, format!("there is no chunk {chunk}")))?;
        Ok(locations_message(index, &after, result.position))
    }
}
