//! The state machine against a model: names and histories in plain maps, random operations with retries,
//! node failures and background work in between. Every invariant is checked after every step (testing).

use std::collections::BTreeMap;

use bytes::Bytes;
use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::{BucketId, ErrorCode, FileId, PrincipalId};
use proptest::prelude::*;

use crate::query;
use crate::testing::*;

const KEEP_MS: u64 = 1000;
const NODES: [(&str, &str); 4] = [("n1", "a"), ("n2", "b"), ("n3", "c"), ("n4", "d")];

#[derive(Clone, Debug)]
enum Op {
    /// Key, and whether `if_version` names the current version, a wrong one, or none.
    Put {
        key: u8,
        guard: u8,
    },
    Upload {
        key: u8,
        chunks: Vec<u8>,
        nodes: u8,
    },
    Abort {
        chunks: Vec<u8>,
    },
    Delete {
        key: u8,
    },
    Purge {
        key: u8,
    },
    DropVersion {
        key: u8,
        nth: u8,
    },
    Rename {
        from: u8,
        to: u8,
        free: bool,
    },
    Copy {
        from: u8,
        to: u8,
    },
    Tick {
        millis: u16,
    },
    Expire,
    Release {
        count: u8,
    },
    PurgeTrash,
    PurgeDone,
    RaiseFloor,
    Health {
        node: u8,
        state: u8,
    },
    Recheck,
    Replace {
        node: u8,
    },
    Doubt {
        chunk: u8,
        node: u8,
    },
    Add {
        chunk: u8,
        node: u8,
    },
    Strike {
        chunk: u8,
        node: u8,
    },
    Trim {
        chunk: u8,
        node: u8,
    },
    /// The last command of a user comes again, with the same request id.
    Retry,
}

fn op() -> impl Strategy<Value = Op> {
    let key = || 0u8..4;
    let chunks = || prop::collection::vec(0u8..6, 1..6);
    prop_oneof![
        3 => (key(), 0u8..4).prop_map(|(key, guard)| Op::Put { key, guard }),
        4 => (key(), chunks(), 1u8..16).prop_map(|(key, chunks, nodes)| Op::Upload { key, chunks, nodes }),
        1 => chunks().prop_map(|chunks| Op::Abort { chunks }),
        2 => key().prop_map(|key| Op::Delete { key }),
        1 => key().prop_map(|key| Op::Purge { key }),
        1 => (key(), 0u8..3).prop_map(|(key, nth)| Op::DropVersion { key, nth }),
        2 => (key(), key(), any::<bool>()).prop_map(|(from, to, free)| Op::Rename { from, to, free }),
        2 => (key(), key()).prop_map(|(from, to)| Op::Copy { from, to }),
        2 => (1u16..900).prop_map(|millis| Op::Tick { millis }),
        2 => Just(Op::Expire),
        3 => (1u8..9).prop_map(|count| Op::Release { count }),
        2 => Just(Op::PurgeTrash),
        1 => Just(Op::PurgeDone),
        1 => Just(Op::RaiseFloor),
        2 => (0u8..4, 0u8..4).prop_map(|(node, state)| Op::Health { node, state }),
        2 => Just(Op::Recheck),
        1 => (0u8..4).prop_map(|node| Op::Replace { node }),
        1 => (0u8..6, 0u8..4).prop_map(|(chunk, node)| Op::Doubt { chunk, node }),
        2 => (0u8..6, 0u8..4).prop_map(|(chunk, node)| Op::Add { chunk, node }),
        1 => (0u8..6, 0u8..4).prop_map(|(chunk, node)| Op::Strike { chunk, node }),
        1 => (0u8..6, 0u8..4).prop_map(|(chunk, node)| Op::Trim { chunk, node }),
        2 => Just(Op::Retry),
    ]
}

/// What names and histories should be.
#[derive(Default)]
struct Model {
    names: BTreeMap<String, Name>,
    /// Versions of each file, and when they expire.
    files: BTreeMap<Vec<u8>, BTreeMap<u64, Option<u64>>>,
    now_ms: u64,
}

#[derive(Clone)]
struct Name {
    file: Vec<u8>,
    /// None: deleted.
    version: Option<u64>,
}

impl Model {
    fn current(&self, key: &str) -> u64 {
        self.names.get(key).and_then(|name| name.version).unwrap_or(0)
    }

    fn retire(&mut self, file: &[u8], version: u64) {
        let expires = self.now_ms + KEEP_MS;
        *self.files.get_mut(file).unwrap().get_mut(&version).unwrap() = Some(expires);
    }

    fn put(&mut self, key: &str, result: &v1::CommandResult) {
        let file = result.file_id.to_vec();
        if let Some(old) = self.names.get(key).cloned() {
            assert_eq!(old.file, file, "a name keeps its file");
            if let Some(version) = old.version {
                self.retire(&old.file, version);
            }
        } else {
            assert!(!self.files.contains_key(&file), "a new name gets a new file");
        }
        self.files.entry(file.clone()).or_default().insert(result.version, None);
        self.names.insert(key.into(), Name { file, version: Some(result.version) });
    }

    fn drop_version(&mut self, file: &[u8], version: u64) {
        let versions = self.files.get_mut(file).unwrap();
        versions.remove(&version);
        if versions.is_empty() {
            self.files.remove(file);
            self.names.retain(|_, name| name.file != file);
        }
    }
}

struct Run {
    world: World,
    model: Model,
    ann: PrincipalId,
    bucket: Bytes,
    last: Option<(v1::Command, v1::CommandResult)>,
    incarnations: [u8; 4],
}

fn key(n: u8) -> String {
    format!("k{n}")
}

impl Run {
    fn new() -> Self {
        let mut world = World::new();
        for (name, domain) in NODES {
            world.node(name, domain);
        }
        let ann = world.user("ann");
        let bucket = world.ok(ann, bucket("photos", 3, KEEP_MS)).created_id;
        Self { world, model: Model::default(), ann, bucket, last: None, incarnations: [1; 4] }
    }

    fn user(&mut self, kind: Kind) -> Result<v1::CommandResult, ErrorCode> {
        let command = v1::Command {
            principal_id: self.ann.to_vec().into(),
            request_id: fresh(),
            seen_position: self.world.position(),
            unix_ms: 5,
            trace_parent: Bytes::new(),
            kind: Some(kind),
        };
        let result = self.world.command(command.clone());
        self.last = Some((command, result.clone()));
        match &result.error {
            None => Ok(result),
            Some(error) => Err(ErrorCode::from_number(error.code).unwrap()),
        }
    }

    fn cluster(&mut self, kind: Kind) {
        self.world.run(CLUSTER, kind);
    }

    fn change(&self, chunk: u8, node: u8) -> v1::LocationChange {
        let mut at = self.world.at(NODES[usize::from(node)].0);
        if let Some(view) = self.world.chunk(self.ann, chunk) {
            // Strikes name the epoch that was probed.
            if let Some(copy) = view.copies.iter().find(|copy| copy.holder.node_id == at.node_id) {
                at.epoch = copy.epoch;
            }
        }
        change(self.world.chunk_key(self.ann, chunk), at)
    }

    fn step(&mut self, op: &Op) {
        let bucket = self.bucket.clone();
        match op {
            Op::Put { key: k, guard } => {
                let current = self.model.current(&key(*k));
                let Kind::PutInline(c) = put_inline(&bucket, &key(*k), b"x") else { unreachable!() };
                let if_version = [None, Some(current), Some(77), Some(0)][usize::from(*guard)];
                let outcome = self.user(Kind::PutInline(v1::PutInline { if_version, ..c }));
                if if_version.is_none_or(|version| version == current) {
                    self.model.put(&key(*k), &outcome.unwrap());
                } else {
                    assert_eq!(outcome.unwrap_err(), ErrorCode::VersionMismatch);
                }
            }
            Op::Upload { key: k, chunks, nodes } => {
                if let Some(upload) = self.pages(chunks, *nodes, &key(*k)) {
                    let result = self.user(commit(&upload, chunks.len())).unwrap();
                    self.model.put(&key(*k), &result);
                }
            }
            Op::Abort { chunks } => {
                if let Some(upload) = self.pages(chunks, 15, "aborted") {
                    self.user(abort(&upload)).unwrap();
                }
            }
            Op::Delete { key: k } => match self.model.names.get(&key(*k)).cloned() {
                Some(Name { file, version: Some(version) }) => {
                    self.user(delete(&bucket, &key(*k))).unwrap();
                    self.model.retire(&file, version);
                    self.model.names.insert(key(*k), Name { file, version: None });
                }
                _ => assert_eq!(self.user(delete(&bucket, &key(*k))).unwrap_err(), ErrorCode::NotFound),
            },
            Op::Purge { key: k } => {
                let outcome = self.user(purge(&bucket, &key(*k)));
                match self.model.names.remove(&key(*k)) {
                    Some(name) => {
                        outcome.unwrap();
                        self.model.files.remove(&name.file);
                    }
                    None => assert_eq!(outcome.unwrap_err(), ErrorCode::NotFound),
                }
            }
            Op::DropVersion { key: k, nth } => {
                let Some(name) = self.model.names.get(&key(*k)).cloned() else { return };
                let versions: Vec<u64> = self.model.files[&name.file].keys().copied().collect();
                let version = versions[usize::from(*nth) % versions.len()];
                self.user(delete_version(&bucket, &key(*k), version)).unwrap();
                if name.version == Some(version) {
                    let older = versions.iter().copied().filter(|v| *v < version).max();
                    if let Some(older) = older {
                        self.model.files.get_mut(&name.file).unwrap().insert(older, None);
                    }
                    self.model.names.insert(key(*k), Name { version: older, ..name.clone() });
                }
                self.model.drop_version(&name.file, version);
            }
            Op::Rename { from, to, free } => {
                let Kind::RenameFile(c) = rename(&bucket, &key(*from), &key(*to)) else { unreachable!() };
                let if_to_version = free.then_some(0);
                let outcome = self.user(Kind::RenameFile(v1::RenameFile { if_to_version, ..c }));
                if self.model.current(&key(*from)) == 0 {
                    assert_eq!(outcome.unwrap_err(), ErrorCode::NotFound);
                } else if *free && self.model.current(&key(*to)) != 0 {
                    assert_eq!(outcome.unwrap_err(), ErrorCode::VersionMismatch);
                } else {
                    outcome.unwrap();
                    if from != to {
                        let name = self.model.names.remove(&key(*from)).unwrap();
                        let target = self.model.names.insert(key(*to), name);
                        if let Some(Name { file, version: Some(version) }) = target {
                            self.model.retire(&file, version);
                        }
                    }
                }
            }
            Op::Copy { from, to } => {
                let version = self.model.current(&key(*from));
                let file = self.model.names.get(&key(*from)).map_or(vec![1; 16], |name| name.file.clone());
                let outcome = self.user(copy(&file, version, &bucket, &key(*to)));
                if version == 0 {
                    assert_eq!(outcome.unwrap_err(), ErrorCode::NotFound);
                } else {
                    self.model.put(&key(*to), &outcome.unwrap());
                }
            }
            Op::Tick { millis } => {
                self.world.tick(u64::from(*millis));
                self.model.now_ms += u64::from(*millis);
            }
            Op::Expire => {
                self.world.expire_versions();
                let now = self.model.now_ms;
                let over: Vec<(Vec<u8>, u64)> = self
                    .model
                    .files
                    .iter()
                    .flat_map(|(file, versions)| versions.iter().map(move |(v, e)| (file.clone(), *v, *e)))
                    .filter(|(_, _, expires)| expires.is_some_and(|ms| ms <= now))
                    .map(|(file, version, _)| (file, version))
                    .collect();
                for (file, version) in over {
                    self.model.drop_version(&file, version);
                }
            }
            Op::Release { count } => {
                self.cluster(Kind::ReleaseReferences(v1::ReleaseReferences { count: u32::from(*count) }));
            }
            Op::PurgeTrash => drop(self.world.purge_trash()),
            Op::PurgeDone => {
                let mut done = Vec::new();
                for (name, _) in NODES {
                    let seat = query::node(&self.world.kv, name).unwrap().unwrap().row.seat;
                    for purge in query::pending_purges(&self.world.kv, seat, None, 3).unwrap() {
                        let chunk = Some(chunk_ref(purge.chunk));
                        done.push(v1::PurgedAt { chunk, node_id: name.into(), position: purge.position });
                    }
                }
                self.cluster(Kind::PurgeDone(v1::PurgeDone { done }));
            }
            Op::RaiseFloor => {
                let position = self.world.position().saturating_sub(20 << 16);
                self.cluster(Kind::RaiseEpochFloor(v1::RaiseEpochFloor { position }));
            }
            Op::Health { node, state } => {
                use v1::NodeState::{Down, Draining, Suspect, Up};
                let name = NODES[usize::from(*node)].0;
                self.world.set_state(name, [Up, Suspect, Down, Draining][usize::from(*state)]);
            }
            Op::Recheck => self.world.recheck_all(),
            Op::Replace { node } => {
                let n = usize::from(*node);
                self.incarnations[n] += 1;
                self.cluster(register(NODES[n].0, NODES[n].1, self.incarnations[n]));
            }
            Op::Doubt { chunk, node } => {
                let changes = vec![self.change(*chunk, *node)];
                self.cluster(Kind::DoubtLocations(v1::DoubtLocations { changes }));
            }
            Op::Add { chunk, node } => {
                let stored = self.world.at(NODES[usize::from(*node)].0);
                let changes = vec![change(self.world.chunk_key(self.ann, *chunk), stored)];
                self.cluster(Kind::AddLocations(v1::AddLocations { changes }));
            }
            Op::Strike { chunk, node } => {
                let changes = vec![self.change(*chunk, *node)];
                self.cluster(Kind::StrikeLocations(v1::StrikeLocations { changes }));
            }
            Op::Trim { chunk, node } => {
                let before = self.world.chunk(self.ann, *chunk);
                let changes = vec![self.change(*chunk, *node)];
                self.cluster(Kind::TrimLocations(v1::TrimLocations { changes }));
                let after = self.world.chunk(self.ann, *chunk);
                if let (Some(before), Some(after)) = (before, after) {
                    assert!(after.present >= before.present.min(after.wanted), "a trim cost a copy");
                }
            }
            Op::Retry => {
                if let Some((command, result)) = self.last.clone() {
                    let again = self.world.command(command);
                    assert!(again.replayed);
                    assert_eq!(v1::CommandResult { replayed: result.replayed, ..again }, result);
                }
            }
        }
    }

    /// An upload of these chunks with receipts of the nodes in the mask; None if it was refused, which
    /// it must be unless enough of those nodes count.
    fn pages(&mut self, chunks: &[u8], mask: u8, key: &str) -> Option<Bytes> {
        let begin = begin(&self.world, self.ann, &self.bucket.clone(), key, 3);
        let upload = self.user(begin).unwrap().created_id;
        let named: Vec<&str> = (0..4).filter(|n| mask & (1 << n) != 0).map(|n| NODES[n].0).collect();
        let stored: Vec<v1::StoredAt> = named.iter().map(|name| self.world.at(name)).collect();
        // All nodes are in domains of their own: two that count for every chunk are enough.
        let good = named
            .iter()
            .filter(|name| {
                let node = query::node(&self.world.kv, name).unwrap().unwrap().row;
                let doubted = chunks.iter().filter_map(|n| self.world.chunk(self.ann, *n)).any(|view| {
                    view.copies.iter().any(|copy| copy.doubted && copy.holder.node_id == node.node_id)
                });
                matches!(node.state(), v1::NodeState::Up | v1::NodeState::Suspect) && !doubted
            })
            .count();
        match self.user(page(&upload, 0, chunks, &stored)) {
            Ok(result) => {
                assert!(result.copies >= 2, "acknowledged below min_ack");
                for n in chunks {
                    let view = self.world.chunk(self.ann, *n).unwrap();
                    assert!(view.present >= 2, "acknowledged below min_ack");
                }
                Some(upload)
            }
            Err(code) => {
                assert_eq!(code, ErrorCode::ChunksMissing);
                assert!(good < 2, "refused though {named:?} count");
                self.user(abort(&upload)).unwrap();
                None
            }
        }
    }

    fn compare(&self) {
        let kv = &self.world.kv;
        let bucket = BucketId::from_slice(&self.bucket).unwrap();
        let params = query::ListParams { include_deleted: true, ..Default::default() };
        let page = query::list(kv, bucket, &params).unwrap();
        let found: Vec<(String, Vec<u8>, Option<u64>)> = page
            .entries
            .iter()
            .map(|entry| match entry {
                query::Listed::File { key, head } => {
                    (key.clone(), head.file_id.to_vec(), (!head.deleted).then_some(head.version))
                }
                query::Listed::CommonPrefix(_) => unreachable!("no delimiter"),
            })
            .collect();
        let expected: Vec<(String, Vec<u8>, Option<u64>)> = self
            .model
            .names
            .iter()
            .map(|(key, name)| (key.clone(), name.file.clone(), name.version))
            .collect();
        assert_eq!(found, expected);
        for (file, versions) in &self.model.files {
            let id = FileId::from_slice(file).unwrap();
            let found: BTreeMap<u64, Option<u64>> = query::versions_page(kv, id, None, 100)
                .unwrap()
                .into_iter()
                .map(|(version, row)| (version, (row.expires_ms != 0).then_some(row.expires_ms)))
                .collect();
            assert_eq!(found, *versions);
        }
        // Every current file can be read: all its chunks are there, in order, without gaps.
        let viewer = self.world.row(self.ann);
        for key in self.model.names.keys() {
            let path = format!("/photos/{key}").parse().unwrap();
            let view = query::find_by_path(kv, &viewer, &path, None).unwrap();
            let Some(row) = view.row.filter(|row| !row.inline) else { continue };
            let window = query::window(kv, &row, 0, 0, 0).unwrap();
            assert_eq!(window.chunks.len(), row.chunks as usize);
            let mut offset = 0;
            for chunk in &window.chunks {
                assert_eq!(chunk.offset, offset);
                offset += chunk.size;
            }
            assert_eq!(offset, row.size);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_follow_the_model(ops in prop::collection::vec(op(), 1..60)) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
            run.compare();
        }
        // Whatever happened: once all is taken apart and expired, nothing leaks.
        for n in 0..6 {
            run.step(&Op::Purge { key: n });
        }
        run.world.release_all();
        run.world.tick(2 * KEEP_MS);
        run.world.expire_versions();
        run.world.release_all();
        while run.world.purge_trash() > 0 {}
        let counters = run.world.counters();
        prop_assert_eq!((counters.files, counters.versions, counters.manifests), (0, 0, 0));
        prop_assert_eq!((counters.chunks, counters.dropping, counters.deficits), (0, 0, 0));
    }
}
