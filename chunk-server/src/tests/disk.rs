//! The whole node with its segments on disk.

use dfs_types::{ErrorCode, Position};

use super::cluster::{TestCluster, UPLOAD, chunk};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_receipted_is_there_after_a_restart() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.disk_node("n1", tempfile::tempdir().unwrap()).await;
    let n2 = cluster.disk_node("n2", tempfile::tempdir().unwrap()).await;
    let chunks = [chunk(1, 1), chunk(65_536, 2), chunk(3_000_000, 3), chunk(2_000_000, 4)];
    for chunk in &chunks {
        let answer = cluster.put(&[&n1, &n2], chunk, 5).await;
        assert_eq!(answer.receipts.len(), 2, "{:?}", answer.failures);
        n2.check_receipt(&answer.receipts[1], chunk, UPLOAD, 5);
    }
    cluster.put(&[&n1], &chunks[1], 8).await;
    let (dir, store) = n1.stop().await;
    drop(store);
    let n1 = cluster.disk_node("n1", dir).await;
    for chunk in &chunks {
        let (_, bytes) = cluster.get(&n1, cluster.get_grant(&n1, chunk), chunk, 0, 0).await.unwrap();
        assert!(bytes[..] == chunk.bytes[..]);
    }
    assert_eq!(n1.held(&chunks[1]).unwrap().epoch, Position(8));
}

/// Scrub finds it without anybody asking, and the leader hears of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rot_on_disk_is_found_quarantined_and_reported() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.disk_node("n1", tempfile::tempdir().unwrap()).await;
    let chunk = chunk(500_000, 1);
    cluster.put(&[&n1], &chunk, 5).await;
    flip_stored_byte(n1.dir.path(), &chunk.bytes[200_000..200_064]);
    let told = |fault: &dfs_proto::v1::ChunkFault| fault.corrupt && fault.chunk_id[..] == chunk.id.0;
    cluster.metadata.until(|state| state.faults.iter().any(told).then_some(())).await;
    let error = cluster.get(&n1, cluster.get_grant(&n1, &chunk), &chunk, 0, 0).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Integrity, "{error}");
    // Sent again, it is whole again.
    assert!(!cluster.put(&[&n1], &chunk, 6).await.already_had);
    cluster.get(&n1, cluster.get_grant(&n1, &chunk), &chunk, 0, 0).await.unwrap();
}

/// Flips a bit of the one place under `dir` that holds `bytes`.
fn flip_stored_byte(dir: &std::path::Path, bytes: &[u8]) {
    let segments = dir.join("segments");
    for entry in std::fs::read_dir(&segments).unwrap() {
        let path = entry.unwrap().path();
        let mut content = std::fs::read(&path).unwrap();
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            content[at] ^= 1;
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &content[at..=at], at as u64).unwrap();
            return;
        }
    }
    panic!("{} holds no such bytes", segments.display());
}
