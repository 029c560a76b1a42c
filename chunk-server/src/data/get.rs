//! One get: a range of whole groups, and what it takes to check them against the chunk id. The
//! reader checks; this node sends what its disk says and believes only its own records of lengths.

use bytes::Bytes;
use chunk_format::range::{sent_groups, tail_first_group};
use chunk_format::tree::{GROUP_BYTES, group_count, proof};
use dfs_proto::status::to_status;
use dfs_proto::v1::{GetHeader, GetRequest, GetResponse, get_response::Part};
use dfs_types::limits::DATA_MESSAGE_BYTES;
use dfs_types::{ChunkId, DfsError, ErrorCode, PrincipalId, RealmId};
use futures::Stream;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tracing::Instrument;

use super::order::{request_id_or, stream_deadline};
use super::reading::ChunkBytes;
use super::{DataPlane, IDLE};
use crate::node::UserStream;
use crate::peers::within;
use crate::store::{ChunkKey, ChunkStore};
use crate::telemetry::{self, Call};

/// Messages that may wait for the reader's window.
const QUEUE_MESSAGES: usize = 4;

type Item = Result<GetResponse, tonic::Status>;

/// What is sent of a chunk: checked, planned, not read yet.
struct Planned {
    header: GetHeader,
    bytes: ChunkBytes,
    length: u64,
    _place: OwnedSemaphorePermit,
    _user: Option<UserStream>,
}

impl DataPlane {
    pub(super) async fn serve_get(
        &self,
        request: GetRequest,
    ) -> Result<impl Stream<Item = Item> + use<>, DfsError> {
        let started = Instant::now();
        let request_id = request_id_or(&request.request_id, server_kit::request_id::current());
        let span = tracing::info_span!("get", %request_id, chunk = tracing::field::Empty);
        let planned = match self.plan_get(request).instrument(span.clone()).await {
            Ok(planned) => planned,
            Err(error) => {
                telemetry::call_finished(Call::Get, started, 0, Some(error.code));
                span.in_scope(|| tracing::info!(code = %error.code, error = %error.message, "get refused"));
                return Err(error);
            }
        };
        let (sender, items) = mpsc::channel(QUEUE_MESSAGES);
        let (end, ended) = oneshot::channel();
        let (this, key) = (self.clone(), planned.bytes.key());
        // A task of its own, so that a reader who stops reading holds its place only until IDLE.
        let task = async move {
            let length = planned.length;
            let sent = within(stream_deadline(length), "the get", send(planned, &sender)).await;
            let code = sent.as_ref().err().map(|error| error.code);
            telemetry::call_finished(Call::Get, started, length, code);
            match sent {
                Ok(()) => tracing::debug!(bytes = length, "get"),
                Err(error) => {
                    tracing::info!(code = %error.code, error = %error.message, "get broke off");
                    this.note_fault(key, &error);
                    // Nobody hears it if the reader went away.
                    let _ = end.send(error);
                }
            }
        };
        tokio::spawn(task.instrument(span));
        Ok(whole(items, ended))
    }

    async fn plan_get(&self, request: GetRequest) -> Result<Planned, DfsError> {
        let key = ChunkKey {
            realm: RealmId::from_slice(&request.realm_id)?,
            chunk: ChunkId::from_slice(&request.chunk_id)?,
        };
        tracing::Span::current().record("chunk", tracing::field::display(&key));
        let store = self.node.store()?;
        let grant = self.grants.admit_get(&request.grant, key.realm, key.chunk)?;
        // The cluster's own copying yields to users, not to itself.
        let user = (grant.principal != PrincipalId::default()).then(|| self.node.serves_user());
        let place = self.reserve_read().await?;
        if request.damaged {
            return self.plan_damaged(&request, key, store, place).await;
        }
        let (first, count) = (request.first_group, request.group_count);
        let reading = store.clone();
        let planned = self.pool.run(move || {
            let Some(meta) = reading.get(&key)? else {
                return Err(DfsError::new(ErrorCode::ChunkNotFound, format!("this node has no chunk {key}")));
            };
            if meta.quarantined {
                return Err(DfsError::new(
                    ErrorCode::Integrity,
                    format!("this node's copy of chunk {key} is quarantined"),
                ));
            }
            let sent = sent_groups(meta.sealed_len, first, count)?;
            let whole =
                sent.iter().map(|range| range.len()).sum::<usize>() == group_count(meta.sealed_len) as usize;
            let proof = if whole { Vec::new() } else { proof(&reading.groups(&key)?, &sent) };
            let header = GetHeader {
                sealed_length: meta.sealed_len,
                proof: Bytes::from(proof.concat()),
                tail_first_group: tail_first_group(meta.sealed_len)?,
                groups: Bytes::new(),
            };
            Ok((header, sent.map(|groups| byte_range(meta.sealed_len, &groups))))
        });
        let (header, ranges) = planned.await.inspect_err(|error| self.note_fault(key, error))?;
        let length = ranges.iter().map(|range| range.end - range.start).sum();
        let bytes = ChunkBytes::of_ranges(store, self.pool.clone(), key, ranges);
        Ok(Planned { header, bytes, length, _place: place, _user: user })
    }

    /// Another node puts the chunk together from what is left of it. Nothing of this is a fault to report:
    /// the copy is marked already, or it is good.
    async fn plan_damaged(
        &self,
        request: &GetRequest,
        key: ChunkKey,
        store: Arc<dyn ChunkStore>,
        place: OwnedSemaphorePermit,
    ) -> Result<Planned, DfsError> {
        let (first, count) = (request.first_group, request.group_count);
        let reading = store.clone();
        let planned = self.pool.run(move || {
            let Some(meta) = reading.get(&key)? else {
                return Err(DfsError::new(ErrorCode::ChunkNotFound, format!("this node has no chunk {key}")));
            };
            let total = group_count(meta.sealed_len);
            let end = first.checked_add(count).filter(|end| count > 0 && *end <= total).ok_or_else(|| {
                DfsError::new(ErrorCode::InvalidArgument, format!("{count} groups from {first} of {total}"))
            })?;
            let header = GetHeader {
                sealed_length: meta.sealed_len,
                proof: Bytes::new(),
                tail_first_group: tail_first_group(meta.sealed_len)?,
                groups: reading.groups(&key).map_or_else(|_| Bytes::new(), |groups| groups.concat().into()),
            };
            Ok((header, first..end))
        });
        let (header, groups) = planned.await?;
        let range = byte_range(header.sealed_length, &groups);
        let bytes = ChunkBytes::of_damaged(store, self.pool.clone(), key, header.sealed_length, groups);
        Ok(Planned { header, bytes, length: range.end - range.start, _place: place, _user: None })
    }

    /// A copy that was promised and is not there, or cannot be read right, goes into the next
    /// heartbeat: the leader probes it then.
    fn note_fault(&self, key: ChunkKey, error: &DfsError) {
        let corrupt = matches!(error.code, ErrorCode::Integrity | ErrorCode::Io);
        if corrupt || error.code == ErrorCode::ChunkNotFound {
            telemetry::fault_found(corrupt);
            self.node.faults.report(key.realm, key.chunk, corrupt);
        }
    }
}

fn byte_range(sealed_length: u64, groups: &Range<u32>) -> Range<u64> {
    let end = (u64::from(groups.end) * GROUP_BYTES).min(sealed_length);
    (u64::from(groups.start) * GROUP_BYTES).min(end)..end
}

async fn send(planned: Planned, sender: &mpsc::Sender<Item>) -> Result<(), DfsError> {
    let Planned { header, mut bytes, _place, _user, .. } = planned;
    offer(sender, Part::Header(header)).await?;
    while let Some(slice) = bytes.next(DATA_MESSAGE_BYTES).await? {
        offer(sender, Part::Data(slice)).await?;
    }
    Ok(())
}

async fn offer(sender: &mpsc::Sender<Item>, part: Part) -> Result<(), DfsError> {
    match tokio::time::timeout(IDLE, sender.send(Ok(GetResponse { part: Some(part) }))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(DfsError::new(ErrorCode::Unavailable, "the reader went away")),
        Err(_) => Err(DfsError::new(
            ErrorCode::Timeout,
            format!("the reader took nothing for {} ms", IDLE.as_millis()),
        )),
    }
}

/// The queue as a stream that ends well only if the task did: a reader never takes a short stream
/// for a whole one, even if the queue was too full for the error.
fn whole(mut items: mpsc::Receiver<Item>, end: oneshot::Receiver<DfsError>) -> impl Stream<Item = Item> {
    async_stream::stream! {
        while let Some(item) = items.recv().await {
            yield item;
        }
        if let Ok(error) = end.await {
            yield Err(to_status(&error));
        }
    }
}
