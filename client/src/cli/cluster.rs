//! `dfsctl cluster`.

use clap::Subcommand;
use serde_json::{Value, json};

use super::{CliError, Context, Exit, format, fsck, node, table};
use crate::v1;

/// Look at the cluster, and change who its metadata servers are
#[derive(clap::Args, Debug)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    /// Leader, members, nodes, and what is stored
    Status,
    Fsck(fsck::FsckArgs),
    /// List, add and remove metadata servers
    Members {
        #[command(subcommand)]
        command: MembersCommand,
    },
    /// Show the feature level: which commands the metadata servers have agreed to take
    ///
    /// A new release may bring commands that older metadata servers do not know. They are taken only after
    /// the level was raised, which is done once all servers run the new release, and cannot be undone.
    #[command(
        after_help = "Examples: dfsctl cluster feature-level            (the level, and the highest that all support)\n          dfsctl cluster feature-level raise      (after all metadata servers were upgraded)"
    )]
    FeatureLevel {
        #[command(subcommand)]
        command: Option<FeatureLevelCommand>,
    },
}

#[derive(Subcommand, Debug)]
enum FeatureLevelCommand {
    /// Raise it by one, if every metadata server supports that; there is no way back
    #[command(after_help = "Example: dfsctl cluster feature-level raise")]
    Raise,
}

#[derive(Subcommand, Debug)]
enum MembersCommand {
    Ls,
    /// Add a metadata server that runs and waits, or take back one that lost its disk
    #[command(
        after_help = "Example: dfsctl cluster members add m2            (m2's disk was replaced)\n         dfsctl cluster members add m4 10.0.0.4:8080"
    )]
    Add {
        name: String,
        /// HOST:PORT; may be left out for a name that is a member
        address: Option<String>,
    },
    Remove {
        name: String,
    },
}

pub(crate) async fn run(args: ClusterArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    match args.command {
        ClusterCommand::Fsck(args) => fsck::run(args, context).await,
        ClusterCommand::Status => {
            let status = client.status().await?;
            let value = json!({
                "cluster_id": format::id(&status.cluster_id),
                "leader": status.leader,
                "term": status.term,
                "position": status.position,
                "cluster_time_ms": status.cluster_time_ms,
                "epoch_floor": status.epoch_floor,
                "members": status.members.iter().map(member_json).collect::<Vec<_>>(),
                "nodes": status.nodes.iter().map(node::node_json).collect::<Vec<_>>(),
                "files": status.files,
                "chunks": status.chunks,
                "deficits": status.deficits,
                "uploads": status.uploads,
                "trash_chunks": status.trash_chunks,
                "pending_purges": status.pending_purges,
                "trash_bytes": status.trash_bytes,
                "chunks_by_copies": status.lacking
                    .iter()
                    .map(|count| json!({ "present": count.present, "wanted": count.wanted, "chunks": count.chunks }))
                    .collect::<Vec<_>>(),
                "chunks_by_copies_partial": status.lacking_partial,
                "feature_level": status.feature_level,
                "feature_level_supported": status.feature_level_supported,
            });
            context.output.result(&value, || text(&status))
        }
        ClusterCommand::FeatureLevel { command } => {
            let mut status = client.status().await?;
            if let Some(FeatureLevelCommand::Raise) = command {
                let next = status.feature_level.saturating_add(1);
                if status.feature_level_supported == status.feature_level {
                    let message = format!(
                        "the cluster is at feature level {}, the highest that all its metadata servers support",
                        status.feature_level
                    );
                    return Err(CliError { exit: Exit::Conflict, ..CliError::failed(message) });
                }
                status.feature_level = client.raise_feature_level(next).await?.level;
            }
            let value = json!({
                "feature_level": status.feature_level,
                "feature_level_supported": status.feature_level_supported,
            });
            context.output.result(&value, || level(&status))
        }
        ClusterCommand::Members { command } => {
            let answer = match command {
                MembersCommand::Ls => client.members().await?,
                MembersCommand::Add { name, address } => {
                    client.add_member(&name, address.as_deref().unwrap_or("")).await?
                }
                MembersCommand::Remove { name } => client.remove_member(&name).await?,
            };
            let value = json!({ "members": answer.members.iter().map(member_json).collect::<Vec<_>>() });
            context.output.result(&value, || members(&answer.members))
        }
    }
}

fn text(status: &v1::ClusterStatusResponse) -> String {
    let leader = if status.leader.is_empty() { "none" } else { &status.leader };
    let whole = status.chunks.saturating_sub(status.deficits).saturating_sub(status.trash_chunks);
    let mut chunks = format!("{whole} with all copies");
    for count in &status.lacking {
        let lost = if count.present == 0 { " (not readable now)" } else { "" };
        chunks += &format!("; {} with {} of {}{lost}", count.chunks, count.present, count.wanted);
    }
    if status.lacking_partial {
        chunks += &format!("; {} lack copies in all", status.deficits);
    }
    let up = status.nodes.iter().filter(|node| node.is_alive).count();
    let (used, capacity) =
        status.nodes.iter().fold((0, 0), |(used, all), node| (used + node.used, all + node.capacity));
    let head = [
        ("cluster", format::id(&status.cluster_id)),
        ("leader", format!("{leader} (term {})", status.term)),
        ("files", status.files.to_string()),
        ("chunks", chunks),
        (
            "space",
            format!(
                "{} of {} used ({}) on {up} of {} nodes up",
                format::size(used),
                format::size(capacity),
                format::percent(used, capacity),
                status.nodes.len()
            ),
        ),
        (
            "purge",
            format!(
                "{} chunks, {} a copy, wait in trash; {} deletes on their way",
                status.trash_chunks,
                format::size(status.trash_bytes),
                status.pending_purges
            ),
        ),
        ("uploads", format!("{} open", status.uploads)),
        ("level", level(status)),
    ];
    format!(
        "{}\n\n{}\n\n{}",
        table::fields(head.map(|(name, says)| [name.to_owned(), says])),
        members(&status.members),
        node::listed(&status.nodes),
    )
}

fn level(status: &v1::ClusterStatusResponse) -> String {
    let level = status.feature_level;
    match status.feature_level_supported {
        0 => format!("{level} (a metadata server does not answer: what all support is not known)"),
        most if most > level => format!("{level} (all metadata servers support up to {most})"),
        most => format!("{level} (the highest that all metadata servers support is {most})"),
    }
}

fn disk(member: &v1::Member) -> String {
    match &member.disk {
        None => "-".to_owned(),
        Some(room) if room.free < room.reserve => {
            format!("{} free: SHORT, reserve {}", format::size(room.free), format::size(room.reserve))
        }
        Some(room) => format!("{} free", format::size(room.free)),
    }
}

fn members(members: &[v1::Member]) -> String {
    let header = ["MEMBER", "ROLE", "ADDRESS", "APPLIED", "REACHABLE", "DISK", "RAFT ID"];
    let less = ["RAFT ID", "APPLIED", "ADDRESS", "DISK"];
    let row = |member: &v1::Member| {
        [
            member.name.clone(),
            role(member).to_owned(),
            member.address.clone(),
            if member.applied_index == 0 { "-".to_owned() } else { member.applied_index.to_string() },
            if member.reachable { "yes" } else { "no" }.to_owned(),
            disk(member),
            format!("{:016x}", member.raft_id),
        ]
    };
    table::table(header, &less, members.iter().map(row))
}

fn role(member: &v1::Member) -> &'static str {
    match (member.leader, member.voter) {
        (true, _) => "leader",
        (false, true) => "voter",
        (false, false) => "learner",
    }
}

fn member_json(member: &v1::Member) -> Value {
    json!({
        "name": member.name,
        "raft_id": format!("{:016x}", member.raft_id),
        "address": member.address,
        "role": role(member),
        "applied_index": member.applied_index,
        "reachable": member.reachable,
        "disk_free": member.disk.map(|room| room.free),
        "disk_total": member.disk.map(|room| room.total),
        "disk_reserve": member.disk.map(|room| room.reserve),
        "feature_level_supported": member.feature_level,
    })
}
