use bytes::BytesMut;
use chunk_format::grant::Allows;
use chunk_format::range::{RangePlan, open_range};
use chunk_format::seal::open;
use chunk_format::tree::proof_from_bytes;
use dfs_types::ErrorCode;

use super::cluster::{TestCluster, chunk, key, plain, secret, sign};
use crate::store::ChunkStoreExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_chunk_comes_back_as_it_was_put() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    for (length, tag) in [(1, 1), (65_536, 2), (2_500_000, 3)] {
        let chunk = chunk(length, tag);
        cluster.put(&[&n1], &chunk, 5).await;
        let (header, bytes) = cluster.get(&n1, cluster.get_grant(&n1, &chunk), &chunk, 0, 0).await.unwrap();
        assert_eq!((header.sealed_length, header.proof.len()), (chunk.bytes.len() as u64, 0));
        let opened = open(&secret(), length as u64, &chunk.id, &bytes).unwrap();
        assert_eq!(opened, plain(length, tag));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_come_with_what_proves_them() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let length = 1_500_000u64;
    let chunk = chunk(length as usize, 1);
    let plain = plain(length as usize, 1);
    cluster.put(&[&n1], &chunk, 5).await;
    let grant = cluster.get_grant(&n1, &chunk);
    for (offset, wanted) in [(0, 1), (0, length), (65_535, 2), (700_000, 300_000), (length - 1, 1)] {
        let plan = RangePlan::new(length, offset, wanted).unwrap();
        let (header, bytes) =
            cluster.get(&n1, grant.clone(), &chunk, plan.first_group, plan.group_count).await.unwrap();
        assert_eq!(header.tail_first_group, plan.tail_first_group);
        assert_eq!(bytes.len() as u64, plan.sent_bytes());
        let proof = proof_from_bytes(&header.proof).unwrap();
        let opened = open_range(&secret(), &plan, &chunk.id, BytesMut::from(&bytes[..]), &proof).unwrap();
        assert_eq!(opened, plain[offset as usize..(offset + wanted) as usize]);
    }
    for (first, count) in [(99, 1), (u32::MAX, u32::MAX)] {
        let error = cluster.get(&n1, grant.clone(), &chunk, first, count).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_and_quarantined_chunks_are_errors_and_reported() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let (missing, bad) = (chunk(100, 1), chunk(100, 2));
    cluster.put(&[&n1], &bad, 5).await;
    assert!(n1.store.quarantine(&key(&bad)).unwrap());
    for (chunk, code) in [(&missing, ErrorCode::ChunkNotFound), (&bad, ErrorCode::Integrity)] {
        let error = cluster.get(&n1, cluster.get_grant(&n1, chunk), chunk, 0, 0).await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
        let corrupt = code == ErrorCode::Integrity;
        let told =
            |fault: &dfs_proto::v1::ChunkFault| fault.chunk_id[..] == chunk.id.0 && fault.corrupt == corrupt;
        cluster.metadata.until(|state| state.faults.iter().any(told).then_some(())).await;
    }
    // A put replaces the bad copy.
    assert!(!cluster.put(&[&n1], &bad, 6).await.already_had);
    cluster.get(&n1, cluster.get_grant(&n1, &bad), &bad, 0, 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_opens_only_the_chunks_it_lists() {
    let cluster = TestCluster::start().await;
    let n1 = cluster.node("n1").await;
    let (listed, other) = (chunk(100, 1), chunk(100, 2));
    cluster.put(&[&n1], &other, 5).await;
    let put = sign(&cluster.grant(&n1, 1, Allows::Put { max_chunks: 1, max_bytes: 1000, serial: 1 }));
    for grant in [cluster.get_grant(&n1, &listed), put, bytes::Bytes::new()] {
        let error = cluster.get(&n1, grant, &other, 0, 0).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::GrantRefused, "{error}");
    }
}
