//! Getting one chunk, or a part of one, from whichever replica answers right and first.
//!
//! One node is asked; when it is slow another is asked as well, when it fails the next is asked at
//! once. Bytes that do not verify are reported and never returned.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use chunk_format::range::{RangePlan, open_range};
use chunk_format::seal::{open_in_place, sealed_length};
use chunk_format::tree::proof_from_bytes;
use dfs_proto::status::{ERROR_TRAILER, from_status};
use dfs_proto::v1;
use dfs_proto::v1::report_replica_request::Problem;
use dfs_types::ids::hex;
use dfs_types::{ChunkId, DfsError, Entropy, ErrorCode, OsEntropy, Secret};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::Instrument;

use super::window::{Part, open};
use crate::outgoing::outgoing;
use crate::put::blocking;
use crate::{Client, Result};

/// Longest a node may send nothing.
const STALL: Duration = Duration::from_secs(6);
/// Slower than this a second node is asked.
const SLOW_BYTES_PER_SECOND: u32 = 16 << 20;
/// Replicas asked at the same time.
const MAX_ASKED: usize = 3;
/// How many times a chunk's locations are asked for anew when nobody had it.
const MAX_REFRESHES: u32 = 2;

/// What the chunks of one read share.
pub(crate) struct Reading {
    pub client: Client,
    pub realm: Bytes,
    pub pinned: v1::FileSelector,
}

/// One chunk's part, resolved: what is checked against what.
struct Wanted {
    id: ChunkId,
    secret: Secret<32>,
    size: u64,
    /// `None`: all of the chunk.
    range: Option<RangePlan>,
}

struct Failed {
    error: DfsError,
    problem: Option<Problem>,
    tell: bool,
    node: String,
}

/// The verified plaintext of a part.
pub(crate) async fn fetch(reading: &Reading, part: Part) -> Result<Bytes> {
    let _timing = reading.client.inner.longest.time();
    let Part { mut chunk, offset, length } = part;
    let id = ChunkId::from_slice(&chunk.chunk_id)?;
    let secret = Secret::from_slice(&chunk.secret)
        .ok_or_else(|| DfsError::new(ErrorCode::Internal, "a chunk's secret has a wrong length"))?;
    let range = match (offset, length == chunk.size) {
        (0, true) => None,
        _ => Some(RangePlan::new(chunk.size, offset, length)?),
    };
    let wanted = Wanted { id, secret, size: chunk.size, range };
    let mut refreshes = 0;
    loop {
        let nodes = preferred(std::mem::take(&mut chunk.nodes), &reading.client.inner.dials.shunned());
        let error = match race(reading, &wanted, nodes).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => error,
        };
        if refreshes == MAX_REFRESHES {
            return Err(error.context(format!("chunk {} of the file", chunk.index)));
        }
        // The chunk may have moved, or our grants may be old: the same version, asked at a later
        // position, knows. The second time gives a replica that is coming back a moment.
        if refreshes > 0 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        refreshes += 1;
        let fresh = open(&reading.client, reading.pinned.clone(), chunk.offset + offset, length).await?;
        let same = fresh.chunks.into_iter().find(|fresh| fresh.chunk_id == chunk.chunk_id);
        chunk = same.ok_or(error)?;
    }
}

/// The plan's order, nodes that failed lately last.
fn preferred(nodes: Vec<v1::PlannedNode>, shunned: &[String]) -> VecDeque<v1::PlannedNode> {
    let (mut good, mut bad) = (VecDeque::new(), Vec::new());
    for node in nodes {
        let name = node.node.as_ref().map_or("", |node| node.node_id.as_str());
        if shunned.iter().any(|shunned| shunned == name) { bad.push(node) } else { good.push_back(node) }
    }
    good.extend(bad);
    good
}

/// Asks the nodes, overlapping when one is slow, until one answered right.
async fn race(reading: &Reading, wanted: &Wanted, mut nodes: VecDeque<v1::PlannedNode>) -> Result<Bytes> {
    // A large part takes its time even from a good node.
    let expected = wanted.range.as_ref().map_or(sealed_length(wanted.size), RangePlan::sent_bytes);
    let hedge_after =
        reading.client.inner.config.hedge_delay + Duration::from_secs(expected) / SLOW_BYTES_PER_SECOND;
    let mut asked = FuturesUnordered::new();
    let mut last = DfsError::new(ErrorCode::Unavailable, "no live node has the chunk");
    loop {
        if asked.is_empty() {
            match nodes.pop_front() {
                Some(node) => asked.push(ask(reading, wanted, node)),
                None => return Err(last),
            }
        }
        let hedge_at = Instant::now() + hedge_after;
        tokio::select! {
            Some(answer) = asked.next() => match answer {
                Ok(bytes) => return Ok(bytes),
                Err(failed) => {
                    report(reading, wanted, &failed);
                    // An error of the bytes says more than one of the network.
                    if last.code != ErrorCode::Integrity {
                        last = failed.error;
                    }
                    if let Some(node) = nodes.pop_front() {
                        asked.push(ask(reading, wanted, node));
                    }
                }
            },
            () = sleep_until(hedge_at), if asked.len() < MAX_ASKED && !nodes.is_empty() => {
                if let Some(node) = nodes.pop_front() {
                    asked.push(ask(reading, wanted, node));
                }
            }
        }
    }
}

async fn ask(
    reading: &Reading,
    wanted: &Wanted,
    planned: v1::PlannedNode,
) -> std::result::Result<Bytes, Failed> {
    let address = planned.node.unwrap_or_default();
    let node = address.node_id.clone();
    let failed = |error: DfsError, problem, tell| {
        let error = error.context(format!("chunk server {node}"));
        tracing::debug!(node, code = %error.code, error = %error.message, "get failed");
        Failed { error, problem, tell, node: node.clone() }
    };
    let span = tracing::info_span!("receive", otel.kind = "client", chunk = %wanted.id, node);
    match receive(reading, wanted, &address, planned.grant).instrument(span).await {
        Err(Refusal::Broken(error)) => {
            let tell = reading.client.inner.dials.node_failed(&address, true);
            Err(failed(error, Some(Problem::Unreachable), tell))
        }
        Err(Refusal::Answered(error)) => {
            let problem = match error.code {
                ErrorCode::ChunkNotFound | ErrorCode::NotFound => Some(Problem::Missing),
                ErrorCode::Integrity => Some(Problem::Corrupt),
                _ => None,
            };
            Err(failed(error, problem, true))
        }
        Ok((sealed, proof)) => {
            let (secret, size, id) = (wanted.secret.clone(), wanted.size, wanted.id);
            let range = wanted.range.clone();
            let opened = blocking(move || match range {
                None => open_in_place(&secret, size, &id, sealed),
                Some(plan) => open_range(&secret, &plan, &id, sealed, &proof_from_bytes(&proof)?),
            });
            match opened.await {
                Ok(Ok(bytes)) => {
                    reading.client.inner.dials.node_works(&address.node_id);
                    Ok(bytes)
                }
                Ok(Err(error)) => Err(failed(error.into(), Some(Problem::Corrupt), true)),
                Err(error) => Err(failed(error, None, false)),
            }
        }
    }
}

/// Why a node gave no bytes.
enum Refusal {
    /// The connection did not work, or the node stopped sending.
    Broken(DfsError),
    /// The node said why.
    Answered(DfsError),
}

/// Receives exactly the bytes that the part needs, and the proof for them.
async fn receive(
    reading: &Reading,
    wanted: &Wanted,
    address: &v1::NodeAddress,
    grant: Bytes,
) -> std::result::Result<(BytesMut, Bytes), Refusal> {
    use v1::get_response::Part;
    let mut client = reading.client.inner.dials.node(address).map_err(Refusal::Answered)?;
    let expected = wanted.range.as_ref().map_or(sealed_length(wanted.size), RangePlan::sent_bytes);
    let request_id = hex(&OsEntropy.array::<16>());
    let request = v1::GetRequest {
        grant,
        realm_id: reading.realm.clone(),
        chunk_id: wanted.id.to_vec().into(),
        first_group: wanted.range.as_ref().map_or(0, |plan| plan.first_group),
        group_count: wanted.range.as_ref().map_or(0, |plan| plan.group_count),
        request_id: request_id.clone(),
        damaged: false,
    };
    let late = || Refusal::Broken(DfsError::new(ErrorCode::Timeout, "stopped sending"));
    let judge = |status: tonic::Status| {
        let ours = status.metadata().get_bin(ERROR_TRAILER).is_some();
        let error = from_status(&status);
        if ours { Refusal::Answered(error) } else { Refusal::Broken(error) }
    };
    let answer = timeout(STALL, client.get(outgoing(request, &request_id))).await.map_err(|_| late())?;
    let mut stream = answer.map_err(judge)?.into_inner();
    let mut proof = Bytes::new();
    let mut sealed = BytesMut::with_capacity(expected as usize);
    loop {
        let message = timeout(STALL, stream.message()).await.map_err(|_| late())?.map_err(judge)?;
        match message.and_then(|message| message.part) {
            None => break,
            Some(Part::Header(header)) => {
                if header.sealed_length != sealed_length(wanted.size) {
                    return Err(wrong("the node has the chunk in another length"));
                }
                proof = header.proof;
            }
            Some(Part::Data(data)) => {
                // A node that sends too much must not make us hold it.
                if sealed.len() + data.len() > expected as usize {
                    return Err(wrong("the node sends more than the chunk has"));
                }
                sealed.extend_from_slice(&data);
            }
        }
    }
    if sealed.len() as u64 != expected {
        return Err(wrong("the node sent less than the chunk has"));
    }
    Ok((sealed, proof))
}

fn wrong(message: &str) -> Refusal {
    Refusal::Answered(DfsError::new(ErrorCode::Integrity, message))
}

/// Tells the leader, without waiting for it and without caring whether it heard.
fn report(reading: &Reading, wanted: &Wanted, failed: &Failed) {
    let (Some(problem), true) = (failed.problem, failed.tell) else { return };
    let client = reading.client.clone();
    let request = v1::ReportReplicaRequest {
        realm_id: reading.realm.clone(),
        chunk_id: wanted.id.to_vec().into(),
        node_id: failed.node.clone(),
        problem: problem as i32,
    };
    tracing::debug!(node = failed.node, chunk = %wanted.id, problem = problem.as_str_name(), "reporting a replica");
    let telling = async move {
        let method = |mut metadata: crate::rpc::Metadata, request| async move {
            metadata.report_replica(request).await
        };
        let _ = client.inner.rpc.read(&client.inner.dials, Duration::from_secs(5), request, method).await;
    };
    tokio::spawn(telling.in_current_span());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_failed_lately_come_last() {
        let node = |name: &str| v1::PlannedNode {
            node: Some(v1::NodeAddress { node_id: name.into(), address: String::new() }),
            grant: Bytes::new(),
        };
        let order = preferred(vec![node("n1"), node("n2"), node("n3")], &["n1".to_owned()]);
        let names: Vec<&str> =
            order.iter().map(|node| node.node.as_ref().unwrap().node_id.as_str()).collect();
        assert_eq!(names, ["n2", "n3", "n1"]);
    }
}
