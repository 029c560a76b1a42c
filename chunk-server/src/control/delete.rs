//! Delete: the ticket's position is the whole argument, compared with the chunk's own epoch under
//! the store's lock. No clock, no list, no memory of earlier orders takes part.

use dfs_proto::v1::{DeleteChunksRequest, DeleteChunksResponse, DeleteOutcome as Wire, DeleteTicket};
use dfs_types::{DfsError, Position};

use super::{ORDER_CONCURRENCY, check_count, each, key_of};
use crate::data::DataPlane;
use crate::store::{ChunkKey, ChunkStoreExt, DeleteOutcome};

pub(super) async fn delete(
    data: &DataPlane,
    request: DeleteChunksRequest,
) -> Result<DeleteChunksResponse, DfsError> {
    data.node.check_incarnation(&request.incarnation)?;
    check_count(request.tickets.len())?;
    let tickets = request.tickets.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    data.node.enter_term(request.term)?;
    let store = data.node.store()?;
    let outcomes = each(tickets, ORDER_CONCURRENCY, |(key, position)| {
        let store = store.clone();
        data.pool.run(move || store.delete_below(&key, position))
    })
    .await?;
    let deleted = outcomes.iter().filter(|outcome| **outcome == DeleteOutcome::Deleted).count();
    tracing::info!(tickets = outcomes.len(), deleted, "deleted chunks");
    Ok(DeleteChunksResponse { outcomes: outcomes.into_iter().map(|outcome| wire(outcome) as i32).collect() })
}

fn read(ticket: &DeleteTicket) -> Result<(ChunkKey, Position), DfsError> {
    Ok((key_of(&ticket.realm_id, &ticket.chunk_id)?, Position(ticket.position)))
}

fn wire(outcome: DeleteOutcome) -> Wire {
    match outcome {
        DeleteOutcome::Deleted => Wire::Deleted,
        DeleteOutcome::Absent => Wire::Absent,
        DeleteOutcome::Kept(_) => Wire::KeptNewer,
    }
}
