//! `dfsctl get`.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use super::address::{Address, joined, local_parts};
use super::files::{Failure, longest_call_ms, run_all, share_memory};
use super::missing::{explained, nothing_under};
use super::progress::Bar;
use super::safe_write::Root;
use super::{CliError, Context, again, format};
use crate::put::blocking;
use crate::{Client, FileRef, Listing, Progress, ReadRange, ReadStream, v1};

const EXAMPLES: &str = "\
Examples:
  dfsctl get dfs://docs/2026/report.pdf .         as ./report.pdf
  dfsctl get dfs://docs/final.pdf report.pdf      under another name
  dfsctl get -r dfs://docs/tree tree              a directory, as cp -r does it
  dfsctl get dfs://backup/db.sql - | psql db      to standard output

Files appear under their names only when they are whole. Nothing is written outside DST.";

/// Copy files out of the cluster
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES, override_usage = "dfsctl get [OPTIONS] <SRC>... <DST>")]
pub(crate) struct GetArgs {
    /// dfs://BUCKET/KEY, several of them, then a local path or - for standard output
    #[arg(required = true, num_args = 2.., value_names = ["SRC", "DST"])]
    paths: Vec<OsString>,
    /// Copy everything under SRC
    #[arg(long, short)]
    recursive: bool,
    /// DST is the copy itself, never a directory to copy into
    #[arg(long, short = 'T')]
    no_target_directory: bool,
    /// This version of the file instead of the current one
    #[arg(long, value_name = "VERSION")]
    version: Option<u64>,
}

/// A file to fetch, and where under the root it goes.
struct Job {
    file: FileRef,
    address: String,
    key: String,
    size: u64,
}

pub(crate) async fn run(args: GetArgs, context: &Context) -> Result<(), CliError> {
    let Some((target, sources)) = args.paths.split_last() else {
        return Err(CliError::usage("name what to get and where"));
    };
    let sources = sources
        .iter()
        .map(|source| Address::parse(source.to_str().unwrap_or("\u{fffd}")))
        .collect::<Result<Vec<_>, _>>()?;
    let client = context.client().await?;
    if target == "-" {
        for source in &sources {
            let stream = open(&client, source, args.file(source)?).await?;
            copy_to_stdout(stream).await?;
        }
        return Ok(());
    }
    let target = PathBuf::from(target);
    let wants_directory = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    let into = !args.no_target_directory && (target.is_dir() || wants_directory);
    if sources.len() > 1 && !into {
        return Err(CliError::usage(format!(
            "several sources need a directory: {} is none",
            target.display()
        )));
    }
    if args.recursive {
        return get_trees(&args, &client, &sources, &target, target.is_dir() && into, context).await;
    }
    for source in &sources {
        let path = if into { target.join(plain_name(source)?) } else { target.clone() };
        get_file(&args, &client, source, &path, context).await?;
    }
    Ok(())
}

fn plain_name(source: &Address) -> Result<&str, CliError> {
    let name = source.name();
    local_parts(name).map_err(|why| CliError::usage(format!("{source}: {why}")))?;
    Ok(name)
}

impl GetArgs {
    fn file(&self, source: &Address) -> Result<FileRef, CliError> {
        let file = FileRef::from(&source.file()?);
        Ok(match self.version {
            Some(version) => file.at_version(version),
            None => file,
        })
    }
}

/// Opens one file that was named.
async fn open(client: &Client, source: &Address, file: FileRef) -> Result<ReadStream, CliError> {
    let opened = client.open_read(file, ReadRange::default()).await;
    explained(client, source, opened, "use -r to copy all of it").await
}

async fn get_file(
    args: &GetArgs,
    client: &Client,
    source: &Address,
    path: &Path,
    context: &Context,
) -> Result<(), CliError> {
    let file = args.file(source)?;
    context.set_interrupt_message(format!("interrupted; nothing was written to {}", path.display()));
    let progress = Progress::new();
    let bar = Bar::follow(context.output, &progress, None);
    let writing = |error| CliError::io(format_args!("writing {}", path.display()), error);
    let info = if path.exists() && !path.is_file() {
        if path.is_dir() {
            return Err(CliError::usage(format!("{} is a directory", path.display())));
        }
        context.set_interrupt_message("interrupted; what was written stays");
        // A device or a pipe is written to, not replaced.
        let out = std::fs::OpenOptions::new().write(true).open(path).map_err(writing)?;
        copy_to(open(client, source, file).await?, out, &progress).await?
    } else {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| CliError::usage(format!("{} names no file", path.display())))?;
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !parent.is_dir() {
            return Err(CliError::usage(format!("{} is no directory: make it first", parent.display())));
        }
        let root = Root::open(parent).map_err(writing)?;
        fetch(open(client, source, file).await?, &root, &[name], &progress).await?
    };
    drop(bar);
    let value = json!({
        "path": source.to_string(), "file": path, "version": info.version, "size": info.size,
        "longest_call_ms": longest_call_ms(client),
    });
    context.output.result(&value, || {
        format!("{} ({}, version {})", path.display(), format::size(info.size), info.version)
    })
}

/// Fetches a file to a new file below `root`.
async fn fetch(
    mut stream: ReadStream,
    root: &Root,
    parts: &[&str],
    progress: &Progress,
) -> Result<v1::FileInfo, CliError> {
    progress.add_total(stream.length);
    let writing = |error| CliError::io(format_args!("writing {}", parts.join("/")), error);
    let mut out = root.create(parts).map_err(writing)?;
    while let Some(bytes) = stream.try_next().await? {
        let written = bytes.len() as u64;
        out = blocking(move || out.write(&bytes).map(|()| out)).await?.map_err(writing)?;
        progress.add_done(written);
    }
    blocking(move || out.keep()).await?.map_err(writing)?;
    Ok(stream.info)
}

/// Streams a file into `out` as it comes.
async fn copy_to(
    mut stream: ReadStream,
    mut out: impl Write + Send + 'static,
    progress: &Progress,
) -> Result<v1::FileInfo, CliError> {
    progress.add_total(stream.length);
    while let Some(bytes) = stream.try_next().await? {
        let written = bytes.len() as u64;
        out = blocking(move || out.write_all(&bytes).and_then(|()| out.flush()).map(|()| out))
            .await?
            .map_err(|error| CliError::io("writing", error))?;
        progress.add_done(written);
    }
    Ok(stream.info)
}

/// Streams what was opened to standard output.
pub(crate) async fn copy_to_stdout(mut stream: ReadStream) -> Result<(), CliError> {
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        blocking(move || {
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&bytes).and_then(|()| stdout.flush())
        })
        .await?
        .map_err(|error| CliError::io("writing to standard output", error))?;
    }
    Ok(())
}

async fn get_trees(
    args: &GetArgs,
    client: &Client,
    sources: &[Address],
    target: &Path,
    into: bool,
    context: &Context,
) -> Result<(), CliError> {
    let (mut jobs, mut missing) = (Vec::new(), Vec::new());
    for source in sources {
        let before = jobs.len();
        collect(client, source, into || sources.len() > 1, &mut jobs).await?;
        if jobs.len() == before {
            // No directory: maybe a file.
            if source.is_directory() {
                client.bucket(&source.bucket).await?;
                missing.push(source);
                continue;
            }
            let info = explained(client, source, client.stat(args.file(source)?).await, "").await?;
            if !into && sources.len() == 1 {
                return get_file(args, client, source, target, context).await;
            }
            jobs.push(job(source.to_string(), plain_name(source)?.to_owned(), &info));
        }
    }
    if let (Some(source), true) = (missing.first(), jobs.is_empty()) {
        if !source.key.is_empty() {
            return Err(nothing_under(source));
        }
        context.output.note(format!("{source} is empty"));
    }
    if target.exists() && !target.is_dir() {
        return Err(CliError::usage(format!(
            "{} is a file: a directory cannot take its place",
            target.display()
        )));
    }
    let same = into || args.no_target_directory || sources.len() > 1 || target.is_dir();
    let again = again::words(same, "get");
    let opened = target.to_owned();
    let root = blocking(move || Root::open(&opened)).await?;
    let root =
        Arc::new(root.map_err(|error| CliError::io(format_args!("opening {}", target.display()), error))?);
    let progress = Progress::with_total(jobs.iter().map(|job| job.size).sum());
    let bar = Bar::follow(context.output, &progress, Some(jobs.len() as u64));
    let (counted, all) = (progress.clone(), jobs.len());
    context.say_when_interrupted(move || {
        let done = counted.snapshot().files;
        format!("interrupted; {done} of {all} files are fetched and stay, none is there in part. Run {again} to fetch them all")
    });
    let mut report =
        run_all(jobs, |job| job.size, |job| get_one(client, job, &root, target, &progress)).await;
    drop(bar);
    report.longest_call_ms = Some(longest_call_ms(client));
    report.finish(context.output, "fetched")
}

/// Every file under `source`, with the path it gets below the target.
async fn collect(client: &Client, source: &Address, into: bool, jobs: &mut Vec<Job>) -> Result<(), CliError> {
    let prefix = source.prefix();
    let mut entries = std::pin::pin!(client.list_all(Listing::under(&source.bucket, &prefix)));
    while let Some(entry) = entries.try_next().await? {
        let Some(v1::list_entry::Kind::File(info)) = entry.kind else { continue };
        let address = Address::parse(&info.path)?;
        let Some(rest) = address.key.strip_prefix(&prefix) else { continue };
        let key = if into { format!("{}/{rest}", source.name()) } else { rest.to_owned() };
        jobs.push(job(address.to_string(), key, &info));
    }
    Ok(())
}

fn job(address: String, key: String, info: &v1::FileInfo) -> Job {
    // By path and version: what was listed is what is fetched, even if it is overwritten meanwhile.
    let file = FileRef::from(address.as_str()).at_version(info.version);
    Job { file, address, key, size: info.size }
}

async fn get_one(
    client: &Client,
    job: Job,
    root: &Root,
    target: &Path,
    progress: &Progress,
) -> Result<serde_json::Value, Failure> {
    let failed = |error: CliError| Failure::new(job.address.clone(), error);
    let parts = local_parts(&job.key).map_err(|why| failed(CliError::failed(why)))?;
    let client = share_memory(client, job.size);
    let stream = client.open_read(job.file.clone(), ReadRange::default()).await;
    let stream = stream.map_err(|error| failed(error.into()))?;
    let info = fetch(stream, root, &parts, progress).await.map_err(failed)?;
    progress.add_file();
    Ok(json!({
        "path": job.address, "file": joined(target, &parts), "version": info.version, "size": info.size,
    }))
}
