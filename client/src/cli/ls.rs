//! `dfsctl ls`.

use std::io::{IsTerminal, Write};

use futures::TryStreamExt;
use serde_json::{Value, json};

use super::address::Address;
use super::{CliError, Context, format};
use crate::{Client, ErrorCode, FileRef, Listing, v1};

/// List buckets, or files
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl ls                          the buckets\n  dfsctl ls dfs://docs/2026/         one level, as a directory\n  dfsctl ls -r -l dfs://docs/        everything, with size, time and version\n  dfsctl ls --output json -r dfs://docs | jq -r '.entries[].path'"
)]
pub(crate) struct LsArgs {
    /// dfs://BUCKET/PREFIX
    #[arg(value_name = "ADDRESS")]
    addresses: Vec<String>,
    /// Everything below, not one level
    #[arg(long, short)]
    recursive: bool,
    /// Size, time and version
    #[arg(long, short)]
    long: bool,
    /// Deleted files too, while they are kept
    #[arg(long)]
    deleted: bool,
}

pub(crate) async fn run(args: LsArgs, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    let addresses: Vec<Address> =
        args.addresses.iter().map(|a| Address::parse(a)).collect::<Result<_, _>>()?;
    if addresses.is_empty() {
        return super::bucket::list(&client, context).await;
    }
    let mut printer = Printer::new(context, &args);
    for address in &addresses {
        list(&client, address, &args, &mut printer).await?;
    }
    printer.finish()
}

async fn list(
    client: &Client,
    address: &Address,
    args: &LsArgs,
    printer: &mut Printer,
) -> Result<(), CliError> {
    let mut found = false;
    if !address.is_directory() {
        match client.stat(FileRef::from(&address.file()?)).await {
            Ok(info) if !info.deleted || args.deleted => {
                found = true;
                printer.file(&info, &address.key)?;
            }
            Ok(_) => {}
            Err(error) if error.code == ErrorCode::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    let prefix = address.prefix();
    let mut listing = Listing::under(&address.bucket, &prefix);
    listing.include_deleted = args.deleted;
    if !args.recursive {
        listing.delimiter = "/".to_owned();
    }
    let mut entries = std::pin::pin!(client.list_all(listing));
    while let Some(entry) = entries.try_next().await? {
        found = true;
        match entry.kind {
            Some(v1::list_entry::Kind::File(info)) => {
                let key = Address::parse(&info.path)?.key;
                let name = key.strip_prefix(&prefix).unwrap_or(&key).to_owned();
                printer.file(&info, &name)?;
            }
            Some(v1::list_entry::Kind::CommonPrefix(path)) => {
                // Both spellings are understood: the prefix of keys, and the path with its bucket.
                let key = Address::parse(&path).map(|address| address.key).unwrap_or(path);
                let name = key.strip_prefix(&prefix).unwrap_or(&key);
                printer.directory(&address.bucket, &key, name)?;
            }
            None => {}
        }
    }
    if found || address.key.is_empty() {
        return Ok(());
    }
    Err(crate::DfsError::new(ErrorCode::NotFound, format!("nothing is at {address} or under it")).into())
}

/// Writes entries as they come: a listing may be longer than memory.
struct Printer {
    out: std::io::BufWriter<std::io::Stdout>,
    json: bool,
    long: bool,
    terminal: bool,
    any: bool,
}

impl Printer {
    fn new(context: &Context, args: &LsArgs) -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let out = std::io::BufWriter::new(stdout);
        Self { out, json: context.output.is_json(), long: args.long, terminal, any: false }
    }

    fn file(&mut self, info: &v1::FileInfo, name: &str) -> Result<(), CliError> {
        if self.json {
            return self.value(&file_json(info));
        }
        let name = self.shown(name);
        let deleted = if info.deleted { "  (deleted)" } else { "" };
        if self.long {
            let time = format::time(info.updated_unix_ms);
            self.write(format_args!("{:>14}  {time}  {:>14}  {name}{deleted}\n", info.size, info.version))
        } else {
            self.write(format_args!("{name}{deleted}\n"))
        }
    }

    fn directory(&mut self, bucket: &str, key: &str, name: &str) -> Result<(), CliError> {
        if self.json {
            return self.value(&json!({ "prefix": format!("dfs://{bucket}/{key}") }));
        }
        let name = self.shown(name);
        if self.long {
            self.write(format_args!("{:>14}  {:20}  {:>14}  {name}\n", "-", "-", "-"))
        } else {
            self.write(format_args!("{name}\n"))
        }
    }

    fn shown(&self, name: &str) -> String {
        if self.terminal { format::printable(name) } else { name.to_owned() }
    }

    fn value(&mut self, value: &Value) -> Result<(), CliError> {
        let before = if self.any { "," } else { "{\"entries\":[" };
        self.any = true;
        self.write(format_args!("{before}\n{value}"))
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) -> Result<(), CliError> {
        self.out.write_fmt(text).map_err(|error| CliError::io("writing to standard output", error))
    }

    fn finish(mut self) -> Result<(), CliError> {
        if self.json {
            let end = if self.any { "\n]}\n" } else { "{\"entries\":[]}\n" };
            self.write(format_args!("{end}"))?;
        }
        self.out.flush().map_err(|error| CliError::io("writing to standard output", error))
    }
}

pub(crate) fn file_json(info: &v1::FileInfo) -> Value {
    json!({
        "path": Address::parse(&info.path).map(|address| address.to_string()).unwrap_or_else(|_| info.path.clone()),
        "file_id": format::id(&info.file_id),
        "version": info.version,
        "size": info.size,
        "created_at": format::time(info.created_unix_ms),
        "updated_at": format::time(info.updated_unix_ms),
        "owner": format::id(&info.owner),
        "chunks": info.chunks,
        "inline": info.inline,
        "deleted": info.deleted,
        "content_type": info.content_type,
        "user_metadata": info.user_metadata.iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}
