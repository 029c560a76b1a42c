//! Nodes up, suspect and down; and the chunks of a node that went down or came back looked at again, so
//! that the list of what needs copies is right. States are proposed only when they change. A chunk that
//! a node's silence left with one copy is copied at once; [`super::repair`] lets the others wait, in
//! case the node comes back.

use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::NodeState;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::MAX_CHUNKS_PER_BACKGROUND_COMMAND;
use dfs_types::{DfsError, Incarnation, NodeId};
use metadata_core::query;
use server_kit::Next;

use super::book::Verdict;
use super::{Timing, propose};
use crate::service::Operations;

/// How often silence is looked at, as a part of the time after which it counts.
const LOOKS_PER_SUSPICION: u64 = 10;

/// The state a node should have, if that is another than it has.
///
/// `heard`: this leader has a heartbeat of it; without one nothing good is concluded.
fn changed_state(now: NodeState, verdict: Verdict, heard: bool) -> Option<NodeState> {
    let should = match (now, verdict) {
        // Operators' decisions stand, whatever the node does.
        (NodeState::Draining | NodeState::Removed | NodeState::Unspecified, _) => return None,
        (_, Verdict::Up) if !heard => return None,
        (_, Verdict::Up) => NodeState::Up,
        // From down the way up leads over a heartbeat.
        (NodeState::Down, Verdict::Suspect) => return None,
        (_, Verdict::Suspect) => NodeState::Suspect,
        (_, Verdict::Down) => NodeState::Down,
    };
    (should != now).then_some(should)
}

/// Looks at every node once.
pub async fn step(operations: &Operations, _timing: Timing) -> Result<Next, DfsError> {
    let nodes = query::nodes(&operations.parts.consensus.local_view()?)?;
    let (book, times) = (&operations.parts.book, operations.parts.liveness);
    for found in nodes {
        let row = found.row;
        let node = NodeId::new(row.node_id.as_str())?;
        let incarnation = Incarnation::from_slice(&row.incarnation)?;
        let verdict = book.verdict(&node, incarnation, times, operations.now());
        let heard = book.was_heard(&node, incarnation);
        if let Some(state) = changed_state(row.state(), verdict, heard) {
            tracing::warn!(node = %node, from = row.state().as_str_name(), to = state.as_str_name(), "node changes state");
            let kind = Kind::SetNodeState(v1::SetNodeState {
                node_id: row.node_id,
                incarnation: row.incarnation,
                state: state.into(),
            });
            propose(operations, kind).await?;
        }
    }
    Ok(Next::After(Duration::from_millis((times.suspect_ms / LOOKS_PER_SUSPICION).clamp(10, 1000))))
}

/// Goes on with looking at the chunks of nodes whose copies began or ceased to count.
pub async fn recheck(operations: &Operations, timing: Timing) -> Result<Next, DfsError> {
    let seats = query::nodes_to_recheck(&operations.parts.consensus.local_view()?)?;
    let Some(seat) = seats.into_iter().next() else { return Ok(timing.pause()) };
    let kind = Kind::QueueNodeDeficits(v1::QueueNodeDeficits {
        node_id: seat.node_id,
        incarnation: seat.incarnation,
        count: MAX_CHUNKS_PER_BACKGROUND_COMMAND as u32,
    });
    propose(operations, kind).await?;
    Ok(Next::Now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_follow_heartbeats_and_operators() {
        use NodeState as S;
        for (now, verdict, heard, expected) in [
            (S::Up, Verdict::Up, true, None),
            (S::Up, Verdict::Suspect, true, Some(S::Suspect)),
            (S::Up, Verdict::Suspect, false, Some(S::Suspect)),
            (S::Up, Verdict::Down, false, Some(S::Down)),
            (S::Suspect, Verdict::Up, true, Some(S::Up)),
            (S::Suspect, Verdict::Up, false, None),
            (S::Suspect, Verdict::Down, true, Some(S::Down)),
            (S::Down, Verdict::Up, true, Some(S::Up)),
            (S::Down, Verdict::Up, false, None),
            (S::Down, Verdict::Suspect, true, None),
            (S::Down, Verdict::Down, true, None),
            (S::Draining, Verdict::Down, false, None),
            (S::Removed, Verdict::Up, true, None),
        ] {
            assert_eq!(changed_state(now, verdict, heard), expected, "{now:?} {verdict:?} {heard}");
        }
    }
}
