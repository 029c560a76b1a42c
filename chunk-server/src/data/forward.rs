//! The next node of a put: gets every slice as it arrives, from a bounded queue, without a copy.
//! Whatever happens to it is an entry in the answer, never the end of this node's own write.
//!
//! A [`Forward`] that is dropped resets the call, so that the next node keeps nothing either.

use std::time::Duration;

use bytes::Bytes;
use dfs_proto::status::from_status;
use dfs_proto::v1::{PutFailure, PutRequest, PutResponse, put_request::Part};
use dfs_types::limits::FORWARD_QUEUE_MESSAGES;
use dfs_types::{DfsError, ErrorCode, NodeId};
use server_kit::request_id;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::order::{NextNode, PutOrder, stream_deadline};
use crate::peers::{PeerNode, Peers, within};
use crate::telemetry;

/// One put on its way to the next node.
pub struct Forward {
    queue: Option<mpsc::Sender<Bytes>>,
    call: Option<AbortOnDropHandle<Result<PutResponse, DfsError>>>,
    failed: Option<DfsError>,
    stall: Duration,
    node: PeerNode,
    behind: Vec<NodeId>,
    peers: Peers,
}

/// What the nodes behind this one answered.
#[derive(Default)]
pub struct Forwarded {
    pub receipts: Vec<Bytes>,
    pub failures: Vec<PutFailure>,
}

impl Forward {
    /// Starts the call to the next node of `order`, if it has one.
    pub fn start(peers: &Peers, order: &PutOrder) -> Option<Self> {
        let next = order.next.clone()?;
        let (queue, slices) = mpsc::channel(FORWARD_QUEUE_MESSAGES);
        let (stall, behind, node) = (next.stall(), next.behind.clone(), next.node.clone());
        let call = tokio::spawn(request_id::carry(put(peers.clone(), next, slices, order.sealed_length)));
        Some(Self {
            queue: Some(queue),
            call: Some(AbortOnDropHandle::new(call)),
            failed: None,
            stall,
            node,
            behind,
            peers: peers.clone(),
        })
    }

    /// Hands on a slice; waits while the queue is full, but not longer than the next node may stall.
    /// False once there is no use in more: the next node answered already, or failed.
    pub async fn send(&mut self, slice: Bytes) -> bool {
        let Some(queue) = &self.queue else { return false };
        match tokio::time::timeout(self.stall, queue.send(slice)).await {
            Ok(Ok(())) => true,
            // The call ended, well or badly: its answer says which.
            Ok(Err(_)) => {
                self.queue = None;
                false
            }
            Err(_) => {
                self.give_up("took no bytes");
                false
            }
        }
    }

    /// All bytes were handed on: lets the next node finish while this one does.
    pub fn end(&mut self) {
        self.queue = None;
    }

    /// The answer of the next node, waited for as long as it may stall.
    pub async fn outcome(mut self) -> Forwarded {
        self.end();
        if let Some(call) = &mut self.call {
            match tokio::time::timeout(self.stall, call).await {
                Ok(Ok(Ok(response))) => {
                    return Forwarded { receipts: response.receipts, failures: response.failures };
                }
                Ok(Ok(Err(error))) => self.failed = Some(error),
                Ok(Err(_)) => {
                    self.failed = Some(DfsError::new(ErrorCode::Internal, "forwarding failed: see the log"));
                }
                Err(_) => self.give_up("did not answer"),
            }
        }
        self.failures()
    }

    fn give_up(&mut self, what: &str) {
        self.queue = None;
        self.call = None;
        self.peers.discard(&self.node);
        self.failed = Some(DfsError::new(
            ErrorCode::Timeout,
            format!("node {} {what} for {} ms", self.node.id, self.stall.as_millis()),
        ));
    }

    /// The next node by its own error, those behind it as not reached.
    fn failures(self) -> Forwarded {
        let error = self.failed.expect("a forward without an answer has failed");
        telemetry::forward_failed(&error);
        tracing::warn!(node = %self.node.id, code = %error.code, error = %error.message, "forwarding failed");
        let failures = self
            .behind
            .iter()
            .enumerate()
            .map(|(place, node)| PutFailure {
                node_id: node.to_string(),
                code: if place == 0 { error.code } else { ErrorCode::Unavailable } as u32,
                message: if place == 0 {
                    told(&error, &self.node.id)
                } else {
                    format!("not reached: node {} before it failed", self.node.id)
                },
            })
            .collect();
        Forwarded { receipts: Vec::new(), failures }
    }
}

/// What the caller hears. It chose the address, so how a connection failed stays in the log: else
/// this node would look through the operator's network for whoever has a grant.
fn told(error: &DfsError, node: &NodeId) -> String {
    match error.code {
        ErrorCode::Unavailable => format!("node {node} cannot be reached or is not ready"),
        _ => error.message.clone(),
    }
}

async fn put(
    peers: Peers,
    next: NextNode,
    mut slices: mpsc::Receiver<Bytes>,
    sealed_length: u64,
) -> Result<PutResponse, DfsError> {
    let mut client = peers.chunk_data(&next.node)?;
    let header = next.header;
    let messages = async_stream::stream! {
        yield PutRequest { part: Some(Part::Header(header)) };
        while let Some(slice) = slices.recv().await {
            yield PutRequest { part: Some(Part::Data(slice)) };
        }
    };
    let what = format!("forwarding to node {}", next.node.id);
    within(stream_deadline(sealed_length), &what, async {
        let mut request = tonic::Request::new(messages);
        request_id::propagate(request.metadata_mut().as_mut());
        client.put(request).await.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
    })
    .await
}
