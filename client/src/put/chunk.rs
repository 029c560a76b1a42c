//! The life of one chunk of a put: secret, seal, place, send, receipts. Each runs in a task of its
//! own; a failed node costs only this chunk a new plan and another sending.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use chunk_format::seal::{SealedChunk, seal_in_place};
use dfs_proto::v1;
use dfs_types::{ChunkId, DfsError, ErrorCode, Secret, UploadId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::planner::Planner;
use super::send::{HOLD, Parcel, SendError, send};
use super::source::{Piece, blocking};
use crate::options::Policy;
use crate::progress::Progress;
use crate::retry::Backoff;
use crate::{Client, Result};

/// A node that keeps refusing fresh grants, over several seconds, is wrong about something that no
/// plan mends. Until then: plans between two ticks of cluster time may share one grant, and use it up.
const MAX_GRANT_REFUSALS: u32 = 12;

/// How long a shortage of nodes may be one that passes: a node that was started again is about to
/// register. A new leader needs no patience, it begins with the nodes that were up before.
pub(crate) const SHORTAGE: Duration = Duration::from_secs(2);

/// What the chunks of one upload share.
pub(crate) struct Upload {
    pub client: Client,
    pub id: UploadId,
    pub realm: Bytes,
    pub policy: Policy,
    pub planner: Planner,
    pub progress: Progress,
    /// Chunks below this index are in pages already.
    pub appended: u32,
}

/// A chunk whose receipts are in hand.
pub(crate) struct DoneChunk {
    pub index: u32,
    pub id: ChunkId,
    pub offset: u64,
    pub size: u64,
    pub secret: Secret<32>,
    /// Empty for one the plan called stored.
    pub receipts: Vec<Bytes>,
    /// Kept for a while in case the leader wants it sent again.
    pub held: Option<Held>,
}

/// Sealed bytes and their share of the transfer's memory.
pub(crate) struct Held {
    pub sealed: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// What an earlier run of the same put knew about a chunk.
#[derive(Clone, Copy)]
pub(crate) enum Before {
    Nothing,
    /// It had this id and was on its way: nodes probably have it.
    Sent(ChunkId),
}

/// Takes one chunk from plaintext to receipts. `integrity` when an earlier run sealed other bytes
/// here: the source changed.
pub(crate) async fn run(upload: &Upload, piece: Piece, before: Before) -> Result<DoneChunk> {
    let Piece { index, offset, plain, plain_hash, permit } = piece;
    let size = plain.len() as u64;
    let secret = upload.planner.secret(index, &plain_hash).await?;
    let key = secret.clone();
    let sealed: SealedChunk = blocking(move || seal_in_place(&key, plain)).await??;
    let id = sealed.id;
    let mut hold = None;
    if let Before::Sent(known) = before {
        if known != id {
            return Err(DfsError::new(
                ErrorCode::Integrity,
                "the source is not what the interrupted upload had read",
            ));
        }
        hold = Some(HOLD);
    }
    if index < upload.appended {
        upload.progress.add_stored_chunk();
        upload.progress.add_done(size);
        return Ok(DoneChunk { index, id, offset, size, secret, receipts: Vec::new(), held: None });
    }
    let wish = Wish { index, id, bytes: &sealed.bytes, must_send: false, hold };
    let receipts = deliver(upload, wish).await.map_err(|error| error.context(format!("chunk {index}")))?;
    if receipts.is_empty() {
        upload.progress.add_stored_chunk();
    }
    upload.progress.add_done(size);
    let held = Some(Held { sealed: sealed.bytes, _permit: permit });
    Ok(DoneChunk { index, id, offset, size, secret, receipts, held })
}

/// One chunk to be made durable.
pub(crate) struct Wish<'a> {
    pub index: u32,
    pub id: ChunkId,
    pub bytes: &'a Bytes,
    pub must_send: bool,
    pub hold: Option<Duration>,
}

/// Sends until `target` nodes gave receipts, or `min_ack` did and a replacement for those that
/// failed was tried. Answers no receipt when the cluster has the chunk already.
pub(crate) async fn deliver(upload: &Upload, wish: Wish<'_>) -> Result<Vec<Bytes>> {
    let _timing = upload.client.inner.longest.time();
    let (target, min_ack) = (upload.policy.target as usize, upload.policy.min_ack as usize);
    let start = Instant::now();
    let deadline = upload.client.inner.awake.deadline(upload.client.patience());
    let mut backoff = Backoff::new();
    let mut receipts: Vec<Bytes> = Vec::new();
    let mut holders: BTreeSet<String> = BTreeSet::new();
    let mut grant_refusals = 0;
    // A round after a failure has been made: what there is will do if it is min_ack.
    let mut replaced = false;
    loop {
        let enough = holders.len() >= min_ack;
        let error =
            match upload.planner.place(wish.index, wish.id, wish.bytes.len() as u64, wish.must_send).await {
                Ok(plan) if plan.stored && receipts.is_empty() => return Ok(receipts),
                Ok(plan) => {
                    let nodes = lacking(plan.nodes, &holders, target);
                    if nodes.is_empty() && enough {
                        return Ok(receipts);
                    }
                    let mut sent = 0;
                    let parcel = Parcel {
                        realm: &upload.realm,
                        id: wish.id,
                        bytes: wish.bytes,
                        nodes: &nodes,
                        hold: wish.hold,
                    };
                    let answer = send(&upload.client, parcel, &mut sent).await;
                    upload.progress.add_sent(sent);
                    match answer {
                        Ok(response) => {
                            let failed = note_answer(upload, &nodes, response, &mut receipts, &mut holders);
                            let enough = holders.len() >= min_ack;
                            if enough && (failed == 0 || replaced || holders.len() >= target) {
                                return Ok(receipts);
                            }
                            replaced = true;
                            DfsError::new(
                                ErrorCode::NotEnoughNodes,
                                format!("{} of the {min_ack} copies needed are durable", holders.len()),
                            )
                        }
                        Err(SendError::Grant(error)) => {
                            grant_refusals += 1;
                            if grant_refusals >= MAX_GRANT_REFUSALS {
                                return Err(error);
                            }
                            error
                        }
                        Err(SendError::Busy(error)) => error,
                        Err(SendError::Node(error)) => {
                            if enough && replaced {
                                return Ok(receipts);
                            }
                            replaced = true;
                            error
                        }
                    }
                }
                Err(_) if enough => return Ok(receipts),
                Err(error) if error.is_retryable() => error,
                Err(error) if error.code == ErrorCode::NotEnoughNodes && start.elapsed() < SHORTAGE => error,
                Err(error) => return Err(error),
            };
        let pause = backoff.pause();
        if pause >= deadline.remaining() {
            return if holders.len() >= min_ack { Ok(receipts) } else { Err(error) };
        }
        sleep(pause).await;
    }
}

/// The planned nodes that still lack the chunk, no more than are wanted.
fn lacking(nodes: Vec<v1::PlannedNode>, holders: &BTreeSet<String>, target: usize) -> Vec<v1::PlannedNode> {
    let wanted = target.saturating_sub(holders.len());
    nodes.into_iter().filter(|planned| !holders.contains(name(planned))).take(wanted).collect()
}

fn name(planned: &v1::PlannedNode) -> &str {
    planned.node.as_ref().map_or("", |node| node.node_id.as_str())
}

/// Of the nodes that failed, in forwarding order, the one that is to be asked last from now on: the first. Those behind
/// it were not reached through it, and nothing is known against them; shunning them too would leave no
/// node but the bad one to plan with. A busy one is not broken.
fn at_fault(failures: &[v1::PutFailure]) -> Option<&v1::PutFailure> {
    failures.first().filter(|failure| failure.code != ErrorCode::Overloaded as u32)
}

/// Books receipts and failures; answers how many nodes failed.
fn note_answer(
    upload: &Upload,
    nodes: &[v1::PlannedNode],
    response: v1::PutResponse,
    receipts: &mut Vec<Bytes>,
    holders: &mut BTreeSet<String>,
) -> usize {
    for failure in &response.failures {
        tracing::debug!(
            node = failure.node_id,
            code = failure.code,
            error = failure.message,
            "forwarding failed"
        );
    }
    if let Some(failure) = at_fault(&response.failures)
        && let Some(node) = nodes.iter().find(|planned| name(planned) == failure.node_id)
    {
        upload.client.inner.dials.node_failed(&node.node.clone().unwrap_or_default(), false);
    }
    let failed = |node: &str| response.failures.iter().any(|failure| failure.node_id == node);
    let held: Vec<&str> = nodes.iter().map(name).filter(|node| !failed(node)).collect();
    // Receipts are opaque: each node not named as failed gave one. If the counts differ, believe the
    // receipts, and only as many nodes.
    holders.extend(held.iter().take(response.receipts.len()).map(|node| (*node).to_owned()));
    receipts.extend(response.receipts);
    nodes.len() - held.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(names: &[&str]) -> Vec<v1::PlannedNode> {
        let node = |name: &&str| v1::PlannedNode {
            node: Some(v1::NodeAddress { node_id: (*name).into(), address: "h:1".into() }),
            grant: Bytes::new(),
        };
        names.iter().map(node).collect()
    }

    /// With three nodes, one of them silent, the one behind it was shunned as well: the next plan, left with nobody, named
    /// the silent node again, and the chunk waited for it twice.
    #[test]
    fn only_the_first_that_failed_is_at_fault() {
        let failure = |node: &str, code: ErrorCode| v1::PutFailure {
            node_id: node.into(),
            code: code as u32,
            ..Default::default()
        };
        let row = [failure("n3", ErrorCode::Timeout), failure("n1", ErrorCode::Unavailable)];
        assert_eq!(at_fault(&row).unwrap().node_id, "n3");
        assert!(
            at_fault(&[failure("n3", ErrorCode::Overloaded), failure("n1", ErrorCode::Unavailable)])
                .is_none()
        );
        assert!(at_fault(&[]).is_none());
    }

    #[test]
    fn a_replacement_plan_spares_those_that_have_it() {
        let holders = BTreeSet::from(["n1".to_owned(), "n3".to_owned()]);
        let left = lacking(planned(&["n1", "n4", "n3", "n5"]), &holders, 3);
        assert_eq!(left.iter().map(name).collect::<Vec<_>>(), ["n4"]);
        assert!(lacking(planned(&["n1"]), &holders, 2).is_empty());
    }
}
