//! PutInline: small content in one round trip, sealed here before it is proposed.

use chunk_format::keys::VersionBinding;
use chunk_format::page::{ClearEntry, PagesHasher, encode_clear, open_page, seal_page};
use chunk_format::root::{Root, seal_root};
use chunk_format::seal::{content_secret, plain_hash, seal};
use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::MAX_INLINE_BYTES;
use dfs_types::{BucketId, ChunkId, DfsError, DfsPath, ErrorCode, Secret, UploadId};
use metadata_core::policy;

use super::session::Session;
use super::uploads::{check_metadata, commit_response};

/// The clear list of an inline content's one-entry page. Not stored: it follows from the content.
fn clear_list(chunk: ChunkId, size: u64) -> Vec<u8> {
    encode_clear(&[ClearEntry { chunk, length: size as u32 }])
}

/// The secret of an inline content, from its sealed page.
pub(super) fn open_inline(
    key: &Secret<32>,
    manifest: &UploadId,
    size: u64,
    row: &v1::InlineRow,
) -> Result<Secret<32>, DfsError> {
    let id = ChunkId(*blake3::hash(&row.sealed).as_bytes());
    let secrets = open_page(key, manifest, 0, &clear_list(id, size), &row.sealed_page)?;
    secrets.into_iter().next().ok_or_else(|| DfsError::new(ErrorCode::Internal, "an inline page is empty"))
}

impl Session {
    pub(super) async fn put_inline(
        &self,
        request: v1::PutInlineRequest,
    ) -> Result<v1::CommitUploadResponse, DfsError> {
        let path: DfsPath = request.path.parse()?;
        if request.content.len() > MAX_INLINE_BYTES {
            return Err(DfsError::new(
                ErrorCode::LimitExceeded,
                format!("inline content has at most {MAX_INLINE_BYTES} bytes; begin an upload for more"),
            ));
        }
        let user_metadata = check_metadata(&request.content_type, &request.user_metadata)?;
        let (bucket, view) = self.bucket_to_write(&path.bucket).await?;
        let bucket_id = BucketId::from_slice(&bucket.bucket_id)?;
        let wanted = bucket.policy.unwrap_or(policy::DEFAULT);
        let upload = self.upload_id_of(&request.mutation)?;
        let bound =
            VersionBinding { bucket: bucket_id, file: self.file_id_for(&view, bucket_id, &path)?, upload };
        let keyring = &self.parts().keyring;
        let key = keyring.draw();
        let size = request.content.len() as u64;
        let mut pages = PagesHasher::new();
        let hash = plain_hash(&request.content);
        let (sealed, sealed_page) = if request.content.is_empty() {
            (bytes::Bytes::new(), Vec::new())
        } else {
            let secret = content_secret(&keyring.draw(), &hash);
            let chunk = seal(&secret, &request.content)?;
            let clear = clear_list(chunk.id, size);
            let page = seal_page(&key, &upload, 0, &clear, &[secret], keyring.entropy())?;
            pages.page(&clear, &page);
            (chunk.bytes, page)
        };
        let count = u32::from(size > 0);
        let root = Root {
            size,
            chunks: count,
            pages: count,
            pages_upload: upload,
            pages_hash: pages.finish(),
            content_hash: Some(hash),
            content_type: request.content_type,
            user_metadata,
        };
        let kind = Kind::PutInline(v1::PutInline {
            bucket_id: bucket.bucket_id.clone(),
            key: path.key.to_string(),
            file_id: bound.file.to_vec().into(),
            upload_id: upload.to_vec().into(),
            size,
            sealed,
            sealed_page: sealed_page.into(),
            sealed_root: seal_root(&key, &bound, &root, keyring.entropy())?.into(),
            wrapped_version_key: keyring.wrap_version_key(&self.kek(&bucket)?, &bound, &key).into(),
            if_version: request.if_version,
            policy: Some(wanted),
        });
        let result = self.propose(&request.mutation, kind).await?;
        Ok(commit_response(result))
    }
}
