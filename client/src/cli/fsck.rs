//! `dfsctl cluster fsck`: asks of every file how many copies its worst chunk has. It only reads; repair
//! is the cluster's own work.

use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::address::Address;
use super::files::files;
use super::progress::Bar;
use super::{CliError, Context, Exit, format, table};
use crate::{Client, DfsError, ErrorCode, FileRef, Listing, Progress, v1};

/// Files asked about at once.
const AT_ONCE: usize = 16;

/// Ask of every file how many copies it has; 1 if some are missing, 7 if content is lost
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl cluster fsck\n  dfsctl cluster fsck photos\n  dfsctl cluster fsck --output json | jq -r '.files[].path'"
)]
pub(crate) struct FsckArgs {
    /// These buckets alone [default: all that you may see]
    #[arg(value_name = "BUCKET")]
    buckets: Vec<String>,
}

/// What was found.
#[derive(Default)]
struct Census {
    files: u64,
    bytes: u64,
    chunks: u64,
    /// Files with a chunk that lacks copies, worst first at the end.
    lacking: Vec<Lacking>,
}

struct Lacking {
    path: String,
    version: u64,
    present: u32,
    wanted: u32,
    index: u32,
    chunk_id: String,
}

pub(crate) async fn run(args: FsckArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    let buckets = match args.buckets.is_empty() {
        true => client.buckets().await?.into_iter().map(|bucket| bucket.name).collect(),
        false => args.buckets,
    };
    let progress = Progress::new();
    let bar = Bar::follow(context.output, &progress, Some(0));
    let mut census = Census::default();
    for bucket in &buckets {
        let files = client.list_all(Listing::all(bucket)).try_filter_map(|entry| async move {
            match entry.kind {
                Some(v1::list_entry::Kind::File(info)) => Ok(Some(info)),
                _ => Ok(None),
            }
        });
        let mut asked = files.map_ok(|info| ask(&client, info)).try_buffer_unordered(AT_ONCE).boxed();
        while let Some(found) = asked.try_next().await? {
            let Some(info) = found else { continue };
            progress.add_done(info.size);
            progress.add_file();
            census.add(info);
        }
    }
    drop(bar);
    let status = client.status().await;
    report(census, status.ok().as_ref(), context)
}

/// None: deleted meanwhile.
async fn ask(client: &Client, info: v1::FileInfo) -> Result<Option<v1::FileInfo>, DfsError> {
    match client.stat_with_copies(FileRef::from(&info.path)).await {
        Ok(info) if info.deleted => Ok(None),
        Ok(info) => Ok(Some(info)),
        Err(error) if error.code == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error.context(info.path)),
    }
}

impl Census {
    fn add(&mut self, info: v1::FileInfo) {
        self.files += 1;
        self.bytes += info.size;
        self.chunks += u64::from(info.chunks);
        // Inline content is where the metadata is: it has as many copies as there are members.
        let Some(worst) = info.worst_chunk.filter(|worst| worst.present < worst.wanted) else { return };
        self.lacking.push(Lacking {
            path: Address::parse(&info.path).map_or(info.path, |address| address.to_string()),
            version: info.version,
            present: worst.present,
            wanted: worst.wanted,
            index: worst.index,
            chunk_id: dfs_types::ids::hex(&worst.chunk_id),
        });
    }
}

fn report(
    mut census: Census,
    status: Option<&v1::ClusterStatusResponse>,
    context: &Context,
) -> Result<(), CliError> {
    census.lacking.sort_by(|a, b| (a.present, &a.path).cmp(&(b.present, &b.path)));
    let lost = census.lacking.iter().filter(|file| file.present == 0).count();
    let value = json!({
        "files_checked": census.files,
        "bytes": census.bytes,
        "chunk_references": census.chunks,
        "files_lacking_copies": census.lacking.len(),
        "files_lost": lost,
        "deficits": status.map(|status| status.deficits),
        "trash_chunks": status.map(|status| status.trash_chunks),
        "pending_purges": status.map(|status| status.pending_purges),
        "files": census.lacking.iter().map(file_json).collect::<Vec<_>>(),
    });
    context.output.result(&value, || text(&census, lost, status))?;
    let (exit, code, message) = match (lost, census.lacking.len()) {
        (0, 0) => return Ok(()),
        (0, lacking) => {
            (Exit::Failed, "copies_missing", format!("{lacking} of {} files lack copies", census.files))
        }
        (lost, _) => (
            Exit::Integrity,
            "content_lost",
            format!("{lost} of {} files have a chunk without any copy on a live node", census.files),
        ),
    };
    let hint =
        "`dfsctl node ls` shows which chunk servers are down; the cluster makes missing copies by itself";
    Err(CliError { exit, code, message, hint: Some(hint.to_owned()) })
}

fn file_json(file: &Lacking) -> Value {
    json!({
        "path": file.path,
        "version": file.version,
        "present": file.present,
        "wanted": file.wanted,
        "chunk_index": file.index,
        "chunk_id": file.chunk_id,
    })
}

fn text(census: &Census, lost: usize, status: Option<&v1::ClusterStatusResponse>) -> String {
    let mut lines = vec![format!(
        "checked  {}, {}, {} chunks; {} lack copies, {lost} lost",
        files(census.files),
        format::size(census.bytes),
        census.chunks,
        census.lacking.len(),
    )];
    if let Some(status) = status {
        lines.push(format!(
            "cluster  {} chunks lack copies, {} in trash, {} purges pending",
            status.deficits, status.trash_chunks, status.pending_purges
        ));
    }
    if !census.lacking.is_empty() {
        let header = ["COPIES", "CHUNK", "FILE"];
        let rows = census.lacking.iter().map(|file| {
            let copies = format!("{} of {}", file.present, file.wanted);
            [copies, file.index.to_string(), format::printable(&file.path)]
        });
        lines.push(format!("\n{}", table::table(header, &["CHUNK"], rows)));
    }
    lines.join("\n")
}
