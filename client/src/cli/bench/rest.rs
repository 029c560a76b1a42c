//! `dfsctl bench rest-list`: times of single pages and single looks over REST, one after the other on one
//! connection, at every metadata server: the one that leads and those that pass calls on.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::Value;

use super::{ensure_bucket, ensure_files, percentile};
use crate::cli::{CliError, Context, table};
use crate::{Client, DfsError, ErrorCode};

/// How many files are made at once if they are missing.
const PARALLEL: usize = 16;

#[derive(clap::Args, Debug)]
pub(super) struct RestList {
    /// Files in the list
    #[arg(long, default_value_t = 10_000)]
    count: u32,
    /// Entries of a page, up to 1,000
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    page: u32,
    /// How often the whole list is read
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Files looked at one by one
    #[arg(long, default_value_t = 1000)]
    stats: u32,
    /// Made if it is missing
    #[arg(long, default_value = "bench")]
    bucket: String,
}

#[derive(Debug, Serialize)]
struct Figures {
    test: &'static str,
    files: u32,
    page: u32,
    servers: Vec<Times>,
}

/// Of one metadata server.
#[derive(Debug, Serialize)]
struct Times {
    address: String,
    pages: usize,
    page_p50_ms: f64,
    page_p99_ms: f64,
    page_max_ms: f64,
    stats: usize,
    stat_p50_ms: f64,
    stat_p99_ms: f64,
    stat_max_ms: f64,
}

pub(super) async fn run(args: &RestList, context: &Context) -> Result<(), CliError> {
    let client = context.client().await?;
    ensure_bucket(&client, &args.bucket).await?;
    let prefix = format!("/{}/rest-list-{}/", args.bucket, args.count);
    let paths: Vec<String> = (0..args.count).map(|n| format!("{prefix}{n:08}")).collect();
    ensure_files(&client, &paths, 1, PARALLEL, context).await?;
    let mut servers = Vec::new();
    for address in &client.inner.config.metadata {
        servers.push(measure(&client, address, args, &prefix, &paths).await?);
    }
    let figures = Figures { test: "rest-list", files: args.count, page: args.page, servers };
    context.output.result(&figures, || text(&figures))
}

async fn measure(
    client: &Client,
    address: &str,
    args: &RestList,
    prefix: &str,
    paths: &[String],
) -> Result<Times, CliError> {
    let mut connection = Connection::open(client, address).await?;
    let (mut pages, mut stats) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let (mut cursor, mut found) = (String::new(), 0);
        loop {
            let query = format!("/files?prefix={prefix}&limit={}{cursor}", args.page);
            let page = connection.get(&query, &mut pages).await?;
            found += page["files"].as_array().map_or(0, Vec::len);
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if found != paths.len() {
            return Err(CliError::failed(format!("{address} lists {found} of {} files", paths.len())));
        }
    }
    for n in 0..args.stats as usize {
        // All over the list.
        let Some(path) = paths.get(n * 7919 % paths.len().max(1)) else { break };
        let file = connection.get(&format!("/stat?path={path}"), &mut stats).await?;
        if file["path"] != path.as_str() {
            return Err(CliError::failed(format!("{address} answers {} for {path}", file["path"])));
        }
    }
    pages.sort_unstable();
    stats.sort_unstable();
    let most = |times: &[Duration]| times.last().map_or(0.0, |time| time.as_secs_f64() * 1e3);
    Ok(Times {
        address: address.to_owned(),
        pages: pages.len(),
        page_p50_ms: percentile(&pages, 50),
        page_p99_ms: percentile(&pages, 99),
        page_max_ms: most(&pages),
        stats: stats.len(),
        stat_p50_ms: percentile(&stats, 50),
        stat_p99_ms: percentile(&stats, 99),
        stat_max_ms: most(&stats),
    })
}

/// One connection, kept open.
struct Connection<'a> {
    client: &'a Client,
    address: &'a str,
    sender: SendRequest<Empty<Bytes>>,
}

impl<'a> Connection<'a> {
    async fn open(client: &'a Client, address: &'a str) -> Result<Self, CliError> {
        let expect = crate::dial::metadata_server();
        let stream = client
            .inner
            .dials
            .dialer()
            .open(address, &expect, &[b"http/1.1"])
            .await
            .map_err(DfsError::from)?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| lost(address, &error))?;
        tokio::spawn(connection);
        Ok(Self { client, address, sender })
    }

    /// Gets one answer to its last byte, and notes how long that took.
    async fn get(&mut self, path: &str, times: &mut Vec<Duration>) -> Result<Value, CliError> {
        let request = http::Request::get(path)
            .header("host", self.address)
            .header("authorization", self.client.inner.rpc.authorization().as_bytes())
            .body(Empty::new())
            .map_err(|error| CliError::usage(format!("{path}: {error}")))?;
        // The connection takes the next request once it has read the last answer to its end.
        self.sender.ready().await.map_err(|error| lost(self.address, &error))?;
        let start = Instant::now();
        let answer = self.sender.send_request(request).await.map_err(|error| lost(self.address, &error))?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| lost(self.address, &error))?.to_bytes();
        times.push(start.elapsed());
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(CliError::failed(format!("{} answers {status} to {path}: {text}", self.address)));
        }
        serde_json::from_slice(&body)
            .map_err(|error| CliError::failed(format!("{path}: the answer is no JSON: {error}")))
    }
}

fn lost(address: &str, error: &hyper::Error) -> CliError {
    DfsError::new(ErrorCode::Unavailable, format!("{address} did not answer: {error}")).into()
}

fn text(figures: &Figures) -> String {
    let head = format!(
        "rest-list   {} files, pages of {}; milliseconds p50 / p99 / max",
        figures.files, figures.page
    );
    let rows = figures.servers.iter().map(|times| {
        [
            format!("  {}", times.address),
            format!(
                "page {:.2} / {:.2} / {:.2} ({})",
                times.page_p50_ms, times.page_p99_ms, times.page_max_ms, times.pages
            ),
            format!(
                "stat {:.2} / {:.2} / {:.2} ({})",
                times.stat_p50_ms, times.stat_p99_ms, times.stat_max_ms, times.stats
            ),
        ]
    });
    format!("{head}\n{}", table::fields(rows))
}
