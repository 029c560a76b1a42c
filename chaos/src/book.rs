//! Writers that put files all the time, and the book of what was acknowledged to them, kept outside of
//! the cluster and fsynced line by line.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::cluster::{Cluster, checked};
use crate::content;
use crate::wait::ended;

const BUCKET: &str = "book";
/// Inline, one chunk, several chunks: drawn for each file.
const LENGTHS: [u64; 5] = [700, 12_000, 60_000, 400_000, 5 << 20];

/// What became of a put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Acknowledged,
    /// It failed or was cut off: there whole, or not there.
    Unknown,
}

pub struct Book<'a> {
    cluster: &'a Cluster,
    seed: u64,
    next: AtomicU64,
    rows: Mutex<Rows>,
}

struct Rows {
    files: BTreeMap<String, (u64, Outcome)>,
    /// Why puts failed, newest last.
    failures: Vec<String>,
    ledger: File,
}

impl<'a> Book<'a> {
    /// Makes the bucket it keeps its files in.
    pub fn new(cluster: &'a Cluster, seed: u64) -> Result<Self> {
        cluster.dfsctl(["bucket", "create", BUCKET])?;
        let ledger = File::create(cluster.scratch().join("book.ledger"))?;
        let rows = Mutex::new(Rows { files: BTreeMap::new(), failures: Vec::new(), ledger });
        Ok(Self { cluster, seed, next: AtomicU64::new(0), rows })
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn acknowledged(&self) -> usize {
        self.rows().files.values().filter(|(_, outcome)| *outcome == Outcome::Acknowledged).count()
    }

    /// Puts that failed or were cut off.
    pub fn unknown(&self) -> usize {
        self.rows().files.len() - self.acknowledged()
    }

    pub fn failures(&self) -> Vec<String> {
        self.rows().failures.clone()
    }

    /// Puts one file; when `stop` comes first, kills the put.
    fn put_one(&self, stop: &AtomicBool) -> Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{number:06}");
        let drawn = content::number(self.seed, &format!("length {number}"), LENGTHS.len() as u64);
        let length = LENGTHS[drawn as usize];
        let source = self.cluster.scratch().join(format!("book-{name}"));
        content::write_file(&source, self.seed, &name, length)?;
        // From here on it may be there.
        self.rows().files.insert(name.clone(), (length, Outcome::Unknown));
        let address = format!("dfs://{BUCKET}/{name}");
        let mut command =
            self.cluster.command([Path::new("put"), Path::new("--no-resume"), &source, Path::new(&address)]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        // A child cannot be awaited together with a flag.
        while ended(&mut child, Duration::from_millis(2))?.is_none() {
            if stop.load(Ordering::Relaxed) {
                let _ = child.kill();
                break;
            }
        }
        let output = child.wait_with_output()?;
        let mut rows = self.rows();
        if output.status.success() {
            // Durable before it counts as acknowledged here.
            writeln!(rows.ledger, "{name} {length}")?;
            rows.ledger.sync_data()?;
            rows.files.insert(name, (length, Outcome::Acknowledged));
        } else if !stop.load(Ordering::Relaxed) {
            rows.failures.push(format!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        drop(rows);
        Ok(std::fs::remove_file(source)?)
    }

    /// Puts so many files, one after the other, which must all succeed.
    pub fn put(&self, count: usize) -> Result<()> {
        let before = self.failures().len();
        for _ in 0..count {
            self.put_one(&AtomicBool::new(false))?;
        }
        match self.failures().get(before) {
            None => Ok(()),
            Some(failure) => bail!("a put failed: {failure}"),
        }
    }

    /// Writers at work while `meanwhile` runs; puts under way when it returns are cut off.
    pub fn under_load<T>(&self, writers: usize, meanwhile: impl FnOnce() -> Result<T>) -> Result<T> {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = || -> Result<()> {
                while !stop.load(Ordering::Relaxed) {
                    self.put_one(&stop)?;
                }
                Ok(())
            };
            let running: Vec<_> = (0..writers).map(|_| scope.spawn(writer)).collect();
            let result = meanwhile();
            stop.store(true, Ordering::Relaxed);
            for thread in running {
                thread.join().map_err(|_| anyhow!("a writer panicked"))??;
            }
            result
        })
    }

    /// Whether the metadata service counts all copies that are wanted of every acknowledged file.
    pub fn at_target(&self) -> Result<()> {
        let rows = self.rows();
        for (name, (_, outcome)) in &rows.files {
            if *outcome != Outcome::Acknowledged {
                continue;
            }
            let shown = self.cluster.dfsctl(["stat", &format!("dfs://{BUCKET}/{name}")])?;
            let shown = String::from_utf8_lossy(&shown);
            let line = shown.lines().find(|line| line.starts_with("copies")).unwrap_or("").to_owned();
            let words: Vec<&str> = line.split_whitespace().collect();
            let full = matches!(words[..], [_, present, "of", wanted, ..] if present == wanted);
            ensure!(full && !line.contains("doubted") || line.contains("inline"), "{name}: {line}");
        }
        Ok(())
    }

    /// Reads everything: what was acknowledged is there and identical, the rest identical or not there,
    /// and nothing else is there.
    pub fn check(&self) -> Result<()> {
        let back = self.cluster.scratch().join("book-back");
        if back.exists() {
            std::fs::remove_dir_all(&back)?;
        }
        std::fs::create_dir(&back)?;
        let mut command = self.cluster.command(["get", "-r", "-T", &format!("dfs://{BUCKET}/")]);
        checked("reading everything back", command.arg(&back).output()?)?;
        let rows = self.rows();
        let mut there = BTreeSet::new();
        for entry in std::fs::read_dir(&back)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let (length, _) = rows.files.get(&name).with_context(|| format!("{name} was never put"))?;
            content::check_file(&back.join(&name), self.seed, &name, *length)
                .with_context(|| format!("{name}, {:?}", rows.files.get(&name)))?;
            there.insert(name);
        }
        let acknowledged = rows.files.iter().filter(|(_, (_, outcome))| *outcome == Outcome::Acknowledged);
        let lost: Vec<&String> =
            acknowledged.map(|(name, _)| name).filter(|name| !there.contains(*name)).collect();
        ensure!(lost.is_empty(), "{} acknowledged files are lost: {lost:?}", lost.len());
        drop(rows);
        Ok(std::fs::remove_dir_all(&back)?)
    }
}
