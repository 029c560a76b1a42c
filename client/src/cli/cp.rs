//! `dfsctl cp`.

use futures::TryStreamExt;
use serde_json::json;

use super::address::Address;
use super::files::{Failure, run_all};
use super::missing::{explained, is_directory, nothing_under};
use super::mv::target;
use super::{CliError, Context, format};
use crate::options::Condition;
use crate::{FileRef, Listing, v1};

/// Copy files inside the cluster, by reference: no bytes move
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl cp dfs://docs/final.txt dfs://archive/2026/\n  dfsctl cp -r dfs://docs/2026 dfs://archive/2026"
)]
pub(crate) struct CpArgs {
    /// dfs://BUCKET/KEY
    from: String,
    /// dfs://BUCKET/KEY
    to: String,
    /// Everything below
    #[arg(long, short)]
    recursive: bool,
    /// TO is the copy itself, never a directory to copy into
    #[arg(long, short = 'T')]
    no_target_directory: bool,
    /// Fail if the new name is taken
    #[arg(long, short)]
    no_clobber: bool,
    /// Copy this version instead of the current one
    #[arg(long, value_name = "VERSION", conflicts_with = "recursive")]
    version: Option<u64>,
}

pub(crate) async fn run(args: CpArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    let (from, to) = (Address::parse(&args.from)?, Address::parse(&args.to)?);
    let condition = Condition { if_version: None, if_to_version: args.no_clobber.then_some(0) };
    if args.recursive {
        let into = !args.no_target_directory && is_directory(&client, &to).await?;
        let base = if into { to.join(from.name()) } else { to };
        let prefix = from.prefix();
        let mut jobs = Vec::new();
        let mut entries = std::pin::pin!(client.list_all(Listing::under(&from.bucket, &prefix)));
        while let Some(entry) = entries.try_next().await? {
            let Some(v1::list_entry::Kind::File(info)) = entry.kind else { continue };
            let source = Address::parse(&info.path)?;
            if let Some(rest) = source.key.strip_prefix(&prefix) {
                jobs.push((info.path.clone(), info.version, base.join(rest)));
            }
        }
        if jobs.is_empty() && from.is_directory() && !from.key.is_empty() {
            return Err(nothing_under(&from));
        }
        if !jobs.is_empty() || from.is_directory() {
            let report = run_all(
                jobs,
                |_| 0,
                |(path, version, target)| {
                    let client = client.clone();
                    async move {
                        let file = FileRef::from(path.as_str()).at_version(version);
                        let destination = format!("/{}/{}", target.bucket, target.key);
                        match client.copy(file, &destination, condition).await {
                            Ok(info) => Ok(json!({ "path": target.to_string(), "version": info.version })),
                            Err(error) => Err(Failure::new(path, error.into())),
                        }
                    }
                },
            )
            .await;
            return report.finish(context.output, "copied");
        }
        return copy(&client, &from, &target(&from, &base), None, condition, context).await;
    }
    let to = if args.no_target_directory { to } else { target(&from, &to) };
    copy(&client, &from, &to, args.version, condition, context).await
}

async fn copy(
    client: &crate::Client,
    from: &Address,
    to: &Address,
    version: Option<u64>,
    condition: Condition,
    context: &Context,
) -> Result<(), CliError> {
    let mut file = FileRef::from(&from.file()?);
    if let Some(version) = version {
        file = file.at_version(version);
    }
    let copied = client.copy(file, &to.file()?.to_string(), condition).await;
    let info = explained(client, from, copied, "use -r to copy all of it").await?;
    let value = json!({ "path": to.to_string(), "version": info.version, "size": info.size });
    context.output.result(&value, || {
        format!(
            "{} ({}, version {})",
            format::printable(&to.to_string()),
            format::size(info.size),
            info.version
        )
    })
}
