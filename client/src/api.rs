//! The calls that move no file content, one method each.

use dfs_proto::v1;
use dfs_types::{ChunkId, DfsPath};
use futures::Stream;

use crate::options::{BucketOptions, Condition, FileRef, ListPage, Listing};
use crate::{Client, Result};

/// `read!(self, message, method)` and `change!(self, |mutation| message, method)`: a call within the
/// operation deadline.
macro_rules! read {
    ($client:expr, $request:expr, $method:ident) => {
        $client
            .inner
            .rpc
            .read(&$client.inner.dials, $client.operation(), $request, |mut client, request| async move {
                client.$method(request).await
            })
            .await
    };
}
macro_rules! change {
    ($client:expr, $build:expr, $method:ident) => {
        $client
            .inner
            .rpc
            .mutate(&$client.inner.dials, $client.operation(), $build, |mut client, request| async move {
                client.$method(request).await
            })
            .await
    };
}

/// Buckets.
impl Client {
    /// Makes a bucket. `already_exists` when the name is taken.
    pub async fn create_bucket(&self, name: &str, options: BucketOptions) -> Result<v1::Bucket> {
        let build = |mutation| v1::CreateBucketRequest {
            mutation: Some(mutation),
            name: name.to_owned(),
            policy: options.policy.map(Into::into),
            keep_ms: options.keep_ms,
            realm: options.realm as i32,
        };
        change!(self, build, create_bucket)
    }

    pub async fn bucket(&self, name: &str) -> Result<v1::Bucket> {
        read!(self, v1::GetBucketRequest { name: name.to_owned() }, get_bucket)
    }

    /// All buckets this caller may see, by name.
    pub async fn buckets(&self) -> Result<Vec<v1::Bucket>> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let page =
                read!(self, v1::ListBucketsRequest { cursor: cursor.clone(), limit: 0 }, list_buckets)?;
            all.extend(page.buckets);
            cursor = page.next_cursor;
            if cursor.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Changes a bucket's policy or keep time, for versions written from then on.
    pub async fn set_bucket(&self, name: &str, options: BucketOptions) -> Result<v1::Bucket> {
        let build = |mutation| v1::SetBucketRequest {
            mutation: Some(mutation),
            name: name.to_owned(),
            policy: options.policy.map(Into::into),
            keep_ms: options.keep_ms,
        };
        change!(self, build, set_bucket)
    }

    /// Removes an empty bucket; `bucket_not_empty` otherwise.
    pub async fn delete_bucket(&self, name: &str) -> Result<v1::CommitPosition> {
        let build = |mutation| v1::DeleteBucketRequest { mutation: Some(mutation), name: name.to_owned() };
        change!(self, build, delete_bucket)
    }
}

/// Files, without their content.
impl Client {
    pub async fn stat(&self, file: impl Into<FileRef>) -> Result<v1::FileInfo> {
        let file = Some(file.into().selector()?);
        read!(self, v1::StatRequest { file, with_copies: false }, stat)
    }

    /// `stat` that also looks at the copies of every chunk and returns the worst one's.
    pub async fn stat_with_copies(&self, file: impl Into<FileRef>) -> Result<v1::FileInfo> {
        let file = Some(file.into().selector()?);
        read!(self, v1::StatRequest { file, with_copies: true }, stat)
    }

    /// One page of a listing. Each page is linearizable; together they are not one snapshot.
    pub async fn list(&self, listing: Listing) -> Result<ListPage> {
        let request = v1::ListRequest {
            bucket: listing.bucket,
            prefix: listing.prefix,
            delimiter: listing.delimiter,
            cursor: listing.cursor,
            limit: listing.limit,
            include_deleted: listing.include_deleted,
            start_after: listing.start_after,
        };
        read!(self, request, list)
    }

    /// A whole listing, page after page, in byte order of the keys.
    ///
    /// ```no_run
    /// use dfs_client::{Client, Listing};
    /// use futures::TryStreamExt;
    ///
    /// # async fn example(client: Client) -> dfs_client::Result<()> {
    /// let entries: Vec<_> = client.list_all(Listing::under("photos", "2026/")).try_collect().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn list_all(&self, listing: Listing) -> impl Stream<Item = Result<v1::ListEntry>> + Send + use<> {
        let client = self.clone();
        let start = Some((listing, Vec::new().into_iter()));
        futures::stream::unfold(start, move |state| {
            let client = client.clone();
            async move {
                let (mut listing, mut entries): (Listing, std::vec::IntoIter<v1::ListEntry>) = state?;
                loop {
                    if let Some(entry) = entries.next() {
                        return Some((Ok(entry), Some((listing, entries))));
                    }
                    // An exhausted listing is marked by a limit no caller can mean.
                    if listing.limit == u32::MAX {
                        return None;
                    }
                    match client.list(listing.clone()).await {
                        Err(error) => return Some((Err(error), None)),
                        Ok(page) => {
                            entries = page.entries.into_iter();
                            if page.next_cursor.is_empty() {
                                listing.limit = u32::MAX;
                            }
                            listing.cursor = page.next_cursor;
                        }
                    }
                }
            }
        })
    }

    /// One page of a file's versions, newest first.
    pub async fn versions(&self, file: impl Into<FileRef>, cursor: &str) -> Result<v1::ListVersionsResponse> {
        let file = Some(file.into().selector()?);
        read!(self, v1::ListVersionsRequest { file, cursor: cursor.to_owned(), limit: 0 }, list_versions)
    }

    /// Deletes a file (with a version in `file`: that version alone). The bucket keeps it for its keep
    /// time unless `purge`.
    pub async fn delete(
        &self,
        file: impl Into<FileRef>,
        condition: Condition,
        purge: bool,
    ) -> Result<v1::DeleteResponse> {
        let file = file.into().selector()?;
        let build = |mutation| v1::DeleteRequest {
            mutation: Some(mutation),
            file: Some(file.clone()),
            if_version: condition.if_version,
            purge,
        };
        change!(self, build, delete)
    }

    /// Gives a file another key in the same bucket, at once and with its history. What was at `to` is
    /// replaced, unless `condition` says otherwise.
    pub async fn rename(&self, from: &str, to: &str, condition: Condition) -> Result<v1::FileInfo> {
        let (from, to): (DfsPath, DfsPath) = (from.parse()?, to.parse()?);
        let build = |mutation| v1::RenameRequest {
            mutation: Some(mutation),
            from: from.to_string(),
            to: to.to_string(),
            if_version: condition.if_version,
            if_to_version: condition.if_to_version,
        };
        change!(self, build, rename)
    }

    /// Copies by reference: no bytes move. `condition.if_to_version` speaks of the target.
    pub async fn copy(
        &self,
        from: impl Into<FileRef>,
        to: &str,
        condition: Condition,
    ) -> Result<v1::FileInfo> {
        let (from, to) = (from.into().selector()?, to.parse::<DfsPath>()?);
        let build = |mutation| v1::CopyRequest {
            mutation: Some(mutation),
            from: Some(from.clone()),
            to: to.to_string(),
            if_version: condition.if_to_version,
        };
        change!(self, build, copy)
    }

    /// Where the copies of one chunk are; `file` says through which file, if the caller cares.
    pub async fn chunk_locations(&self, chunk: ChunkId, file: Option<FileRef>) -> Result<v1::ChunkLocations> {
        let file = file.map(|file| file.selector()).transpose()?;
        let request = v1::GetChunkLocationsRequest { chunk_id: chunk.to_vec().into(), file };
        read!(self, request, get_chunk_locations)
    }

    /// Admin: has a node touch a chunk and counts it as a location if it has it.
    pub async fn put_chunk_location(
        &self,
        chunk: ChunkId,
        file: Option<FileRef>,
        node_id: &str,
    ) -> Result<v1::ChunkLocations> {
        let file = file.map(|file| file.selector()).transpose()?;
        let build = |mutation| v1::PutChunkLocationRequest {
            mutation: Some(mutation),
            chunk_id: chunk.to_vec().into(),
            file: file.clone(),
            node_id: node_id.to_owned(),
        };
        change!(self, build, put_chunk_location)
    }

    /// Drops an upload and what it holds. Forgotten uploads expire by themselves.
    pub async fn abort_upload(&self, upload: dfs_types::UploadId) -> Result<v1::CommitPosition> {
        let build =
            |mutation| v1::AbortUploadRequest { mutation: Some(mutation), upload_id: upload.to_vec().into() };
        change!(self, build, abort_upload)
    }
}

/// The cluster: nodes, metadata servers, principals.
impl Client {
    pub async fn nodes(&self) -> Result<v1::ListNodesResponse> {
        read!(self, v1::ListNodesRequest {}, list_nodes)
    }

    pub async fn node(&self, node_id: &str) -> Result<v1::NodeInfo> {
        read!(self, v1::GetNodeRequest { node_id: node_id.to_owned() }, get_node)
    }

    /// Admin: has a node's chunks copied elsewhere and taken off it. Goes on by itself; see [`Self::node`].
    pub async fn drain_node(&self, node_id: &str) -> Result<v1::NodeInfo> {
        let build = |mutation| v1::DrainNodeRequest { mutation: Some(mutation), node_id: node_id.to_owned() };
        change!(self, build, drain_node)
    }

    /// Admin: ends a drain; what is left on the node counts again. `node_conflict` if it is silent.
    pub async fn resume_node(&self, node_id: &str) -> Result<v1::NodeInfo> {
        let build =
            |mutation| v1::ResumeNodeRequest { mutation: Some(mutation), node_id: node_id.to_owned() };
        change!(self, build, resume_node)
    }

    /// Admin: accepts that a node lost the chunks its inventory lacks. `failed_precondition` if none
    /// wait for it.
    pub async fn confirm_loss(&self, node_id: &str) -> Result<v1::NodeInfo> {
        let build = |_: v1::Mutation| v1::ConfirmLossRequest { node_id: node_id.to_owned() };
        change!(self, build, confirm_loss)
    }

    /// Admin: forgets a node that owns nothing any more; `node_conflict` otherwise.
    pub async fn remove_node(&self, node_id: &str) -> Result<v1::CommitPosition> {
        let build =
            |mutation| v1::RemoveNodeRequest { mutation: Some(mutation), node_id: node_id.to_owned() };
        change!(self, build, remove_node)
    }

    pub async fn status(&self) -> Result<v1::ClusterStatusResponse> {
        read!(self, v1::ClusterStatusRequest {}, cluster_status)
    }

    pub async fn members(&self) -> Result<v1::ListMembersResponse> {
        read!(self, v1::ListMembersRequest {}, list_members)
    }

    /// Admin: adds a metadata server, or gives a member its new raft id or address.
    pub async fn add_member(&self, name: &str, address: &str) -> Result<v1::ListMembersResponse> {
        let build = |mutation| v1::AddMemberRequest {
            mutation: Some(mutation),
            name: name.to_owned(),
            address: address.to_owned(),
        };
        change!(self, build, add_member)
    }

    pub async fn remove_member(&self, name: &str) -> Result<v1::ListMembersResponse> {
        let build = |mutation| v1::RemoveMemberRequest { mutation: Some(mutation), name: name.to_owned() };
        change!(self, build, remove_member)
    }

    /// Admin: raises the cluster to feature level `level`, the present one and one more. There is no way
    /// back. `failed_precondition` while a metadata server's build does not know the level.
    pub async fn raise_feature_level(&self, level: u32) -> Result<v1::RaiseFeatureLevelResponse> {
        let build = |mutation| v1::RaiseFeatureLevelRequest { mutation: Some(mutation), level };
        change!(self, build, raise_feature_level)
    }

    /// Admin: makes a user. The answer holds the API key, this once.
    pub async fn create_principal(&self, name: &str, role: v1::Role) -> Result<v1::PrincipalInfo> {
        let build = |mutation| v1::CreatePrincipalRequest {
            mutation: Some(mutation),
            name: name.to_owned(),
            role: role as i32,
        };
        change!(self, build, create_principal)
    }

    pub async fn principals(&self) -> Result<Vec<v1::PrincipalInfo>> {
        let mut all = Vec::new();
        let mut cursor = String::new();
        loop {
            let request = v1::ListPrincipalsRequest { cursor: cursor.clone(), limit: 0 };
            let page = read!(self, request, list_principals)?;
            all.extend(page.principals);
            cursor = page.next_cursor;
            if cursor.is_empty() {
                return Ok(all);
            }
        }
    }

    /// Who the cluster takes this client for.
    pub async fn who_am_i(&self) -> Result<v1::PrincipalInfo> {
        read!(self, v1::WhoAmIRequest {}, who_am_i)
    }
}
