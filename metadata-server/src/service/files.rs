//! Files by name: list, versions, delete, rename, copy.

use chunk_format::keys::VersionBinding;
use chunk_format::root::{open_root, seal_root};
use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::{BucketId, BucketName, DfsError, DfsPath, ErrorCode};
use metadata_core::query::{self, ListParams, Listed};

use super::buckets::list_limit;
use super::read::clear_info;
use super::session::{Session, path_of};

impl Session {
    pub(super) async fn list(&self, request: v1::ListRequest) -> Result<v1::ListResponse, DfsError> {
        let name = BucketName::new(request.bucket.as_str())?;
        let limit = list_limit(request.limit)?;
        let view = self.view().await?;
        let bucket = query::bucket_for(&view, self.principal()?, name.as_str())?;
        let params = ListParams {
            prefix: &request.prefix,
            delimiter: &request.delimiter,
            cursor: &request.cursor,
            limit: limit as u32,
            include_deleted: request.include_deleted,
            start_after: &request.start_after,
        };
        let page = query::list(&view, BucketId::from_slice(&bucket.bucket_id)?, &params)?;
        let position = view.position().0;
        let mut entries = Vec::with_capacity(page.entries.len());
        for listed in page.entries {
            let kind = match listed {
                Listed::CommonPrefix(prefix) => v1::list_entry::Kind::CommonPrefix(prefix),
                Listed::File { key, head } => v1::list_entry::Kind::File(v1::FileInfo {
                    path: format!("/{name}/{key}"),
                    file_id: head.file_id,
                    version: head.version,
                    size: head.size,
                    created_unix_ms: head.created_unix_ms,
                    updated_unix_ms: head.unix_ms,
                    owner: head.owner,
                    chunks: head.chunks,
                    inline: head.inline,
                    deleted: head.deleted,
                    position,
                    ..Default::default()
                }),
            };
            entries.push(v1::ListEntry { kind: Some(kind) });
        }
        Ok(v1::ListResponse { entries, next_cursor: page.next_cursor, position })
    }

    pub(super) async fn list_versions(
        &self,
        request: v1::ListVersionsRequest,
    ) -> Result<v1::ListVersionsResponse, DfsError> {
        let limit = list_limit(request.limit)?;
        let before =
            match request.cursor.as_str() {
                "" => None,
                text => Some(text.parse::<u64>().map_err(|_| {
                    DfsError::new(ErrorCode::InvalidArgument, "the cursor is not one of ours")
                })?),
            };
        let view = self.view().await?;
        let found = self.find(&view, &request.file)?;
        let page = query::history(&view, &found, before, limit)?;
        let next_cursor = match page.last() {
            Some(last) if page.len() == limit => last.version.to_string(),
            _ => String::new(),
        };
        let position = view.position().0;
        let versions = page.iter().map(|found| clear_info(found, position)).collect();
        Ok(v1::ListVersionsResponse { versions, next_cursor, position })
    }

    pub(super) async fn delete(&self, request: v1::DeleteRequest) -> Result<v1::DeleteResponse, DfsError> {
        let selector = request.file.clone().unwrap_or_default();
        let whole = Some(v1::FileSelector { version: None, ..selector.clone() });
        let by_id = matches!(selector.by, Some(v1::file_selector::By::FileId(_)));
        let found = self.look_to_write(|view| self.find(view, &whole)).await;
        let (bucket_id, key, file_id) = match found {
            Ok((found, _)) => (
                found.bucket.bucket_id.clone(),
                found.file.key.clone(),
                // By path: whatever the name stands for when the command applies.
                if by_id || selector.version.is_some() { found.file_id.to_vec() } else { Vec::new() },
            ),
            // A repeated purge by path finds nothing, and must still get the first try's answer.
            Err(error) if error.code == ErrorCode::NotFound && !by_id => {
                let Some(v1::file_selector::By::Path(path)) = &selector.by else { return Err(error) };
                let path: DfsPath = path.parse()?;
                let (bucket, _) = self.bucket_to_write(&path.bucket).await?;
                (bucket.bucket_id, path.key.to_string(), Vec::new())
            }
            Err(error) => return Err(error),
        };
        let kind = Kind::DeleteFile(v1::DeleteFile {
            bucket_id,
            key,
            file_id: file_id.into(),
            version: selector.version,
            if_version: request.if_version,
            purge: request.purge,
        });
        let result = self.propose(&request.mutation, kind).await?;
        Ok(v1::DeleteResponse { file_id: result.file_id, version: result.version, position: result.position })
    }

    pub(super) async fn rename(&self, request: v1::RenameRequest) -> Result<v1::FileInfo, DfsError> {
        let (from, to): (DfsPath, DfsPath) = (request.from.parse()?, request.to.parse()?);
        if from.bucket != to.bucket {
            return Err(DfsError::new(
                ErrorCode::InvalidArgument,
                "a rename stays in its bucket; copy and delete to move to another",
            ));
        }
        let (bucket, _) = self.bucket_to_write(&from.bucket).await?;
        let kind = Kind::RenameFile(v1::RenameFile {
            bucket_id: bucket.bucket_id,
            from: from.key.to_string(),
            to: to.key.to_string(),
            if_version: request.if_version,
            if_to_version: request.if_to_version,
        });
        let result = self.propose(&request.mutation, kind).await?;
        self.info_after(&to, result)
    }

    pub(super) async fn copy(&self, request: v1::CopyRequest) -> Result<v1::FileInfo, DfsError> {
        let to: DfsPath = request.to.parse()?;
        let (target, _) = self.bucket_to_write(&to.bucket).await?;
        let ((found, row), view) = self.look_to_write(|view| self.find_content(view, &request.from)).await?;
        let target_id = BucketId::from_slice(&target.bucket_id)?;
        let file = self.file_id_for(&view, target_id, &to)?;
        // The same key under the new file's name; the pages stay as they are.
        let (key, bound) = self.version_key(&view, &row)?;
        let root = open_root(&key, &bound, &row.sealed_root)?;
        let new_bound = VersionBinding { bucket: target_id, file, upload: bound.upload };
        let keyring = &self.parts().keyring;
        let kind = Kind::CopyFile(v1::CopyFile {
            from_file_id: found.file_id.to_vec().into(),
            from_version: found.version,
            bucket_id: target.bucket_id.clone(),
            key: to.key.to_string(),
            file_id: file.to_vec().into(),
            wrapped_version_key: keyring.wrap_version_key(&self.kek(&target)?, &new_bound, &key).into(),
            sealed_root: seal_root(&key, &new_bound, &root, keyring.entropy())?.into(),
            if_version: request.if_version,
            policy: row.policy,
        });
        let result = self.propose(&request.mutation, kind).await?;
        self.info_after(&to, result)
    }

    /// What a mutation of the file at `path` made. Another mutation may have been quicker than this
    /// look at the state: then only what the command itself answered is told.
    fn info_after(&self, path: &DfsPath, result: v1::CommandResult) -> Result<v1::FileInfo, DfsError> {
        let view = self.local()?;
        match query::find_by_path(&view, self.principal()?, path, None) {
            Ok(found) if found.version == result.version && found.row.is_some() => {
                self.full_info(&view, &found, result.position)
            }
            Ok(found) => Ok(v1::FileInfo {
                path: path_of(&found),
                file_id: result.file_id,
                version: result.version,
                position: result.position,
                ..Default::default()
            }),
            Err(_) => Ok(v1::FileInfo {
                path: path.to_string(),
                file_id: result.file_id,
                version: result.version,
                position: result.position,
                ..Default::default()
            }),
        }
    }
}
