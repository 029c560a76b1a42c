//! `dfsctl chunk`: the parts of a put that curl cannot do, and where a chunk is.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;
use dfs_types::limits::MAX_CHUNK_BYTES;
use dfs_types::{ChunkId, UploadId};
use serde::Deserialize;
use serde_json::json;

use super::address::Address;
use super::stat::locations_json;
use super::{CliError, Context};
use crate::{Client, FileRef};

/// Seal and send one chunk of a plan, or show where a chunk is
#[derive(clap::Args, Debug)]
pub(crate) struct ChunkArgs {
    #[command(subcommand)]
    command: ChunkCommand,
}

#[derive(Subcommand, Debug)]
enum ChunkCommand {
    /// Seal FILE as one chunk of an upload that curl began, send it, and print what commit_upload wants
    #[command(
        after_help = "Example:\n  dfsctl curl -X POST -d '{\"path\":\"/docs/big\",\"size\":4194304}' /init_upload > plan.json\n  dfsctl chunk put --plan plan.json --index 0 first-4-MiB"
    )]
    Put {
        /// The answer of POST /init_upload
        #[arg(long, value_name = "FILE")]
        plan: PathBuf,
        /// Which chunk of the file this is
        #[arg(long)]
        index: u32,
        /// The chunk's plaintext, all of it
        file: PathBuf,
    },
    /// Where the copies of a chunk are
    Locations {
        /// 64 hex digits
        chunk: String,
        /// A file that has the chunk
        #[arg(long, value_name = "ADDRESS")]
        file: Option<String>,
        /// Admin: have this node touch the chunk, and count it if it has it
        #[arg(long, value_name = "NODE")]
        add: Option<String>,
    },
}

/// What is needed of the REST plan; the rest is asked for again, with fresh grants.
#[derive(Deserialize)]
struct Plan {
    upload_id: String,
}

pub(crate) async fn run(args: ChunkArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    match args.command {
        ChunkCommand::Put { plan, index, file } => put(&client, plan, index, file, context).await,
        ChunkCommand::Locations { chunk, file, add } => {
            let chunk: ChunkId = chunk.parse()?;
            let file =
                file.map(|file| Address::parse(&file)?.file()).transpose()?.as_ref().map(FileRef::from);
            let found = match add {
                Some(node) => client.put_chunk_location(chunk, file, &node).await?,
                None => client.chunk_locations(chunk, file).await?,
            };
            let value = locations_json(&found);
            context.output.result(&value, || {
                let lines = found.locations.iter().map(|location| {
                    let doubt = if location.doubted { "  doubted" } else { "" };
                    format!(
                        "{}  {}  {}{doubt}",
                        location.node_id,
                        location.domain,
                        super::stat::state(location.node_state)
                    )
                });
                let head = format!("{} of {} copies", found.present, found.wanted);
                std::iter::once(head).chain(lines).collect::<Vec<_>>().join("\n")
            })
        }
    }
}

async fn put(
    client: &Client,
    plan: PathBuf,
    index: u32,
    file: PathBuf,
    context: &Context,
) -> Result<(), CliError> {
    let reading = |path: &PathBuf| {
        let path = path.clone();
        move |error| CliError::io(format_args!("reading {}", path.display()), error)
    };
    let text = tokio::fs::read(&plan).await.map_err(reading(&plan))?;
    let parsed: Plan = serde_json::from_slice(&text).map_err(|error| {
        CliError::usage(format!("{} is not the answer of init_upload: {error}", plan.display()))
    })?;
    let upload: UploadId = parsed.upload_id.parse()?;
    let length = tokio::fs::metadata(&file).await.map_err(reading(&file))?.len();
    if length == 0 || length > MAX_CHUNK_BYTES {
        return Err(CliError::usage(format!(
            "a chunk has 1 to {MAX_CHUNK_BYTES} bytes, {} has {length}",
            file.display()
        )));
    }
    let plain = tokio::fs::read(&file).await.map_err(reading(&file))?;
    let done = client.put_chunk(upload, index, plain.into()).await?;
    // Always JSON: it is meant for commit_upload.
    context.output.line(
        &json!({
            "index": done.index,
            "chunk_id": done.chunk_id.to_string(),
            "size": done.size,
            "secret": STANDARD.encode(done.secret.expose()),
            "receipts": done.receipts.iter().map(|receipt| STANDARD.encode(receipt)).collect::<Vec<_>>(),
        })
        .to_string(),
    )
}
