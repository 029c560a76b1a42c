//! A world for tests: a state in memory, entries with one command each, every invariant checked after
//! every step, and every step applied twice to see that it comes out the same.

use std::cell::Cell;

use bytes::Bytes;
use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::{BucketId, ChunkId, DfsError, ErrorCode, PrincipalId, RealmId, UploadId};

use crate::apply::{ENTRY_FORMAT, apply_entry, validate};
use crate::invariants::check_invariants;
use crate::kv::MemoryKv;
use crate::query;
use crate::rows::ChunkKey;
use crate::rows::pages::{Entry, clear_list};

thread_local! {
    static NEXT: Cell<u64> = const { Cell::new(1) };
}

/// A 16-byte id that no other in this test has.
pub fn fresh() -> Bytes {
    let n = NEXT.with(|next| next.replace(next.get() + 1));
    let mut id = vec![0xaa; 8];
    id.extend_from_slice(&n.to_be_bytes());
    id.into()
}

pub struct World {
    pub kv: MemoryKv,
    pub log_index: u64,
    pub admin: PrincipalId,
}

/// The cluster itself as caller.
pub const CLUSTER: PrincipalId = PrincipalId([0; 16]);

impl World {
    pub fn new() -> Self {
        let mut world = Self { kv: MemoryKv::new(), log_index: 0, admin: PrincipalId([0xad; 16]) };
        let bootstrap = v1::Bootstrap {
            cluster_id: vec![0xc1; 16].into(),
            admin_id: world.admin.to_vec().into(),
            admin_name: "admin".into(),
            admin_key_hash: vec![0xad; 32].into(),
            master_key_id: vec![0x3a; 16].into(),
            admin_realm_id: vec![0xad; 16].into(),
            wrapped_admin_realm_secret: vec![1; 66].into(),
            shared_realm_id: vec![0x5a; 16].into(),
            wrapped_shared_realm_secret: vec![1; 66].into(),
            feature_level: 0,
        };
        world.ok(CLUSTER, Kind::Bootstrap(bootstrap));
        world
    }

    /// Nodes n1, n2 and so on in these domains, the user ann, and her bucket "photos" with so many copies.
    pub fn with_nodes(domains: &[&str], target: u32) -> (Self, PrincipalId, Bytes) {
        let mut world = Self::new();
        for (number, domain) in (1..).zip(domains) {
            world.node(&format!("n{number}"), domain);
        }
        let ann = world.user("ann");
        let id = world.ok(ann, bucket("photos", target, 0)).created_id;
        (world, ann, id)
    }

    /// Applies one command in an entry of its own.
    pub fn command(&mut self, command: v1::Command) -> v1::CommandResult {
        self.entry(vec![command]).pop().expect("one result a command")
    }

    pub fn entry(&mut self, commands: Vec<v1::Command>) -> Vec<v1::CommandResult> {
        self.log_index += 1;
        let entry = v1::Entry { format: ENTRY_FORMAT, commands };
        let applied = apply_entry(&self.kv, self.log_index, &entry).unwrap();
        let again = apply_entry(&self.kv, self.log_index, &entry).unwrap();
        assert_eq!(applied.writes, again.writes, "apply is deterministic");
        self.kv.apply(applied.writes);
        if let Err(broken) = check_invariants(&self.kv) {
            panic!("after {entry:?}: {broken}");
        }
        applied.results
    }

    pub fn run(&mut self, principal: PrincipalId, kind: Kind) -> v1::CommandResult {
        self.command(v1::Command {
            principal_id: principal.to_vec().into(),
            unix_ms: 1_000 * self.log_index,
            kind: Some(kind),
            ..Default::default()
        })
    }

    pub fn ok(&mut self, principal: PrincipalId, kind: Kind) -> v1::CommandResult {
        let command = v1::Command {
            principal_id: principal.to_vec().into(),
            kind: Some(kind.clone()),
            ..Default::default()
        };
        validate(&command).unwrap();
        let result = self.run(principal, kind);
        assert_eq!(result.error, None);
        result
    }

    pub fn fails(&mut self, principal: PrincipalId, kind: Kind, code: ErrorCode) -> DfsError {
        let error: DfsError = self.run(principal, kind).error.expect("should be refused").into();
        assert_eq!(error.code, code, "{error}");
        error
    }

    pub fn principal(&mut self, name: &str, role: v1::Role) -> PrincipalId {
        let id = fresh();
        let hash = blake3::hash(&id).as_bytes().to_vec();
        let c = v1::PutPrincipal {
            principal_id: id.clone(),
            name: name.into(),
            role: role.into(),
            key_hash: hash.into(),
            realm_id: fresh(),
            wrapped_realm_secret: vec![1; 66].into(),
        };
        self.ok(self.admin, Kind::PutPrincipal(c));
        PrincipalId::from_slice(&id).unwrap()
    }

    pub fn user(&mut self, name: &str) -> PrincipalId {
        self.principal(name, v1::Role::User)
    }

    pub fn row(&self, principal: PrincipalId) -> v1::PrincipalRow {
        query::principal(&self.kv, principal).unwrap().unwrap()
    }

    pub fn counters(&self) -> v1::CountersRow {
        query::counters(&self.kv).unwrap()
    }

    pub fn bucket(&self, name: &str) -> v1::BucketRow {
        query::bucket_for(&self.kv, &self.row(self.admin), name).unwrap()
    }

    pub fn head(&self, bucket: &[u8], key: &str) -> Option<v1::HeadRow> {
        query::head(&self.kv, BucketId::from_slice(bucket).unwrap(), key).unwrap()
    }

    pub fn position(&self) -> u64 {
        query::applied(&self.kv).unwrap().0
    }

    pub fn chunk(&self, principal: PrincipalId, n: u8) -> Option<query::ChunkView> {
        query::chunk(&self.kv, self.chunk_key(principal, n)).unwrap()
    }

    pub fn chunk_key(&self, principal: PrincipalId, n: u8) -> ChunkKey {
        let realm = RealmId::from_slice(&self.row(principal).realm_id).unwrap();
        ChunkKey { realm, chunk: chunk_id(n) }
    }

    pub fn tick(&mut self, millis: u64) {
        self.ok(CLUSTER, Kind::Tick(v1::Tick { millis }));
    }

    pub fn release_all(&mut self) {
        for _ in 0..1000 {
            let released = self.ok(CLUSTER, Kind::ReleaseReferences(v1::ReleaseReferences { count: 2 }));
            if released.count == 0 {
                return;
            }
        }
        panic!("the dropping queue does not end");
    }

    pub fn expire_versions(&mut self) {
        let now = query::clock(&self.kv).unwrap().cluster_ms;
        let versions = query::expired_versions(&self.kv, now, 256).unwrap();
        if !versions.is_empty() {
            self.ok(CLUSTER, Kind::PurgeVersions(v1::PurgeVersions { versions }));
        }
    }

    pub fn purge_trash(&mut self) -> u64 {
        let now = query::clock(&self.kv).unwrap().cluster_ms;
        let chunks = query::trash_due(&self.kv, now, 256).unwrap();
        if chunks.is_empty() {
            return 0;
        }
        self.ok(CLUSTER, Kind::PurgeChunks(v1::PurgeChunks { chunks })).count
    }

    /// Registers a node in a domain; its incarnation is `incarnation(name, 1)`.
    pub fn node(&mut self, name: &str, domain: &str) {
        self.ok(CLUSTER, register(name, domain, 1));
    }

    pub fn set_state(&mut self, name: &str, state: v1::NodeState) {
        let node = query::node(&self.kv, name).unwrap().unwrap().row;
        let c = v1::SetNodeState { node_id: name.into(), incarnation: node.incarnation, state: state.into() };
        self.ok(CLUSTER, Kind::SetNodeState(c));
    }

    /// Works off everything nodes_to_recheck names, two chunks at a time.
    pub fn recheck_all(&mut self) {
        for _ in 0..1000 {
            let Some(seat) = query::nodes_to_recheck(&self.kv).unwrap().pop() else { return };
            let c = v1::QueueNodeDeficits { node_id: seat.node_id, incarnation: seat.incarnation, count: 2 };
            self.run(CLUSTER, Kind::QueueNodeDeficits(c));
        }
        panic!("rechecks do not end");
    }

    /// A place at which a copy is stored, at the present position.
    pub fn at(&self, name: &str) -> v1::StoredAt {
        let node = query::node(&self.kv, name).unwrap().unwrap().row;
        v1::StoredAt { node_id: name.into(), incarnation: node.incarnation, epoch: self.position() }
    }

    /// An upload of these chunks to these nodes, begun and with one page, not committed.
    pub fn upload(
        &mut self,
        owner: PrincipalId,
        bucket: &[u8],
        key: &str,
        chunks: &[u8],
        nodes: &[&str],
    ) -> Bytes {
        let c = begin(self, owner, bucket, key, 3);
        let id = self.ok(owner, c).created_id;
        let stored: Vec<_> = nodes.iter().map(|name| self.at(name)).collect();
        self.ok(owner, page(&id, 0, chunks, &stored));
        id
    }

    pub fn file(
        &mut self,
        owner: PrincipalId,
        bucket: &[u8],
        key: &str,
        chunks: &[u8],
        nodes: &[&str],
    ) -> v1::CommandResult {
        let id = self.upload(owner, bucket, key, chunks, nodes);
        self.ok(owner, commit(&id, chunks.len()))
    }
}

pub const CHUNK_BYTES: u32 = 1000;

pub fn chunk_id(n: u8) -> ChunkId {
    ChunkId([n; 32])
}

pub fn chunk_ref(key: ChunkKey) -> v1::ChunkRef {
    v1::ChunkRef { realm_id: key.realm.to_vec().into(), chunk_id: key.chunk.to_vec().into() }
}

pub fn incarnation(name: &str, n: u8) -> Bytes {
    Bytes::copy_from_slice(&blake3::hash(format!("{name} {n}").as_bytes()).as_bytes()[..16])
}

pub fn register(name: &str, domain: &str, n: u8) -> Kind {
    Kind::RegisterNode(v1::RegisterNode {
        node_id: name.into(),
        incarnation: incarnation(name, n),
        address: format!("{name}:3001"),
        domain: domain.into(),
        capacity: 1 << 40,
        wrapped_secret: vec![2; 66].into(),
    })
}

pub fn bucket(name: &str, target: u32, keep_ms: u64) -> Kind {
    Kind::PutBucket(v1::PutBucket {
        bucket_id: fresh(),
        name: name.into(),
        policy: Some(
            crate::policy::complete(Some(&v1::Policy { target, min_ack: 0 }), &crate::policy::DEFAULT)
                .unwrap(),
        ),
        keep_ms,
        realm: v1::RealmKind::Private.into(),
        wrapped_kek: vec![3; 66].into(),
        kek_generation: 1,
    })
}

pub fn drop_bucket(name: &str) -> Kind {
    Kind::DropBucket(v1::DropBucket { name: name.into() })
}

pub fn put_inline(bucket: &[u8], key: &str, content: &[u8]) -> Kind {
    let size = content.len() as u64;
    let sealed = if content.is_empty() { 0 } else { content.len() + 80 };
    Kind::PutInline(v1::PutInline {
        bucket_id: bucket.to_vec().into(),
        key: key.into(),
        file_id: fresh(),
        upload_id: fresh(),
        size,
        sealed: vec![4; sealed].into(),
        sealed_page: if content.is_empty() { Bytes::new() } else { vec![5; 60].into() },
        sealed_root: vec![6; 50].into(),
        wrapped_version_key: vec![7; 66].into(),
        if_version: None,
        policy: Some(crate::policy::DEFAULT),
    })
}

pub fn delete(bucket: &[u8], key: &str) -> Kind {
    Kind::DeleteFile(v1::DeleteFile {
        bucket_id: bucket.to_vec().into(),
        key: key.into(),
        ..Default::default()
    })
}

pub fn purge(bucket: &[u8], key: &str) -> Kind {
    let Kind::DeleteFile(c) = delete(bucket, key) else { unreachable!() };
    Kind::DeleteFile(v1::DeleteFile { purge: true, ..c })
}

pub fn delete_version(bucket: &[u8], key: &str, version: u64) -> Kind {
    let Kind::DeleteFile(c) = delete(bucket, key) else { unreachable!() };
    Kind::DeleteFile(v1::DeleteFile { version: Some(version), ..c })
}

pub fn rename(bucket: &[u8], from: &str, to: &str) -> Kind {
    Kind::RenameFile(v1::RenameFile {
        bucket_id: bucket.to_vec().into(),
        from: from.into(),
        to: to.into(),
        ..Default::default()
    })
}

pub fn copy(file_id: &[u8], version: u64, bucket: &[u8], key: &str) -> Kind {
    Kind::CopyFile(v1::CopyFile {
        from_file_id: file_id.to_vec().into(),
        from_version: version,
        bucket_id: bucket.to_vec().into(),
        key: key.into(),
        file_id: fresh(),
        wrapped_version_key: vec![8; 66].into(),
        sealed_root: vec![9; 50].into(),
        if_version: None,
        policy: None,
    })
}

pub fn begin(world: &World, owner: PrincipalId, bucket: &[u8], key: &str, target: u32) -> Kind {
    Kind::BeginUpload(v1::BeginUpload {
        upload_id: fresh(),
        bucket_id: bucket.to_vec().into(),
        key: key.into(),
        file_id: fresh(),
        realm_id: world.row(owner).realm_id,
        realm: v1::RealmKind::Private.into(),
        wrapped_realm_secret: Bytes::new(),
        wrapped_version_key: vec![7; 66].into(),
        policy: crate::policy::complete(Some(&v1::Policy { target, min_ack: 0 }), &crate::policy::DEFAULT)
            .ok(),
        size: None,
    })
}

/// A page of chunks of [`CHUNK_BYTES`], each stored at the same places (none: deduplication hits).
pub fn page(upload: &[u8], first_index: u32, chunks: &[u8], stored: &[v1::StoredAt]) -> Kind {
    let entries: Vec<Entry> =
        chunks.iter().map(|n| Entry { chunk: chunk_id(*n), plain: CHUNK_BYTES }).collect();
    Kind::AppendPage(v1::AppendPage {
        upload_id: upload.to_vec().into(),
        first_index,
        clear: clear_list(&entries).into(),
        sealed: vec![5; 28 + 32 * chunks.len()].into(),
        locations: vec![v1::StoredAtList { stored: stored.to_vec() }; chunks.len()],
    })
}

pub fn commit(upload: &[u8], chunks: usize) -> Kind {
    Kind::CommitUpload(v1::CommitUpload {
        upload_id: upload.to_vec().into(),
        chunks: chunks as u32,
        size: chunks as u64 * u64::from(CHUNK_BYTES),
        sealed_root: vec![6; 50].into(),
        if_version: None,
    })
}

pub fn abort(upload: &[u8]) -> Kind {
    Kind::EndUpload(v1::EndUpload { upload_ids: vec![upload.to_vec().into()], ..Default::default() })
}

pub fn change(key: ChunkKey, stored: v1::StoredAt) -> v1::LocationChange {
    v1::LocationChange { chunk: Some(chunk_ref(key)), stored: Some(stored) }
}

pub fn upload_id(id: &[u8]) -> UploadId {
    UploadId::from_slice(id).unwrap()
}
