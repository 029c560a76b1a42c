//! An admitted call on the leader: the caller's row, views of the state, proposals, and the lookups
//! that every operation shares. What the caller may not see answers like what does not exist.

use chunk_format::keys::{Kek, VersionBinding};
use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::{
    BucketId, BucketName, DfsError, ErrorCode, FileId, NodeId, PrincipalId, RequestId, Secret, UploadId,
};
use metadata_core::kv::KvRead;
use metadata_core::query::{self, FileView};
use metadata_core::rows::{self, requests::Requests};
use tokio::time::Instant;

use super::call::{Call, Who};
use super::methods::Method;
use super::{Operations, Parts};
use crate::raft::StateView;
use crate::space;

pub struct Session {
    pub(super) operations: Operations,
    who: Admitted,
    pub(super) deadline: Instant,
}

enum Admitted {
    Principal(Box<v1::PrincipalRow>),
    Node(NodeId),
}

impl Session {
    /// Checks the caller's right to `method` against the state this leader has applied.
    pub fn admit(operations: &Operations, call: &Call, method: Method) -> Result<Self, DfsError> {
        let lead = *operations.parts.consensus.leadership().borrow();
        if lead.leading {
            operations.begin_leading(lead.term)?;
        }
        let who = match &call.who {
            Who::Principal(id) => {
                let row =
                    query::principal(&operations.parts.consensus.local_view()?, *id)?.ok_or_else(|| {
                        DfsError::new(ErrorCode::Unauthenticated, "the caller is not known any more")
                    })?;
                method.require(row.role())?;
                Admitted::Principal(Box::new(row))
            }
            Who::Node(id) if matches!(method, Method::RegisterNode | Method::Heartbeat) => {
                Admitted::Node(id.clone())
            }
            Who::Node(_) => {
                return Err(DfsError::new(ErrorCode::PermissionDenied, "a node may not call this"));
            }
        };
        Ok(Self { operations: operations.clone(), who, deadline: call.deadline })
    }

    pub(super) fn parts(&self) -> &Parts {
        &self.operations.parts
    }

    /// The caller's row.
    ///
    /// # Errors
    /// `permission_denied` for a node, which no operation on files admits.
    pub(super) fn principal(&self) -> Result<&v1::PrincipalRow, DfsError> {
        match &self.who {
            Admitted::Principal(row) => Ok(row),
            Admitted::Node(node) => {
                Err(DfsError::new(ErrorCode::PermissionDenied, format!("node {node} may not call this")))
            }
        }
    }

    pub(super) fn principal_id(&self) -> Result<PrincipalId, DfsError> {
        PrincipalId::from_slice(&self.principal()?.principal_id)
    }

    /// What this leader has applied: good enough where apply checks again.
    pub(super) fn local(&self) -> Result<StateView, DfsError> {
        self.parts().consensus.local_view()
    }

    /// A linearizable view.
    pub(super) async fn view(&self) -> Result<StateView, DfsError> {
        self.parts().consensus.read(self.deadline).await
    }

    /// Proposes on the caller's behalf, at most once under the caller's request id.
    pub(super) async fn propose(
        &self,
        mutation: &Option<v1::Mutation>,
        kind: Kind,
    ) -> Result<v1::CommandResult, DfsError> {
        let (request_id, seen) = match mutation {
            Some(mutation) => (RequestId::from_slice(&mutation.request_id)?, mutation.seen_position),
            None => {
                return Err(DfsError::new(
                    ErrorCode::InvalidArgument,
                    "a mutation needs a request id of 16 bytes",
                ));
            }
        };
        if space::grows(&kind)
            && let Some((member, room)) = self.parts().consensus.short_of_room()
        {
            // One that was done before is answered as it was then.
            let request = (self.principal_id()?, request_id);
            if rows::get::<Requests>(&self.local()?, &request).map_err(DfsError::from)?.is_none() {
                return Err(space::refusal(&member, &room));
            }
        }
        let command = v1::Command {
            principal_id: self.principal()?.principal_id.clone(),
            request_id: request_id.to_vec().into(),
            seen_position: seen,
            unix_ms: self.parts().clock.unix_millis(),
            trace_parent: trace_parent(),
            kind: Some(kind),
        };
        self.parts().consensus.propose(command, self.deadline).await
    }

    /// Proposes in the cluster's own name.
    pub(super) async fn propose_as_cluster(&self, kind: Kind) -> Result<v1::CommandResult, DfsError> {
        self.operations.propose_as_cluster(kind, self.deadline).await
    }

    /// Runs `look` on the applied state, and, if it finds nothing, once more on a linearizable view,
    /// because this server may have lost the lead. For writes, which apply checks again.
    pub(super) async fn look_to_write<T>(
        &self,
        look: impl Fn(&StateView) -> Result<T, DfsError>,
    ) -> Result<(T, StateView), DfsError> {
        let local = self.local()?;
        match look(&local) {
            Ok(found) => Ok((found, local)),
            Err(error) if error.code.http_status() == 404 => {
                let view = self.view().await?;
                Ok((look(&view)?, view))
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn bucket_to_write(
        &self,
        name: &BucketName,
    ) -> Result<(v1::BucketRow, StateView), DfsError> {
        let principal = self.principal()?;
        self.look_to_write(|view| query::bucket_for(view, principal, name.as_str())).await
    }

    /// The file a selector means.
    pub(super) fn find(
        &self,
        kv: &dyn KvRead,
        selector: &Option<v1::FileSelector>,
    ) -> Result<FileView, DfsError> {
        match selector {
            Some(selector) => query::find_file(kv, self.principal()?, selector),
            None => Err(DfsError::new(ErrorCode::InvalidArgument, "a file must be named, by path or id")),
        }
    }

    /// The version a selector means, which must have content.
    pub(super) fn find_content(
        &self,
        kv: &dyn KvRead,
        selector: &Option<v1::FileSelector>,
    ) -> Result<(FileView, v1::VersionRow), DfsError> {
        let found = self.find(kv, selector)?;
        match found.row.clone() {
            Some(row) => Ok((found, row)),
            None => Err(DfsError::new(ErrorCode::NotFound, format!("{} was deleted", path_of(&found)))),
        }
    }

    pub(super) fn kek(&self, bucket: &v1::BucketRow) -> Result<Kek, DfsError> {
        let id = BucketId::from_slice(&bucket.bucket_id)?;
        self.parts().keyring.bucket_kek(&id, bucket.kek_generation, &bucket.wrapped_kek)
    }

    fn kek_of(&self, kv: &dyn KvRead, bucket: BucketId) -> Result<Kek, DfsError> {
        let row = query::bucket_by_id(kv, bucket)?
            .ok_or_else(|| DfsError::new(ErrorCode::BucketNotFound, "the bucket is gone"))?;
        self.kek(&row)
    }

    /// The key of a version, and what it is bound to.
    pub(super) fn version_key(
        &self,
        kv: &dyn KvRead,
        row: &v1::VersionRow,
    ) -> Result<(Secret<32>, VersionBinding), DfsError> {
        let bound = VersionBinding {
            bucket: BucketId::from_slice(&row.seal_bucket)?,
            file: FileId::from_slice(&row.seal_file)?,
            upload: UploadId::from_slice(&row.seal_upload)?,
        };
        let kek = self.kek_of(kv, bound.bucket)?;
        let key = self.parts().keyring.version_key(&kek, &bound, &row.wrapped_version_key)?;
        Ok((key, bound))
    }

    /// An upload of the caller, open or committed.
    pub(super) async fn upload_to_write(&self, id: UploadId) -> Result<(v1::UploadRow, StateView), DfsError> {
        let principal = self.principal()?;
        self.look_to_write(|view| query::upload_for(view, principal, id)).await
    }

    /// The version key of an open upload, and what it is bound to.
    pub(super) fn upload_key(
        &self,
        kv: &dyn KvRead,
        id: UploadId,
        row: &v1::UploadRow,
    ) -> Result<(Secret<32>, VersionBinding), DfsError> {
        let bucket = BucketId::from_slice(&row.bucket_id)?;
        let bound = VersionBinding { bucket, file: FileId::from_slice(&row.file_id)?, upload: id };
        let kek = self.kek_of(kv, bucket)?;
        Ok((self.parts().keyring.version_key(&kek, &bound, &row.wrapped_version_key)?, bound))
    }
}

/// `/bucket/key` of a file.
pub(super) fn path_of(found: &FileView) -> String {
    format!("/{}/{}", found.bucket.name, found.file.key)
}

impl Operations {
    /// Proposes in the cluster's own name, without a request id: for work that apply checks again.
    pub(crate) async fn propose_as_cluster(
        &self,
        kind: Kind,
        deadline: Instant,
    ) -> Result<v1::CommandResult, DfsError> {
        let command = v1::Command {
            principal_id: vec![0; 16].into(),
            request_id: bytes::Bytes::new(),
            seen_position: 0,
            unix_ms: self.parts.clock.unix_millis(),
            trace_parent: trace_parent(),
            kind: Some(kind),
        };
        self.parts.consensus.propose(command, deadline).await
    }
}

/// For the spans of apply on every member; openraft would lose it on the way.
fn trace_parent() -> bytes::Bytes {
    traces::current().map(|parent| parent.to_bytes().into()).unwrap_or_default()
}

/// The cluster's own row.
///
/// # Errors
/// `unavailable` before the cluster was bootstrapped.
pub(crate) fn cluster_row(kv: &dyn KvRead) -> Result<v1::ClusterRow, DfsError> {
    query::cluster(kv)?.ok_or_else(|| DfsError::new(ErrorCode::Unavailable, "the cluster is being made"))
}
