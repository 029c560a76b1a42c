//! Uploads: begin, look at, commit, abort.

use std::collections::BTreeMap;

use chunk_format::keys::VersionBinding;
use chunk_format::page::PagesHasher;
use chunk_format::root::{Root, seal_root};
use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::{
    MAX_CONTENT_TYPE_BYTES, MAX_PAGES_PER_VERSION, MAX_USER_METADATA_BYTES, MAX_VERSION_BYTES, chunk_bytes_at,
};
use dfs_types::{
    BucketId, DfsError, DfsPath, ErrorCode, FileId, PrincipalId, RealmId, RequestId, Secret, UploadId,
};
use metadata_core::kv::KvRead;
use metadata_core::rows::{self, pages::Pages};
use metadata_core::{policy, query};

use super::session::{Session, cluster_row};

/// Pages read from the state at a time.
const PAGES_AT_ONCE: usize = 16;

/// Bounds of what is kept sealed beside the content.
pub(super) fn check_metadata(
    content_type: &str,
    user_metadata: &std::collections::HashMap<String, String>,
) -> Result<BTreeMap<String, String>, DfsError> {
    if content_type.len() > MAX_CONTENT_TYPE_BYTES || content_type.chars().any(char::is_control) {
        return Err(DfsError::new(
            ErrorCode::InvalidArgument,
            format!(
                "the content type must be at most {MAX_CONTENT_TYPE_BYTES} bytes without control characters"
            ),
        ));
    }
    let total: usize = user_metadata.iter().map(|(name, value)| name.len() + value.len()).sum();
    if total > MAX_USER_METADATA_BYTES {
        return Err(DfsError::new(
            ErrorCode::LimitExceeded,
            format!("the user metadata has {total} bytes, at most {MAX_USER_METADATA_BYTES} are allowed"),
        ));
    }
    Ok(user_metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

impl Session {
    /// The file id a write to this name shall carry: that of the file there now, or a new one.
    pub(super) fn file_id_for(
        &self,
        kv: &dyn KvRead,
        bucket: BucketId,
        path: &DfsPath,
    ) -> Result<FileId, DfsError> {
        match query::head(kv, bucket, path.key.as_str())? {
            Some(head) => FileId::from_slice(&head.file_id),
            None => Ok(FileId::generate(&*self.parts().clock, &*self.parts().entropy)),
        }
    }

    /// The id that this caller's mutation gives to what it makes: the same on every try.
    pub(super) fn id_of_mutation(
        &self,
        mutation: &Option<v1::Mutation>,
        what: &str,
    ) -> Result<[u8; 16], DfsError> {
        let request = match mutation {
            Some(mutation) => RequestId::from_slice(&mutation.request_id)?,
            None => {
                return Err(DfsError::new(
                    ErrorCode::InvalidArgument,
                    "a mutation needs a request id of 16 bytes",
                ));
            }
        };
        let mut hasher = blake3::Hasher::new_derive_key("dfs id of a mutation v1");
        hasher
            .update(what.as_bytes())
            .update(&[0])
            .update(self.principal_id()?.as_bytes())
            .update(request.as_bytes());
        let mut id = [0u8; 16];
        hasher.finalize_xof().fill(&mut id);
        Ok(id)
    }

    pub(super) fn upload_id_of(&self, mutation: &Option<v1::Mutation>) -> Result<UploadId, DfsError> {
        self.id_of_mutation(mutation, "upload").map(UploadId)
    }

    pub(super) async fn init_upload(
        &self,
        request: v1::InitUploadRequest,
    ) -> Result<v1::InitUploadResponse, DfsError> {
        let path: DfsPath = request.path.parse()?;
        if request.size.is_some_and(|size| size > MAX_VERSION_BYTES) {
            return Err(DfsError::new(
                ErrorCode::LimitExceeded,
                format!("a file may have at most {MAX_VERSION_BYTES} bytes"),
            ));
        }
        let (bucket, view) = self.bucket_to_write(&path.bucket).await?;
        let bucket_id = BucketId::from_slice(&bucket.bucket_id)?;
        let wanted = policy::complete(request.policy.as_ref(), &bucket.policy.unwrap_or(policy::DEFAULT))?;
        let upload = self.upload_id_of(&request.mutation)?;
        let file = self.file_id_for(&view, bucket_id, &path)?;
        let key = self.parts().keyring.draw();
        let bound = VersionBinding { bucket: bucket_id, file, upload };
        let (realm, wrapped_realm_secret) = match bucket.realm() {
            v1::RealmKind::Unspecified | v1::RealmKind::Private => {
                (RealmId::from_slice(&self.principal()?.realm_id)?, Vec::new())
            }
            v1::RealmKind::Shared => (RealmId::from_slice(&cluster_row(&view)?.shared_realm_id)?, Vec::new()),
            v1::RealmKind::None => {
                let secret = self.parts().keyring.draw();
                (RealmId(upload.0), self.parts().keyring.wrap_upload_secret(&upload, &secret))
            }
        };
        let realm_kind = match bucket.realm() {
            v1::RealmKind::Unspecified => v1::RealmKind::Private,
            kind => kind,
        };
        let kind = Kind::BeginUpload(v1::BeginUpload {
            upload_id: upload.to_vec().into(),
            bucket_id: bucket.bucket_id.clone(),
            key: path.key.to_string(),
            file_id: file.to_vec().into(),
            realm_id: realm.to_vec().into(),
            realm: realm_kind.into(),
            wrapped_realm_secret: wrapped_realm_secret.into(),
            wrapped_version_key: self
                .parts()
                .keyring
                .wrap_version_key(&self.kek(&bucket)?, &bound, &key)
                .into(),
            policy: Some(wanted),
            size: request.size,
        });
        let result = self.propose(&request.mutation, kind).await?;
        // What the first try wrote, should this be a later one.
        let row = query::upload_for(&self.local()?, self.principal()?, upload)?;
        Ok(v1::InitUploadResponse {
            upload_id: upload.to_vec().into(),
            file_id: row.file_id,
            realm_id: row.realm_id,
            policy: row.policy,
            position: result.position,
            chunk_size: chunk_bytes_at(0),
        })
    }

    /// The secret under which content secrets of this upload are derived.
    pub(super) fn upload_realm_secret(
        &self,
        kv: &dyn KvRead,
        id: UploadId,
        row: &v1::UploadRow,
    ) -> Result<Secret<32>, DfsError> {
        let keyring = &self.parts().keyring;
        match row.realm() {
            v1::RealmKind::Unspecified | v1::RealmKind::Private => {
                // An administrator may go on with another's upload: the realm is the owner's.
                let owner = query::principal(kv, PrincipalId::from_slice(&row.owner)?)?
                    .filter(|owner| owner.realm_id == row.realm_id)
                    .ok_or_else(|| {
                        DfsError::new(
                            ErrorCode::FailedPrecondition,
                            "the owner's realm was changed; begin a new upload",
                        )
                    })?;
                keyring.realm_secret(&RealmId::from_slice(&owner.realm_id)?, &owner.wrapped_realm_secret)
            }
            v1::RealmKind::Shared => {
                let cluster = cluster_row(kv)?;
                keyring.realm_secret(
                    &RealmId::from_slice(&cluster.shared_realm_id)?,
                    &cluster.wrapped_shared_realm_secret,
                )
            }
            v1::RealmKind::None => keyring.upload_secret(&id, &row.wrapped_realm_secret),
        }
    }

    pub(super) async fn get_upload(&self, request: v1::GetUploadRequest) -> Result<v1::UploadInfo, DfsError> {
        let id = UploadId::from_slice(&request.upload_id)?;
        let view = self.view().await?;
        let row = query::upload_for(&view, self.principal()?, id)?;
        if row.state() != v1::UploadState::Open {
            return Err(DfsError::new(
                ErrorCode::UploadNotFound,
                format!("upload {id} is not open any more"),
            ));
        }
        let bucket = query::bucket_by_id(&view, BucketId::from_slice(&row.bucket_id)?)?
            .ok_or_else(|| DfsError::new(ErrorCode::BucketNotFound, "the upload's bucket is gone"))?;
        // The last page, so that a client that crashed can tell what it has sent.
        let last = match row.chunks.checked_sub(1) {
            Some(index) => {
                query::upload_entries(&view, id, index)?.map_or(Vec::new(), |(_, entries)| entries)
            }
            None => Vec::new(),
        };
        Ok(v1::UploadInfo {
            upload_id: id.to_vec().into(),
            file_id: row.file_id,
            realm_id: row.realm_id,
            path: format!("/{}/{}", bucket.name, row.key),
            policy: row.policy,
            chunks: row.chunks,
            bytes: row.bytes,
            pages: row.pages,
            size: row.size,
            entries: last
                .iter()
                .map(|entry| v1::PageEntry {
                    chunk_id: entry.chunk.to_vec().into(),
                    size: u64::from(entry.plain),
                })
                .collect(),
            created_unix_ms: row.created_unix_ms,
            position: view.position().0,
        })
    }

    pub(super) async fn commit_upload(
        &self,
        request: v1::CommitUploadRequest,
    ) -> Result<v1::CommitUploadResponse, DfsError> {
        let id = UploadId::from_slice(&request.upload_id)?;
        let user_metadata = check_metadata(&request.content_type, &request.user_metadata)?;
        let content_hash = match request.content_hash.len() {
            0 => None,
            32 => Some(request.content_hash.as_ref().try_into().expect("32 bytes")),
            _ => {
                return Err(DfsError::new(
                    ErrorCode::InvalidArgument,
                    "content_hash must be empty or 32 bytes",
                ));
            }
        };
        let (row, view) = self.upload_to_write(id).await?;
        let (open, began) = (row.state() == v1::UploadState::Open, row.created_unix_ms);
        let sealed_root = if row.state() == v1::UploadState::Open {
            if (row.chunks, row.bytes) != (request.chunks, request.size) {
                return Err(DfsError::new(
                    ErrorCode::ManifestMismatch,
                    format!(
                        "the pages hold {} chunks of {} bytes, the commit says {} of {}",
                        row.chunks, row.bytes, request.chunks, request.size
                    ),
                ));
            }
            let (key, bound) = self.upload_key(&view, id, &row)?;
            // Up to 4,096 pages of megabytes in all: not on a thread that others wait for.
            let pages = row.pages;
            let hashing = tokio::task::spawn_blocking(move || hash_pages(&view, id, pages));
            let pages_hash = hashing
                .await
                .map_err(|error| DfsError::new(ErrorCode::Internal, format!("hashing pages: {error}")))??;
            let root = Root {
                size: request.size,
                chunks: request.chunks,
                pages: row.pages,
                pages_upload: id,
                pages_hash,
                content_hash,
                content_type: request.content_type,
                user_metadata,
            };
            seal_root(&key, &bound, &root, self.parts().keyring.entropy())?
        } else {
            // A tombstone: apply answers what it answered the first time, or that it ended.
            vec![0; 64]
        };
        let kind = Kind::CommitUpload(v1::CommitUpload {
            upload_id: id.to_vec().into(),
            chunks: request.chunks,
            size: request.size,
            sealed_root: sealed_root.into(),
            if_version: request.if_version,
        });
        let result = self.propose(&request.mutation, kind).await?;
        if open {
            crate::telemetry::upload_committed(began, self.parts().clock.unix_millis());
        }
        self.parts().book.release(id.0);
        Ok(commit_response(result))
    }

    pub(super) async fn abort_upload(
        &self,
        request: v1::AbortUploadRequest,
    ) -> Result<v1::CommitPosition, DfsError> {
        let id = UploadId::from_slice(&request.upload_id)?;
        self.upload_to_write(id).await?;
        let kind = Kind::EndUpload(v1::EndUpload {
            upload_ids: vec![id.to_vec().into()],
            expired: false,
            ..Default::default()
        });
        let result = self.propose(&request.mutation, kind).await?;
        self.parts().book.release(id.0);
        Ok(v1::CommitPosition { position: result.position })
    }
}

pub(super) fn commit_response(result: v1::CommandResult) -> v1::CommitUploadResponse {
    v1::CommitUploadResponse {
        file_id: result.file_id,
        version: result.version,
        copies: result.copies,
        target: result.target,
        position: result.position,
    }
}

/// The hash over all pages that the root keeps.
fn hash_pages(kv: &dyn KvRead, id: UploadId, pages: u32) -> Result<[u8; 32], DfsError> {
    let mut hasher = PagesHasher::new();
    let (mut after, mut seen) = (None, 0u32);
    loop {
        let batch = rows::scan::<Pages>(kv, &id, after.as_ref(), PAGES_AT_ONCE)?;
        let Some((last, _)) = batch.last() else { break };
        after = Some(*last);
        for (_, page) in &batch {
            hasher.page(&page.clear, &page.sealed);
            seen += 1;
        }
    }
    if seen != pages || pages > MAX_PAGES_PER_VERSION {
        return Err(DfsError::new(
            ErrorCode::ManifestMismatch,
            format!("{seen} pages are there, {pages} were appended"),
        ));
    }
    Ok(hasher.finish())
}
