//! A member whose own database turns out to be damaged while it runs.
//!
//! What it has may be wrong in places nobody looked at yet, so it gives its raft id up, stops, and is
//! blank when it starts again, like one whose log went back: the others have everything. But only while
//! a majority of the voters answers without it. Else it stays and goes on answering what it can read, because
//! then nobody could bring it back: errors for some keys are better than no cluster.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::elections::{answering, is_majority};
use super::hello::Greeter;
use super::open::mark_lost;
use super::types::Raft;

/// Between looks whether the others do without this member.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub async fn give_up(
    mut found: watch::Receiver<Option<String>>,
    raft: Raft,
    greeter: Greeter,
    data_dir: PathBuf,
    lost: watch::Sender<Option<String>>,
) {
    let Ok(why) = found.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default()) else {
        return;
    };
    loop {
        let metrics = raft.metrics().borrow().clone();
        if is_majority(&metrics, &answering(&metrics, &greeter, |_| true).await) {
            break;
        }
        tracing::error!(
            why,
            "this member is damaged, and stays because the others have no majority without it"
        );
        sleep(LOOK_AGAIN).await;
    }
    if let Err(error) = mark_lost(&data_dir, &why) {
        tracing::error!(%error, "cannot mark the data directory as lost");
    }
    lost.send_replace(Some(why));
}
