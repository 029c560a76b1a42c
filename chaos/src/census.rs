//! The offline census of a cluster: what the metadata servers' states say against what is on the chunk
//! servers' disks, and the states against each other. Kills the cluster first, so that both stand still.
//!
//! - Every state keeps its own invariants (`metadata_core::invariants`), and members that applied equally
//!   much have equal states.
//! - Every location that counts is a whole record on that node's disk, of the right length, whose bytes hash to the
//!   chunk's id.
//! - Every referenced chunk has as many such copies as its policy wants.
//! - Every stored chunk is known (referenced, in trash, or about to be deleted there), or younger than the epoch floor.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use chunk_format::record::{RECORD_HEADER_BYTES, RecordKind};
use dfs_types::Position;
use metadata_core::invariants::check_invariants;
use metadata_core::kv::KvRead;
use metadata_core::query;
use metadata_core::rows;
use metadata_core::rows::chunks::Chunks;
use metadata_core::rows::purged::PendingPurges;
use metadata_server::kv::{Compression, StateDb, StoreOptions};

use crate::cluster::Cluster;
use crate::disks::{self, ChunkName};
use crate::wait::until;

/// What was counted. Whatever is wrong is an error instead.
#[derive(Clone, Copy, Debug, Default)]
pub struct Census {
    pub chunks: usize,
    /// Copies that count, each read and hashed.
    pub copies: usize,
    /// Copies that no state knows, too young to be anybody's mistake.
    pub strangers: usize,
    /// Members whose states were compared.
    pub members: usize,
}

/// How often a moment is waited for at which members applied equally much.
const ATTEMPTS: usize = 5;

/// Takes the census of a cluster at rest (no deficits, no load). Leaves it dead.
pub fn take(cluster: &Cluster) -> Result<Census> {
    let mut members = 0;
    for attempt in 1..=ATTEMPTS {
        at_rest(cluster)?;
        cluster.kill_all()?;
        gone(cluster)?;
        members = equal_states(cluster)?;
        if members >= 2 {
            break;
        }
        ensure!(attempt < ATTEMPTS, "no two members ever stopped at the same position");
        cluster.up_again()?;
    }
    let newest = states(cluster)?.pop().context("a metadata server")?;
    let mut wrong = Vec::new();
    let mut census = Census { members, ..Census::default() };
    stored(cluster, &newest.db, &mut census, &mut wrong)?;
    if wrong.is_empty() {
        return Ok(census);
    }
    let count = wrong.len();
    wrong.truncate(10);
    bail!("{count} wrong in the census {census:?}:\n{}", wrong.join("\n"))
}

/// Waits until all members say that they applied equally much: killed now, they probably have.
fn at_rest(cluster: &Cluster) -> Result<()> {
    until("members to be level", Duration::from_secs(20), || {
        let status = cluster.json(["cluster", "status"])?;
        let members = status["members"].as_array().with_context(|| format!("no members in {status}"))?;
        let applied: BTreeSet<u64> =
            members.iter().map(|member| member["applied_index"].as_u64().unwrap_or(0)).collect();
        ensure!(applied.len() == 1 && !applied.contains(&0), "applied: {applied:?}");
        Ok(())
    })
}

fn gone(cluster: &Cluster) -> Result<()> {
    until("killed processes to be gone", Duration::from_secs(10), || {
        for process in cluster.processes()? {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap_or_default();
            let state = stat.rsplit_once(')').and_then(|(_, fields)| fields.split_whitespace().next());
            ensure!(matches!(state, None | Some("Z" | "X")), "{} runs", process.id);
        }
        Ok(())
    })
}

struct State {
    name: String,
    applied: Position,
    db: StateDb,
}

/// The states of all members, the one that applied most last.
fn states(cluster: &Cluster) -> Result<Vec<State>> {
    let mut states = Vec::new();
    for process in cluster.role("metadata-server")? {
        let path = current_state(&process.data_dir)?;
        let db = StateDb::open_read_only(&path, &StoreOptions::new(Compression::None, 4 << 20))
            .with_context(|| path.display().to_string())?;
        states.push(State { name: process.id, applied: query::applied(&db)?, db });
    }
    states.sort_by_key(|state| state.applied);
    Ok(states)
}

/// The database that `state/CURRENT` names.
fn current_state(data_dir: &Path) -> Result<PathBuf> {
    let pointer = std::fs::read_to_string(data_dir.join("state/CURRENT"))?;
    match pointer.lines().nth(1) {
        Some(name) if !name.is_empty() => Ok(data_dir.join("state").join(name)),
        _ => bail!("state/CURRENT says {pointer:?}"),
    }
}

/// Checks every state, and those of equal position against each other; how many there are of the latter.
fn equal_states(cluster: &Cluster) -> Result<usize> {
    let mut hashes = BTreeMap::new();
    let mut level = 0;
    for state in states(cluster)? {
        check_invariants(&state.db).map_err(|why| anyhow::anyhow!("the state of {}: {why}", state.name))?;
        let hash = query::state_hash(&state.db)?;
        match hashes.insert(state.applied, (hash, state.name.clone())) {
            Some((other, name)) => {
                ensure!(
                    hash == other,
                    "{name} and {} differ, both at position {:?}",
                    state.name,
                    state.applied
                );
                level += if level == 0 { 2 } else { 1 };
            }
            None => continue,
        }
    }
    Ok(level)
}

fn stored(cluster: &Cluster, state: &dyn KvRead, census: &mut Census, wrong: &mut Vec<String>) -> Result<()> {
    let clock = query::clock(state)?;
    let mut disks = BTreeMap::new();
    for process in cluster.role("chunk-server")? {
        disks.insert(process.id, Disk::read(&process.data_dir)?);
    }
    let mut known: BTreeMap<String, BTreeSet<ChunkName>> = BTreeMap::new();
    for (key, row) in rows::scan::<Chunks>(state, &(), None, usize::MAX)? {
        let view = query::chunk(state, key)?.context("the row was there a moment ago")?;
        let name = (key.realm, key.chunk);
        census.chunks += 1;
        let mut good = 0;
        for copy in view.copies.iter().filter(|copy| copy.holder.current) {
            let node = &copy.holder.node_id;
            known.entry(node.clone()).or_default().insert(name);
            let Some(disk) = disks.get(node) else { continue };
            match disk.good(&name, row.sealed_length) {
                Ok(()) if !copy.doubted => good += 1,
                // A doubted one may be bad: that is what the doubt says.
                _ if copy.doubted => {}
                Ok(()) => {}
                Err(why) => wrong.push(format!("chunk {} on {node}: {why}", key.chunk)),
            }
        }
        census.copies += good;
        if view.trash_since == 0 && good < (view.wanted as usize).min(disks.len()) {
            wrong.push(format!("chunk {}: {good} of {} copies", key.chunk, view.wanted));
        }
    }
    for (seat_and_chunk, _) in rows::scan::<PendingPurges>(state, &(), None, usize::MAX)? {
        let (seat, key) = seat_and_chunk;
        let node = rows::get::<rows::seats::Seats>(state, &seat)?.map(|row| row.node_id);
        known.entry(node.unwrap_or_default()).or_default().insert((key.realm, key.chunk));
    }
    let nobody = BTreeSet::new();
    for (node, disk) in &disks {
        let known = known.get(node).unwrap_or(&nobody);
        for (name, epoch) in disk.there().filter(|(name, _)| !known.contains(name)) {
            census.strangers += 1;
            if epoch.0 < clock.epoch_floor {
                wrong.push(format!("chunk {} on {node} is nobody's, and older than the floor", name.1));
            }
        }
    }
    Ok(())
}

/// What one node's segments hold.
struct Disk {
    records: BTreeMap<ChunkName, Vec<disks::DataRecord>>,
    /// The highest epoch of a data record or touch.
    epochs: BTreeMap<ChunkName, Position>,
    deleted: BTreeMap<ChunkName, Position>,
}

impl Disk {
    fn read(data_dir: &Path) -> Result<Self> {
        let mut disk = Self { records: BTreeMap::new(), epochs: BTreeMap::new(), deleted: BTreeMap::new() };
        for path in disks::segment_files(data_dir)? {
            disk.scan(&path).with_context(|| path.display().to_string())?;
        }
        Ok(disk)
    }

    fn scan(&mut self, path: &Path) -> Result<()> {
        for (offset, header) in disks::records(path)? {
            let name = (header.realm, header.chunk);
            let raise = |epochs: &mut BTreeMap<ChunkName, Position>| {
                let epoch = epochs.entry(name).or_default();
                *epoch = header.epoch.max(*epoch);
            };
            match header.kind {
                RecordKind::Data => {
                    raise(&mut self.epochs);
                    let record = disks::DataRecord { file: path.to_owned(), offset, header };
                    self.records.entry(name).or_default().push(record);
                }
                RecordKind::Touch => raise(&mut self.epochs),
                RecordKind::Delete => raise(&mut self.deleted),
                RecordKind::Quarantine | RecordKind::Seal => {}
            }
        }
        Ok(())
    }

    /// Chunks that no delete voids, with their epochs.
    fn there(&self) -> impl Iterator<Item = (ChunkName, Position)> {
        self.records.keys().filter_map(|name| {
            let epoch = self.epochs.get(name).copied().unwrap_or_default();
            let below = self.deleted.get(name).copied().unwrap_or_default();
            (epoch >= below).then_some((*name, epoch))
        })
    }

    /// Whether one whole record of the chunk holds its bytes.
    fn good(&self, name: &ChunkName, length: u64) -> Result<()> {
        let epoch = self.epochs.get(name).copied().unwrap_or_default();
        ensure!(
            self.deleted.get(name).is_none_or(|below| epoch >= *below),
            "deleted there, though it counts as a copy"
        );
        let records = self.records.get(name).context("not on the disk")?;
        for record in records.iter().filter(|record| record.header.sealed_len == length) {
            let mut sealed = vec![0; length as usize];
            File::open(&record.file)?
                .read_exact_at(&mut sealed, record.offset + RECORD_HEADER_BYTES as u64)?;
            if blake3::hash(&sealed).as_bytes() == name.1.as_bytes() {
                return Ok(());
            }
        }
        bail!("{} records there, none with the right bytes", records.len())
    }
}
