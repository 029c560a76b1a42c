//! One put, from its header to its answer. The order of things is the promise: the grant before any
//! byte, the whole hash before the fsync, the fsync before the receipt.

use bytes::Bytes;
use chunk_format::grant::Grant;
use dfs_proto::status::from_status;
use dfs_proto::v1::{PutHeader, PutRequest, PutResponse, put_request::Part};
use dfs_types::limits::DATA_MESSAGE_BYTES;
use dfs_types::{DfsError, ErrorCode};
use tokio::time::Instant;
use tonic::Streaming;
use tracing::Instrument;

use super::forward::{Forward, Forwarded};
use super::ingest::{Ingest, Target};
use super::order::{PutOrder, stream_deadline};
use super::reading::ChunkBytes;
use super::{DataPlane, IDLE};
use crate::peers::within;
use crate::store::{ChunkStoreExt, StoreError};
use crate::telemetry::{self, Call};

impl DataPlane {
    /// Serves one put stream.
    pub(super) async fn serve_put(&self, mut stream: Streaming<PutRequest>) -> Result<PutResponse, DfsError> {
        let started = Instant::now();
        let order = PutOrder::parse(first_message(&mut stream).await?, &self.node.id)?;
        let span = tracing::info_span!("put", request_id = %order.request_id, chunk = %order.key);
        let limit = stream_deadline(order.sealed_length);
        let result = within(limit, "the put", self.put(&order, stream)).instrument(span.clone()).await;
        telemetry::call_finished(
            Call::Put,
            started,
            order.sealed_length,
            result.as_ref().err().map(|e| e.code),
        );
        span.in_scope(|| match &result {
            Ok(answer) => tracing::debug!(
                bytes = order.sealed_length,
                already_had = answer.already_had,
                copies = answer.receipts.len(),
                milliseconds = started.elapsed().as_millis() as u64,
                "put"
            ),
            Err(error) => tracing::info!(code = %error.code, error = %error.message, "put refused"),
        });
        result
    }

    async fn put(&self, order: &PutOrder, stream: Streaming<PutRequest>) -> Result<PutResponse, DfsError> {
        let store = self.node.store()?;
        let PutOrder { key, sealed_length, .. } = *order;
        let grant = self.grants.admit_put(&order.grant, key.realm, key.chunk, sealed_length)?;
        let epoch = grant.epoch;
        let _stream = self.node.serves_user();

        let held = {
            let store = store.clone();
            let touch_held = move || match store.get(&key)? {
                Some(meta) if !meta.quarantined => {
                    // Another length under the same id is a header that lies.
                    Ok(meta.sealed_len == sealed_length && store.touch(&key, epoch)?)
                }
                _ => Ok::<_, StoreError>(false),
            };
            self.pool.run(touch_held).await?
        };
        let behind = order.next.as_ref().map_or(0, |next| next.behind.len());
        let _memory = self.reserve_memory(sealed_length, behind).await?;
        let forward = Forward::start(&self.peers, order);
        let forwarded = if held {
            // Its bytes are here already: the caller need not send them for the nodes behind.
            drop(stream);
            let bytes = ChunkBytes::new(store, self.pool.clone(), key, 0..sealed_length);
            self.forward_held(forward, bytes).await
        } else {
            let target = Target { store, key, sealed_length, epoch };
            self.receive(stream, Ingest::new(self.pool.clone(), target), forward).await?
        };
        self.answer(order, &grant, held, forwarded)
    }

    /// Receives the bytes, and hands each slice on before it is stored here. An error here drops
    /// `forward`, which resets the call to the next node.
    async fn receive(
        &self,
        mut stream: Streaming<PutRequest>,
        mut ingest: Ingest,
        mut forward: Option<Forward>,
    ) -> Result<Forwarded, DfsError> {
        while let Some(slice) = next_slice(&mut stream).await? {
            if let Some(next) = &mut forward {
                next.send(slice.clone()).await;
            }
            ingest.push(slice).await?;
        }
        if let Some(next) = &mut forward {
            next.end();
        }
        ingest.finish().await?;
        // Only now does the next node's silence count against it: we were not done ourselves.
        match forward {
            Some(next) => {
                let done = Instant::now();
                let forwarded = next.outcome().await;
                telemetry::forwarded(done.elapsed());
                Ok(forwarded)
            }
            None => Ok(Forwarded::default()),
        }
    }

    async fn forward_held(&self, forward: Option<Forward>, mut bytes: ChunkBytes) -> Forwarded {
        let Some(mut next) = forward else { return Forwarded::default() };
        loop {
            match bytes.next(DATA_MESSAGE_BYTES).await {
                Ok(Some(slice)) => {
                    if !next.send(slice).await {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    // The next node hears a short stream and keeps nothing.
                    tracing::warn!(code = %error.code, error = %error.message, "own copy is not readable");
                    break;
                }
            }
        }
        next.outcome().await
    }

    fn answer(
        &self,
        order: &PutOrder,
        grant: &Grant,
        already_had: bool,
        forwarded: Forwarded,
    ) -> Result<PutResponse, DfsError> {
        let key = order.key;
        let own = self.node.receipt(key.realm, grant.scope, grant.epoch, key.chunk, order.sealed_length)?;
        let mut receipts = vec![Bytes::from(own)];
        receipts.extend(forwarded.receipts);
        Ok(PutResponse { receipts, failures: forwarded.failures, already_had })
    }
}

async fn first_message(stream: &mut Streaming<PutRequest>) -> Result<PutHeader, DfsError> {
    match next_part(stream).await? {
        Some(Part::Header(header)) => Ok(header),
        Some(Part::Data(_)) | None => {
            Err(DfsError::new(ErrorCode::InvalidArgument, "a put begins with its header"))
        }
    }
}

async fn next_slice(stream: &mut Streaming<PutRequest>) -> Result<Option<Bytes>, DfsError> {
    match next_part(stream).await? {
        None => Ok(None),
        // Empty messages would let a stream live for ever without moving.
        Some(Part::Data(slice)) if (1..=DATA_MESSAGE_BYTES).contains(&slice.len()) => Ok(Some(slice)),
        Some(Part::Data(slice)) => Err(DfsError::new(
            ErrorCode::InvalidArgument,
            format!("a message has {} bytes of data, 1 to {DATA_MESSAGE_BYTES} are allowed", slice.len()),
        )),
        Some(Part::Header(_)) => Err(DfsError::new(ErrorCode::InvalidArgument, "a put has one header")),
    }
}

async fn next_part(stream: &mut Streaming<PutRequest>) -> Result<Option<Part>, DfsError> {
    within(IDLE, "the next message of the put", async {
        match stream.message().await {
            Ok(None) => Ok(None),
            Ok(Some(PutRequest { part: Some(part) })) => Ok(Some(part)),
            Ok(Some(PutRequest { part: None })) => {
                Err(DfsError::new(ErrorCode::InvalidArgument, "a message of the put is empty"))
            }
            Err(status) => Err(from_status(&status).context("the put broke off")),
        }
    })
    .await
}
