//! `dfsctl put`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use dfs_types::ids::hex;
use serde_json::json;

use super::address::{Address, key_of, local_name};
use super::again;
use super::files::{Failure, LARGE_BYTES, longest_call_ms, run_all, share_memory};
use super::missing::{is_directory, of_bucket};
use super::progress::Bar;
use super::{CliError, Context, format};
use crate::{Client, Policy, Progress, PutOptions, PutResult, Source, config};

const EXAMPLES: &str = "\
Examples:
  dfsctl put report.pdf dfs://docs/2026/          as dfs://docs/2026/report.pdf
  dfsctl put report.pdf dfs://docs/final.pdf      under another name
  dfsctl put -r tree dfs://docs/tree              a directory, as cp -r does it
  pg_dump db | dfsctl put - dfs://backup/db.sql   standard input
  dfsctl put -- -odd-name dfs://docs/             a name that begins with a dash

A put of a file that was interrupted goes on where it stopped when the same command is run again.
With -r, links, pipes and devices are left out and named, and the exit code is 1. An interrupted put -r
says what to type: all files are put again, but of the large ones only what the cluster has not got is sent.";

/// Copy files into the cluster
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES, override_usage = "dfsctl put [OPTIONS] <SRC>... <DST>")]
pub(crate) struct PutArgs {
    /// Files (with -r: directories), or - for standard input; then dfs://BUCKET/KEY
    #[arg(required = true, num_args = 2.., value_names = ["SRC", "DST"])]
    paths: Vec<OsString>,
    /// Copy directories with everything in them
    #[arg(long, short)]
    pub recursive: bool,
    /// DST is the copy itself, never a directory to copy into
    #[arg(long, short = 'T')]
    no_target_directory: bool,
    /// Copies to keep (default: the bucket's policy)
    #[arg(long, value_name = "N")]
    copies: Option<u32>,
    /// Only if the file is at this version now; 0: only if it does not exist
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
    #[arg(long, value_name = "TYPE", default_value = "", hide_default_value = true)]
    content_type: String,
    /// User metadata, may be repeated
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = parse_meta)]
    metadata: Vec<(String, String)>,
    /// Neither note what was sent nor go on with an earlier put
    #[arg(long)]
    no_resume: bool,
}

fn parse_meta(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

struct Job {
    source: PathBuf,
    target: Address,
    size: u64,
}

pub(crate) async fn run(args: PutArgs, context: &Context) -> Result<(), CliError> {
    let Some((target, sources)) = args.paths.split_last() else {
        return Err(CliError::usage("name what to put and where"));
    };
    let target = target.to_str().ok_or_else(|| CliError::usage("the address is not valid UTF-8"))?;
    let target = Address::parse(target)?;
    let client = context.client().await?;
    if let [source] = sources {
        if source == "-" {
            return put_stdin(&args, &client, &target, context).await;
        }
        let source = Path::new(source);
        if !args.recursive || !source.is_dir() {
            let target = name_for(source, &target, &args)?;
            return put_file(&args, &client, source, &target, context).await;
        }
    }
    if sources.len() > 1 && (args.no_target_directory || !target.is_directory()) {
        return Err(CliError::usage(format!("several sources need a directory: end {target} with a slash")));
    }
    put_many(&args, &client, sources, &target, context).await
}

/// The key of one file: inside a directory it keeps its name.
fn name_for(source: &Path, target: &Address, args: &PutArgs) -> Result<Address, CliError> {
    if source.is_dir() {
        return Err(CliError::usage(format!("{} is a directory: use -r", source.display())));
    }
    if !target.is_directory() || args.no_target_directory {
        target.file()?;
        return Ok(target.clone());
    }
    let name = local_name(source).ok_or_else(|| CliError::usage("the source has no name: name the key"))?;
    let name =
        key_of(Path::new(name)).map_err(|why| CliError::usage(format!("{}: {why}", source.display())))?;
    Ok(target.join(&name))
}

impl PutArgs {
    fn options(&self, progress: &Progress) -> PutOptions {
        PutOptions {
            if_version: self.if_version,
            policy: self.copies.map(Policy::copies),
            content_type: self.content_type.clone(),
            user_metadata: self.metadata.iter().cloned().collect::<BTreeMap<_, _>>(),
            progress: Some(progress.clone()),
            resume_file: None,
        }
    }
}

/// Where the note of this put is: by source, destination and cluster.
fn resume_file(client: &Client, source: &Path, target: &Address) -> Option<PathBuf> {
    let source = source.canonicalize().ok()?;
    if !source.is_file() {
        return None;
    }
    let mut hash = blake3::Hasher::new();
    hash.update(source.as_os_str().as_encoded_bytes()).update(b"\0");
    hash.update(target.to_string().as_bytes()).update(b"\0");
    hash.update(client.config().cluster_id.as_bytes());
    Some(config::state_dir()?.join("puts").join(format!("{}.resume", hex(&hash.finalize().as_bytes()[..16]))))
}

fn described(target: &Address, done: &PutResult) -> serde_json::Value {
    json!({
        "path": target.to_string(),
        "file_id": done.file_id.to_string(),
        "version": done.version,
        "size": done.size,
        "copies": done.copies,
        "target": done.target,
    })
}

fn print(context: &Context, client: &Client, target: &Address, done: &PutResult) -> Result<(), CliError> {
    let mut value = described(target, done);
    value["longest_call_ms"] = json!(longest_call_ms(client));
    context.output.result(&value, || {
        let below = if done.copies < done.target {
            format!("; {} of {} copies now, the rest follow by themselves", done.copies, done.target)
        } else {
            String::new()
        };
        format!(
            "{} ({}, version {}{below})",
            format::printable(&target.to_string()),
            format::size(done.size),
            done.version
        )
    })
}

async fn put_stdin(
    args: &PutArgs,
    client: &Client,
    target: &Address,
    context: &Context,
) -> Result<(), CliError> {
    target.file()?;
    let progress = Progress::new();
    let bar = Bar::follow(context.output, &progress, None);
    context.set_interrupt_message("interrupted; nothing was stored (standard input cannot be resumed)");
    let source = Source::reader(tokio::io::stdin());
    let done = client.put(&target.to_string(), source, args.options(&progress)).await;
    drop(bar);
    print(context, client, target, &done.map_err(|error| of_bucket(error, &target.bucket))?)
}

async fn put_file(
    args: &PutArgs,
    client: &Client,
    source: &Path,
    target: &Address,
    context: &Context,
) -> Result<(), CliError> {
    readable(source)?;
    let progress = Progress::new();
    let bar = Bar::follow(context.output, &progress, None);
    let mut options = args.options(&progress);
    if !args.no_resume {
        options.resume_file = resume_file(client, source, target);
    }
    let resumable = options.resume_file.is_some();
    context.set_interrupt_message(if resumable {
        "interrupted; run the same command again and the upload goes on where it stopped"
    } else {
        "interrupted; nothing was stored"
    });
    let done = client.put(&target.to_string(), Source::file(source), options).await;
    drop(bar);
    let done = done.map_err(|error| {
        let later = resumable && error.is_retryable();
        let error = of_bucket(error, &target.bucket);
        if later {
            error.with_hint("run the same command again: the upload goes on where it stopped")
        } else {
            error
        }
    })?;
    print(context, client, target, &done)
}

/// Says here, where it is plain that the file of this machine is meant, what could not be read later.
fn readable(source: &Path) -> Result<(), CliError> {
    let reading = |error| CliError::io(format_args!("reading {}", source.display()), error);
    let kind = std::fs::metadata(source).map_err(reading)?.file_type();
    if kind.is_socket() {
        return Err(CliError::usage(format!("{} is a socket, which has no content", source.display())));
    }
    // Opening a pipe would wait for its writer, and wait again later.
    if kind.is_file() {
        std::fs::File::open(source).map_err(reading)?;
    }
    Ok(())
}

async fn put_many(
    args: &PutArgs,
    client: &Client,
    sources: &[OsString],
    target: &Address,
    context: &Context,
) -> Result<(), CliError> {
    // As cp: into a directory that exists (a bucket always does), else under the name itself.
    // Asked in any case: a bucket that is missing, or a cluster, is told once and not for each file.
    let there = is_directory(client, target).await.map_err(|error| of_bucket(error, &target.bucket))?;
    let into = there && !args.no_target_directory;
    let (mut jobs, mut failed) = (Vec::new(), Vec::new());
    for source in sources {
        let source = PathBuf::from(source);
        let base = match (local_name(&source), into || sources.len() > 1) {
            (Some(name), true) => match key_of(Path::new(name)) {
                Ok(name) => target.join(&name),
                Err(why) => return Err(CliError::usage(format!("{}: {why}", source.display()))),
            },
            _ => target.clone(),
        };
        if source.is_dir() {
            if !args.recursive {
                return Err(CliError::usage(format!("{} is a directory: use -r", source.display())));
            }
            let (found, not) = crate::put::blocking(move || walk(&source, &base)).await?;
            jobs.extend(found);
            failed.extend(not);
        } else {
            readable(&source)?;
            let size = std::fs::metadata(&source)
                .map_err(|error| CliError::io(format_args!("reading {}", source.display()), error))?
                .len();
            jobs.push(Job { source, target: base, size });
        }
    }
    let progress = Progress::with_total(jobs.iter().map(|job| job.size).sum());
    let bar = Bar::follow(context.output, &progress, Some(jobs.len() as u64));
    // Under its own name the copy is a directory from now on: the same command would put into it.
    let again = again::words(into || args.no_target_directory || sources.len() > 1, "put");
    let (counted, all) = (progress.clone(), jobs.len());
    context.say_when_interrupted(move || {
        let done = counted.snapshot().files;
        format!("interrupted; {done} of {all} files are put and stay. Run {again} to put them all")
    });
    let mut report = run_all(jobs, |job| job.size, |job| put_one(args, client, job, &progress)).await;
    drop(bar);
    report.longest_call_ms = Some(longest_call_ms(client));
    report.failed.extend(failed);
    report.finish(context.output, "put")
}

async fn put_one(
    args: &PutArgs,
    client: &Client,
    job: Job,
    progress: &Progress,
) -> Result<serde_json::Value, Failure> {
    let client = share_memory(client, job.size);
    let mut options = args.options(progress);
    if !args.no_resume && job.size > LARGE_BYTES {
        options.resume_file = resume_file(&client, &job.source, &job.target);
    }
    let done = client.put(&job.target.to_string(), Source::file(&job.source), options).await;
    let done = done.map_err(|error| Failure::new(job.source.display().to_string(), error.into()))?;
    progress.add_file();
    Ok(described(&job.target, &done))
}

/// Every regular file under `directory`. Links and special files are not followed or read: each is
/// named as a failure, because leaving something out in silence would be worse.
fn walk(directory: &Path, target: &Address) -> (Vec<Job>, Vec<Failure>) {
    let (mut jobs, mut failed) = (Vec::new(), Vec::new());
    let mut waiting = vec![directory.to_owned()];
    while let Some(current) = waiting.pop() {
        let entries = match std::fs::read_dir(&current) {
            Ok(entries) => entries,
            Err(error) => {
                failed.push(Failure::new(current.display().to_string(), CliError::io("reading", error)));
                continue;
            }
        };
        for entry in entries {
            let found = entry.and_then(|entry| Ok((entry.path(), entry.metadata()?)));
            let (path, meta) = match found {
                Ok(found) => found,
                Err(error) => {
                    failed.push(Failure::new(current.display().to_string(), CliError::io("reading", error)));
                    continue;
                }
            };
            let mut refuse = |why: String| {
                failed.push(Failure::new(path.display().to_string(), CliError::failed(why)));
            };
            if meta.is_dir() {
                waiting.push(path);
            } else if !meta.is_file() {
                refuse(format!("{} and was left out", special(meta.file_type())));
            } else {
                match path.strip_prefix(directory).map_err(|_| String::new()).and_then(key_of) {
                    Ok(key) => jobs.push(Job { target: target.join(&key), size: meta.len(), source: path }),
                    Err(why) => refuse(why),
                }
            }
        }
    }
    jobs.sort_by(|a, b| a.target.key.as_bytes().cmp(b.target.key.as_bytes()));
    (jobs, failed)
}

fn special(kind: std::fs::FileType) -> &'static str {
    match () {
        () if kind.is_symlink() => "it is a link",
        () if kind.is_fifo() => "it is a named pipe",
        () if kind.is_socket() => "it is a socket",
        () => "it is a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_keys() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("a/b c")).unwrap();
        std::fs::create_dir(root.join("empty")).unwrap();
        for name in ["a/-x", "a/b c/ü", "z"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", root.join("link")).unwrap();
        let (jobs, failed) = walk(root, &Address::parse("dfs://abc/t").unwrap());
        let keys: Vec<&str> = jobs.iter().map(|job| job.target.key.as_str()).collect();
        assert_eq!(keys, ["t/a/-x", "t/a/b c/ü", "t/z"]);
        assert_eq!(failed.len(), 1);
        let (jobs, _) = walk(root, &Address::parse("dfs://abc").unwrap());
        assert_eq!(jobs[0].target.key, "a/-x");
    }
}
