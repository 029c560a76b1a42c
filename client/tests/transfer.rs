//! Puts and gets against a cluster in this process, with the faults that a real one has.

mod fake;

use std::time::Duration;

use dfs_client::{Client, ErrorCode, Progress, PutOptions, ReadRange, Source};
use dfs_types::error::Need;
use fake::{Cluster, Mode};
use futures::TryStreamExt;

const MIB: usize = 1 << 20;

fn data(length: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

async fn put(client: &Client, path: &str, content: &[u8]) -> dfs_client::PutResult {
    client.put(path, content.to_vec(), PutOptions::default()).await.unwrap()
}

/// Waits until the counter says that so many bytes are done.
async fn reached(progress: &Progress, bytes: u64) {
    while progress.snapshot().done_bytes < bytes {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_comes_out() {
    let cluster = Cluster::start(3).await;
    for length in [0, 1, 16 * 1024, 16 * 1024 + 1, 65_536, 4 * MIB, 4 * MIB + 1, 9 * MIB + 77] {
        let content = data(length, 1);
        let path = format!("/bucket/of {length}");
        let done = put(&cluster.client, &path, &content).await;
        assert_eq!(done.size, length as u64);
        assert!(cluster.client.read(&path).await.unwrap() == content, "{length} bytes");
        let pipe = Source::reader(std::io::Cursor::new(content.clone()));
        cluster.client.put(&format!("{path} piped"), pipe, PutOptions::default()).await.unwrap();
        assert!(cluster.client.read(format!("{path} piped")).await.unwrap() == content);
    }
}

/// A put that was held over an await by reference to its source could not be given to `tokio::spawn`,
/// so no program could put in the background.
#[test]
fn transfers_may_run_in_tasks_of_their_own() {
    fn sendable<T: Send>(_: impl FnOnce(Client) -> T) {}
    sendable(|client| async move {
        client.put("/bucket/f", Source::reader(tokio::io::empty()), PutOptions::default()).await
    });
    sendable(|client| async move { client.read("/bucket/f").await });
    sendable(|client| async move {
        let upload = client.put_multipart("/bucket/f", PutOptions::default()).await?;
        let part = upload.put_part("x".into()).await?;
        upload.complete(&[part]).await
    });
}

/// The order is the one told at the end, not the one of sending; an empty file has no parts; the parts
/// of one upload are none of another's.
#[tokio::test(flavor = "multi_thread")]
async fn parts_come_in_any_order() {
    let cluster = Cluster::start(3).await;
    let client = &cluster.client;
    let contents = [data(5 * MIB, 1), data(3, 2), data(4 * MIB, 3)];
    let upload = client.put_multipart("/bucket/parts", PutOptions::default()).await.unwrap();
    let mut parts = Vec::new();
    for content in contents.iter().rev() {
        parts.insert(0, upload.put_part(content.clone().into()).await.unwrap());
    }
    let foreign = client.put_multipart("/bucket/other", PutOptions::default()).await.unwrap();
    assert_eq!(foreign.complete(&parts).await.unwrap_err().code, ErrorCode::InvalidArgument);
    let done = upload.complete(&parts).await.unwrap();
    assert_eq!(done.size, contents.iter().map(|content| content.len() as u64).sum::<u64>());
    assert!(client.read("/bucket/parts").await.unwrap() == contents.concat());
    foreign.complete(&[]).await.unwrap();
    assert!(client.read("/bucket/other").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_what_they_say() {
    let cluster = Cluster::start(3).await;
    let content = data(9 * MIB + 77, 2);
    put(&cluster.client, "/bucket/f", &content).await;
    let size = content.len() as u64;
    for (offset, length) in [
        (0, 1),
        (65_535, 2),
        (4 * MIB as u64 - 1, 2),
        (100, 5 * MIB as u64),
        (4 * MIB as u64, 4 * MIB as u64),
        (size - 1, 1),
        (size - 10, 100),
        (size, 5),
        (5, 0),
    ] {
        let got = cluster.client.read_range("/bucket/f", ReadRange::new(offset, length)).await.unwrap();
        let end = (offset + length).min(size) as usize;
        assert!(got == content[offset as usize..end], "{offset} + {length}");
    }
    put(&cluster.client, "/bucket/small", b"hello world").await;
    let got = cluster.client.read_range("/bucket/small", ReadRange::new(6, 3)).await.unwrap();
    assert_eq!(got, "wor");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_is_not_sent_twice() {
    let cluster = Cluster::start(3).await;
    let content = data(6 * MIB, 3);
    put(&cluster.client, "/bucket/a", &content).await;
    let before = cluster.received();
    put(&cluster.client, "/bucket/b", &content).await;
    assert_eq!(cluster.received(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_goes_round_a_broken_node() {
    for (broken, mode) in [("n1", Mode::Refuses), ("n2", Mode::Refuses)] {
        let cluster = Cluster::start(4).await;
        cluster.set_mode(broken, mode);
        let content = data(6 * MIB, 4);
        put(&cluster.client, "/bucket/f", &content).await;
        {
            let world = cluster.world.lock();
            let copies = |id| world.nodes.values().filter(|node| node.chunks.contains_key(id)).count();
            assert!(world.metadata.committed.iter().all(|id| copies(id) == 3), "a spare replaced {broken}");
        }
        assert!(cluster.client.read("/bucket/f").await.unwrap() == content);
    }
    // Without a spare, two of three are enough.
    let cluster = Cluster::start(3).await;
    cluster.set_mode("n3", Mode::Refuses);
    put(&cluster.client, "/bucket/f", &data(5 * MIB, 4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_costs_seconds_not_the_put() {
    let cluster = Cluster::start(4).await;
    cluster.set_mode("n1", Mode::Hangs);
    let content = data(MIB, 5);
    tokio::time::timeout(Duration::from_secs(30), put(&cluster.client, "/bucket/f", &content)).await.unwrap();
    // Reading asks somebody else after a second.
    let start = std::time::Instant::now();
    assert!(cluster.client.read("/bucket/f").await.unwrap() == content);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bytes_are_reported_and_never_returned() {
    let cluster = Cluster::start(3).await;
    let content = data(6 * MIB, 6);
    put(&cluster.client, "/bucket/f", &content).await;
    cluster.set_mode("n1", Mode::Corrupts);
    assert!(cluster.client.read("/bucket/f").await.unwrap() == content);
    let range = ReadRange::new(5 * MIB as u64 - 40_000, 100_000);
    let start = 5 * MIB - 40_000;
    assert!(cluster.client.read_range("/bucket/f", range).await.unwrap() == content[start..start + 100_000]);
    while cluster.world.lock().metadata.reports.len() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(cluster.world.lock().metadata.reports.iter().all(|report| report.node_id == "n1"));
    for node in ["n2", "n3"] {
        cluster.set_mode(node, Mode::Corrupts);
    }
    assert_eq!(cluster.client.read("/bucket/f").await.unwrap_err().code, ErrorCode::Integrity);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_the_leader_misses_are_sent_again() {
    let cluster = Cluster::start(3).await;
    let content = data(10 * MIB, 7);
    cluster.world.lock().metadata.miss = vec![(0, Need::Send), (2, Need::Touch)];
    put(&cluster.client, "/bucket/f", &content).await;
    assert!(cluster.client.read("/bucket/f").await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_change_keeps_its_request_id() {
    let cluster = Cluster::start(3).await;
    {
        let mut world = cluster.world.lock();
        world.metadata.unavailable = 3;
        world.metadata.forget_answers = 1;
    }
    let done = put(&cluster.client, "/bucket/f", b"once").await;
    let requests = cluster.world.lock().metadata.requests.clone();
    assert!(requests.len() == 2 && requests[0] == requests[1], "{requests:?}");
    assert_eq!(cluster.client.stat("/bucket/f").await.unwrap().version, done.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_put_goes_on() {
    let cluster = Cluster::start(3).await;
    let dir = tempfile::tempdir().unwrap();
    // More than a page, so that a part of it is in the manifest already: 70 chunks.
    let content = data(70 * 4 * MIB + 5, 8);
    let source = dir.path().join("source");
    std::fs::write(&source, &content).unwrap();
    let note = dir.path().join("note");
    let options = |progress: &Progress| PutOptions {
        progress: Some(progress.clone()),
        resume_file: Some(note.clone()),
        ..Default::default()
    };
    let progress = Progress::new();
    let first = cluster.client.put("/bucket/f", Source::file(&source), options(&progress));
    tokio::select! {
        done = first => panic!("too fast: {done:?}"),
        () = async {
            reached(&progress, 66 * 4 * MIB as u64).await;
            while cluster.world.lock().metadata.pages == 0 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    assert!(note.exists());
    let before = cluster.received();
    let progress = Progress::new();
    cluster.client.put("/bucket/f", Source::file(&source), options(&progress)).await.unwrap();
    let again = cluster.received() - before;
    assert!(again < 12 * 4 * MIB as u64, "{again} bytes were sent again");
    assert!(!note.exists());
    assert_eq!(cluster.world.lock().metadata.aborted, 0);
    let mut stream = cluster.client.open_read("/bucket/f", ReadRange::default()).await.unwrap();
    let mut hash = blake3::Hasher::new();
    while let Some(bytes) = stream.try_next().await.unwrap() {
        hash.update(&bytes);
    }
    assert_eq!(hash.finalize(), blake3::hash(&content));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_source_begins_anew() {
    let cluster = Cluster::start(3).await;
    let dir = tempfile::tempdir().unwrap();
    let (source, note) = (dir.path().join("source"), dir.path().join("note"));
    let options = || PutOptions { resume_file: Some(note.clone()), ..Default::default() };
    std::fs::write(&source, data(6 * MIB, 9)).unwrap();
    // Everything is sent and noted, and then the put fails for good.
    cluster.world.lock().metadata.miss = vec![(99, Need::Send)];
    cluster.client.put("/bucket/f", Source::file(&source), options()).await.unwrap_err();
    assert!(note.exists());
    let content = data(7 * MIB, 10);
    std::fs::write(&source, &content).unwrap();
    cluster.client.put("/bucket/f", Source::file(&source), options()).await.unwrap();
    assert_eq!(cluster.world.lock().metadata.aborted, 1);
    assert!(cluster.client.read("/bucket/f").await.unwrap() == content);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_keep_their_codes() {
    let cluster = Cluster::start(1).await;
    let put = |path: &'static str, length| cluster.client.put(path, data(length, 11), PutOptions::default());
    assert_eq!(put("/missing/f", 5 * MIB).await.unwrap_err().code, ErrorCode::BucketNotFound);
    assert_eq!(put("/bucket/f", 5 * MIB).await.unwrap_err().code, ErrorCode::NotEnoughNodes);
    assert_eq!(put("bucket/f", 1).await.unwrap_err().code, ErrorCode::InvalidName);
    assert_eq!(cluster.client.read("/bucket/none").await.unwrap_err().code, ErrorCode::NotFound);
    let options = PutOptions { if_version: Some(77), ..Default::default() };
    let error = cluster.client.put("/bucket/f", data(5 * MIB, 1), options).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::VersionMismatch);
    let source = Source::file("/nowhere/at all");
    assert_eq!(
        cluster.client.put("/bucket/f", source, PutOptions::default()).await.unwrap_err().code,
        ErrorCode::NotFound
    );
}
