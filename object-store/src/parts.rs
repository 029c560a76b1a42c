//! Multipart uploads by id, their parts in any order. Where the parts of an upload are is known to this
//! store and its clones alone: all parts go through one of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dfs_client::{DfsError, ErrorCode, Multipart, Part};
use dfs_types::limits::MAX_OPEN_MULTIPARTS;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{Error, MultipartId, PutMultipartOptions, PutPayload, PutResult, Result};

use crate::error::error;
use crate::{DfsObjectStore, meta, write};

/// Open uploads by id.
#[derive(Clone, Default)]
pub(crate) struct OpenUploads(Arc<Mutex<BTreeMap<MultipartId, Open>>>);

struct Open {
    location: Path,
    upload: Multipart,
    parts: BTreeMap<String, Part>,
    next: u64,
}

impl OpenUploads {
    fn all(&self) -> MutexGuard<'_, BTreeMap<MultipartId, Open>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, path: &Path, id: &str, look: impl FnOnce(&mut Open) -> T) -> Result<T> {
        let mut all = self.all();
        let open = all.get_mut(id).filter(|open| open.location == *path);
        open.map(look).ok_or_else(|| {
            let message = format!("no upload {id} of {path} was begun through this store");
            error(DfsError::new(ErrorCode::UploadNotFound, message), path.to_string())
        })
    }
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartStore for DfsObjectStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        self.create_multipart_opts(path, PutMultipartOptions::default()).await
    }

    async fn create_multipart_opts(&self, path: &Path, opts: PutMultipartOptions) -> Result<MultipartId> {
        let options = write::put_options(&opts.attributes, &opts.tags)?;
        if self.open.all().len() >= MAX_OPEN_MULTIPARTS {
            let message = format!("{MAX_OPEN_MULTIPARTS} uploads are open: complete or abort some");
            return Err(error(DfsError::new(ErrorCode::Overloaded, message), path.to_string()));
        }
        let begun = self.client.put_multipart(&self.path(path), options).await;
        let upload = begun.map_err(|failed| error(failed, path.to_string()))?;
        let id = upload.upload_id().to_string();
        let open = Open { location: path.clone(), upload, parts: BTreeMap::new(), next: 0 };
        self.open.all().insert(id.clone(), open);
        Ok(id)
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        part_idx: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        let upload = self.open.with(path, id, |open| open.upload.clone())?;
        let part = upload.put_part(Bytes::from(data)).await;
        let part = part.map_err(|failed| error(failed, path.to_string()))?;
        self.open.with(path, id, |open| {
            let content_id = format!("{part_idx}-{}", open.next);
            open.next += 1;
            open.parts.insert(content_id.clone(), part);
            PartId { content_id }
        })
    }

    /// The parts become the object in the order given. After an error it may be asked for again.
    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let (upload, parts) = self.open.with(path, id, |open| {
            let find = |part: &PartId| {
                open.parts.get(&part.content_id).cloned().ok_or_else(|| Error::Precondition {
                    path: path.to_string(),
                    source: format!("the upload has no part {}", part.content_id).into(),
                })
            };
            (open.upload.clone(), parts.iter().map(find).collect::<Result<Vec<_>>>())
        })?;
        let done = upload.complete(&parts?).await.map_err(|failed| error(failed, path.to_string()))?;
        self.open.all().remove(id);
        Ok(meta::put_result(done.version))
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let upload = self.open.with(path, id, |open| open.upload.clone())?;
        match upload.abort().await {
            Err(failed) if failed.code != ErrorCode::UploadNotFound => {
                return Err(error(failed, path.to_string()));
            }
            _ => {}
        }
        self.open.all().remove(id);
        Ok(())
    }
}
