//! A chunk server in a map. It forwards by writing into the other nodes' maps.

use std::pin::Pin;

use bytes::{Bytes, BytesMut};
use chunk_format::range::{sent_groups, tail_first_group};
use chunk_format::tree::{GROUP_BYTES, GroupHasher, group_count, proof};
use dfs_proto::status::to_status;
use dfs_proto::v1;
use dfs_proto::v1::chunk_data_server::{ChunkData, ChunkDataServer};
use dfs_types::{ChunkId, DfsError, ErrorCode};
use futures::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::{Mode, Shared};

pub struct Node {
    world: Shared,
    name: String,
}

pub fn service(world: Shared, name: &str) -> ChunkDataServer<Node> {
    ChunkDataServer::new(Node { world, name: name.to_owned() }).max_decoding_message_size(1 << 20)
}

/// What the fake metadata service takes for a receipt.
pub fn receipt(node: &str, id: &ChunkId) -> Bytes {
    format!("{node}:{id}").into()
}

fn error(code: ErrorCode) -> Status {
    to_status(&DfsError::new(code, code.as_str()))
}

impl Node {
    async fn mode(&self) -> Result<Mode, Status> {
        let mode = self.world.lock().nodes[&self.name].mode;
        match mode {
            Mode::Refuses => Err(error(ErrorCode::Io)),
            Mode::Hangs => std::future::pending().await,
            other => Ok(other),
        }
    }
}

#[tonic::async_trait]
impl ChunkData for Node {
    async fn put(
        &self,
        request: Request<Streaming<v1::PutRequest>>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        use v1::put_request::Part;
        self.mode().await?;
        let mut stream = request.into_inner();
        let Some(v1::PutRequest { part: Some(Part::Header(header)) }) = stream.message().await? else {
            return Err(error(ErrorCode::InvalidArgument));
        };
        let id = ChunkId::from_slice(&header.chunk_id).unwrap();
        if header.grant != format!("grant:{}", self.name) {
            return Err(error(ErrorCode::GrantRefused));
        }
        let held = self.world.lock().nodes[&self.name].chunks.get(&id).cloned();
        let already_had = held.is_some();
        let bytes = match held {
            Some(bytes) => bytes,
            None => {
                let mut all = BytesMut::new();
                while let Some(message) = stream.message().await? {
                    let Some(Part::Data(data)) = message.part else {
                        return Err(error(ErrorCode::InvalidArgument));
                    };
                    self.world.lock().nodes.get_mut(&self.name).unwrap().received += data.len() as u64;
                    all.extend_from_slice(&data);
                }
                if all.len() as u64 != header.sealed_length || *blake3::hash(&all).as_bytes() != id.0 {
                    return Err(error(ErrorCode::Integrity));
                }
                all.freeze()
            }
        };
        let mut answer =
            v1::PutResponse { receipts: vec![receipt(&self.name, &id)], already_had, ..Default::default() };
        let mut world = self.world.lock();
        world.nodes.get_mut(&self.name).unwrap().chunks.insert(id, bytes.clone());
        for next in &header.forward {
            let name = &next.node.as_ref().unwrap().node_id;
            assert_eq!(next.grant, format!("grant:{name}"));
            let node = world.nodes.get_mut(name).unwrap();
            if node.mode == Mode::Good {
                node.chunks.insert(id, bytes.clone());
                answer.receipts.push(receipt(name, &id));
            } else {
                let code = ErrorCode::Unavailable as u32;
                answer.failures.push(v1::PutFailure { node_id: name.clone(), code, message: "fault".into() });
            }
        }
        Ok(Response::new(answer))
    }

    type GetStream = Pin<Box<dyn Stream<Item = Result<v1::GetResponse, Status>> + Send>>;

    async fn get(&self, request: Request<v1::GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        use v1::get_response::Part;
        let mode = self.mode().await?;
        let request = request.into_inner();
        let id = ChunkId::from_slice(&request.chunk_id).unwrap();
        let held = self.world.lock().nodes[&self.name].chunks.get(&id).cloned();
        let mut bytes = held.ok_or_else(|| error(ErrorCode::ChunkNotFound))?.to_vec();
        let sealed_length = bytes.len() as u64;
        let mut hasher = GroupHasher::new();
        hasher.update(&bytes);
        let (_, groups) = hasher.finish();
        let sent = sent_groups(sealed_length, request.first_group, request.group_count)
            .map_err(|e| to_status(&e.into()))?;
        let whole =
            sent.iter().map(|range| range.len()).sum::<usize>() == group_count(sealed_length) as usize;
        let proof = if whole { Vec::new() } else { proof(&groups, &sent) };
        if mode == Mode::Corrupts {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let header = v1::GetHeader {
            sealed_length,
            proof: proof.concat().into(),
            tail_first_group: tail_first_group(sealed_length).unwrap(),
            groups: Bytes::new(),
        };
        let mut parts = vec![Ok(v1::GetResponse { part: Some(Part::Header(header)) })];
        for range in sent {
            let end = (u64::from(range.end) * GROUP_BYTES).min(sealed_length) as usize;
            let start = ((u64::from(range.start) * GROUP_BYTES) as usize).min(end);
            for slice in bytes[start..end].chunks(256 << 10) {
                parts.push(Ok(v1::GetResponse { part: Some(Part::Data(slice.to_vec().into())) }));
            }
        }
        Ok(Response::new(Box::pin(futures::stream::iter(parts))))
    }
}
