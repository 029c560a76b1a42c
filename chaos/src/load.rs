//! Clients that work on the same few names at the same time, each through the SDK, and write down what
//! they did and saw for the checks in [`crate::history`].
//!
//! Names: `plain-*` are only put and read, so that the check that trusts no version applies; `mixed-*` are deleted
//! too; `set-*` are put once, deleted at most once and listed; `token-*` is one file that is renamed and listed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dfs_client::{Client, Condition, Config, DfsError, ErrorCode, Listing, PutOptions};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::content;
use crate::history::sets::{Life, List};
use crate::history::token::{Rename, Sight};
use crate::history::{History, Moment, NEVER, Op, What, check, sets, token};

pub const BUCKET: &str = "history";
const NAMES: [&str; 4] = ["plain-1", "plain-2", "mixed-1", "mixed-2"];
const TOKENS: [&str; 3] = ["token-a", "token-b", "token-c"];
/// Inline, mostly; sometimes a chunk on three nodes.
const LENGTHS: [usize; 4] = [64, 200, 3000, 40_000];
/// Bounds of the clients: short, so that a call that hangs does not end the history.
const OPERATION: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(10);
/// What a call may take beyond its deadline on a busy machine.
const LATE: Duration = Duration::from_secs(2);

/// Clients at work. Dropped, they stop.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
    handles: Vec<Client>,
    runtime: Runtime,
}

struct Shared {
    seed: u64,
    start: Instant,
    stop: AtomicBool,
    book: Mutex<Book>,
    serial: AtomicU64,
}

#[derive(Default)]
struct Book {
    history: History,
    lives: BTreeMap<String, Life>,
    lists: Vec<List>,
    renames: Vec<Rename>,
    sights: Vec<Sight>,
    /// Content hash -> number, for reads that see the hash alone.
    hashes: BTreeMap<[u8; 32], u64>,
    /// When changes were acknowledged, by client.
    acknowledged: Vec<(Moment, u32)>,
    /// Errors by code.
    errors: BTreeMap<String, u64>,
    broken: Vec<String>,
    longest: Option<(Duration, String)>,
}

/// What a load did, after it was found possible.
#[derive(Debug)]
pub struct Summary {
    /// Operations with an answer, and those whose outcome stayed unknown.
    pub known: usize,
    pub unknown: usize,
    pub longest: Duration,
    pub acknowledged: Vec<(Moment, u32)>,
    pub errors: BTreeMap<String, u64>,
}

impl Load {
    /// Starts `clients` clients; with `sides`, client i is told only the metadata servers of side i modulo
    /// their number.
    pub fn start(cluster: &Cluster, seed: u64, clients: u32, sides: &[&[&str]]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let everywhere = Config::from_file(cluster.data_dir().join("dfsctl.toml"))?;
        let mut configs = Vec::new();
        for side in sides {
            let mut config = everywhere.clone();
            config.metadata = side
                .iter()
                .map(|name| Ok(cluster.process(name)?.addresses.get("api").context("an address")?.clone()))
                .collect::<Result<_>>()?;
            configs.push(config);
        }
        if configs.is_empty() {
            configs.push(everywhere);
        }
        cluster.dfsctl(["bucket", "create", BUCKET])?;
        let shared = Arc::new(Shared {
            seed,
            start: Instant::now(),
            stop: AtomicBool::new(false),
            book: Mutex::default(),
            serial: AtomicU64::new(1),
        });
        let mut connected = Vec::new();
        for (number, config) in (0..clients).zip(configs.iter().cycle()) {
            let mut config = config.clone();
            config.operation_deadline = OPERATION;
            config.transfer_patience = PATIENCE;
            connected.push(Worker {
                number,
                client: runtime.block_on(Client::connect(config))?,
                shared: Arc::clone(&shared),
            });
        }
        let token = format!("/{BUCKET}/{}", TOKENS[0]);
        runtime.block_on(connected[0].client.put(&token, "the token", PutOptions::default()))?;
        let handles = connected.iter().map(|worker| worker.client.clone()).collect();
        let clients = connected.into_iter().map(|worker| runtime.spawn(worker.run())).collect();
        Ok(Self { shared, clients, handles, runtime })
    }

    /// Now, on the history's clock.
    pub fn now(&self) -> Moment {
        self.shared.now()
    }

    /// How many changes were acknowledged so far, to clients with these numbers.
    pub fn acknowledged(&self, wanted: impl Fn(u32) -> bool) -> usize {
        self.shared.book().acknowledged.iter().filter(|(_, client)| wanted(*client)).count()
    }

    /// Ends the clients and checks what they wrote down.
    pub fn stop(mut self) -> Result<Summary> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let clients = std::mem::take(&mut self.clients);
        self.runtime.block_on(async {
            for client in clients {
                client.await.context("a client of the load died")?;
            }
            anyhow::Ok(())
        })?;
        let book = std::mem::take(&mut *self.shared.book());
        let mut wrong = book.broken;
        wrong.extend(check(&book.history));
        wrong.extend(sets::check(&book.lives, &book.lists));
        wrong.extend(token::check(TOKENS[0], &book.renames, &book.sights));
        let unknown = |op: &&Op| matches!(op.what, What::MayHaveWritten { .. } | What::MayHaveDeleted);
        let ops = book.history.values().flatten();
        let (all, unknown) = (ops.clone().count(), ops.filter(unknown).count());
        if !wrong.is_empty() {
            let count = wrong.len();
            wrong.truncate(10);
            bail!("the history of {all} operations is impossible in {count} ways:\n{}", wrong.join("\n"));
        }
        let call = self.handles.iter().map(Client::longest_operation).max().unwrap_or_default();
        ensure!(call <= PATIENCE + LATE, "one operation took {:.1} s", call.as_secs_f64());
        // A put is made of several; it is told, not bounded.
        let (longest, what) = book.longest.unwrap_or_default();
        let known = all - unknown + book.lists.len() + book.renames.len() + book.sights.len();
        let mut acknowledged = book.acknowledged;
        acknowledged.sort_unstable();
        println!(
            "history: {known} operations known, {unknown} unknown, {} changes acknowledged; one operation took at most {:.1} s, {what} \
             {:.1} s; errors {:?}",
            acknowledged.len(),
            call.as_secs_f64(),
            longest.as_secs_f64(),
            book.errors
        );
        Ok(Summary { known, unknown, longest: call, acknowledged, errors: book.errors })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in &self.clients {
            client.abort();
        }
    }
}

impl Summary {
    /// The longest time in which no change was acknowledged, of a part of the history.
    pub fn pause(&self, from: Moment, to: Moment) -> Duration {
        let inside = self.acknowledged.iter().map(|(at, _)| *at).filter(|at| (from..to).contains(at));
        let marks: Vec<Moment> = [from].into_iter().chain(inside).chain([to]).collect();
        let longest = marks.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
        Duration::from_micros(longest.unwrap_or(0))
    }
}

impl Shared {
    fn now(&self) -> Moment {
        self.start.elapsed().as_micros() as u64
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Worker {
    number: u32,
    client: Client,
    shared: Arc<Shared>,
}

/// What an error says about a change.
#[derive(PartialEq, Eq)]
enum Outcome {
    NotDone,
    Unknown,
}

fn outcome(error: &DfsError) -> Outcome {
    match error.code {
        ErrorCode::UnknownOutcome | ErrorCode::Internal => Outcome::Unknown,
        _ => Outcome::NotDone,
    }
}

impl Worker {
    async fn run(self) {
        let mut last_seen = BTreeMap::new();
        let mut round = 0u64;
        while !self.shared.stop.load(Ordering::Relaxed) {
            round += 1;
            let draw = |what: &str, bound: u64| {
                content::number(self.shared.seed, &format!("{} {round} {what}", self.number), bound)
            };
            let name = NAMES[draw("name", NAMES.len() as u64) as usize];
            let before = self.shared.now();
            let kind = draw("kind", 100);
            match kind {
                0..30 => {
                    let known = last_seen.get(name).copied().unwrap_or(0);
                    let expected = (draw("condition", 3) == 0).then_some(known);
                    let length = LENGTHS[draw("length", LENGTHS.len() as u64) as usize];
                    if let Some(version) = self.put(name, expected, length).await {
                        last_seen.insert(name, version);
                    }
                }
                30..60 => {
                    if let Some(version) = self.get(name).await {
                        last_seen.insert(name, version);
                    }
                }
                60..75 => {
                    if let Some(version) = self.stat(name).await {
                        last_seen.insert(name, version);
                    }
                }
                75..80 if name.starts_with("mixed") => self.delete(name).await,
                75..88 => self.member(draw("delete", 3) == 0).await,
                88..94 => self.list_members().await,
                94..97 => self.rename(draw("from", 3), draw("to", 3)).await,
                _ => self.see_token().await,
            }
            let took = Duration::from_micros(self.shared.now() - before);
            {
                let mut book = self.shared.book();
                if book.longest.as_ref().is_none_or(|(longest, _)| took > *longest) {
                    book.longest = Some((took, format!("client {}, kind {kind}, {name}", self.number)));
                }
            }
            tokio::time::sleep(Duration::from_millis(5 + draw("pause", 20))).await;
        }
    }

    fn path(name: &str) -> String {
        format!("/{BUCKET}/{name}")
    }

    fn note(&self, name: &str, start: Moment, what: What) {
        let end = match what {
            What::MayHaveWritten { .. } | What::MayHaveDeleted => NEVER,
            _ => self.shared.now(),
        };
        let mut book = self.shared.book();
        if matches!(what, What::Wrote { .. } | What::Deleted { .. }) {
            book.acknowledged.push((end, self.number));
        }
        book.history.entry(name.to_owned()).or_default().push(Op { client: self.number, start, end, what });
    }

    fn failed(&self, error: &DfsError) {
        *self.shared.book().errors.entry(error.code.to_string()).or_default() += 1;
    }

    fn broken(&self, what: String) {
        self.shared.book().broken.push(what);
    }

    async fn put(&self, name: &str, expected: Option<u64>, length: usize) -> Option<u64> {
        let serial = self.shared.serial.fetch_add(1, Ordering::Relaxed);
        let value = u64::from(self.number) << 40 | serial;
        let bytes = content_of(value, length);
        self.shared.book().hashes.insert(*blake3::hash(&bytes).as_bytes(), value);
        let options = PutOptions { if_version: expected, ..PutOptions::default() };
        let start = self.shared.now();
        match self.client.put(&Self::path(name), bytes, options).await {
            Ok(done) => {
                self.note(name, start, What::Wrote { value, version: done.version, expected });
                return Some(done.version);
            }
            Err(error) => {
                self.failed(&error);
                match (error.code, expected) {
                    (ErrorCode::VersionMismatch, Some(expected)) => {
                        self.note(name, start, What::Mismatch { expected });
                    }
                    _ if outcome(&error) == Outcome::Unknown => {
                        self.note(name, start, What::MayHaveWritten { value });
                    }
                    _ => {}
                }
            }
        }
        None
    }

    async fn get(&self, name: &str) -> Option<u64> {
        let start = self.shared.now();
        let read = async {
            use futures::TryStreamExt as _;
            let stream = self.client.open_read(Self::path(name), Default::default()).await?;
            let version = stream.info.version;
            let parts: Vec<bytes::Bytes> = stream.try_collect().await?;
            Ok::<_, DfsError>((version, parts.concat()))
        };
        match read.await {
            Ok((version, bytes)) => match value_of(&bytes) {
                Some(value) => {
                    self.note(name, start, What::Read { value, version });
                    return Some(version);
                }
                None => self.broken(format!("{name}: {} bytes that nobody put", bytes.len())),
            },
            Err(error) if error.code == ErrorCode::NotFound => self.note(name, start, What::Absent),
            Err(error) => self.failed(&error),
        }
        None
    }

    async fn stat(&self, name: &str) -> Option<u64> {
        let start = self.shared.now();
        match self.client.stat(Self::path(name)).await {
            Ok(info) if info.deleted => self.note(name, start, What::Absent),
            Ok(info) => {
                let hash = <[u8; 32]>::try_from(&info.content_hash[..]).unwrap_or_default();
                let value = self.shared.book().hashes.get(&hash).copied();
                match value {
                    Some(value) => {
                        self.note(name, start, What::Read { value, version: info.version });
                        return Some(info.version);
                    }
                    None => self.broken(format!("{name}: stat shows a hash of nobody's: {hash:?}")),
                }
            }
            Err(error) if error.code == ErrorCode::NotFound => self.note(name, start, What::Absent),
            Err(error) => self.failed(&error),
        }
        None
    }

    async fn delete(&self, name: &str) {
        let start = self.shared.now();
        match self.client.delete(Self::path(name), Condition::default(), false).await {
            Ok(done) => self.note(name, start, What::Deleted { version: done.position }),
            Err(error) if error.code == ErrorCode::NotFound => self.note(name, start, What::Absent),
            Err(error) => {
                self.failed(&error);
                if outcome(&error) == Outcome::Unknown {
                    self.note(name, start, What::MayHaveDeleted);
                }
            }
        }
    }

    /// Puts a new member of the set, and perhaps deletes it again.
    async fn member(&self, and_delete: bool) {
        let serial = self.shared.serial.fetch_add(1, Ordering::Relaxed);
        let name = format!("set-{}-{serial}", self.number);
        let start = self.shared.now();
        // Before the call: a list may show it before we are answered.
        self.shared.book().lives.insert(name.clone(), Life { put: (start, NEVER), deleted: None });
        match self.client.put(&Self::path(&name), "a member", PutOptions::default()).await {
            Ok(_) => {
                let end = self.shared.now();
                let mut book = self.shared.book();
                book.lives.insert(name.clone(), Life { put: (start, end), deleted: None });
                book.acknowledged.push((end, self.number));
            }
            Err(error) => {
                self.failed(&error);
                if outcome(&error) == Outcome::NotDone {
                    self.shared.book().lives.remove(&name);
                }
                return;
            }
        }
        if !and_delete {
            return;
        }
        let begun = self.shared.now();
        let put = {
            let mut book = self.shared.book();
            let life = book.lives.get_mut(&name).expect("it was inserted above");
            life.deleted = Some((begun, NEVER));
            life.put
        };
        match self.client.delete(Self::path(&name), Condition::default(), false).await {
            Ok(_) => {
                let deleted = Some((begun, self.shared.now()));
                self.shared.book().lives.insert(name, Life { put, deleted });
            }
            Err(error) => {
                self.failed(&error);
                if error.code == ErrorCode::NotFound {
                    self.broken(format!("{name} was put and is not found"));
                } else if outcome(&error) == Outcome::NotDone {
                    self.shared.book().lives.insert(name, Life { put, deleted: None });
                }
            }
        }
    }

    /// All names of a prefix, if one page holds them: only a page is one moment.
    async fn names(&self, prefix: &str) -> Option<(Moment, Moment, BTreeSet<String>)> {
        let start = self.shared.now();
        match self.client.list(Listing::under(BUCKET, prefix)).await {
            Ok(page) if page.next_cursor.is_empty() => {
                let files = page.entries.into_iter().filter_map(|entry| match entry.kind {
                    Some(dfs_client::v1::list_entry::Kind::File(info)) => {
                        info.path.rsplit('/').next().map(str::to_owned)
                    }
                    _ => None,
                });
                Some((start, self.shared.now(), files.collect()))
            }
            Ok(_) => None,
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    async fn list_members(&self) {
        if let Some((start, end, names)) = self.names("set-").await {
            self.shared.book().lists.push(List { start, end, names });
        }
    }

    async fn rename(&self, from: u64, to: u64) {
        if from == to {
            return;
        }
        let (from, to) = (TOKENS[from as usize], TOKENS[to as usize]);
        let start = self.shared.now();
        let renamed = self.client.rename(&Self::path(from), &Self::path(to), Condition::default()).await;
        let end = match renamed {
            Ok(_) => self.shared.now(),
            Err(error) => {
                if error.code != ErrorCode::NotFound {
                    self.failed(&error);
                }
                if outcome(&error) == Outcome::NotDone {
                    return;
                }
                NEVER
            }
        };
        let rename = Rename { start, end, from: from.to_owned(), to: to.to_owned() };
        self.shared.book().renames.push(rename);
    }

    async fn see_token(&self) {
        if let Some((start, end, names)) = self.names("token-").await {
            self.shared.book().sights.push(Sight { start, end, names });
        }
    }
}

/// A content that belongs to a number and says it, whatever its length.
fn content_of(value: u64, length: usize) -> Vec<u8> {
    let mut bytes = value.to_be_bytes().to_vec();
    bytes.extend(content::bytes(value, "history", length));
    bytes
}

/// The number of a content, if every byte is as it was put.
fn value_of(bytes: &[u8]) -> Option<u64> {
    let value = u64::from_be_bytes(bytes.get(..8)?.try_into().ok()?);
    (content_of(value, bytes.len() - 8) == bytes).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_says_its_number() {
        let mut bytes = content_of(77, 3000);
        assert_eq!(value_of(&bytes), Some(77));
        bytes[2000] ^= 1;
        assert_eq!(value_of(&bytes), None);
        assert_eq!(value_of(b"short"), None);
    }

    #[test]
    fn the_longest_pause() {
        let acknowledged = vec![(1_000_000, 0), (2_000_000, 1), (5_000_000, 0)];
        let summary =
            Summary { known: 0, unknown: 0, longest: Duration::ZERO, acknowledged, errors: BTreeMap::new() };
        assert_eq!(summary.pause(0, 6_000_000), Duration::from_secs(3));
        assert_eq!(summary.pause(2_500_000, 4_000_000), Duration::from_millis(1500));
        assert_eq!(summary.pause(4_900_000, 9_000_000), Duration::from_secs(4));
    }
}
