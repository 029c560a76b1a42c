//! The cluster as a whole: status, and members of the metadata service.

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::{MAX_ADDRESS_BYTES, MAX_DEFICITS_LOOKED_AT};
use dfs_types::{DfsError, ErrorCode, NodeId};
use metadata_core::query;

use super::session::{Session, cluster_row};

/// The highest feature level that every member knows; 0 if one did not say.
fn supported(members: &[v1::Member]) -> u32 {
    members.iter().map(|member| member.feature_level).min().unwrap_or(0)
}

impl Session {
    async fn members_message(&self) -> Vec<v1::Member> {
        let members = self.parts().consensus.members().await;
        members
            .into_iter()
            .map(|status| v1::Member {
                name: status.member.name,
                raft_id: status.member.raft_id,
                address: status.member.address,
                voter: status.voter,
                leader: status.leader,
                applied_index: status.last_log_index.unwrap_or(0),
                reachable: status.reachable,
                disk: status.disk,
                feature_level: status.feature_level.unwrap_or(0),
            })
            .collect()
    }

    pub(super) async fn cluster_status(
        &self,
        _: v1::ClusterStatusRequest,
    ) -> Result<v1::ClusterStatusResponse, DfsError> {
        let view = self.view().await?;
        let cluster = cluster_row(&view)?;
        let (clock, counters) = (query::clock(&view)?, query::counters(&view)?);
        let nodes = query::nodes(&view)?;
        let raft = self.parts().consensus.metrics_snapshot();
        let members = self.members_message().await;
        Ok(v1::ClusterStatusResponse {
            cluster_id: cluster.cluster_id,
            leader: self.parts().name.clone(),
            term: raft.term,
            position: view.position().0,
            cluster_time_ms: clock.cluster_ms,
            epoch_floor: clock.epoch_floor,
            nodes: nodes.iter().map(|node| self.node_info(node)).collect::<Result<_, _>>()?,
            files: counters.files,
            chunks: counters.chunks,
            deficits: counters.deficits,
            uploads: counters.uploads,
            trash_chunks: counters.trash_chunks,
            pending_purges: counters.pending_purges,
            trash_bytes: counters.trash_bytes,
            lacking: query::deficits_by_copies(&view, MAX_DEFICITS_LOOKED_AT)?,
            lacking_partial: counters.deficits > MAX_DEFICITS_LOOKED_AT as u64,
            feature_level: cluster.feature_level,
            feature_level_supported: supported(&members),
            members,
        })
    }

    /// To the next level, if every member has said just now that its build knows it: one that does not
    /// would stop when it applies the command.
    pub(super) async fn raise_feature_level(
        &self,
        request: v1::RaiseFeatureLevelRequest,
    ) -> Result<v1::RaiseFeatureLevelResponse, DfsError> {
        let level = request.level;
        if cluster_row(&self.view().await?)?.feature_level < level {
            let members = self.members_message().await;
            if let Some(member) = members.iter().find(|member| member.feature_level < level) {
                let name = &member.name;
                let why = match member.feature_level {
                    0 => format!("member {name} does not answer: its build must be known to support it"),
                    known => format!("member {name} knows level {known} at most: upgrade it first"),
                };
                return Err(DfsError::new(
                    ErrorCode::FailedPrecondition,
                    format!("not to feature level {level}: {why}"),
                ));
            }
        }
        let kind = Kind::RaiseFeatureLevel(v1::RaiseFeatureLevel { level });
        let result = self.propose(&request.mutation, kind).await?;
        Ok(v1::RaiseFeatureLevelResponse { level, position: result.position })
    }

    pub(super) async fn list_members(
        &self,
        _: v1::ListMembersRequest,
    ) -> Result<v1::ListMembersResponse, DfsError> {
        let position = self.view().await?.position().0;
        Ok(v1::ListMembersResponse { members: self.members_message().await, position })
    }

    pub(super) async fn add_member(
        &self,
        request: v1::AddMemberRequest,
    ) -> Result<v1::ListMembersResponse, DfsError> {
        let name = NodeId::new(request.name.as_str())?;
        // Without an address, the member keeps the one it has.
        let address = if request.address.is_empty() {
            let members = self.parts().consensus.members().await;
            members
                .into_iter()
                .find(|status| status.member.name == name.as_str())
                .map(|status| status.member.address)
                .ok_or_else(|| {
                    DfsError::new(
                        ErrorCode::InvalidArgument,
                        format!("{name} is no member yet: give its address"),
                    )
                })?
        } else {
            request.address
        };
        let port = address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if address.len() > MAX_ADDRESS_BYTES || port.is_none_or(|port| port.parse::<u16>().is_err()) {
            return Err(DfsError::new(ErrorCode::InvalidArgument, format!("{address:?} is not HOST:PORT")));
        }
        let level = cluster_row(&self.view().await?)?.feature_level;
        self.parts().consensus.add_member(name.as_str(), &address, level, self.deadline).await?;
        self.list_members(v1::ListMembersRequest {}).await
    }

    pub(super) async fn remove_member(
        &self,
        request: v1::RemoveMemberRequest,
    ) -> Result<v1::ListMembersResponse, DfsError> {
        let name = NodeId::new(request.name.as_str())?;
        self.parts().consensus.remove_member(name.as_str(), self.deadline).await?;
        self.list_members(v1::ListMembersRequest {}).await
    }
}
