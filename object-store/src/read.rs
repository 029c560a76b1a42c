//! Reads. Conditions and ranges are judged by the version that was opened, and all bytes come from it.

use std::ops::Range;

use bytes::Bytes;
use dfs_client::v1::FileInfo;
use dfs_client::{DfsError, ErrorCode, FileRef, ReadRange, ReadStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, GetResult, GetResultPayload, OBJECT_STORE_COALESCE_DEFAULT, Result,
    coalesce_ranges,
};

use crate::error::{error, generic};
use crate::{DfsObjectStore, attributes, meta};

/// How often a version that was replaced and dropped between two calls is looked for anew.
const MAX_ROUNDS: u32 = 5;

impl DfsObjectStore {
    pub(crate) async fn get(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let file = self.file(location, options.version.as_deref())?;
        if let Some(range) = &options.range {
            range.is_valid().map_err(|invalid| generic(invalid.to_string()))?;
        }
        if options.head {
            let info = self.stat(location, &file).await?;
            return result(
                location,
                &options,
                &info,
                GetResultPayload::Stream(futures::stream::empty().boxed()),
            );
        }
        let (stream, info) = self.open(location, &file, options.range.as_ref()).await?;
        let path = location.to_string();
        let bytes = stream.map_err(move |failed| error(failed, path.clone())).boxed();
        result(location, &options, &info, GetResultPayload::Stream(bytes))
    }

    /// All ranges of one version, though others may write meanwhile.
    pub(crate) async fn ranges_of_one_version(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> Result<Vec<Bytes>> {
        let file = FileRef::from(self.path(location));
        for round in 1.. {
            let info = self.stat(location, &file).await?;
            for range in ranges {
                let within = GetRange::Bounded(range.clone()).as_range(info.size);
                within.map_err(|invalid| generic(invalid.to_string()))?;
            }
            let pinned = file.clone().at_version(info.version);
            let fetch = |range: Range<u64>| {
                let (client, pinned, path) = (self.client.clone(), pinned.clone(), location.to_string());
                async move {
                    let range = ReadRange::new(range.start, range.end - range.start);
                    client.read_range(pinned, range).await.map_err(|failed| error(failed, path))
                }
            };
            match coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await {
                // Replaced, and its bucket keeps nothing.
                Err(Error::NotFound { .. }) if round < MAX_ROUNDS => {}
                other => return other,
            }
        }
        Err(generic("the file was replaced again and again while it was read"))
    }

    /// `None` and text: the current version, or the one named.
    fn file(&self, location: &Path, version: Option<&str>) -> Result<FileRef> {
        let file = FileRef::from(self.path(location));
        let Some(version) = version else { return Ok(file) };
        // What is no number of ours names no version that ever was.
        let number = version.parse().map_err(|_| {
            let message = format!("{location} has no version {version}");
            error(DfsError::new(ErrorCode::NotFound, message), location.to_string())
        })?;
        Ok(file.at_version(number))
    }

    async fn stat(&self, location: &Path, file: &FileRef) -> Result<FileInfo> {
        let info =
            self.client.stat(file.clone()).await.map_err(|failed| error(failed, location.to_string()))?;
        if info.deleted {
            let gone = DfsError::new(ErrorCode::NotFound, format!("{location} is deleted"));
            return Err(error(gone, location.to_string()));
        }
        Ok(info)
    }

    async fn open(
        &self,
        location: &Path,
        file: &FileRef,
        range: Option<&GetRange>,
    ) -> Result<(ReadStream, FileInfo)> {
        for round in 1.. {
            let (file, wanted) = match range {
                None => (file.clone(), ReadRange::default()),
                Some(GetRange::Bounded(range)) => {
                    (file.clone(), ReadRange::new(range.start, range.end.saturating_sub(range.start)))
                }
                Some(GetRange::Offset(offset)) => (file.clone(), ReadRange { offset: *offset, length: None }),
                // Only the size tells where it begins.
                Some(GetRange::Suffix(length)) => {
                    let info = self.stat(location, file).await?;
                    let offset = info.size.saturating_sub(*length);
                    (file.clone().at_version(info.version), ReadRange { offset, length: None })
                }
            };
            match self.client.open_read(file, wanted).await {
                Ok(stream) => {
                    let info = stream.info.clone();
                    return Ok((stream, info));
                }
                Err(failed)
                    if failed.code == ErrorCode::NotFound
                        && matches!(range, Some(GetRange::Suffix(_)))
                        && round < MAX_ROUNDS => {}
                Err(failed) => return Err(error(failed, location.to_string())),
            }
        }
        Err(generic("the file was replaced again and again while it was opened"))
    }
}

fn result(
    location: &Path,
    options: &GetOptions,
    info: &FileInfo,
    payload: GetResultPayload,
) -> Result<GetResult> {
    let meta = meta::object_meta(location.clone(), info)?;
    options.check_preconditions(&meta)?;
    let range = match &options.range {
        None => 0..info.size,
        Some(range) => range.as_range(info.size).map_err(|invalid| generic(invalid.to_string()))?,
    };
    Ok(GetResult {
        payload,
        meta,
        range,
        attributes: attributes::shown(info),
        extensions: Default::default(),
    })
}
