//! `dfsctl stat`.

use dfs_types::ids::hex;
use serde_json::{Value, json};

use super::address::Address;
use super::missing::explained;
use super::{CliError, Context, format, ls, table};
use crate::{Client, DfsError, ErrorCode, FileRef, v1};

/// Show a file: size, version, and how many copies of its worst chunk there are and where
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl stat dfs://docs/final.pdf\n  dfsctl stat --versions dfs://docs/final.pdf\n  dfsctl stat --deleted dfs://docs/old.pdf           when it was deleted, and how long it is kept"
)]
pub(crate) struct StatArgs {
    /// dfs://BUCKET/KEY
    #[arg(value_name = "FILE")]
    file: String,
    /// This version instead of the current one
    #[arg(long, value_name = "VERSION")]
    version: Option<u64>,
    /// All versions that are kept, newest first
    #[arg(long, conflicts_with = "version")]
    versions: bool,
    /// A deleted file too, while it is kept
    #[arg(long)]
    deleted: bool,
}

pub(crate) async fn run(args: StatArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    let address = Address::parse(&args.file)?;
    let mut file = FileRef::from(&address.file()?);
    if args.versions {
        return versions(&client, file, context).await;
    }
    if let Some(version) = args.version {
        file = file.at_version(version);
    }
    let instead = format!("`dfsctl ls -r -l {address}/` lists what is in it");
    let info = explained(&client, &address, client.stat_with_copies(file).await, &instead).await?;
    if info.deleted {
        return deleted(&client, &address, &info, args.deleted, context).await;
    }
    let mut value = ls::file_json(&info);
    value["content_hash"] = json!(hex(&info.content_hash));
    value["policy"] =
        json!(info.policy.map(|policy| json!({"target": policy.target, "min_ack": policy.min_ack})));
    value["worst_chunk"] = info.worst_chunk.as_ref().map_or(Value::Null, locations_json);
    context.output.result(&value, || {
        let mut rows = vec![
            ("path", format::printable(value["path"].as_str().unwrap_or(""))),
            ("size", format!("{} ({} bytes)", format::size(info.size), info.size)),
            ("version", info.version.to_string()),
            ("file id", format::id(&info.file_id)),
            ("created", format::time(info.created_unix_ms)),
            ("updated", format::time(info.updated_unix_ms)),
            ("owner", format::id(&info.owner)),
        ];
        if !info.content_type.is_empty() {
            rows.push(("type", format::printable(&info.content_type)));
        }
        for (key, value) in info.user_metadata.iter().collect::<std::collections::BTreeMap<_, _>>() {
            rows.push(("meta", format!("{}={}", format::printable(key), format::printable(value))));
        }
        match &info.worst_chunk {
            Some(chunk) => {
                rows.push(("chunks", info.chunks.to_string()));
                rows.push(("copies", copies(chunk)));
            }
            None if info.inline || info.chunks == 0 => {
                rows.push(("copies", "inline, on every metadata server".to_owned()));
            }
            None => rows.push(("chunks", info.chunks.to_string())),
        }
        named(rows)
    })
}

fn named(rows: impl IntoIterator<Item = (&'static str, String)>) -> String {
    table::fields(rows.into_iter().map(|(name, says)| [name.to_owned(), says]))
}

/// A deleted file is not there, as for `cat` and `get`, unless it was asked for.
async fn deleted(
    client: &Client,
    address: &Address,
    info: &v1::FileInfo,
    wanted: bool,
    context: &Context,
) -> Result<(), CliError> {
    let shown = format::printable(&address.to_string());
    let at_ms = info.updated_unix_ms;
    // Told with "about": the keep time that counts is the one the bucket had when it happened.
    let until_ms = at_ms.saturating_add(client.bucket(&address.bucket).await?.keep_ms);
    let times = format!(" at {}; it is kept until about {}", format::time(at_ms), format::time(until_ms));
    if !wanted {
        let error = DfsError::new(ErrorCode::NotFound, format!("{shown} was deleted{times}"));
        return Err(CliError::from(error).with_hint(format!(
            "`dfsctl ls --deleted {shown}` and `dfsctl stat --deleted {shown}` show it; \
             `dfsctl stat --versions {shown}` what `dfsctl get --version` brings back"
        )));
    }
    let mut value = ls::file_json(info);
    value["deleted_at"] = json!(format::time(at_ms));
    value["kept_until"] = json!(format::time(until_ms));
    context.output.result(&value, || {
        named([
            ("path", shown.clone()),
            ("deleted", format!("yes{times}")),
            ("version", format!("{} (the deletion)", info.version)),
            ("file id", format::id(&info.file_id)),
            ("created", format::time(info.created_unix_ms)),
            ("by", format::id(&info.owner)),
        ])
    })
}

/// `2 of 3 (worst chunk 4): n1 [rack-a], n2 [rack-b]`
fn copies(chunk: &v1::ChunkLocations) -> String {
    let places: Vec<String> = chunk.locations.iter().map(place).collect();
    format!("{} of {} (worst chunk {}): {}", chunk.present, chunk.wanted, chunk.index, places.join(", "))
}

fn place(location: &v1::Location) -> String {
    let state = state(location.node_state);
    let doubt = if location.doubted { ", doubted" } else { "" };
    if state == "up" && doubt.is_empty() {
        format!("{} [{}]", location.node_id, location.domain)
    } else {
        format!("{} [{}, {state}{doubt}]", location.node_id, location.domain)
    }
}

/// The word for a node's state.
pub(crate) fn state(state: i32) -> &'static str {
    match v1::NodeState::try_from(state) {
        Ok(v1::NodeState::Up) => "up",
        Ok(v1::NodeState::Suspect) => "suspect",
        Ok(v1::NodeState::Down) => "down",
        Ok(v1::NodeState::Draining) => "draining",
        Ok(v1::NodeState::Removed) => "removed",
        Ok(v1::NodeState::Unspecified) | Err(_) => "unknown",
    }
}

pub(crate) fn locations_json(chunk: &v1::ChunkLocations) -> Value {
    json!({
        "chunk_id": hex(&chunk.chunk_id),
        "index": chunk.index,
        "sealed_size": chunk.sealed_length,
        "present": chunk.present,
        "wanted": chunk.wanted,
        "locations": chunk.locations.iter().map(|location| json!({
            "node_id": location.node_id,
            "domain": location.domain,
            "state": state(location.node_state),
            "doubted": location.doubted,
            "epoch": location.epoch,
        })).collect::<Vec<_>>(),
    })
}

async fn versions(client: &crate::Client, file: FileRef, context: &Context) -> Result<(), CliError> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.versions(file.clone(), &cursor).await?;
        all.extend(page.versions);
        cursor = page.next_cursor;
        if cursor.is_empty() {
            break;
        }
    }
    let value = json!({ "versions": all.iter().map(ls::file_json).collect::<Vec<_>>() });
    context.output.result(&value, || {
        let line = |info: &v1::FileInfo| {
            let deleted = if info.deleted { "  (deleted)" } else { "" };
            format!(
                "{:>14}  {}  {:>14}{deleted}",
                info.version,
                format::time(info.updated_unix_ms),
                info.size
            )
        };
        all.iter().map(line).collect::<Vec<_>>().join("\n")
    })
}
