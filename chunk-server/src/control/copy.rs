//! Copy: pulls one chunk from another node, checks the whole of it, keeps it. Sources are tried in
//! the order given; what one of them sends wrong is never kept and never trusted further.

use dfs_proto::v1::{CopyChunkRequest, CopyChunkResponse, ForwardTo};
use dfs_types::{DfsError, ErrorCode};

use super::wanted::{CopyOrder, Incoming, counted};
use crate::data::DataPlane;
use crate::data::ingest::{Ingest, Target};
use crate::data::order::stream_deadline;
use crate::peers::{PeerNode, within};
use crate::telemetry::Call;

pub(super) async fn copy(data: &DataPlane, request: CopyChunkRequest) -> Result<CopyChunkResponse, DfsError> {
    let run = async {
        let order = CopyOrder::accept(data, &request)?;
        if let Some(_room) = order.room(data).await? {
            pull(data, &request.sources, &order.target).await?;
        }
        order.answer(data)
    };
    counted(Call::Copy, request.sealed_length, run).await
}

async fn pull(data: &DataPlane, sources: &[ForwardTo], target: &Target) -> Result<(), DfsError> {
    let mut last = DfsError::new(ErrorCode::InvalidArgument, "a copy needs a source");
    for source in sources {
        let node = PeerNode::parse(source.node.as_ref())?;
        let pulled = pull_from(data, &node, source, target);
        match within(stream_deadline(target.sealed_length), "the copy", pulled).await {
            Ok(()) => {
                tracing::info!(chunk = %target.key, from = %node.id, bytes = target.sealed_length, "copied");
                return Ok(());
            }
            // Ours, not the source's: another one would not mend it.
            Err(error) if error.code == ErrorCode::NoSpace => return Err(error),
            Err(error) => {
                tracing::warn!(chunk = %target.key, from = %node.id, code = %error.code, error = %error.message, "source failed");
                last = error.context(format!("from node {}", node.id));
            }
        }
    }
    Err(last)
}

async fn pull_from(
    data: &DataPlane,
    node: &PeerNode,
    source: &ForwardTo,
    target: &Target,
) -> Result<(), DfsError> {
    let mut incoming = Incoming::open(data, node, &source.grant, target, None).await?;
    let mut ingest = Ingest::new(data.pool.clone(), target.clone());
    while let Some(slice) = incoming.next().await? {
        ingest.push(slice).await?;
    }
    ingest.finish().await
}
