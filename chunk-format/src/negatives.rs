//! What must not open, and by which check: every negative of docs/formats.md, each with the name of
//! the error that fires.

use bytes::{Bytes, BytesMut};
use dfs_types::{
    BucketId, ChunkId, ClusterId, FileId, Incarnation, NodeId, Position, RealmId, Secret, UploadId,
};

use crate::FormatError as E;
use crate::grant::{Allows, Grant, GrantCall, GrantOp};
use crate::keys::*;
use crate::page::*;
use crate::range::{RangePlan, open_range, sent_groups, tail_first_group};
use crate::receipt::UnverifiedReceipt;
use crate::root::{open_root, seal_root};
use crate::seal::*;
use crate::tree;
use crate::vectors::*;

const FRAME: usize = 65_536;

/// A chunk of three frames, the last one short, opened for the test as the manifest says.
struct Sample {
    secret: Secret<32>,
    plain: Vec<u8>,
    sealed: SealedChunk,
}

fn sample_of(length: usize) -> Sample {
    let plain = pattern(length);
    let secret = secret_of(&plain);
    let sealed = seal(&secret, &plain).unwrap();
    Sample { secret, plain, sealed }
}

fn sample() -> Sample {
    sample_of(2 * FRAME + 1000)
}

fn id_of(bytes: &[u8]) -> ChunkId {
    ChunkId(*blake3::hash(bytes).as_bytes())
}

impl Sample {
    fn length(&self) -> u64 {
        self.plain.len() as u64
    }

    /// Opens changed bytes under the chunk id they have now, so that later checks are what fires.
    fn open_anew(&self, changed: &[u8]) -> Result<Bytes, E> {
        open(&self.secret, self.length(), &id_of(changed), changed)
    }

    /// Bytes that `change` was done to; without a new chunk id they must always fail by it.
    fn changed(&self, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = self.sealed.bytes.to_vec();
        change(&mut bytes);
        if bytes.len() == self.sealed.bytes.len() {
            let stale = open(&self.secret, self.length(), &self.sealed.id, &bytes);
            assert_eq!(stale, Err(E::ChunkIdMismatch));
        }
        bytes
    }
}

#[test]
fn every_header_byte() {
    let sample = sample();
    let header = sample.sealed.bytes.len() - 64;
    for place in header..header + 32 {
        let bytes = sample.changed(|bytes| bytes[place] ^= 1);
        assert_eq!(sample.open_anew(&bytes), Err(E::HeaderMismatch), "header byte {}", place - header);
    }
}

#[test]
fn frames_swapped_and_tags_rotated() {
    let sample = sample();
    let bytes = sample.changed(|bytes| bytes[..2 * FRAME].rotate_left(FRAME));
    assert_eq!(sample.open_anew(&bytes), Err(E::FrameForged { index: 0 }));
    // With their tags: the index in the nonce fires.
    let tags = sample.plain.len();
    let bytes = sample.changed(|bytes| {
        bytes[..2 * FRAME].rotate_left(FRAME);
        bytes[tags..tags + 32].rotate_left(16);
    });
    assert_eq!(sample.open_anew(&bytes), Err(E::FrameForged { index: 0 }));
    let bytes = sample.changed(|bytes| bytes[tags..tags + 48].rotate_left(16));
    assert_eq!(sample.open_anew(&bytes), Err(E::FrameForged { index: 0 }));
}

#[test]
fn last_frame_dropped() {
    let sample = sample();
    let cut = |bytes: &mut Vec<u8>| {
        bytes.drain(2 * FRAME + 1000 + 32..2 * FRAME + 1000 + 48);
        bytes.drain(2 * FRAME..2 * FRAME + 1000);
    };
    let bytes = sample.changed(cut);
    let (expected, found) = (sample.sealed.bytes.len() as u64, bytes.len() as u64);
    assert_eq!(sample.open_anew(&bytes), Err(E::LengthMismatch { expected, found }));
    // With the length lowered everywhere, the header is as rebuilt, but Z was made with the true one.
    let length = 2 * FRAME as u64;
    let lowered = sample.changed(|bytes| {
        cut(bytes);
        let at = bytes.len() - 64 + 16;
        bytes[at..at + 8].copy_from_slice(&length.to_be_bytes());
    });
    assert_eq!(open(&sample.secret, length, &id_of(&lowered), &lowered), Err(E::CommitmentMismatch));
    // With the header left as it was.
    assert_eq!(open(&sample.secret, length, &id_of(&bytes), &bytes), Err(E::HeaderMismatch));
}

#[test]
fn commitment_of_another_secret() {
    let sample = sample();
    let (_, other) = key_and_commitment(&secret_of(b"other"), &header(sample.length()));
    let bytes = sample.changed(|bytes| {
        let at = bytes.len() - 32;
        bytes[at..].copy_from_slice(other.expose());
    });
    assert_eq!(sample.open_anew(&bytes), Err(E::CommitmentMismatch));
    let stranger = open(&secret_of(b"other"), sample.length(), &sample.sealed.id, &sample.sealed.bytes);
    assert_eq!(stranger, Err(E::CommitmentMismatch));
}

#[test]
fn lengths_no_chunk_has() {
    let impossible = [0, 1, 63, 64, 67_125_313, u64::MAX].into_iter().chain(65..=80);
    // Remainders 1..=16 behind one and behind three whole frames: a last frame without a byte.
    let short =
        [1u64, 3].into_iter().flat_map(|frames| (1..=16).map(move |rest| 64 + frames * 65_552 + rest));
    for length in impossible.chain(short) {
        assert_eq!(plain_length(length), Err(E::SealedLength { length }), "{length}");
        assert_eq!(tail_first_group(length), Err(E::SealedLength { length }));
        assert_eq!(sent_groups(length, 0, 0), Err(E::SealedLength { length }));
        if length < 1 << 20 {
            let bytes = vec![0; length as usize];
            assert_eq!(open(&run(0), 1, &id_of(&bytes), &bytes), Err(E::SealedLength { length }));
        }
    }
    for length in [1, 2, 65_535, 65_536, 65_537, 131_072, 131_073, 67_108_863, 67_108_864] {
        assert_eq!(plain_length(sealed_length(length)), Ok(length));
    }
}

#[test]
fn plaintexts_no_chunk_has() {
    assert_eq!(seal(&run(0), &[]).err(), Some(E::PlainLength { length: 0 }));
    let length = 67_108_865;
    assert_eq!(
        seal_in_place(&run(0), BytesMut::zeroed(length)).err(),
        Some(E::PlainLength { length: length as u64 })
    );
    for length in [0, length as u64, u64::MAX] {
        assert_eq!(open(&run(0), length, &ChunkId([0; 32]), &[0; 81]), Err(E::PlainLength { length }));
        assert_eq!(RangePlan::new(length, 0, 1), Err(E::PlainLength { length }));
    }
}

#[test]
fn frame_of_another_chunk() {
    let (sample, other) = (sample(), {
        let mut plain = pattern(2 * FRAME + 1000);
        plain[0] = 77;
        let secret = secret_of(&plain);
        seal(&secret, &plain).unwrap()
    });
    let tag = sample.plain.len() + 16;
    let bytes = sample.changed(|bytes| {
        bytes[FRAME..2 * FRAME].copy_from_slice(&other.bytes[FRAME..2 * FRAME]);
        bytes[tag..tag + 16].copy_from_slice(&other.bytes[tag..tag + 16]);
    });
    assert_eq!(sample.open_anew(&bytes), Err(E::FrameForged { index: 1 }));
}

/// Who has the content secret can make another frame with a valid tag: only the tree sees it.
#[test]
fn forged_frame_under_the_true_key() {
    let sample = sample();
    let mut forged_plain = sample.plain.clone();
    forged_plain[FRAME] ^= 1;
    let forged = seal(&sample.secret, &forged_plain).unwrap();
    let tag = sample.plain.len() + 16;
    let bytes = sample.changed(|bytes| {
        bytes[FRAME..2 * FRAME].copy_from_slice(&forged.bytes[FRAME..2 * FRAME]);
        bytes[tag..tag + 16].copy_from_slice(&forged.bytes[tag..tag + 16]);
    });
    // Were the chunk id not checked, it would open: tags alone prove nothing here.
    assert!(sample.open_anew(&bytes).unwrap() == forged_plain);

    let plan = RangePlan::new(sample.length(), FRAME as u64, 10).unwrap();
    let proof = tree::proof(&sample.sealed.groups, &plan.sent());
    let sent = BytesMut::from(&bytes[FRAME..]);
    assert_eq!(open_range(&sample.secret, &plan, &sample.sealed.id, sent, &proof), Err(E::ProofMismatch));
}

#[test]
fn ranges() {
    let sample = sample();
    let length = sample.length();
    for (offset, count) in [(0, 0), (length, 1), (0, length + 1), (u64::MAX, 1), (1, u64::MAX)] {
        assert_eq!(RangePlan::new(length, offset, count), Err(E::RangeOutside));
    }
    let sealed = sample.sealed.bytes.len() as u64;
    for (first, count) in [(3, 0), (0, 4), (2, 2), (u32::MAX, 1), (1, u32::MAX)] {
        assert_eq!(sent_groups(sealed, first, count), Err(E::GroupsOutside), "{first} {count}");
    }
    let plan = RangePlan::new(length, 0, 1).unwrap();
    let proof = tree::proof(&sample.sealed.groups, &plan.sent());
    let sent = [&sample.sealed.bytes[..FRAME], &sample.sealed.bytes[2 * FRAME..]].concat();
    let with = |id: &ChunkId, sent: &[u8], proof: &[tree::GroupHash]| {
        open_range(&sample.secret, &plan, id, sent.into(), proof)
    };
    assert!(with(&sample.sealed.id, &sent, &proof).unwrap() == sample.plain[..1]);
    assert_eq!(with(&ChunkId([0; 32]), &sent, &proof), Err(E::ProofMismatch));
    assert_eq!(with(&sample.sealed.id, &sent, &[[0; 32]]), Err(E::ProofMismatch));
    assert_eq!(with(&sample.sealed.id, &sent, &[]), Err(E::ProofLength { expected: 1, found: 0 }));
    let (expected, found) = (sent.len() as u64, sent.len() as u64 - 1);
    assert_eq!(with(&sample.sealed.id, &sent[1..], &proof), Err(E::GroupBytes { expected, found }));
    // The right chunk, read with another chunk's secret.
    let stranger = open_range(&run(0), &plan, &sample.sealed.id, sent[..].into(), &proof);
    assert_eq!(stranger, Err(E::CommitmentMismatch));
    assert!(matches!(tree::proof_from_bytes(&[0; 33]), Err(E::ProofLength { .. })));
    assert!(matches!(tree::proof_from_bytes(&[0; 65 * 32]), Err(E::ProofLength { .. })));
}

#[test]
fn pages() {
    let (clear, secrets) = page_of_two();
    let upload = bound().upload;
    let blob = seal_page(&run(0x40), &upload, 0, &clear, &secrets, &Counting).unwrap();
    let open = |upload: &UploadId, first: u32, clear: &[u8], blob: &[u8]| {
        open_page(&run(0x40), upload, first, clear, blob).map(|_| ())
    };
    assert_eq!(open(&upload, 0, &clear, &blob), Ok(()));
    // Entries swapped, their secrets where they were.
    let swapped = [&clear[36..], &clear[..36]].concat();
    assert_eq!(open(&upload, 0, &swapped, &blob), Err(E::PageForged));
    assert_eq!(open(&UploadId([0xa1; 16]), 0, &clear, &blob), Err(E::PageForged));
    assert_eq!(open(&upload, 2, &clear, &blob), Err(E::PageForged));
    assert_eq!(open(&upload, 0, &clear[..36], &blob), Err(E::PageCount { expected: 1, found: 2 }));
    assert_eq!(open(&upload, 0, &clear, &blob[..60]), Err(E::PageCount { expected: 2, found: 1 }));
    assert_eq!(open(&upload, 0, &clear, &[]), Err(E::PageCount { expected: 2, found: 0 }));
    assert_eq!(open(&upload, 0, &clear[1..], &blob), Err(E::ClearListLength { length: 71 }));
    assert!(matches!(open_page(&run(0x41), &upload, 0, &clear, &blob), Err(E::PageForged)));
    for place in 0..blob.len() {
        let mut changed = blob.clone();
        changed[place] ^= 0x80;
        assert_eq!(open(&upload, 0, &clear, &changed), Err(E::PageForged));
    }

    let refused = seal_page(&run(0x40), &upload, 0, &clear, &secrets[..1], &Counting);
    assert_eq!(refused, Err(E::PageCount { expected: 2, found: 1 }));
    assert_eq!(decode_clear(&[]), Err(E::ClearListLength { length: 0 }));
    assert_eq!(decode_clear(&[1; 1025 * 36]), Err(E::ClearListLength { length: 1025 * 36 }));
    for length in [0, 67_108_865] {
        let entries = [
            ClearEntry { chunk: ChunkId([1; 32]), length: 1 },
            ClearEntry { chunk: ChunkId([1; 32]), length },
        ];
        assert_eq!(decode_clear(&encode_clear(&entries)), Err(E::ClearEntryLength { index: 1 }));
    }
}

fn other_bounds() -> [VersionBinding; 3] {
    [
        VersionBinding { bucket: BucketId([1; 16]), ..bound() },
        VersionBinding { file: FileId([1; 16]), ..bound() },
        VersionBinding { upload: UploadId([1; 16]), ..bound() },
    ]
}

#[test]
fn roots() {
    let blob = seal_root(&run(0x40), &bound(), &root_of_one(), &Counting).unwrap();
    for other in other_bounds() {
        assert!(open_root(&run(0x40), &other, &blob).err() == Some(E::RootForged));
    }
    assert!(open_root(&run(0x41), &bound(), &blob).err() == Some(E::RootForged));
    for place in 0..blob.len() {
        let mut changed = blob.clone();
        changed[place] ^= 4;
        assert!(open_root(&run(0x40), &bound(), &changed).err() == Some(E::RootForged));
        assert!(open_root(&run(0x40), &bound(), &blob[..place]).err() == Some(E::RootForged));
    }
}

#[test]
fn wraps() {
    let kek = Kek { generation: 7, secret: run(0x20) };
    let record = wrap_version_key(&kek, &bound(), &run(0x40), &Counting);
    let refused =
        |kek: &Kek, bound: &VersionBinding, record: &[u8]| unwrap_version_key(kek, bound, record).err();
    for other in other_bounds() {
        assert_eq!(refused(&kek, &other, &record), Some(E::WrapForged));
    }
    let other = Kek { generation: 8, secret: run(0x20) };
    assert_eq!(refused(&other, &bound(), &record), Some(E::WrapGenerationMismatch { expected: 8, found: 7 }));
    // The record relabelled to the generation asked for: the prefix is authenticated.
    let mut relabelled = record.clone();
    relabelled[5] = 8;
    assert_eq!(refused(&other, &bound(), &relabelled), Some(E::WrapForged));
    let other = Kek { generation: 7, secret: run(0x21) };
    assert_eq!(refused(&other, &bound(), &record), Some(E::WrapForged));
    for place in 6..66 {
        let mut changed = record.clone();
        changed[place] ^= 1;
        assert_eq!(refused(&kek, &bound(), &changed), Some(E::WrapForged));
    }
    assert_eq!(refused(&kek, &bound(), &record[1..]), Some(E::WrapLength { length: 65 }));
    assert_eq!(refused(&kek, &bound(), &[&record[..], &[0]].concat()), Some(E::WrapLength { length: 67 }));
    let mut changed = record.clone();
    changed[0] = 2;
    assert_eq!(refused(&kek, &bound(), &changed), Some(E::WrapVersion { version: 2 }));

    let masters = Masters::parse(&master_line(2, &run(0x60))).unwrap();
    let record = wrap(masters.current(), WrapKind::RealmSecret, &[5; 16], &run(0x40), &Counting);
    let refused = |kind, id: u8, record: &[u8]| unwrap(&masters, kind, &[id; 16], record).err();
    assert_eq!(refused(WrapKind::RealmSecret, 6, &record), Some(E::WrapForged));
    let wrong = E::WrapKindMismatch { expected: 4, found: 3 };
    assert_eq!(refused(WrapKind::NodeSecret, 5, &record), Some(wrong));
    let mut relabelled = record.clone();
    relabelled[1] = 4;
    assert_eq!(refused(WrapKind::NodeSecret, 5, &relabelled), Some(E::WrapForged));
    let mut relabelled = record.clone();
    relabelled[5] = 3;
    assert_eq!(
        refused(WrapKind::RealmSecret, 5, &relabelled),
        Some(E::MasterGenerationUnknown { generation: 3 })
    );
}

#[test]
fn master_key_files() {
    let good = "0".repeat(64);
    let refused = |text: &str| Masters::parse(text).err();
    assert_eq!(refused(""), Some(E::MasterKeyMissing));
    assert_eq!(refused("# nothing\n\n"), Some(E::MasterKeyMissing));
    assert_eq!(refused(&format!("1:{good}\n1:{good}")), Some(E::MasterKeyTwice { generation: 1 }));
    for bad in ["1", "1:", ":", "x:00", "-1:00", "0:", "4294967296:", "1:\u{e9}"] {
        for digits in ["", &good[1..], &format!("{good}0"), &"g".repeat(64)] {
            let text = format!("1:{good}\n{bad}{digits}\n");
            assert_eq!(refused(&text), Some(E::MasterKeyLine { line: 2 }), "{text}");
        }
    }
}

fn chunk() -> ChunkId {
    ChunkId([9; 32])
}

#[test]
fn grants() {
    let keys = node_keys();
    let get = a_grant(Allows::Get(vec![chunk()]));
    let bytes = get.encode(&keys.grant).unwrap();
    let node = NodeId::new("n2").unwrap();
    let call = a_call(&get, GrantOp::Get { chunk: chunk() });
    let refused = |call: &GrantCall<'_>| Grant::verify(&bytes, &keys.grant, call).err();
    assert_eq!(refused(&call), None);
    assert_eq!(refused(&GrantCall { cluster: ClusterId([1; 16]), ..call }), Some(E::GrantCluster));
    assert_eq!(refused(&GrantCall { node: &node, ..call }), Some(E::GrantNode));
    assert_eq!(refused(&GrantCall { incarnation: Incarnation([1; 16]), ..call }), Some(E::GrantIncarnation));
    assert_eq!(refused(&GrantCall { realm: RealmId([1; 16]), ..call }), Some(E::GrantRealm));
    let op = GrantOp::Get { chunk: ChunkId([8; 32]) };
    assert_eq!(refused(&GrantCall { op, ..call }), Some(E::GrantChunk));
    let op = GrantOp::Put { sealed_length: 1 };
    assert_eq!(refused(&GrantCall { op, ..call }), Some(E::GrantOperation));
    // Another purpose's key, and another node's.
    let receipt_key = crate::grant::GrantKey(keys.receipt.0.clone());
    assert_eq!(Grant::verify(&bytes, &receipt_key, &call), Err(E::GrantForged));

    let put = a_grant(Allows::Put { max_chunks: 1, max_bytes: 1000, serial: 1 });
    let bytes = put.encode(&keys.grant).unwrap();
    let verify = |op| Grant::verify(&bytes, &keys.grant, &a_call(&put, op)).err();
    assert_eq!(verify(GrantOp::Put { sealed_length: 1000 }), None);
    assert_eq!(verify(GrantOp::Put { sealed_length: 1001 }), Some(E::GrantBytes));
    assert_eq!(verify(GrantOp::Get { chunk: chunk() }), Some(E::GrantOperation));
    for allows in [
        Allows::Get(vec![]),
        Allows::Get(vec![chunk(); 65]),
        Allows::Put { max_chunks: 0, max_bytes: 1, serial: 1 },
        Allows::Put { max_chunks: 65, max_bytes: 1, serial: 1 },
        Allows::Put { max_chunks: 1, max_bytes: 0, serial: 1 },
    ] {
        assert_eq!(a_grant(allows).encode(&keys.grant), Err(E::GrantLimits));
    }
}

/// Expiry is cluster time alone: there is no wall clock in the call that could be an hour wrong. The
/// leader's time one second past the expiry refuses, the last millisecond of the grant does not.
#[test]
fn grant_past_its_expiry() {
    let keys = node_keys();
    let grant = a_grant(Allows::Get(vec![chunk()]));
    let bytes = grant.encode(&keys.grant).unwrap();
    let expired_ms = grant.expires_ms;
    let at = |now_ms| {
        let call = GrantCall { now_ms, ..a_call(&grant, GrantOp::Get { chunk: chunk() }) };
        Grant::verify(&bytes, &keys.grant, &call).err()
    };
    assert_eq!(at(0), None);
    assert_eq!(at(expired_ms), None);
    for late in [1, 1000, 3_600_000] {
        let now_ms = expired_ms + late;
        assert_eq!(at(now_ms), Some(E::GrantExpired { expired_ms, now_ms }));
    }
}

#[test]
fn every_changed_bit_of_grants_and_receipts() {
    let keys = node_keys();
    let grant = a_grant(Allows::Get(vec![chunk()]));
    let call = a_call(&grant, GrantOp::Get { chunk: chunk() });
    let bytes = grant.encode(&keys.grant).unwrap();
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        assert_eq!(Grant::verify(&changed, &keys.grant, &call), Err(E::GrantForged));
        let cut = Grant::verify(&bytes[..place], &keys.grant, &call);
        assert_eq!(cut, Err(if place < 32 { E::GrantMalformed } else { E::GrantForged }));
    }
    let bytes = a_receipt().encode(&keys.receipt).unwrap();
    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        if let Ok(unverified) = UnverifiedReceipt::parse(&changed) {
            assert_eq!(unverified.verify(&keys.receipt), Err(E::ReceiptForged));
        }
        assert!(UnverifiedReceipt::parse(&bytes[..place]).is_err());
    }
}

/// A key holder's own mistakes: signed, but not what the format says.
#[test]
fn signed_nonsense() {
    let keys = node_keys();
    let grant = a_grant(Allows::Put { max_chunks: 1, max_bytes: 1, serial: 1 });
    let call = a_call(&grant, GrantOp::Put { sealed_length: 1 });
    let signed = grant.encode(&keys.grant).unwrap();
    let resigned = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = signed[..signed.len() - 32].to_vec();
        change(&mut body);
        crate::mac::sign(&keys.grant.0, &mut body);
        Grant::verify(&body, &keys.grant, &call).err()
    };
    assert_eq!(resigned(&|_| {}), None);
    assert_eq!(resigned(&|body| body[0] = 2), Some(E::GrantVersion { version: 2 }));
    assert_eq!(resigned(&|body| body[1] = b'R'), Some(E::GrantMalformed));
    assert_eq!(resigned(&|body| body.push(0)), Some(E::GrantMalformed));
    assert_eq!(resigned(&|body| body.clear()), Some(E::GrantMalformed));
    assert_eq!(resigned(&|body| body[19] = b'!'), Some(E::GrantMalformed));
    assert_eq!(resigned(&|body| body.resize(crate::grant::MAX_GRANT_BYTES, 0)), Some(E::GrantMalformed));
    // A grant taken for a receipt, were the keys ever the same.
    assert_eq!(UnverifiedReceipt::parse(&signed).err(), Some(E::ReceiptMalformed));
}

#[test]
fn receipts() {
    let keys = node_keys();
    let receipt = a_receipt();
    let expected = expectation(&receipt);
    assert_eq!(receipt.check(&expected), Ok(()));
    let refused = |change: &dyn Fn(&mut crate::receipt::ReceiptExpectation)| {
        let mut other = expected;
        change(&mut other);
        receipt.check(&other).err()
    };
    assert_eq!(refused(&|e| e.cluster = ClusterId([1; 16])), Some(E::ReceiptCluster));
    assert_eq!(refused(&|e| e.realm = RealmId([1; 16])), Some(E::ReceiptRealm));
    assert_eq!(refused(&|e| e.incarnation = Incarnation([1; 16])), Some(E::ReceiptIncarnation));
    assert_eq!(refused(&|e| e.scope = [1; 16]), Some(E::ReceiptScope));
    let (epoch, needed) = (receipt.epoch.0, receipt.epoch.0 + 1);
    assert_eq!(refused(&|e| e.min_epoch = Position(needed)), Some(E::ReceiptEpoch { epoch, needed }));
    assert_eq!(receipt.covers(&chunk(), 81), Err(E::ReceiptChunk));
    assert_eq!(receipt.covers(&receipt.chunks[0].0, 82), Err(E::ReceiptChunk));

    let bytes = receipt.encode(&keys.receipt).unwrap();
    let grant_key = crate::receipt::ReceiptKey(keys.grant.0.clone());
    assert_eq!(UnverifiedReceipt::parse(&bytes).unwrap().verify(&grant_key), Err(E::ReceiptForged));
    let mut newer = bytes.clone();
    newer[0] = 2;
    assert_eq!(UnverifiedReceipt::parse(&newer).err(), Some(E::ReceiptVersion { version: 2 }));
    // A count that was only claimed allocates nothing.
    let mut longer = bytes.clone();
    longer[77] = 0xff;
    assert_eq!(UnverifiedReceipt::parse(&longer).err(), Some(E::ReceiptMalformed));
    for count in [0, 65] {
        let chunks = vec![(chunk(), 81); count];
        let refused = crate::receipt::Receipt { chunks, ..receipt.clone() }.encode(&keys.receipt);
        assert_eq!(refused, Err(E::ReceiptLimits));
    }
}
