//! One bucket of a Distribute cluster as an [`object_store::ObjectStore`], for DataFusion, Delta and
//! whatever else speaks that trait.
//!
//! ```no_run
//! use dfs_client::Client;
//! use dfs_object_store::DfsObjectStore;
//! use object_store::{ObjectStore, ObjectStoreExt, path::Path};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::from_config_file("dfsctl.toml").await?;
//! let store: std::sync::Arc<dyn ObjectStore> = std::sync::Arc::new(DfsObjectStore::new(client, "tables"));
//! store.put(&Path::from("events/1.parquet"), "PAR1".into()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What maps to what
//! A location is a key; the store is one bucket, which must exist. The version number is the version,
//! and in double quotes the ETag, as in the REST interface. Conditional puts, copies and renames are
//! decided by the cluster in one step; copies move no bytes; a rename keeps a file's history. What is
//! deleted or replaced stays readable by its version for the bucket's keep time. Attributes travel
//! sealed, in the content type and the user metadata. Tags are refused as not implemented.
//!
//! # Memory
//! A transfer holds at most the client's `memory_bytes`, and the parts of a multipart upload whose
//! futures have not resolved yet.
//!
//! # Errors
//! Every error of the cluster keeps its [`DfsError`](dfs_client::DfsError) as `source`. A key that
//! cannot be a `Path` (`a//b`, `a/`) makes the listing that meets it fail: leaving it out would hide a
//! file.

mod attributes;
mod error;
mod list;
mod meta;
mod parts;
mod read;
mod upload;
mod write;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use dfs_client::Client;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// The guide's examples, compiled by `cargo test --doc`: this crate is the one that sees all they name.
#[cfg(doctest)]
#[doc = include_str!("../../docs/sdk.md")]
mod guide {}

/// What errors call this store.
pub(crate) const STORE: &str = "Distribute";

/// A bucket as an object store. Cheap to clone; clones share connections and open multipart uploads.
#[derive(Clone)]
pub struct DfsObjectStore {
    pub(crate) client: Client,
    pub(crate) bucket: String,
    pub(crate) open: parts::OpenUploads,
}

impl DfsObjectStore {
    /// The bucket is asked for by the first call, not here.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into(), open: parts::OpenUploads::default() }
    }

    /// The SDK's handle underneath.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    pub(crate) fn path(&self, location: &Path) -> String {
        format!("/{}/{location}", self.bucket)
    }
}

impl fmt::Display for DfsObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{STORE}({})", self.bucket)
    }
}

impl fmt::Debug for DfsObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DfsObjectStore").field("bucket", &self.bucket).finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for DfsObjectStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.put_whole(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(upload::Upload::begin(self, location, opts)?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.get(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.ranges_of_one_version(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.delete_all(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_from(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.list_from(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.list_folded(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.copy_by_reference(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.rename_with_history(from, to, options).await
    }
}
