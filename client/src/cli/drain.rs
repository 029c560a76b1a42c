//! `dfsctl node drain`: begins a drain, and follows it.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::node::node_json;
use super::stat::state;
use super::{CliError, Context, Output};
use crate::{Client, v1};

pub(super) const EXAMPLES: &str = "Examples:
  dfsctl node drain n4 --wait && dfsctl node remove n4
  dfsctl node drain n4                  # and look at `node show n4` now and then
  dfsctl node resume n4                 # changed your mind";

const LOOK: Duration = Duration::from_millis(500);
/// Without a chunk less for so long, say what it may wait for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn run(client: &Client, node: &str, wait: bool, context: &Context) -> Result<(), CliError> {
    let mut info = client.drain_node(node).await?;
    if wait {
        context.set_interrupt_message(format!(
            "the drain of {node} goes on; `dfsctl node show {node}` says what is left, `dfsctl node resume {node}` ends it"
        ));
        info = follow(client, info, context.output).await?;
    }
    context.output.result(&node_json(&info), || match info.chunks {
        0 => format!("{node} holds nothing any more: dfsctl node remove {node}"),
        left => format!("{node} drains: {left} chunks to go"),
    })
}

/// Until nothing is left on the node.
async fn follow(client: &Client, begun: v1::NodeInfo, output: Output) -> Result<v1::NodeInfo, CliError> {
    let bar = bar(output, begun.chunks);
    let (mut least, mut since, mut told) = (begun.chunks, Instant::now(), false);
    loop {
        let info = client.node(&begun.node_id).await?;
        bar.set_length(begun.chunks.max(info.chunks));
        bar.set_position(begun.chunks.saturating_sub(info.chunks));
        if info.state() != v1::NodeState::Draining {
            bar.finish_and_clear();
            let message = format!("somebody ended the drain: {} is {}", info.node_id, state(info.state));
            return Err(CliError::failed(message));
        }
        if info.chunks == 0 {
            bar.finish_and_clear();
            return Ok(info);
        }
        if info.chunks < least {
            (least, since, told) = (info.chunks, Instant::now(), false);
        } else if since.elapsed() >= PATIENCE && !told {
            told = true;
            bar.suspend(|| output.note(waits_for(&info)));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn waits_for(info: &v1::NodeInfo) -> String {
    let (node, chunks) = (&info.node_id, info.chunks);
    match (info.is_alive, info.chunks_only_here) {
        (false, only @ 1..) => format!(
            "{chunks} chunks left on {node}, {only} of them with no other copy: start {node}, or delete the files they belong to"
        ),
        _ => format!(
            "{chunks} chunks left on {node}: the other nodes must take them; `dfsctl node ls` shows whether they are up and have room"
        ),
    }
}

fn bar(output: Output, chunks: u64) -> ProgressBar {
    if !output.draws_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(chunks), ProgressDrawTarget::stderr_with_hz(10));
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} chunks left the node, ETA {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
