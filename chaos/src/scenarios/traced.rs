//! One put is one trace over every process it goes through, where a collector is named; where none is,
//! nothing of it is there. A collector that went away is told in the log once and holds nothing up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, Process};
use crate::collector::{Collector, Place, Span};
use crate::content;
use crate::wait::until;

pub const ONE_TRACE: Scenario = Scenario {
    name: "one-trace",
    about: "a put is one trace over dfsctl and all servers; its id is in their logs; no collector, no traces",
    run: one_trace,
};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Where a program that was told of no collector would look for one.
const USUAL_ENDPOINT: &str = "127.0.0.1:4317";
/// Some chunks: each of them goes over all three nodes.
const LENGTH: u64 = 9 << 20;
const KEY: &str = "a-key-that-says-something";
const PATIENCE: Duration = Duration::from_secs(30);
const NOT_SENT: &str = "traces cannot be sent";

fn one_trace(context: &Context) -> Result<()> {
    ensure!(std::env::var_os(ENDPOINT).is_none(), "{ENDPOINT} is set here: unset it for this scenario");
    traced(context)?;
    untraced(context)
}

fn traced(context: &Context) -> Result<()> {
    let collector = Collector::start()?;
    let options = ClusterOptions::default()
        .set(ENDPOINT, collector.endpoint())
        .set("OTEL_BSP_SCHEDULE_DELAY", 200)
        .set("DFS_LOG_LEVEL", "info,chunk_server=debug");
    let cluster = Cluster::start(&options)?;
    cluster.dfsctl(["bucket", "create", "traced"])?;
    put(&cluster, context.seed, "first")?;

    let whole = places(&cluster)?;
    let (trace, spans) = until("the trace of the put", PATIENCE, || {
        let (trace, spans) = trace_of(&collector.spans(), "dfsctl put")?;
        check_trace(&spans, &whole)?;
        Ok((trace, spans))
    })?;
    println!("  one trace of {} spans over {} processes", spans.len(), whole.len() + 1);
    check_names(&collector.spans())?;
    for server in cluster.role("chunk-server")? {
        check_log(&server, &trace)?;
    }
    for server in servers(&cluster)? {
        ensure!(threads(&server)?.contains("traces"), "{} has no thread that sends traces", server.id);
    }
    check_upkeep(&collector.spans())?;

    drop(collector);
    for round in 0..2 {
        put(&cluster, context.seed, &format!("alone {round}"))?;
    }
    let all = servers(&cluster)?;
    until("every server to say that traces cannot be sent", PATIENCE, || {
        all.iter().try_for_each(|server| {
            ensure!(told(server)? > 0, "{} says nothing", server.id);
            Ok(())
        })
    })?;
    put(&cluster, context.seed, "alone again")?;
    for server in &all {
        let times = told(server)?;
        ensure!(times == 1, "{} says {times} times that traces cannot be sent", server.id);
    }
    let back = cluster.scratch().join("back");
    cluster.dfsctl([Path::new("get"), Path::new(&address("alone again")), &back])?;
    content::check_file(&back, context.seed, "alone again", LENGTH)
}

fn untraced(context: &Context) -> Result<()> {
    let usual = until("the usual place of a collector to be free", Duration::from_secs(60), || {
        TcpListener::bind(USUAL_ENDPOINT).context(USUAL_ENDPOINT)
    })?;
    usual.set_nonblocking(true)?;
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "traced"])?;
    put(&cluster, context.seed, "untraced")?;
    for server in servers(&cluster)? {
        ensure!(!threads(&server)?.contains("traces"), "{} has a thread that sends traces", server.id);
        let log = std::fs::read_to_string(&server.log)?;
        ensure!(!log.contains("trace_id"), "{} logs trace ids", server.id);
    }
    match usual.accept() {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
        other => bail!("somebody looked for a collector: {other:?}"),
    }
}

fn put(cluster: &Cluster, seed: u64, label: &str) -> Result<()> {
    let source = cluster.scratch().join("source");
    content::write_file(&source, seed, label, LENGTH)?;
    cluster.dfsctl([Path::new("put"), &source, Path::new(&address(label))]).map(drop)
}

fn address(label: &str) -> String {
    format!("dfs://traced/{KEY} {label}")
}

fn servers(cluster: &Cluster) -> Result<Vec<Process>> {
    Ok([cluster.role("metadata-server")?, cluster.role("chunk-server")?].concat())
}

fn places(cluster: &Cluster) -> Result<BTreeSet<Place>> {
    Ok(servers(cluster)?.into_iter().map(|server| (server.role, server.id)).collect())
}

/// The only trace that begins with a span of that name.
fn trace_of(all: &[Span], first: &str) -> Result<(String, Vec<Span>)> {
    let mut traces: BTreeMap<&[u8], Vec<&Span>> = BTreeMap::new();
    for span in all {
        traces.entry(&span.trace).or_default().push(span);
    }
    let mut begun = traces.iter().filter(|(_, spans)| spans.iter().any(|span| span.name == first));
    let (id, spans) = begun.next().with_context(|| format!("no span {first}"))?;
    ensure!(begun.next().is_none(), "more than one trace has a span {first}");
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((id, spans.iter().copied().cloned().collect()))
}

/// One beginning, at dfsctl; every other span under one of the trace; every server in it.
fn check_trace(spans: &[Span], servers: &BTreeSet<Place>) -> Result<()> {
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| &span.id[..]).collect();
    let lost = spans.iter().find(|span| !span.parent.is_empty() && !ids.contains(&span.parent[..]));
    ensure!(lost.is_none(), "{lost:?} has a parent that is not in the trace");
    let first: Vec<&Span> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    ensure!(first.len() == 1 && first[0].place.0 == "dfsctl", "it begins with {first:?}");
    let seen: BTreeSet<&Place> = spans.iter().map(|span| &span.place).collect();
    let missing: Vec<&Place> = servers.iter().filter(|place| !seen.contains(place)).collect();
    ensure!(missing.is_empty(), "no span of {missing:?}");
    for (role, name) in [("metadata-server", "apply"), ("chunk-server", "dfs.v1.ChunkData/Put")] {
        let having: BTreeSet<&Place> = spans.iter().filter(|s| s.name == name).map(|s| &s.place).collect();
        let all = servers.iter().filter(|place| place.0 == role);
        for place in all {
            ensure!(having.contains(place), "{place:?} has no span {name}");
        }
    }
    Ok(())
}

/// What a file is called is between its owner and the metadata service.
fn check_names(spans: &[Span]) -> Result<()> {
    let named = spans.iter().find(|span| format!("{span:?}").contains(KEY));
    ensure!(named.is_none(), "a span names a file: {named:?}");
    Ok(())
}

/// What servers do by themselves begins no trace.
fn check_upkeep(all: &[Span]) -> Result<()> {
    let own = all.iter().find(|span| span.parent.is_empty() && span.place.0 != "dfsctl");
    ensure!(own.is_none(), "a trace begins at a server, for a cluster asked by dfsctl only: {own:?}");
    Ok(())
}

/// A line about the put carries both ids.
fn check_log(server: &Process, trace: &str) -> Result<()> {
    let log = std::fs::read_to_string(&server.log)?;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_trace = lines.filter(|line| line["trace_id"] == trace).peekable();
    ensure!(of_trace.peek().is_some(), "{} logs nothing with trace_id {trace}", server.id);
    ensure!(
        of_trace.all(|line| line["request_id"].is_string()),
        "a line of {} has the trace and no request id",
        server.id
    );
    Ok(())
}

fn told(server: &Process) -> Result<usize> {
    Ok(std::fs::read_to_string(&server.log)?.matches(NOT_SENT).count())
}

fn threads(server: &Process) -> Result<BTreeSet<String>> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid))?;
    let names = tasks.map(|task| Ok(std::fs::read_to_string(task?.path().join("comm"))?.trim().to_owned()));
    names.collect()
}
