//! An index that turns bad under a running node, or whose disk is full: the node says so, answers nothing
//! about absence, opens its store anew and goes on, without a restart.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use dfs_proto::status::from_status;
use dfs_proto::v1::{InventoryRequest, ProbeRequest, ProbeState};
use dfs_types::{ErrorCode, OsEntropy, Position};

use super::cluster::{TestCluster, TestNode, chunk, key};
use super::control::wire_key;
use crate::server::{OpenStore, Opened};
use crate::store::disk::FsDisk;
use crate::store::index::memory::MemoryIndex;
use crate::store::index::{Index, IndexBatch, IndexError, IndexRow};
use crate::store::segment::{SegmentStore, Settings};
use crate::store::{Change, ChunkStore, StoreError};
use crate::upkeep::Pace;

/// Gives wrong checksums once told to.
struct Spoiled {
    rows: MemoryIndex,
    bad: Arc<AtomicBool>,
}

impl Spoiled {
    fn check(&self) -> Result<(), IndexError> {
        match self.bad.load(Ordering::SeqCst) {
            true => Err(IndexError::Damaged("block checksum mismatch".to_owned())),
            false => Ok(()),
        }
    }
}

impl Index for Spoiled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.check()?;
        self.rows.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<IndexRow>, IndexError> {
        self.check()?;
        self.rows.scan(from, to, limit)
    }

    fn write(&self, batch: &IndexBatch, durable: bool) -> Result<(), IndexError> {
        self.check()?;
        self.rows.write(batch, durable)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_turns_bad_is_made_anew_while_the_node_runs() {
    let cluster = TestCluster::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (bad, opens) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (go, may_open) = mpsc::channel::<()>();
    let may_open = Mutex::new(may_open);
    let open: OpenStore = {
        let (bad, opens) = (bad.clone(), opens.clone());
        Arc::new(move |path, incarnation| {
            let again = opens.fetch_add(1, Ordering::SeqCst) > 0;
            if again {
                may_open.lock().unwrap().recv().unwrap();
            }
            let bad = if again { Arc::default() } else { bad.clone() };
            let index = Spoiled { rows: MemoryIndex::default(), bad };
            std::fs::create_dir_all(path.join("segments")).unwrap();
            let disk = FsDisk::open(&path.join("segments")).unwrap();
            let settings = Settings::new(incarnation).with_segment_bytes(1 << 20);
            let (store, report) =
                SegmentStore::open(Arc::new(disk), Arc::new(index), Arc::new(OsEntropy), settings)?;
            Ok(Opened { store: Arc::new(store), report })
        })
    };
    let (server, shutdown) = cluster.server("n1", &dir, open, Pace::default()).await;
    server.health().until_ready().await;
    let placeholder: Arc<dyn ChunkStore> = Arc::new(crate::store::memory::MemoryStore::new(1 << 20));
    let node = TestNode::new(server, shutdown, dir, placeholder);

    let chunks = [chunk(100_000, 1), chunk(700_000, 2), chunk(30, 3)];
    for chunk in &chunks {
        cluster.put(&[&node], chunk, 5).await;
    }
    let held = node.server.node().store().unwrap();
    let mut writer = held.begin(&key(&chunk(500, 9)), 580, Position(5)).unwrap();

    bad.store(true, Ordering::SeqCst);
    let read = async || cluster.get(&node, cluster.get_grant(&node, &chunks[0]), &chunks[0], 0, 0).await;
    assert_eq!(read().await.unwrap_err().code, ErrorCode::Unavailable);
    cluster
        .metadata
        .until(|told| told.heartbeats.get("n1").filter(|b| b.index_rebuilding && b.free == 0).map(drop))
        .await;
    assert!(!node.server.health().is_ready());
    let mut control = cluster.control(&node);
    let probe = ProbeRequest {
        incarnation: node.incarnation.to_vec().into(),
        chunks: vec![wire_key(&chunks[0])],
        verify: true,
    };
    let answer = control.probe(probe).await.unwrap().into_inner();
    assert_eq!(answer.results[0].state(), ProbeState::Unknown, "nothing is said to be absent");
    let inventory = InventoryRequest { incarnation: node.incarnation.to_vec().into(), ..Default::default() };
    let refused = control.inventory(inventory).await.map_err(|status| from_status(&status).code);
    assert_eq!(refused.err(), Some(ErrorCode::Unavailable));

    // Whoever still holds the old store can do nothing with it; it is opened again only without him.
    assert!(matches!(writer.write(&[0; 10]), Err(StoreError::IndexDamaged(_))));
    assert_eq!(opens.load(Ordering::SeqCst), 1);
    drop((writer, held));
    go.send(()).unwrap();
    node.server.health().until_ready().await;
    for chunk in &chunks {
        let (_, bytes) = cluster.get(&node, cluster.get_grant(&node, chunk), chunk, 0, 0).await.unwrap();
        assert!(bytes[..] == chunk.bytes[..]);
    }
    cluster
        .metadata
        .until(|told| told.heartbeats.get("n1").filter(|b| !b.index_rebuilding && b.free > 0).map(drop))
        .await;
    assert_eq!(cluster.put(&[&node], &chunk(2_000, 4), 6).await.receipts.len(), 1);
    assert_eq!(opens.load(Ordering::SeqCst), 2);
}

/// Refuses writes while the disk is full.
struct Full {
    rows: MemoryIndex,
    full: Arc<AtomicBool>,
}

impl Index for Full {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        self.rows.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<IndexRow>, IndexError> {
        self.rows.scan(from, to, limit)
    }

    fn write(&self, batch: &IndexBatch, durable: bool) -> Result<(), IndexError> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(IndexError::Disk("No space left on device".to_owned())),
            false => self.rows.write(batch, durable),
        }
    }
}

/// A full disk under the index's log stopped a node until somebody restarted it, when there had long been
/// room again; and a store that could not be opened again ended the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stopped_for_want_of_room_goes_on_by_itself() {
    let cluster = TestCluster::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (full, opens) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let open: OpenStore = {
        let (full, opens) = (full.clone(), opens.clone());
        Arc::new(move |path, incarnation| {
            let index = Full { rows: MemoryIndex::default(), full: full.clone() };
            std::fs::create_dir_all(path.join("segments")).unwrap();
            let disk = FsDisk::open(&path.join("segments")).unwrap();
            let settings = Settings::new(incarnation).with_segment_bytes(1 << 20);
            opens.fetch_add(1, Ordering::SeqCst);
            let (store, report) =
                SegmentStore::open(Arc::new(disk), Arc::new(index), Arc::new(OsEntropy), settings)?;
            Ok(Opened { store: Arc::new(store), report })
        })
    };
    let (server, shutdown) = cluster.server("n1", &dir, open, Pace::default()).await;
    server.health().until_ready().await;
    let placeholder: Arc<dyn ChunkStore> = Arc::new(crate::store::memory::MemoryStore::new(1 << 20));
    let node = TestNode::new(server, shutdown, dir, placeholder);
    let held = chunk(100_000, 1);
    cluster.put(&[&node], &held, 5).await;

    full.store(true, Ordering::SeqCst);
    let store = node.server.node().store().unwrap();
    let refused = store.change(&key(&held), Change::Touch(Position(9)));
    drop(store);
    assert!(matches!(refused, Err(StoreError::Broken(_))), "{refused:?}");
    // Opened again and again, for the directory takes writes; never ended, never ready.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while opens.load(Ordering::SeqCst) < 3 {
        assert!(tokio::time::Instant::now() < deadline, "it does not try again");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(!node.server.health().is_ready());
    full.store(false, Ordering::SeqCst);
    node.server.health().until_ready().await;
    let (_, bytes) = cluster.get(&node, cluster.get_grant(&node, &held), &held, 0, 0).await.unwrap();
    assert!(bytes[..] == held.bytes[..]);
    assert_eq!(cluster.put(&[&node], &chunk(2_000, 4), 10).await.receipts.len(), 1);
}
