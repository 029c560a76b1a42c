//! The one table of operations: name, function, messages. The right each needs stands under the same
//! name in [`metadata_core::rights`].
//!
//! Everything that goes by method is generated from this list: the dispatcher, the gRPC service and
//! the forwarding of calls, so an operation without a right does not compile.

use dfs_types::{DfsError, ErrorCode};
use metadata_core::rights::{self, Right};

/// Calls `$then!` with the operations of the `Metadata` gRPC service.
macro_rules! metadata_methods {
    ($then:ident) => {
        $then! {
            CreateBucket, create_bucket, CreateBucketRequest, Bucket;
            GetBucket, get_bucket, GetBucketRequest, Bucket;
            ListBuckets, list_buckets, ListBucketsRequest, ListBucketsResponse;
            SetBucket, set_bucket, SetBucketRequest, Bucket;
            DeleteBucket, delete_bucket, DeleteBucketRequest, CommitPosition;
            InitUpload, init_upload, InitUploadRequest, InitUploadResponse;
            PlanChunks, plan_chunks, PlanChunksRequest, PlanChunksResponse;
            AppendPage, append_page, AppendPageRequest, CommitPosition;
            GetUpload, get_upload, GetUploadRequest, UploadInfo;
            CommitUpload, commit_upload, CommitUploadRequest, CommitUploadResponse;
            AbortUpload, abort_upload, AbortUploadRequest, CommitPosition;
            PutInline, put_inline, PutInlineRequest, CommitUploadResponse;
            Stat, stat, StatRequest, FileInfo;
            OpenRead, open_read, OpenReadRequest, OpenReadResponse;
            List, list, ListRequest, ListResponse;
            ListVersions, list_versions, ListVersionsRequest, ListVersionsResponse;
            Delete, delete, DeleteRequest, DeleteResponse;
            Rename, rename, RenameRequest, FileInfo;
            Copy, copy, CopyRequest, FileInfo;
            ReportReplica, report_replica, ReportReplicaRequest, ReportReplicaResponse;
            GetChunkLocations, get_chunk_locations, GetChunkLocationsRequest, ChunkLocations;
            PutChunkLocation, put_chunk_location, PutChunkLocationRequest, ChunkLocations;
            ListNodes, list_nodes, ListNodesRequest, ListNodesResponse;
            GetNode, get_node, GetNodeRequest, NodeInfo;
            DrainNode, drain_node, DrainNodeRequest, NodeInfo;
            ResumeNode, resume_node, ResumeNodeRequest, NodeInfo;
            ConfirmLoss, confirm_loss, ConfirmLossRequest, NodeInfo;
            RemoveNode, remove_node, RemoveNodeRequest, CommitPosition;
            ClusterStatus, cluster_status, ClusterStatusRequest, ClusterStatusResponse;
            ListMembers, list_members, ListMembersRequest, ListMembersResponse;
            AddMember, add_member, AddMemberRequest, ListMembersResponse;
            RemoveMember, remove_member, RemoveMemberRequest, ListMembersResponse;
            RaiseFeatureLevel, raise_feature_level, RaiseFeatureLevelRequest, RaiseFeatureLevelResponse;
            CreatePrincipal, create_principal, CreatePrincipalRequest, PrincipalInfo;
            ListPrincipals, list_principals, ListPrincipalsRequest, ListPrincipalsResponse;
            WhoAmI, who_am_i, WhoAmIRequest, PrincipalInfo;
        }
    };
}
pub(crate) use metadata_methods;

/// Calls `$then!` with the operations of the `Cluster` gRPC service.
macro_rules! cluster_methods {
    ($then:ident) => {
        $then! {
            RegisterNode, register_node, RegisterNodeRequest, RegisterNodeResponse;
            Heartbeat, heartbeat, HeartbeatRequest, HeartbeatResponse;
        }
    };
}
pub(crate) use cluster_methods;

macro_rules! method_enum {
    ($($name:ident, $function:ident, $request:ident, $response:ident;)*) => {
        /// An operation, by its name in the .proto files.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Method {
            $($name,)*
            /// Chunk servers alone, by certificate.
            RegisterNode,
            /// Chunk servers alone, by certificate.
            Heartbeat,
            /// A follower that does not know an API key asks the leader.
            Authenticate,
        }

        impl Method {
            pub const ALL: &'static [Method] =
                &[$(Method::$name,)* Method::RegisterNode, Method::Heartbeat, Method::Authenticate];

            /// The name on the wire, in logs and metrics.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Method::$name => stringify!($name),)*
                    Method::RegisterNode => "RegisterNode",
                    Method::Heartbeat => "Heartbeat",
                    Method::Authenticate => "Authenticate",
                }
            }

            /// Its row in the table of rights; none for what only servers may call.
            fn operation(self) -> Option<rights::Operation> {
                match self {
                    $(Method::$name => Some(rights::Operation::$name),)*
                    Method::RegisterNode | Method::Heartbeat | Method::Authenticate => None,
                }
            }
        }
    };
}
metadata_methods!(method_enum);

impl Method {
    pub fn from_name(name: &str) -> Option<Method> {
        Method::ALL.iter().copied().find(|method| method.as_str() == name)
    }

    /// The right a principal needs; none: no principal may call it.
    pub fn right(self) -> Option<Right> {
        self.operation().map(rights::Operation::right)
    }

    /// Whether a call that may have run changed nothing, or only what running again changes alike.
    pub fn repeats_safely(self) -> bool {
        !matches!(self.right(), Some(Right::Write | Right::Administer | Right::Internal))
    }

    /// Refuses principals whose role lacks the right.
    pub fn require(self, role: dfs_proto::v1::Role) -> Result<(), DfsError> {
        match self.operation() {
            Some(operation) => rights::require(rights::Caller::Principal(role), operation),
            None => Err(DfsError::new(ErrorCode::PermissionDenied, "only servers may call this")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::v1::Role;

    #[test]
    fn names_read_back() {
        for method in Method::ALL {
            assert_eq!(Method::from_name(method.as_str()), Some(*method));
        }
        assert_eq!(Method::from_name("Nothing"), None);
    }

    #[test]
    fn roles_get_no_more_than_the_table_says() {
        for method in Method::ALL {
            let expected = match method.right() {
                None | Some(Right::Internal) => [false; 4],
                Some(Right::Administer) => [true, false, false, false],
                Some(Right::Write) => [true, true, false, false],
                Some(Right::Read | Right::Observe) => [true, true, true, false],
            };
            let roles = [Role::Admin, Role::User, Role::Readonly, Role::Unspecified];
            assert_eq!(roles.map(|role| method.require(role).is_ok()), expected, "{method:?}");
        }
    }
}
