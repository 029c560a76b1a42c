//! Properties over random inputs: what is sealed opens, no decoder panics, and no (key, nonce) ever
//! meets two messages.

use std::collections::BTreeMap;

use bytes::BytesMut;
use dfs_types::limits::MAX_CHUNK_BYTES;
use dfs_types::{ChunkId, Position, Secret};
use proptest::prelude::*;

use crate::aead::Cipher;
use crate::grant::{Allows, Grant, GrantOp};
use crate::page::*;
use crate::range::{RangePlan, open_range, sent_groups, tail_first_group};
use crate::receipt::UnverifiedReceipt;
use crate::seal::*;
use crate::tree::{self, bytes_of_groups, group_count};
use crate::vectors::*;

const FRAME: u64 = 65_536;

/// Lengths near every boundary of frames and groups, and some in between.
fn lengths() -> impl Strategy<Value = u64> {
    (0u64..12, -1200i64..1200, any::<bool>()).prop_map(|(frames, offset, near)| {
        let offset = if near { offset } else { offset * 53 };
        (frames as i64 * FRAME as i64 + offset).max(1) as u64
    })
}

/// What a node would send for a plan, cut from the sealed bytes.
fn sent(chunk: &SealedChunk, plan: &RangePlan) -> BytesMut {
    let length = chunk.bytes.len() as u64;
    let mut out = BytesMut::new();
    for range in plan.sent().into_iter().filter(|range| !range.is_empty()) {
        let start = u64::from(range.start) * FRAME;
        let end = start + bytes_of_groups(length, &range);
        out.extend_from_slice(&chunk.bytes[start as usize..end as usize]);
    }
    assert_eq!(out.len() as u64, plan.sent_bytes());
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whole_chunks_open(length in lengths(), seed in any::<u8>()) {
        let mut plain = pattern(length as usize);
        plain[0] = seed;
        let secret = secret_of(&plain);
        let copied = seal(&secret, &plain).unwrap();
        let in_place = seal_in_place(&secret, BytesMut::from(&plain[..])).unwrap();
        prop_assert_eq!(copied.id, in_place.id);
        prop_assert!(copied.bytes == in_place.bytes && copied.groups == in_place.groups);
        prop_assert_eq!(copied.bytes.len() as u64, sealed_length(length));
        prop_assert_eq!(plain_length(sealed_length(length)), Ok(length));
        prop_assert_eq!(copied.id.0, *blake3::hash(&copied.bytes).as_bytes());
        prop_assert!(open(&secret, length, &copied.id, &copied.bytes).unwrap() == plain);
    }

    #[test]
    fn any_range_opens_from_its_groups_alone(
        length in lengths(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>(), flip in any::<prop::sample::Index>()
    ) {
        let plain = pattern(length as usize);
        let secret = secret_of(&plain);
        let chunk = seal(&secret, &plain).unwrap();
        let (a, b) = (a.index(length as usize), b.index(length as usize));
        let (start, end) = (a.min(b), a.max(b) + 1);
        let plan = RangePlan::new(length, start as u64, (end - start) as u64).unwrap();
        // Node and client mean the same groups.
        let node = sent_groups(chunk.bytes.len() as u64, plan.first_group, plan.group_count).unwrap();
        prop_assert_eq!(&node, &plan.sent());
        prop_assert_eq!(tail_first_group(chunk.bytes.len() as u64), Ok(plan.tail_first_group));

        let proof = tree::proof(&chunk.groups, &plan.sent());
        let bytes = sent(&chunk, &plan);
        let opened = open_range(&secret, &plan, &chunk.id, bytes.clone(), &proof).unwrap();
        prop_assert!(opened == plain[start..end]);

        let mut changed = bytes;
        let place = flip.index(changed.len());
        changed[place] ^= 0x20;
        let refused = open_range(&secret, &plan, &chunk.id, changed, &proof);
        prop_assert_eq!(refused, Err(crate::FormatError::ProofMismatch));
    }

    /// Every chunk length from the manifest, whatever it is, meets sealed bytes of another: an error.
    #[test]
    fn wrong_lengths_are_refused(length in lengths(), claimed in lengths()) {
        prop_assume!(length != claimed);
        let plain = pattern(length as usize);
        let secret = secret_of(&plain);
        let chunk = seal(&secret, &plain).unwrap();
        prop_assert!(open(&secret, claimed, &chunk.id, &chunk.bytes).is_err());
    }
}

proptest! {
    #[test]
    fn sealed_lengths_are_exactly_those_of_chunks(sealed in 0u64..70_000_000) {
        match plain_length(sealed) {
            Ok(plain) => {
                prop_assert_eq!(sealed_length(plain), sealed);
                prop_assert!(tail_first_group(sealed).unwrap() < group_count(sealed));
            }
            Err(_) => {
                // No plain length near it seals to it.
                let mut near = sealed.saturating_sub(20_000).max(1)..sealed.min(MAX_CHUNK_BYTES + 1);
                prop_assert!(!near.any(|plain| sealed_length(plain) == sealed));
            }
        }
    }

    #[test]
    fn decoders_take_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let keys = node_keys();
        let grant = a_grant(Allows::Get(vec![ChunkId([1; 32])]));
        let call = a_call(&grant, GrantOp::Get { chunk: ChunkId([1; 32]) });
        for head in [&[][..], b"\x01G", b"\x01R"] {
            let bytes = [head, &bytes].concat();
            let _ = Grant::verify(&bytes, &keys.grant, &call);
            // Signed too, so that the fields themselves are read.
            let mut signed = bytes.clone();
            crate::mac::sign(&keys.grant.0, &mut signed);
            let _ = Grant::verify(&signed, &keys.grant, &call);
            if let Ok(unverified) = UnverifiedReceipt::parse(&signed) {
                prop_assert!(unverified.verify(&keys.receipt).is_err());
            }
        }
        let _ = decode_clear(&bytes);
        let _ = tree::proof_from_bytes(&bytes);
        let _ = crate::keys::wrap_generation(&bytes);
        let _ = crate::keys::Masters::parse(&String::from_utf8_lossy(&bytes));
        prop_assert!(open_page(&run(1), &bound().upload, 0, &page_of_two().0, &bytes).is_err());
        prop_assert!(crate::root::open_root(&run(1), &bound(), &bytes).is_err());
    }

    #[test]
    fn grants_read_back(chunks in prop::collection::vec(any::<[u8; 32]>(), 1..=64), epoch in any::<u64>(), expires in any::<u64>()) {
        let keys = node_keys();
        let chunks: Vec<ChunkId> = chunks.into_iter().map(ChunkId).collect();
        let op = GrantOp::Get { chunk: chunks[0] };
        let mut grant = a_grant(Allows::Get(chunks));
        grant.epoch = Position(epoch);
        grant.expires_ms = expires;
        let bytes = grant.encode(&keys.grant).unwrap();
        prop_assert!(bytes.len() <= crate::grant::MAX_GRANT_BYTES);
        prop_assert_eq!(Grant::verify(&bytes, &keys.grant, &a_call(&grant, op)), Ok(grant.clone()));
    }

    #[test]
    fn receipts_read_back(chunks in prop::collection::vec((any::<[u8; 32]>(), any::<u64>()), 1..=64)) {
        let keys = node_keys();
        let chunks = chunks.into_iter().map(|(chunk, length)| (ChunkId(chunk), length)).collect();
        let receipt = crate::receipt::Receipt { chunks, ..a_receipt() };
        let bytes = receipt.encode(&keys.receipt).unwrap();
        prop_assert!(bytes.len() <= crate::receipt::MAX_RECEIPT_BYTES);
        let read = UnverifiedReceipt::parse(&bytes).unwrap().verify(&keys.receipt);
        prop_assert_eq!(read, Ok(receipt));
    }
}

proptest! {
    /// The seam's backend and a second implementation agree byte for byte, both ways.
    #[test]
    fn two_implementations_of_gcm(
        key in any::<[u8; 32]>(), iv in any::<[u8; 12]>(), aad in prop::collection::vec(any::<u8>(), 0..80),
        plain in prop::collection::vec(any::<u8>(), 0..3000)
    ) {
        use aes_gcm::aead::{AeadInOut, KeyInit};
        use aes_gcm::{Aes256Gcm, Key, Nonce, Tag};
        let other = Aes256Gcm::new(<&Key<Aes256Gcm>>::from(&key));
        let mut theirs = plain.clone();
        let their_tag = other
            .encrypt_inout_detached(<&Nonce<_>>::from(&iv), &aad, theirs.as_mut_slice().into())
            .unwrap();
        let ours = Cipher::new(&Secret::new(key));
        let mut text = plain.clone();
        let tag = ours.seal(&iv, &aad, &mut text);
        prop_assert_eq!(&text, &theirs);
        prop_assert_eq!(&tag[..], &their_tag[..]);
        prop_assert!(ours.open(&iv, &aad, &mut theirs, &tag));
        prop_assert_eq!(&theirs, &plain);
        let mut sealed = text.clone();
        let opened = other.decrypt_inout_detached(
            <&Nonce<_>>::from(&iv),
            &aad,
            sealed.as_mut_slice().into(),
            <&Tag<_>>::from(&tag),
        );
        prop_assert!(opened.is_ok());
        prop_assert_eq!(&sealed, &plain);
        let mut wrong = tag;
        wrong[iv[0] as usize % 16] ^= 1;
        prop_assert!(!ours.open(&iv, &aad, &mut text, &wrong));
        prop_assert!(text.iter().all(|byte| *byte == 0), "what did not verify is given out");
    }
}

/// Over many seals with every realm secret, content, frame size, suite, kind, codec and length that a
/// later format may bring: one (key, nonce) belongs to one (frame, header).
#[test]
fn no_key_and_nonce_meets_two_messages() {
    type KeyAndNonce = ([u8; 32], [u8; 12]);
    type FrameAndHeader = ([u8; 32], [u8; 32]);
    let mut seen: BTreeMap<KeyAndNonce, FrameAndHeader> = BTreeMap::new();
    let mut messages = 0;
    // A source that changes while it is read gives buffers with other bytes: each its own content.
    for realm in 0..4u8 {
        for content in 0..6u8 {
            let plain: Vec<u8> = (0..content / 2 + 3).map(|byte| byte * content).collect();
            // Resuming seals the same buffer again: the same messages, not new ones.
            for _again in 0..2 {
                let secret = content_secret(&Secret::new([realm; 32]), &plain_hash(&plain));
                for (place, value) in [(8, 2), (9, 2), (10, 1), (10, 16), (10, 18), (11, 2), (12, 1), (23, 9)]
                {
                    let mut header = header(plain.len() as u64);
                    header[place] = value;
                    let (key, _) = key_and_commitment(&secret, &header);
                    let frame = if header[10] == 1 { 2 } else { plain.len() };
                    let frames = plain.len().div_ceil(frame) as u32;
                    for (index, text) in (0..).zip(plain.chunks(frame)) {
                        let message = (*blake3::hash(text).as_bytes(), header);
                        let before = seen.insert((*key.expose(), nonce(index, frames)), message);
                        assert!(before.is_none_or(|before| before == message));
                        messages += 1;
                    }
                }
            }
        }
    }
    assert!(seen.len() > 200 && messages > seen.len());
}
