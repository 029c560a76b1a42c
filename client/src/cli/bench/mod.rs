//! `dfsctl bench`: figures of this cluster beside what the machine could do at best.
//!
//! The same run measures a plain disk write with fsync and a plain TCP stream over loopback, because a
//! figure without them says more of the machine than of us. For a dev cluster on this machine the CPU
//! time of every process is summed: on a busy machine that is the figure that stays put.

mod machine;
mod pattern;
mod rest;

use std::time::{Duration, Instant};

use clap::Subcommand;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use self::machine::{CpuMeter, raw_disk, raw_tcp};
use self::pattern::Pattern;
use super::progress::Bar;
use super::{CliError, Context, format};
use crate::options::Condition;
use crate::{Client, ErrorCode, Progress, PutOptions, ReadRange, Source};

/// Measure throughput and small operations
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  dfsctl bench write --size 1G\n  dfsctl bench read --size 1G          what `bench write` left\n  dfsctl bench small-write --count 20000 --parallel 16\n  dfsctl bench rest-list --count 10000\n\nFiles are kept in dfs://bench/ for `read` and `small-read`; --clean removes them."
)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Subcommand, Debug)]
enum BenchCommand {
    /// Put large files
    Write(Large),
    /// Get them again
    Read(Large),
    /// Put small files
    SmallWrite(Small),
    /// Get them again
    SmallRead(Small),
    /// List many files over REST, page by page, and look at single ones
    RestList(rest::RestList),
}

#[derive(clap::Args, Debug)]
struct Large {
    /// Bytes of each file
    #[arg(long, default_value = "1G", value_parser = format::parse_size)]
    size: u64,
    /// Files, all at the same time
    #[arg(long, default_value_t = 1)]
    files: u32,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args, Debug)]
struct Small {
    /// Bytes of each file
    #[arg(long, default_value = "4K", value_parser = format::parse_size)]
    size: u64,
    /// Files
    #[arg(long, default_value_t = 10_000)]
    count: u32,
    /// Under way at the same time
    #[arg(long, default_value_t = 16)]
    parallel: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args, Debug)]
struct Common {
    /// Made if it is missing
    #[arg(long, default_value = "bench")]
    bucket: String,
    /// Remove the files at the end
    #[arg(long)]
    clean: bool,
    /// Do not measure disk and network beside it
    #[arg(long)]
    no_raw: bool,
}

/// What a run found. Rates are in 10^6 bytes a second.
#[derive(Debug, Default, Serialize)]
struct Figures {
    test: &'static str,
    files: u64,
    bytes: u64,
    seconds: f64,
    mb_per_s: f64,
    ops_per_s: f64,
    /// Only of small files.
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    /// CPU seconds per GiB of content: this process, and with the servers of a dev cluster.
    client_cpu_s_per_gib: f64,
    total_cpu_s_per_gib: Option<f64>,
    processes: usize,
    raw_disk_mb_per_s: Option<f64>,
    raw_tcp_mb_per_s: Option<f64>,
}

pub(crate) async fn run(args: BenchArgs, context: &Context) -> Result<(), CliError> {
    if let BenchCommand::RestList(list) = &args.command {
        return rest::run(list, context).await;
    }
    let client = context.client().await?;
    let cluster = context.config_file()?.with_file_name("cluster.json");
    let servers = machine::pids(&cluster);
    let (test, common, paths, size, parallel, writes) = match &args.command {
        BenchCommand::Write(large) => {
            ("write", &large.common, large.paths(), large.size, large.files as usize, true)
        }
        BenchCommand::Read(large) => {
            ("read", &large.common, large.paths(), large.size, large.files as usize, false)
        }
        BenchCommand::SmallWrite(small) => {
            ("small-write", &small.common, small.paths(), small.size, small.parallel, true)
        }
        BenchCommand::SmallRead(small) => {
            ("small-read", &small.common, small.paths(), small.size, small.parallel, false)
        }
        BenchCommand::RestList(_) => return Ok(()),
    };
    ensure_bucket(&client, &common.bucket).await?;
    if !writes {
        ensure_files(&client, &paths, size, parallel, context).await?;
    }
    let progress = Progress::new();
    let bar = Bar::follow(context.output, &progress, Some(paths.len() as u64));
    let meter = CpuMeter::start(&servers);
    let start = Instant::now();
    let (bytes, mut times) = if writes {
        write_all(&client, &paths, size, parallel, &progress).await?
    } else {
        read_all(&client, &paths, parallel, &progress).await?
    };
    let time = start.elapsed();
    let cpu = meter.stop();
    drop(bar);
    times.sort_unstable();
    let gib = bytes as f64 / (1u64 << 30) as f64;
    let small = test.starts_with("small");
    let mut figures = Figures {
        test,
        files: times.len() as u64,
        bytes,
        seconds: time.as_secs_f64(),
        mb_per_s: format::megabytes_per_second(bytes, time),
        ops_per_s: times.len() as f64 / time.as_secs_f64().max(1e-9),
        p50_ms: small.then(|| percentile(&times, 50)),
        p99_ms: small.then(|| percentile(&times, 99)),
        client_cpu_s_per_gib: cpu.client / gib.max(1e-12),
        total_cpu_s_per_gib: cpu.total.map(|total| total / gib.max(1e-12)),
        processes: servers.len(),
        ..Default::default()
    };
    if !common.no_raw {
        let dir = cluster.parent().filter(|dir| !servers.is_empty() && dir.is_dir()).map(ToOwned::to_owned);
        let amount = size.clamp(64 << 20, 1 << 30);
        let disk = crate::put::blocking(move || raw_disk(dir.as_deref(), amount)).await?;
        let tcp = crate::put::blocking(move || raw_tcp(amount)).await?;
        figures.raw_disk_mb_per_s = disk.ok().map(|time| format::megabytes_per_second(amount, time));
        figures.raw_tcp_mb_per_s = tcp.ok().map(|time| format::megabytes_per_second(amount, time));
    }
    if common.clean {
        futures::stream::iter(&paths)
            .map(Ok)
            .try_for_each_concurrent(16, |path| {
                let client = &client;
                async move { client.delete(path, Condition::default(), true).await.map(|_| ()) }
            })
            .await?;
    }
    context.output.result(&figures, || text(&figures))
}

impl Large {
    fn paths(&self) -> Vec<String> {
        (0..self.files).map(|n| format!("/{}/large/{}-{n}", self.common.bucket, self.size)).collect()
    }
}

impl Small {
    fn paths(&self) -> Vec<String> {
        (0..self.count)
            .map(|n| format!("/{}/small/{}/{:03}/{n}", self.common.bucket, self.size, n % 1000))
            .collect()
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

async fn ensure_bucket(client: &Client, name: &str) -> Result<(), CliError> {
    match client.create_bucket(name, Default::default()).await {
        Ok(_) => Ok(()),
        Err(error) if error.code == ErrorCode::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes what a read benchmark would miss; not measured.
async fn ensure_files(
    client: &Client,
    paths: &[String],
    size: u64,
    parallel: usize,
    context: &Context,
) -> Result<(), CliError> {
    let (Some(first), Some(last)) = (paths.first(), paths.last()) else { return Ok(()) };
    for path in [first, last] {
        match client.stat(path).await {
            Ok(info) if info.size == size => {}
            Err(error) if error.code != ErrorCode::NotFound => return Err(error.into()),
            _ => {
                context.output.note("writing the files to read first");
                write_all(client, paths, size, parallel, &Progress::new()).await?;
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn write_all(
    client: &Client,
    paths: &[String],
    size: u64,
    parallel: usize,
    progress: &Progress,
) -> Result<(u64, Vec<Duration>), CliError> {
    let client = share(client, parallel);
    let pattern = Pattern::new();
    let times: Vec<Duration> = futures::stream::iter(paths)
        .map(|path| {
            let (client, source) = (&client, Source::reader(pattern.reader(size)));
            let options = PutOptions { progress: Some(progress.clone()), ..Default::default() };
            async move {
                let start = Instant::now();
                client.put(path, source, options).await?;
                progress.add_file();
                Ok::<_, crate::DfsError>(start.elapsed())
            }
        })
        .buffer_unordered(parallel.max(1))
        .try_collect()
        .await?;
    Ok((size * paths.len() as u64, times))
}

async fn read_all(
    client: &Client,
    paths: &[String],
    parallel: usize,
    progress: &Progress,
) -> Result<(u64, Vec<Duration>), CliError> {
    let client = share(client, parallel);
    let results: Vec<(u64, Duration)> = futures::stream::iter(paths)
        .map(|path| {
            let client = &client;
            async move {
                let start = Instant::now();
                let mut bytes = 0;
                let mut stream = client.open_read(path, ReadRange::default()).await?;
                while let Some(part) = stream.try_next().await? {
                    bytes += part.len() as u64;
                    progress.add_done(part.len() as u64);
                }
                progress.add_file();
                Ok::<_, crate::DfsError>((bytes, start.elapsed()))
            }
        })
        .buffer_unordered(parallel.max(1))
        .try_collect()
        .await?;
    Ok((results.iter().map(|(bytes, _)| bytes).sum(), results.into_iter().map(|(_, time)| time).collect()))
}

fn share(client: &Client, parallel: usize) -> Client {
    let all = client.config().memory_bytes;
    client.with_memory_bytes((all / parallel.max(1) as u64).max(16 << 20))
}

fn text(figures: &Figures) -> String {
    let mut lines = vec![format!(
        "{}: {} files, {} in {:.2} s: {:.1} MB/s, {:.0} files/s",
        figures.test,
        figures.files,
        format::size(figures.bytes),
        figures.seconds,
        figures.mb_per_s,
        figures.ops_per_s
    )];
    if let (Some(p50), Some(p99)) = (figures.p50_ms, figures.p99_ms) {
        lines.push(format!("latency: half under {p50:.2} ms, 99 % under {p99:.2} ms"));
    }
    let all = figures.total_cpu_s_per_gib.map_or_else(
        || "the servers' is not known (no cluster.json beside the configuration)".to_owned(),
        |total| format!("with the {} servers {total:.2}", figures.processes),
    );
    lines.push(format!("CPU s per GiB: client {:.2}, {all}", figures.client_cpu_s_per_gib));
    if let (Some(disk), Some(tcp)) = (figures.raw_disk_mb_per_s, figures.raw_tcp_mb_per_s) {
        lines.push(format!(
            "this machine: one file with fsync {disk:.0} MB/s, one TCP stream over loopback {tcp:.0} MB/s"
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_few_and_none() {
        let times: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&times, 50), 51.0);
        assert_eq!(percentile(&times, 99), 100.0);
        assert_eq!(percentile(&[], 99), 0.0);
    }
}
