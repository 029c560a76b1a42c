//! Sending one sealed chunk to its first node, which forwards it. A node that takes no bytes, or that
//! has them and does not answer, is given up: the chunk is then planned anew without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::status::{ERROR_TRAILER, from_status};
use dfs_proto::v1;
use dfs_types::ids::hex;
use dfs_types::limits::{DATA_MESSAGE_BYTES, FORWARD_STALL_MS};
use dfs_types::{ChunkId, DfsError, Entropy, ErrorCode, OsEntropy};
use futures::Stream;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::Client;
use crate::outgoing::outgoing;

/// Longest the first node may take no byte, or not answer once it has them all, when it is the only
/// one. Nodes grant each other so long for each node behind them; waiting as long for the whole row
/// lets the one that stalls be named by the one before it.
const STALL: Duration = Duration::from_millis(FORWARD_STALL_MS);
const LEAST_STALL: Duration = Duration::from_secs(8);
const CHECK: Duration = Duration::from_millis(250);
/// For a chunk the nodes probably have: how long the bytes wait for an answer to the header alone.
pub(crate) const HOLD: Duration = Duration::from_millis(1500);

/// Why sending to the first node failed.
pub(crate) enum SendError {
    /// It does not take our grant: plan again, same nodes are fine.
    Grant(DfsError),
    /// It has too much to do: try again later, it is not broken.
    Busy(DfsError),
    /// Another node should have the chunk.
    Node(DfsError),
}

/// What is sent where.
pub(crate) struct Parcel<'a> {
    pub realm: &'a Bytes,
    pub id: ChunkId,
    pub bytes: &'a Bytes,
    /// Not empty; in forwarding order.
    pub nodes: &'a [v1::PlannedNode],
    pub hold: Option<Duration>,
}

/// Sends and waits for receipts. `sent` grows by the bytes that went out.
pub(crate) async fn send(
    client: &Client,
    parcel: Parcel<'_>,
    sent: &mut u64,
) -> std::result::Result<v1::PutResponse, SendError> {
    let Some((first, behind)) = parcel.nodes.split_first() else {
        return Err(SendError::Node(DfsError::new(ErrorCode::NotEnoughNodes, "the plan names no node")));
    };
    let address = first.node.clone().unwrap_or_default();
    let mut node = client.inner.dials.node(&address).map_err(SendError::Node)?;
    let request_id = hex(&OsEntropy.array::<16>());
    let header = v1::PutHeader {
        realm_id: parcel.realm.clone(),
        chunk_id: parcel.id.to_vec().into(),
        sealed_length: parcel.bytes.len() as u64,
        grant: first.grant.clone(),
        forward: behind
            .iter()
            .map(|next| v1::ForwardTo { node: next.node.clone(), grant: next.grant.clone() })
            .collect(),
        request_id: request_id.clone(),
    };
    let meter = Arc::new(Meter::new());
    let stop = CancellationToken::new();
    // Whatever ends this call also ends the stream: an early answer saves the rest of the bytes.
    let _stop_at_end = stop.clone().drop_guard();
    let span = tracing::info_span!(
        "send",
        otel.kind = "client",
        request_id,
        chunk = %parcel.id,
        node = address.node_id
    );
    let body = body(header, parcel.bytes.clone(), parcel.hold, Arc::clone(&meter), stop);
    let request = span.in_scope(|| outgoing(body, &request_id));
    let total = parcel.bytes.len() as u64;

    let stall = LEAST_STALL.max(STALL * parcel.nodes.len() as u32);
    let answer = tokio::select! {
        answer = node.put(request).instrument(span) => answer,
        () = late(&meter, total, stall, stall) => {
            *sent += meter.taken();
            client.inner.dials.node_failed(&address, true);
            return Err(SendError::Node(DfsError::new(
                ErrorCode::Timeout,
                format!("chunk server {} at {} is late", address.node_id, address.address),
            )));
        }
    };
    *sent += meter.taken();
    match answer {
        Ok(response) => {
            client.inner.dials.node_works(&address.node_id);
            Ok(response.into_inner())
        }
        Err(status) => {
            let ours = status.metadata().get_bin(ERROR_TRAILER).is_some();
            let error = from_status(&status);
            tracing::debug!(node = address.node_id, request_id, code = %error.code, error = %error.message, "put failed");
            if ours && error.code == ErrorCode::GrantRefused {
                return Err(SendError::Grant(error));
            }
            if ours && error.code == ErrorCode::Overloaded {
                return Err(SendError::Busy(error));
            }
            client.inner.dials.node_failed(&address, !ours);
            Err(SendError::Node(error.context(format!("chunk server {}", address.node_id))))
        }
    }
}

/// Resolves when the node has been idle for too long.
async fn late(meter: &Meter, total: u64, stall: Duration, answer: Duration) {
    loop {
        sleep(CHECK).await;
        let limit = if meter.taken() >= total { answer } else { stall };
        if meter.idle() > limit {
            return;
        }
    }
}

/// How far the connection has taken the body, and when it last took some.
struct Meter {
    start: Instant,
    taken: AtomicU64,
    at_ms: AtomicU64,
}

impl Meter {
    fn new() -> Self {
        Self { start: Instant::now(), taken: AtomicU64::new(0), at_ms: AtomicU64::new(0) }
    }

    fn take(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        self.at_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    fn idle(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.at_ms.load(Ordering::Relaxed)))
    }
}

struct Body {
    header: Option<v1::PutHeader>,
    bytes: Bytes,
    hold: Option<Duration>,
    meter: Arc<Meter>,
    stop: CancellationToken,
}

/// Header, then slices of the bytes; ends early when stopped.
fn body(
    header: v1::PutHeader,
    bytes: Bytes,
    hold: Option<Duration>,
    meter: Arc<Meter>,
    stop: CancellationToken,
) -> impl Stream<Item = v1::PutRequest> + Send + 'static {
    let start = Body { header: Some(header), bytes, hold, meter, stop };
    futures::stream::unfold(start, |mut body| async move {
        use v1::put_request::Part;
        if let Some(header) = body.header.take() {
            return Some((v1::PutRequest { part: Some(Part::Header(header)) }, body));
        }
        if let Some(hold) = body.hold.take() {
            tokio::select! {
                () = body.stop.cancelled() => return None,
                () = sleep(hold) => {}
            }
        }
        if body.bytes.is_empty() || body.stop.is_cancelled() {
            return None;
        }
        let slice = body.bytes.split_to(body.bytes.len().min(DATA_MESSAGE_BYTES));
        body.meter.take(slice.len() as u64);
        Some((v1::PutRequest { part: Some(Part::Data(slice)) }, body))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;

    #[tokio::test]
    async fn a_body_is_header_then_slices() {
        let bytes = Bytes::from(vec![7u8; DATA_MESSAGE_BYTES * 2 + 5]);
        let meter = Arc::new(Meter::new());
        let parts: Vec<_> =
            body(v1::PutHeader::default(), bytes, None, Arc::clone(&meter), CancellationToken::new())
                .collect()
                .await;
        let lengths: Vec<Option<usize>> = parts
            .iter()
            .map(|request| match request.part.as_ref().unwrap() {
                v1::put_request::Part::Header(_) => None,
                v1::put_request::Part::Data(data) => Some(data.len()),
            })
            .collect();
        assert_eq!(lengths, [None, Some(DATA_MESSAGE_BYTES), Some(DATA_MESSAGE_BYTES), Some(5)]);
        assert_eq!(meter.taken(), DATA_MESSAGE_BYTES as u64 * 2 + 5);
    }

    #[tokio::test]
    async fn an_early_answer_keeps_held_bytes_here() {
        let stop = CancellationToken::new();
        let meter = Arc::new(Meter::new());
        let mut body = std::pin::pin!(body(
            v1::PutHeader::default(),
            Bytes::from_static(b"abc"),
            Some(HOLD),
            Arc::clone(&meter),
            stop.clone()
        ));
        assert!(body.next().await.is_some());
        stop.cancel();
        assert!(body.next().await.is_none());
        assert_eq!(meter.taken(), 0);
    }

    #[tokio::test]
    async fn a_silent_node_is_late() {
        let meter = Meter::new();
        meter.take(10);
        late(&meter, 10, Duration::MAX, Duration::ZERO).await;
        meter.take(5);
        late(&meter, 16, Duration::ZERO, Duration::MAX).await;
    }
}
