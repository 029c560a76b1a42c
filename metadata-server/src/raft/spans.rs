//! Spans of apply, on every member, for the commands of requests that are traced. The leader writes where
//! in its trace a request is into the command; the state machine does not look at it.

use dfs_proto::v1;
use tracing::Span;

/// One span for each traced command of the entry; they end when they are dropped. None unless this
/// process sends traces.
pub(super) fn of_entry(index: u64, entry: &v1::Entry) -> Vec<Span> {
    if !traces::on() {
        return Vec::new();
    }
    let parents = entry.commands.iter().filter_map(|c| traces::Parent::from_bytes(&c.trace_parent));
    parents
        .map(|parent| {
            let span = tracing::info_span!(parent: None, "apply", index);
            traces::adopt(&span, &parent);
            span
        })
        .collect()
}
