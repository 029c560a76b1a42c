//! Servers in bounded memory, whatever goes through them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Context, Scenario};
use crate::cluster::{Cluster, ClusterOptions, checked};
use crate::content;

pub const BOUNDED_MEMORY: Scenario = Scenario {
    name: "bounded-memory",
    about: "8 large puts at once, then many small files made and listed: every server under 300 MiB",
    run: bounded_memory,
};

const CLIENTS: usize = 8;
const MIB: u64 = 1 << 20;
const MOST_BYTES: u64 = 300 * MIB;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn bounded_memory(context: &Context) -> Result<()> {
    let large = setting("CHAOS_LARGE_MIB", 256) * MIB;
    let files = setting("CHAOS_LIST_FILES", 20_000);
    let cluster = Cluster::start(&ClusterOptions::default())?;
    cluster.dfsctl(["bucket", "create", "memory"])?;

    watched(&cluster, "8 large puts", || {
        let mut puts = Vec::new();
        for client in 0..CLIENTS {
            let label = format!("large{client}");
            let source = cluster.scratch().join(&label);
            content::write_file(&source, context.seed, &label, large)?;
            let target = format!("dfs://memory/{label}");
            puts.push((label, cluster.spawn([Path::new("put"), &source, Path::new(&target)])?));
        }
        for (label, put) in puts {
            checked(&label, put.wait_with_output()?)?;
            std::fs::remove_file(cluster.scratch().join(&label))?;
        }
        Ok(())
    })?;

    let tree = cluster.scratch().join("tree");
    for file in 0..files {
        let folder = tree.join(format!("{}", file % 100));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(file.to_string()), file.to_be_bytes())?;
    }
    watched(&cluster, "many small files", || {
        cluster.dfsctl([Path::new("put"), Path::new("-r"), &tree, Path::new("dfs://memory/")])?;
        for _ in 0..3 {
            let listed = cluster.dfsctl(["ls", "-r", "dfs://memory/tree/"])?;
            let lines = listed.iter().filter(|byte| **byte == b'\n').count() as u64;
            ensure!(lines >= files, "{lines} lines for {files} files");
        }
        Ok(())
    })
}

/// Runs `work` while the resident memory of every server is looked at ten times a second.
fn watched(cluster: &Cluster, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let processes = cluster.processes()?;
    let done = AtomicBool::new(false);
    let (worked, peaks) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| -> Result<BTreeMap<String, u64>> {
            let mut peaks = BTreeMap::new();
            loop {
                let last = done.load(Ordering::Acquire);
                for process in &processes {
                    let bytes = cluster.resident_bytes(process).with_context(|| process.id.clone())?;
                    let peak = peaks.entry(process.id.clone()).or_insert(0);
                    *peak = bytes.max(*peak);
                }
                if last {
                    return Ok(peaks);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        let worked = work();
        done.store(true, Ordering::Release);
        (worked, sampler.join().expect("the sampler does not panic"))
    });
    worked?;
    let peaks = peaks?;
    let report: Vec<String> = peaks.iter().map(|(id, bytes)| format!("{id} {} MiB", bytes / MIB)).collect();
    println!("  {what}: {}", report.join(", "));
    for (id, bytes) in peaks {
        ensure!(bytes < MOST_BYTES, "{what}: {id} had {} MiB resident", bytes / MIB);
    }
    Ok(())
}
