//! A metadata service in maps: enough of it for transfers.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use bytes::Bytes;
use chunk_format::seal::{content_secret, seal};
use dfs_proto::status::to_status;
use dfs_proto::v1::metadata_server::{Metadata, MetadataServer};
use dfs_proto::v1::{self, *};
use dfs_types::error::{ChunkNeed, Need};
use dfs_types::{ChunkId, DfsError, ErrorCode, Secret};
use tonic::{Request, Response, Status};

use super::{Shared, World};

#[derive(Default)]
pub struct State {
    position: u64,
    uploads: BTreeMap<Vec<u8>, Upload>,
    pub files: BTreeMap<String, Version>,
    /// Files that were deleted and are kept, in the version of their deletion.
    pub kept: BTreeMap<String, Version>,
    /// Chunks of committed versions.
    pub committed: BTreeSet<ChunkId>,
    /// How many further calls are answered `unavailable`.
    pub unavailable: u32,
    /// How many further mutations are done and then answered `unknown_outcome`.
    pub forget_answers: u32,
    /// Chunk indexes that the next page is told to send or touch again.
    pub miss: Vec<(u32, Need)>,
    /// Request ids of inline puts, in order of arrival.
    pub requests: Vec<Bytes>,
    results: BTreeMap<Bytes, CommitUploadResponse>,
    pub reports: Vec<ReportReplicaRequest>,
    pub pages: u32,
    pub aborted: u32,
}

struct Upload {
    path: String,
    chunks: Vec<PageChunk>,
}

#[derive(Clone)]
pub struct Version {
    version: u64,
    pub size: u64,
    chunks: Vec<PageChunk>,
    inline: Option<(Bytes, Bytes)>,
    content_hash: Bytes,
}

pub struct Service(Shared);

pub fn service(world: Shared) -> MetadataServer<Service> {
    MetadataServer::new(Service(world))
}

fn error(code: ErrorCode) -> Status {
    to_status(&DfsError::new(code, code.as_str()))
}

const REALM: [u8; 16] = [3; 16];
/// Every deletion happens now, and every bucket keeps for a day.
const DELETED_UNIX_MS: u64 = 1_795_256_430_123;
const KEEP_MS: u64 = 86_400_000;

impl Service {
    fn enter(&self) -> Result<std::sync::MutexGuard<'_, World>, Status> {
        let mut world = self.0.lock();
        if world.metadata.unavailable > 0 {
            world.metadata.unavailable -= 1;
            return Err(error(ErrorCode::Unavailable));
        }
        world.metadata.position += 1 << 16;
        Ok(world)
    }
}

fn path_of(selector: &Option<FileSelector>) -> String {
    match selector.as_ref().unwrap().by.as_ref().unwrap() {
        file_selector::By::Path(path) => path.clone(),
        // The fake's file ids are the paths themselves.
        file_selector::By::FileId(id) => String::from_utf8(id.to_vec()).unwrap(),
    }
}

fn info(path: &str, version: &Version) -> FileInfo {
    FileInfo {
        file_id: path.as_bytes().to_vec().into(),
        path: path.to_owned(),
        version: version.version,
        size: version.size,
        chunks: version.chunks.len() as u32,
        inline: version.inline.is_some() || version.size == 0,
        content_hash: version.content_hash.clone(),
        ..Default::default()
    }
}

/// A deleted file as listings show it.
fn deleted_info(path: &str, kept: &Version) -> FileInfo {
    let chunks = Vec::new();
    let marker = Version { size: 0, chunks, inline: None, content_hash: Bytes::new(), ..*kept };
    FileInfo { deleted: true, updated_unix_ms: DELETED_UNIX_MS, ..info(path, &marker) }
}

fn committed(world: &World, version: u64) -> CommitUploadResponse {
    let position = world.metadata.position;
    CommitUploadResponse { file_id: vec![5; 16].into(), version, copies: 3, target: 3, position }
}

/// Methods that no transfer calls.
macro_rules! not_here {
    ($($method:ident $request:ident $answer:ident;)*) => { $(
        fn $method<'s, 'f>(&'s self, _: Request<v1::$request>) -> NotHere<'f, v1::$answer>
        where
            's: 'f,
            Self: 'f,
        {
            Box::pin(std::future::ready(Err(error(ErrorCode::Unimplemented))))
        }
    )* };
}

type NotHere<'f, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'f>>;

#[tonic::async_trait]
impl Metadata for Service {
    not_here! {
        create_bucket CreateBucketRequest Bucket;
        set_bucket SetBucketRequest Bucket;
        list_versions ListVersionsRequest ListVersionsResponse;
        rename RenameRequest FileInfo;
        copy CopyRequest FileInfo;
        get_chunk_locations GetChunkLocationsRequest ChunkLocations;
        put_chunk_location PutChunkLocationRequest ChunkLocations;
        list_nodes ListNodesRequest ListNodesResponse;
        get_node GetNodeRequest NodeInfo;
        drain_node DrainNodeRequest NodeInfo;
        resume_node ResumeNodeRequest NodeInfo;
        confirm_loss ConfirmLossRequest NodeInfo;
        remove_node RemoveNodeRequest CommitPosition;
        cluster_status ClusterStatusRequest ClusterStatusResponse;
        list_members ListMembersRequest ListMembersResponse;
        add_member AddMemberRequest ListMembersResponse;
        remove_member RemoveMemberRequest ListMembersResponse;
        create_principal CreatePrincipalRequest PrincipalInfo;
        list_principals ListPrincipalsRequest ListPrincipalsResponse;
        raise_feature_level RaiseFeatureLevelRequest RaiseFeatureLevelResponse;
        who_am_i WhoAmIRequest PrincipalInfo;
    }

    async fn list_buckets(
        &self,
        request: Request<ListBucketsRequest>,
    ) -> Result<Response<ListBucketsResponse>, Status> {
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer dfs_test_key");
        let position = self.enter()?.metadata.position;
        Ok(Response::new(ListBucketsResponse { position, ..Default::default() }))
    }

    async fn init_upload(
        &self,
        request: Request<InitUploadRequest>,
    ) -> Result<Response<InitUploadResponse>, Status> {
        let request = request.into_inner();
        assert_ne!(request.mutation.unwrap().seen_position, 0);
        if !request.path.starts_with("/bucket/") {
            return Err(error(ErrorCode::BucketNotFound));
        }
        let mut world = self.enter()?;
        let upload_id = (world.metadata.position as u128).to_be_bytes().to_vec();
        world.metadata.uploads.insert(upload_id.clone(), Upload { path: request.path, chunks: Vec::new() });
        Ok(Response::new(InitUploadResponse {
            upload_id: upload_id.into(),
            file_id: vec![5; 16].into(),
            realm_id: REALM.to_vec().into(),
            policy: Some(Policy { target: 3, min_ack: 2 }),
            position: world.metadata.position,
            chunk_size: 4 << 20,
        }))
    }

    async fn plan_chunks(
        &self,
        request: Request<PlanChunksRequest>,
    ) -> Result<Response<PlanChunksResponse>, Status> {
        let request = request.into_inner();
        let world = self.enter()?;
        if !world.metadata.uploads.contains_key(request.upload_id.as_ref()) {
            return Err(error(ErrorCode::UploadNotFound));
        }
        assert!(request.hashes.len() <= 64 && request.sealed.len() <= 64);
        let realm_secret = Secret::new([9; 32]);
        let secrets = request.hashes.iter().map(|chunk| ChunkSecret {
            index: chunk.index,
            secret: content_secret(&realm_secret, chunk.plain_hash.as_ref().try_into().unwrap())
                .expose()
                .to_vec()
                .into(),
        });
        let mut plans = Vec::new();
        for chunk in &request.sealed {
            let id = ChunkId::from_slice(&chunk.chunk_id).unwrap();
            let stored = world.metadata.committed.contains(&id) && !chunk.must_send;
            let nodes: Vec<PlannedNode> = world
                .nodes
                .iter()
                .filter(|(name, _)| !request.exclude_nodes.contains(name))
                .take(if stored { 0 } else { 3 })
                .map(|(name, node)| planned(name, &node.address))
                .collect();
            if !stored && nodes.len() < 2 {
                return Err(error(ErrorCode::NotEnoughNodes));
            }
            plans.push(ChunkPlan { index: chunk.index, stored, nodes });
        }
        Ok(Response::new(PlanChunksResponse {
            secrets: secrets.collect(),
            plans,
            position: world.metadata.position,
        }))
    }

    async fn append_page(
        &self,
        request: Request<AppendPageRequest>,
    ) -> Result<Response<CommitPosition>, Status> {
        let request = request.into_inner();
        let mut world = self.enter()?;
        let missed = std::mem::take(&mut world.metadata.miss);
        if !missed.is_empty() {
            let chunks = missed.into_iter().map(|(index, need)| ChunkNeed { index, need }).collect();
            return Err(to_status(&DfsError::chunks_missing("again", chunks)));
        }
        for chunk in &request.chunks {
            let id = ChunkId::from_slice(&chunk.chunk_id).unwrap();
            let held = world.nodes.iter().filter(|(name, node)| {
                node.chunks.contains_key(&id) && chunk.receipts.contains(&super::node::receipt(name, &id))
            });
            let enough = if chunk.receipts.is_empty() {
                world.metadata.committed.contains(&id)
            } else {
                held.count() == chunk.receipts.len() && chunk.receipts.len() >= 2
            };
            assert!(enough, "receipts {:?}", chunk.receipts);
        }
        world.metadata.pages += 1;
        let position = world.metadata.position;
        let upload = world.metadata.uploads.get_mut(request.upload_id.as_ref()).unwrap();
        assert_eq!(upload.chunks.len(), request.first_index as usize, "pages come in order");
        upload.chunks.extend(request.chunks);
        Ok(Response::new(CommitPosition { position }))
    }

    async fn get_upload(&self, request: Request<GetUploadRequest>) -> Result<Response<UploadInfo>, Status> {
        let request = request.into_inner();
        let world = self.enter()?;
        let upload = world.metadata.uploads.get(request.upload_id.as_ref());
        let upload = upload.ok_or_else(|| error(ErrorCode::UploadNotFound))?;
        Ok(Response::new(UploadInfo {
            upload_id: request.upload_id,
            realm_id: REALM.to_vec().into(),
            path: upload.path.clone(),
            policy: Some(Policy { target: 3, min_ack: 2 }),
            chunks: upload.chunks.len() as u32,
            bytes: upload.chunks.iter().map(|chunk| chunk.size).sum(),
            position: world.metadata.position,
            ..Default::default()
        }))
    }

    async fn commit_upload(
        &self,
        request: Request<CommitUploadRequest>,
    ) -> Result<Response<CommitUploadResponse>, Status> {
        let request = request.into_inner();
        let mut world = self.enter()?;
        let upload = world.metadata.uploads.remove(request.upload_id.as_ref());
        let upload = upload.ok_or_else(|| error(ErrorCode::UploadNotFound))?;
        assert_eq!(upload.chunks.len(), request.chunks as usize);
        assert_eq!(upload.chunks.iter().map(|chunk| chunk.size).sum::<u64>(), request.size);
        let ids = upload.chunks.iter().map(|chunk| ChunkId::from_slice(&chunk.chunk_id).unwrap());
        world.metadata.committed.extend(ids);
        let version = world.metadata.position;
        let made = Version {
            version,
            size: request.size,
            chunks: upload.chunks,
            inline: None,
            content_hash: request.content_hash,
        };
        world.metadata.kept.remove(&upload.path);
        world.metadata.files.insert(upload.path, made);
        Ok(Response::new(committed(&world, version)))
    }

    async fn abort_upload(
        &self,
        request: Request<AbortUploadRequest>,
    ) -> Result<Response<CommitPosition>, Status> {
        let mut world = self.enter()?;
        world.metadata.uploads.remove(request.into_inner().upload_id.as_ref());
        world.metadata.aborted += 1;
        Ok(Response::new(CommitPosition { position: world.metadata.position }))
    }

    async fn put_inline(
        &self,
        request: Request<PutInlineRequest>,
    ) -> Result<Response<CommitUploadResponse>, Status> {
        let request = request.into_inner();
        let mut world = self.enter()?;
        let id = request.mutation.unwrap().request_id;
        world.metadata.requests.push(id.clone());
        if let Some(done) = world.metadata.results.get(&id) {
            return Ok(Response::new(done.clone()));
        }
        let inline = if request.content.is_empty() {
            None
        } else {
            let secret = Secret::new([4; 32]);
            let sealed = seal(&secret, &request.content).unwrap();
            Some((sealed.bytes, Bytes::copy_from_slice(secret.expose())))
        };
        let version = world.metadata.position;
        let made = Version {
            version,
            size: request.content.len() as u64,
            chunks: Vec::new(),
            inline,
            content_hash: blake3::hash(&request.content).as_bytes().to_vec().into(),
        };
        world.metadata.kept.remove(&request.path);
        world.metadata.files.insert(request.path, made);
        let answer = committed(&world, version);
        world.metadata.results.insert(id, answer.clone());
        if world.metadata.forget_answers > 0 {
            world.metadata.forget_answers -= 1;
            return Err(error(ErrorCode::UnknownOutcome));
        }
        Ok(Response::new(answer))
    }

    async fn stat(&self, request: Request<StatRequest>) -> Result<Response<FileInfo>, Status> {
        let path = path_of(&request.into_inner().file);
        let world = self.enter()?;
        if let Some(kept) = world.metadata.kept.get(&path) {
            return Ok(Response::new(deleted_info(&path, kept)));
        }
        let version = world.metadata.files.get(&path).ok_or_else(|| error(ErrorCode::NotFound))?;
        Ok(Response::new(info(&path, version)))
    }

    async fn delete_bucket(
        &self,
        _: Request<DeleteBucketRequest>,
    ) -> Result<Response<CommitPosition>, Status> {
        let world = self.enter()?;
        if world.metadata.files.is_empty() && world.metadata.kept.is_empty() {
            return Ok(Response::new(CommitPosition { position: world.metadata.position }));
        }
        Err(error(ErrorCode::BucketNotEmpty))
    }

    async fn get_bucket(&self, request: Request<GetBucketRequest>) -> Result<Response<Bucket>, Status> {
        let (name, world) = (request.into_inner().name, self.enter()?);
        if name != "bucket" {
            return Err(error(ErrorCode::BucketNotFound));
        }
        let position = world.metadata.position;
        Ok(Response::new(Bucket { name, keep_ms: KEEP_MS, position, ..Default::default() }))
    }

    /// Pages of seven, so that every listing has several, and now and then an empty one.
    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let request = request.into_inner();
        let world = self.enter()?;
        let root = format!("/{}/", request.bucket);
        let position = world.metadata.position;
        if request.cursor == "empty page" {
            return Ok(Response::new(ListResponse {
                next_cursor: "start".into(),
                position,
                ..Default::default()
            }));
        }
        if request.cursor.is_empty() {
            return Ok(Response::new(ListResponse {
                next_cursor: "empty page".into(),
                position,
                ..Default::default()
            }));
        }
        let mut entries: Vec<(String, ListEntry)> = Vec::new();
        let kept = world.metadata.kept.iter().filter(|_| request.include_deleted);
        let all: BTreeMap<&String, FileInfo> = (world.metadata.files.iter())
            .map(|(path, version)| (path, info(path, version)))
            .chain(kept.map(|(path, version)| (path, deleted_info(path, version))))
            .collect();
        for (path, info) in all {
            let Some(rest) = path.strip_prefix(&root).and_then(|key| key.strip_prefix(&request.prefix))
            else {
                continue;
            };
            let fold = if request.delimiter.is_empty() { None } else { rest.find(&request.delimiter) };
            let (name, kind) = match fold {
                Some(at) => {
                    let folded = format!("{}{}", request.prefix, &rest[..at + 1]);
                    (folded.clone(), list_entry::Kind::CommonPrefix(folded))
                }
                None => (path[root.len()..].to_owned(), list_entry::Kind::File(info)),
            };
            if entries.last().is_none_or(|(last, _)| *last != name) {
                entries.push((name, ListEntry { kind: Some(kind) }));
            }
        }
        let after = if request.cursor == "start" { "" } else { &request.cursor[1..] };
        let mut rest: Vec<_> = entries.into_iter().filter(|(name, _)| name.as_str() > after).collect();
        let more = rest.len() > 7;
        rest.truncate(7);
        let next_cursor = if more { format!("@{}", rest[6].0) } else { String::new() };
        let entries = rest.into_iter().map(|(_, entry)| entry).collect();
        Ok(Response::new(ListResponse { entries, next_cursor, position }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let request = request.into_inner();
        let path = path_of(&request.file);
        let mut world = self.enter()?;
        let metadata = &mut world.metadata;
        let (position, kept) =
            (metadata.position, if request.purge { metadata.kept.remove(&path) } else { None });
        let removed = metadata.files.remove(&path).or(kept).ok_or_else(|| error(ErrorCode::NotFound))?;
        if !request.purge {
            metadata.kept.insert(path, Version { version: position, ..removed });
        }
        Ok(Response::new(DeleteResponse { version: position, position, ..Default::default() }))
    }

    async fn open_read(
        &self,
        request: Request<OpenReadRequest>,
    ) -> Result<Response<OpenReadResponse>, Status> {
        let request = request.into_inner();
        let path = path_of(&request.file);
        let world = self.enter()?;
        let version = world.metadata.files.get(&path).ok_or_else(|| error(ErrorCode::NotFound))?.clone();
        let (inline_sealed, inline_secret) = version.inline.clone().unwrap_or_default();
        let end =
            if request.length == 0 { version.size } else { request.offset.saturating_add(request.length) };
        let mut chunks = Vec::new();
        let mut offset = 0;
        for (index, chunk) in version.chunks.iter().enumerate() {
            let holds = offset < end && offset + chunk.size > request.offset;
            if holds && chunks.len() < request.max_chunks as usize {
                let id = ChunkId::from_slice(&chunk.chunk_id).unwrap();
                let nodes = world.nodes.iter().filter(|(_, node)| node.chunks.contains_key(&id));
                chunks.push(ReadChunk {
                    index: index as u32,
                    offset,
                    size: chunk.size,
                    chunk_id: chunk.chunk_id.clone(),
                    secret: chunk.secret.clone(),
                    nodes: nodes.map(|(name, node)| planned(name, &node.address)).collect(),
                });
            }
            offset += chunk.size;
        }
        Ok(Response::new(OpenReadResponse {
            info: Some(info(&path, &version)),
            realm_id: REALM.to_vec().into(),
            inline_sealed,
            inline_secret,
            chunks,
            position: world.metadata.position,
        }))
    }

    async fn report_replica(
        &self,
        request: Request<ReportReplicaRequest>,
    ) -> Result<Response<ReportReplicaResponse>, Status> {
        self.enter()?.metadata.reports.push(request.into_inner());
        Ok(Response::new(ReportReplicaResponse {}))
    }
}

fn planned(name: &str, address: &str) -> PlannedNode {
    PlannedNode {
        node: Some(NodeAddress { node_id: name.to_owned(), address: address.to_owned() }),
        grant: format!("grant:{name}").into(),
    }
}
