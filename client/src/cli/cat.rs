//! `dfsctl cat`.

use super::address::Address;
use super::get::copy_to_stdout;
use super::missing::explained;
use super::{CliError, Context};
use crate::{FileRef, ReadRange};

/// Print files, or a part of one, to standard output
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl cat dfs://docs/notes.txt\n  dfsctl cat --offset 1000000 --length 100 dfs://docs/film.mkv | xxd"
)]
pub(crate) struct CatArgs {
    /// dfs://BUCKET/KEY
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// First byte to print
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    offset: u64,
    /// Bytes to print at most
    #[arg(long, value_name = "BYTES")]
    length: Option<u64>,
    /// This version instead of the current one
    #[arg(long, value_name = "VERSION")]
    version: Option<u64>,
}

pub(crate) async fn run(args: CatArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    for file in &args.files {
        let address = Address::parse(file)?;
        let mut file = FileRef::from(&address.file()?);
        if let Some(version) = args.version {
            file = file.at_version(version);
        }
        let range = ReadRange { offset: args.offset, length: args.length };
        let opened = client.open_read(file, range).await;
        let stream = explained(&client, &address, opened, "`dfsctl get -r` copies it out").await?;
        copy_to_stdout(stream).await?;
    }
    Ok(())
}
