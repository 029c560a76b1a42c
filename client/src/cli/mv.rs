//! `dfsctl mv`.

use serde_json::json;

use super::address::Address;
use super::missing::explained;
use super::{CliError, Context, format};
use crate::FileRef;
use crate::options::Condition;

const DIRECTORIES: &str =
    "mv renames one file at once; `dfsctl cp -r` and then `dfsctl rm -r` move a directory";

/// Rename a file, at once and with its history; into another bucket: copy by reference, then delete
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl mv dfs://docs/draft.txt dfs://docs/final.txt\n  dfsctl mv dfs://docs/a.txt dfs://docs/2026/        keeps its name"
)]
pub(crate) struct MvArgs {
    /// dfs://BUCKET/KEY
    from: String,
    /// dfs://BUCKET/KEY
    to: String,
    /// Fail if the new name is taken
    #[arg(long, short)]
    no_clobber: bool,
    /// Only if the file is at this version now
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
}

pub(crate) async fn run(args: MvArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    let from = Address::parse(&args.from)?;
    let to = target(&from, &Address::parse(&args.to)?);
    let (source, destination) = (from.file()?, to.file()?);
    let condition = Condition { if_version: args.if_version, if_to_version: args.no_clobber.then_some(0) };
    let info = if from.bucket == to.bucket {
        let renamed = client.rename(&source.to_string(), &destination.to_string(), condition).await;
        explained(&client, &from, renamed, DIRECTORIES).await?
    } else {
        let current = explained(&client, &from, client.stat(&source).await, DIRECTORIES).await?;
        if let Some(wanted) = args.if_version
            && wanted != current.version
        {
            let message = format!("{from} is at version {}", current.version);
            return Err(crate::DfsError::new(crate::ErrorCode::VersionMismatch, message).into());
        }
        let file = FileRef::from(&source).at_version(current.version);
        let copied = client.copy(file, &destination.to_string(), condition).await?;
        let only = Condition { if_version: Some(current.version), if_to_version: None };
        client.delete(&source, only, false).await.map_err(|error| {
            CliError::from(error.context(format!("copied to {to}, but {from} was not deleted")))
        })?;
        copied
    };
    let value = json!({ "from": from.to_string(), "path": to.to_string(), "version": info.version });
    context.output.result(&value, || {
        format!("{} -> {}", format::printable(&from.to_string()), format::printable(&to.to_string()))
    })
}

/// Into a directory a file keeps its name.
pub(crate) fn target(from: &Address, to: &Address) -> Address {
    if to.is_directory() { to.join(from.name()) } else { to.clone() }
}
