//! `dfsctl node`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::stat::state;
use super::{CliError, Context, format, table};
use crate::v1;

/// Look at chunk servers, drain and remove them
#[derive(clap::Args, Debug)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Subcommand, Debug)]
enum NodeCommand {
    /// List chunk servers
    Ls,
    /// Show one
    Show { node: String },
    /// Have its chunks copied elsewhere and taken off it; also of a dead one that is given up
    #[command(after_help = super::drain::EXAMPLES)]
    Drain {
        node: String,
        /// Wait until nothing is left on it; Ctrl-C ends the waiting, not the drain
        #[arg(long)]
        wait: bool,
    },
    /// End a drain: what is left on it counts again
    Resume { node: String },
    /// Accept that it lost the chunks it misses (`absence_held` in `node show`)
    ConfirmLoss { node: String },
    /// Forget one that holds nothing any more
    Remove { node: String },
}

pub(crate) async fn run(args: NodeArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    match args.command {
        NodeCommand::Ls => {
            let nodes = client.nodes().await?.nodes;
            let value = json!({ "nodes": nodes.iter().map(node_json).collect::<Vec<_>>() });
            context.output.result(&value, || listed(&nodes))
        }
        NodeCommand::Show { node } => {
            let value = node_json(&client.node(&node).await?);
            context.output.result(&value, || {
                let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let fields = value.as_object().into_iter().flatten();
                table::fields(fields.map(|(field, value)| [field.clone(), text(value)]))
            })
        }
        NodeCommand::Drain { node, wait } => super::drain::run(&client, &node, wait, context).await,
        NodeCommand::Resume { node } => {
            let info = client.resume_node(&node).await?;
            context.output.result(&node_json(&info), || format!("{node} is {}", state(info.state)))
        }
        NodeCommand::ConfirmLoss { node } => {
            let info = client.confirm_loss(&node).await?;
            context.output.result(&node_json(&info), || {
                format!("{} missing chunks of {node} are given up, as it confirms each", info.absent_chunks)
            })
        }
        NodeCommand::Remove { node } => {
            let done = client.remove_node(&node).await?;
            context
                .output
                .result(&json!({ "node_id": node, "position": done.position }), || format!("{node} removed"))
        }
    }
}

/// One line a node.
pub(crate) fn listed(nodes: &[v1::NodeInfo]) -> String {
    let header = ["NODE", "STATE", "ADDRESS", "DOMAIN", "USED", "CAPACITY", "FILL", "CHUNKS"];
    let less = ["DOMAIN", "CAPACITY", "USED", "CHUNKS", "ADDRESS"];
    let row = |node: &v1::NodeInfo| {
        [
            node.node_id.clone(),
            state(node.state).to_owned(),
            node.address.clone(),
            node.domain.clone(),
            format::size(node.used),
            format::size(node.capacity),
            format::percent(node.used, node.capacity),
            node.chunks.to_string(),
        ]
    };
    table::table(header, &less, nodes.iter().map(row))
}

pub(crate) fn node_json(node: &v1::NodeInfo) -> Value {
    json!({
        "node_id": node.node_id,
        "address": node.address,
        "incarnation": format::id(&node.incarnation),
        "domain": node.domain,
        "state": state(node.state),
        "is_alive": node.is_alive,
        "last_heartbeat": format::time(node.last_heartbeat_unix_ms),
        "capacity": node.capacity,
        "used": node.used,
        "chunks": node.chunks,
        "chunks_only_here": node.chunks_only_here,
        "absent_chunks": node.absent_chunks,
        "absence_held": node.absence_held,
        "version": node.version,
    })
}
