//! `dfsctl rm`.

use futures::TryStreamExt;
use serde_json::json;

use super::address::Address;
use super::files::{Failure, run_all};
use super::missing::{explained, nothing_under};
use super::{CliError, Context};
use crate::options::Condition;
use crate::{ErrorCode, FileRef, Listing, v1};

/// Delete files. The bucket keeps them for its keep time unless --purge
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl rm dfs://docs/old.pdf\n  dfsctl rm -r dfs://docs/2019/\n  dfsctl rm --version 65536 dfs://docs/final.pdf     one version alone\n  dfsctl rm -r --purge dfs://docs/                   everything for good, deleted files that are kept too"
)]
pub(crate) struct RmArgs {
    /// dfs://BUCKET/KEY
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Everything below
    #[arg(long, short)]
    recursive: bool,
    /// A file that does not exist is no error
    #[arg(long, short)]
    force: bool,
    /// Keep nothing: drop every version now, of files that are deleted already too
    #[arg(long)]
    purge: bool,
    /// Delete this version alone
    #[arg(long, value_name = "VERSION", conflicts_with = "recursive")]
    version: Option<u64>,
    /// Only if the file is at this version now
    #[arg(long, value_name = "VERSION", conflicts_with = "recursive")]
    if_version: Option<u64>,
}

pub(crate) async fn run(args: RmArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    let mut jobs = Vec::new();
    for file in &args.files {
        let address = Address::parse(file)?;
        if !args.recursive {
            jobs.push(address.file()?.to_string());
            continue;
        }
        let before = jobs.len();
        let mut listing = Listing::under(&address.bucket, address.prefix());
        listing.include_deleted = args.purge;
        let mut entries = std::pin::pin!(client.list_all(listing));
        while let Some(entry) = entries.try_next().await? {
            if let Some(v1::list_entry::Kind::File(info)) = entry.kind {
                jobs.push(info.path);
            }
        }
        // -r of a file removes it, as rm does; an empty bucket has nothing to remove.
        if jobs.len() == before && !address.is_directory() {
            jobs.push(address.file()?.to_string());
        } else if jobs.len() == before && !address.key.is_empty() && !args.force {
            return Err(nothing_under(&address));
        }
    }
    let condition = Condition { if_version: args.if_version, if_to_version: None };
    let one = jobs.len() == 1;
    let mut report = run_all(
        jobs,
        |_| 0,
        |path| {
            let mut file = FileRef::from(path.as_str());
            if let Some(version) = args.version {
                file = file.at_version(version);
            }
            let (client, purge, force) = (client.clone(), args.purge, args.force);
            async move {
                let address = Address::parse(&path).map_err(|error| Failure::new(&path, error))?;
                let shown = address.to_string();
                let deleted = match client.delete(file, condition, purge).await {
                    Err(error) if force && error.code == ErrorCode::NotFound => {
                        return Ok(json!({ "path": shown, "version": null }));
                    }
                    deleted => explained(&client, &address, deleted, "use -r to delete all of it").await,
                };
                match deleted {
                    Ok(done) => Ok(json!({ "path": shown, "version": done.version })),
                    Err(error) => Err(Failure::new(shown, error)),
                }
            }
        },
    )
    .await;
    if let (true, Some(failure)) = (one, report.failed.pop()) {
        return Err(failure.into_error());
    }
    if one && !context.output.is_json() {
        return Ok(());
    }
    report.finish(context.output, "deleted")
}
