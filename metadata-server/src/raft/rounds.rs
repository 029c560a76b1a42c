//! Once a second each member asks all other voters who they are (Hello). What they say they have is remembered
//! (`marks.rs`), what they remember of this member it hears (`hello.rs`), and how much room their disks have is
//! noted (`rooms.rs`), by every member: who leads next knows it at once. Owner: [`ask`], one task per member.

use std::collections::BTreeSet;
use std::time::Duration;

use dfs_types::limits::DISK_LOOK_MS;
use tokio::time::{Instant, sleep};

use super::elections::answering;
use super::hello::Greeter;
use super::rooms::Rooms;
use super::types::{Raft, RaftMetrics};

/// Asks, as long as this member runs.
pub async fn ask(raft: Raft, greeter: Greeter, rooms: Rooms) {
    loop {
        let metrics = raft.metrics().borrow().clone();
        round(&metrics, &greeter, &rooms).await;
        sleep(Duration::from_millis(DISK_LOOK_MS)).await;
    }
}

async fn round(metrics: &RaftMetrics, greeter: &Greeter, rooms: &Rooms) {
    let others: BTreeSet<u64> =
        metrics.membership_config.membership().voter_ids().filter(|id| *id != metrics.id).collect();
    rooms.keep_only(|id| others.contains(id));
    answering(metrics, greeter, |answer| {
        if let Some(room) = answer.disk {
            rooms.note(answer.raft_id, &answer.name, room, Instant::now());
        }
        true
    })
    .await;
    let members: BTreeSet<u64> = metrics.membership_config.nodes().map(|(id, _)| *id).collect();
    // Nobody waits for this write when the member is closed. The greeter holds the log and with it the directory's
    // lock, so the directory does not count as free before it is done.
    let writing = greeter.clone();
    match tokio::task::spawn_blocking(move || writing.marks.write(&members)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "cannot write down what the other members have"),
        Err(panic) => tracing::warn!(%panic, "writing down what the other members have"),
    }
}
