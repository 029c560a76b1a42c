//! Listings. A prefix is a directory: `a/b` lists what is below `a/b/`, never `a/bc`.

use dfs_client::v1::{FileInfo, list_entry::Kind};
use dfs_client::{DfsError, ErrorCode, Listing};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::{DELIMITER, Path};
use object_store::{ListResult, ObjectMeta, Result};

use crate::error::{error, generic};
use crate::{DfsObjectStore, meta};

/// Entries of one page of the cluster.
const PAGE: usize = 1000;

impl DfsObjectStore {
    fn listing(&self, prefix: Option<&Path>) -> Listing {
        let prefix = prefix.filter(|prefix| !prefix.as_ref().is_empty());
        let prefix = prefix.map(|prefix| format!("{prefix}{DELIMITER}")).unwrap_or_default();
        Listing::under(&self.bucket, prefix)
    }

    pub(crate) fn list_from(
        &self,
        prefix: Option<&Path>,
        offset: Option<&Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut listing = self.listing(prefix);
        listing.start_after = offset.map(Path::to_string).unwrap_or_default();
        let bucket = self.bucket.clone();
        self.client
            .list_all(listing)
            .map(move |entry| match entry.map_err(|failed| error(failed, bucket.clone()))?.kind {
                Some(Kind::File(info)) => object(&info).map(Some),
                Some(Kind::CommonPrefix(_)) | None => Ok(None),
            })
            .try_filter_map(futures::future::ok)
            .boxed()
    }

    pub(crate) async fn list_folded(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let listing = Listing { delimiter: DELIMITER.to_owned(), ..self.listing(prefix) };
        let mut all =
            ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
        let mut entries = std::pin::pin!(self.client.list_all(listing));
        while let Some(entry) = entries.next().await {
            add(&mut all, entry.map_err(|failed| error(failed, self.bucket.clone()))?.kind)?;
        }
        Ok(all)
    }
}

#[async_trait::async_trait]
impl PaginatedListStore for DfsObjectStore {
    /// One page; unlike the other listings, `prefix` is any beginning of a key.
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        opts: PaginatedListOptions,
    ) -> Result<PaginatedListResult> {
        let listing = Listing {
            bucket: self.bucket.clone(),
            prefix: prefix.unwrap_or_default().to_owned(),
            delimiter: opts.delimiter.map(String::from).unwrap_or_default(),
            cursor: opts.page_token.unwrap_or_default(),
            limit: opts.max_keys.unwrap_or(PAGE).clamp(1, PAGE) as u32,
            start_after: opts.offset.unwrap_or_default(),
            ..Listing::default()
        };
        let page = self.client.list(listing).await.map_err(|failed| error(failed, self.bucket.clone()))?;
        let mut result =
            ListResult { common_prefixes: Vec::new(), objects: Vec::new(), extensions: Default::default() };
        for entry in page.entries {
            add(&mut result, entry.kind)?;
        }
        let page_token = Some(page.next_cursor).filter(|token| !token.is_empty());
        Ok(PaginatedListResult { result, page_token })
    }
}

fn add(to: &mut ListResult, kind: Option<Kind>) -> Result<()> {
    match kind {
        Some(Kind::File(info)) => to.objects.push(object(&info)?),
        Some(Kind::CommonPrefix(prefix)) => {
            to.common_prefixes.push(location(prefix.strip_suffix(DELIMITER).unwrap_or(&prefix))?);
        }
        None => {}
    }
    Ok(())
}

fn object(info: &FileInfo) -> Result<ObjectMeta> {
    let key = info.path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(_, key)| key);
    let key = key.ok_or_else(|| generic(format!("{:?} is no path of a file", info.path)))?;
    meta::object_meta(location(key)?, info)
}

/// A key as a location that means the same key.
fn location(key: &str) -> Result<Path> {
    let path = Path::parse(key)?;
    if path.as_ref() == key {
        return Ok(path);
    }
    let message = format!("the key {key:?} cannot be a location; rename it with dfsctl mv");
    Err(error(DfsError::new(ErrorCode::InvalidName, message), key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_stay_the_same_are_locations() {
        for good in ["a", "a/b", "%48%45", "ü/😀", "a b"] {
            assert_eq!(location(good).unwrap().as_ref(), good);
        }
        for bad in ["/a", "a/", "a//b", "a/../b", "."] {
            assert!(location(bad).is_err(), "{bad}");
        }
    }
}
