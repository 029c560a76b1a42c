//! Golden vectors of docs/formats.md. The first table was computed by two implementations (Rust and
//! Python) before this crate; whoever changes a value here has changed a format.

use std::collections::BTreeMap;

use bytes::BytesMut;
use dfs_types::ids::{from_hex, hex};
use dfs_types::{
    BucketId, ChunkId, ClusterId, Entropy, FileId, Incarnation, NodeId, Position, PrincipalId, RealmId,
    RequestId, Secret, UploadId,
};

use crate::grant::{Allows, Grant, GrantCall, GrantOp, NodeKeys};
use crate::keys::*;
use crate::page::*;
use crate::range::{RangePlan, open_range};
use crate::receipt::{Receipt, ReceiptExpectation, UnverifiedReceipt};
use crate::root::{Root, open_root, seal_root};
use crate::seal::*;
use crate::tree;

/// Bytes 00, 01, 02, ..: the fixed nonces of the vectors.
pub(crate) struct Counting;

impl Entropy for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for (value, byte) in bytes.iter_mut().enumerate() {
            *byte = value as u8;
        }
    }
}

/// 32 consecutive bytes from `first`.
pub(crate) fn run(first: u8) -> Secret<32> {
    Secret::new(std::array::from_fn(|place| first + place as u8))
}

pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

pub(crate) fn secret_of(plain: &[u8]) -> Secret<32> {
    content_secret(&run(0), &plain_hash(plain))
}

pub(crate) fn bound() -> VersionBinding {
    VersionBinding { bucket: BucketId([0xb0; 16]), file: FileId([0xf0; 16]), upload: UploadId([0xa0; 16]) }
}

struct Row {
    length: usize,
    sealed: u64,
    x: &'static str,
    k: &'static str,
    z: &'static str,
    first_tag: &'static str,
    last_tag: &'static str,
    id: &'static str,
}

const ROWS: [Row; 6] = [
    Row {
        length: 1,
        sealed: 81,
        x: "b236e3b88290f68b",
        k: "a0ba8fa0ed2d495b",
        z: "dcb07c8cad9597ca",
        first_tag: "5f29fb2952e94e74b500f2083a44f4bb",
        last_tag: "5f29fb2952e94e74b500f2083a44f4bb",
        id: "71ae9618c1e334162df6fb94f22d582a280656d0761091842c64bb1440426f38",
    },
    Row {
        length: 65_535,
        sealed: 65_615,
        x: "8d7549a5ff5ab87c",
        k: "1fffcfd40339a3d1",
        z: "77871d57ec4cffef",
        first_tag: "4c8116052fd06c0bb1f1cbf56456ab53",
        last_tag: "4c8116052fd06c0bb1f1cbf56456ab53",
        id: "0cf04b9a342d4fa131b09f3da0d5a4cbbbfa6cd86b49ceccb5744353f0319556",
    },
    Row {
        length: 65_536,
        sealed: 65_616,
        x: "71b6b20b64eaa0b6",
        k: "b22433814ba55aa9",
        z: "4bb9bf599a690235",
        first_tag: "5032e1a7be2c9ef2f8a58853120fa6cd",
        last_tag: "5032e1a7be2c9ef2f8a58853120fa6cd",
        id: "ba96f44ba21ccd0cf054457abd6152f1092b69aaa16eae041431f0910c2e35cb",
    },
    Row {
        length: 65_537,
        sealed: 65_633,
        x: "cd37d691b3acac3a",
        k: "0fbeac00cead2b26",
        z: "f9199263e5e0265a",
        first_tag: "02a19611f649c2049eb3c1cc4ab6cdd6",
        last_tag: "97ac046f2167fd41d46138a178fa5df9",
        id: "bf73ae89c2cfe72ef35052e27faf7a2576f1763dd2be28a824ffb8729878e468",
    },
    Row {
        length: 4_194_304,
        sealed: 4_195_392,
        x: "311a547e55ece633",
        k: "9e7b52220333654f",
        z: "3fa5050848bb2dd4",
        first_tag: "79397faed84a932b221b6b50b55059c5",
        last_tag: "1200489fe94f9c0185b0ef9a716f4a78",
        id: "feeec8e5b02bcac63eea2733fb0edc96a8a42efda7eaacd0cf48762fde23271e",
    },
    // Computed by this crate.
    Row {
        length: 67_108_864,
        sealed: 67_125_312,
        x: "7fa0fb2d39cd3ab1",
        k: "23a471279fe5eeb5",
        z: "0684d607c1435fe1",
        first_tag: "9a1b4e9e81a371c55a0019b1c5676461",
        last_tag: "9d0ad8ddac40e06447a7e051a0c9b393",
        id: "56b48ea3f705b7df9f90a7a6bb927b1b9f921b766dabe582b81a0a52d065f250",
    },
];

#[test]
fn chunks() {
    for row in ROWS {
        let plain = pattern(row.length);
        let secret = secret_of(&plain);
        let (key, commitment) = key_and_commitment(&secret, &header(row.length as u64));
        assert_eq!(hex(&secret.expose()[..8]), row.x, "X of {}", row.length);
        assert_eq!(hex(&key.expose()[..8]), row.k, "K of {}", row.length);
        assert_eq!(hex(&commitment.expose()[..8]), row.z, "Z of {}", row.length);

        let sealed = seal(&secret, &plain).unwrap();
        let frames = frame_count(row.length as u64) as usize;
        let tag = |index: usize| hex(&sealed.bytes[row.length + index * 16..][..16]);
        assert_eq!(sealed.bytes.len() as u64, row.sealed);
        assert_eq!(sealed_length(row.length as u64), row.sealed);
        assert_eq!(plain_length(row.sealed), Ok(row.length as u64));
        assert_eq!((tag(0).as_str(), tag(frames - 1).as_str()), (row.first_tag, row.last_tag));
        assert_eq!(sealed.id.to_string(), row.id, "chunk id of {}", row.length);

        let opened = open(&secret, row.length as u64, &sealed.id, &sealed.bytes).unwrap();
        assert!(opened == plain);
        let opened =
            open_in_place(&secret, row.length as u64, &sealed.id, BytesMut::from(&sealed.bytes[..])).unwrap();
        assert!(opened == plain);
    }
}

/// The 4 MiB chunk of the table: chaining values of some groups, and what a reader of one frame gets.
#[test]
fn groups_and_paths() {
    let plain = pattern(4 << 20);
    let secret = secret_of(&plain);
    let sealed = seal(&secret, &plain).unwrap();
    let length = sealed.bytes.len() as u64;
    assert_eq!(sealed.groups.len(), 65);
    assert_eq!(*blake3::hash(&sealed.bytes).as_bytes(), sealed.id.0);
    let values: Vec<String> = [0, 1, 31, 32, 63, 64].map(|group| hex(&sealed.groups[group])).into();
    assert_eq!(values, GROUP_VALUES);

    for (frame, path) in PATHS {
        let plan = RangePlan::new(4 << 20, u64::from(frame) * 65_536, 65_536).unwrap();
        assert_eq!(plan.sent(), [frame..frame + 1, 64..65]);
        let proof = tree::proof(&sealed.groups, &plan.sent());
        let found: Vec<String> = proof.iter().map(|value| hex(value)).collect();
        assert_eq!(found, path, "path of frame {frame}");
        let group = |index: u32| {
            let start = index as usize * 65_536;
            &sealed.bytes[start..(start + 65_536).min(length as usize)]
        };
        let sent = [group(frame), group(64)].concat();
        let opened = open_range(&secret, &plan, &sealed.id, sent[..].into(), &proof).unwrap();
        assert!(opened == plain[frame as usize * 65_536..][..65_536]);
    }
}

/// Of groups 0, 1, 31, 32, 63 and 64.
const GROUP_VALUES: [&str; 6] = [
    "82443c154cf1dc1271e70740e33553d97811971041c3c60fd547369fcf7f2190",
    "86207578d8e060897beb5244e1e822e0baef184258cffa1523cc8a5eca3a339c",
    "482e02d2e11cdc177cb6a003c76660a6143946fcd55f98a69f9c7e760cdd93de",
    "52edda7d73d739769b46dd7e21d250ade9e2e47676de56392ae45e2ce9c82c20",
    "eb38702c8423d6f09ca72b65df9b8a40ceb7ddf059d9002e8b8706284094a7b9",
    "15066bf866d7f5ef8076549a8789bacd71c1a8b295e5cab329e0e1f970127d43",
];
/// With frame i, groups i and 64 are sent; the path holds the rest.
const PATHS: [(u32, [&str; 6]); 3] = [
    (
        0,
        [
            "86207578d8e060897beb5244e1e822e0baef184258cffa1523cc8a5eca3a339c",
            "9a32adc4a8021752bbd843ddd5d0ad9356556e534afa28e97a2329a83ecbbdaa",
            "196c71ad1a9104da5cb64a3fe07d8653c335dfaecb2cdcda5911e15078ff8415",
            "5f94bcbd1ea41548954b5d4ef425c53081e842ba7657f2a72990f13b480e287c",
            "ed6da525429af8a177bff9821f7be93a690ccfbc8b3a3be5bcdf8115ab006f48",
            "b70490a62172010790a5c7e348c54562bdafd6f12a10d8b159d3c541172f4860",
        ],
    ),
    (
        31,
        [
            "0eab76c98bb66c0605fd1e79d3242c342230db3e61ca5803d07b3c08faf4f7ed",
            "0cfe3394ab2a9d087eeceb9925e29cb5ab57973b164adbdb56e4aeec831b0782",
            "6e4dfc0d76a92fcd6cb2090b575a731d5d159466e0f4cd57e0c24a7f4cc7fd1b",
            "afd36956ff3445c458e931d1a68a183f20b014f8db32b9601985a5dfc043eb1a",
            "a0124e10149a1fd48d30b547402154df2c94b4f894b19a4e87363deda1a95d68",
            "b70490a62172010790a5c7e348c54562bdafd6f12a10d8b159d3c541172f4860",
        ],
    ),
    (
        63,
        [
            "367095ef44f09400d6bf5d68d532e631f1b6bc40188dea74f61a223dd458575d",
            "6de024047743930a5181e90ebf97427507688c85e60cb3a800325fcece0d3f46",
            "65d75f0454171b27433cc9b17cb2800aadfba662e255ea3b287dee60943679d5",
            "2e448ee5fcafe5df4f8c510a48b526a020956b1439ae7db8ffda01ff61e2072e",
            "4dd2b6fb0b4dfd3a2e2b42123335dc66e6fae0ab1933782d8f6fdb4f5cb2c90c",
            "bc2d1aa82b19bd7af89d640578eb189cd88ed71a2a0fdaf34d38acdd85f9b034",
        ],
    ),
];

#[test]
fn master_key() {
    let master = Master { generation: 1, secret: run(0x60) };
    assert_eq!(hex(&master.id()), "948b66fd481491c06bebd8579159503f");
    let key = api_key_secret(&master, &RequestId([1; 16]), &PrincipalId([2; 16]));
    assert_eq!(hex(key.expose()), "46498072a9d3ca8f72ed31f9ebac29a837b42883de4f3c1721e6c7713e408826");
    let line = master_line(7, &run(0x60));
    let masters = Masters::parse(&format!("# old\n3:{}\n\n{}\n", "0".repeat(64), *line)).unwrap();
    assert_eq!(masters.current().generation, 7);
    assert_eq!(masters.current().id(), master.id());
    assert_eq!(masters.iter().map(|master| master.generation).collect::<Vec<_>>(), [3, 7]);
}

#[test]
fn wraps() {
    let kek = Kek { generation: 7, secret: run(0x20) };
    let record = wrap_version_key(&kek, &bound(), &run(0x40), &Counting);
    assert_eq!(
        hex(&record),
        "010100000007000102030405060708090a0bfda42771aea81e494e448639aeaeda9dd83412eab72814174176f1ca48b5276a\
         4029bc8a122fae430ad152da9148bd36"
    );
    let opened = unwrap_version_key(&kek, &bound(), &record).unwrap();
    assert_eq!(opened.expose(), run(0x40).expose());
    assert_eq!(wrap_generation(&record), Ok(7));

    // Under the master key of the master id vector, generation 2; id a0 x16.
    let masters = Masters::parse(&master_line(2, &run(0x60))).unwrap();
    for (kind, expected) in MASTER_WRAPS {
        let record = wrap(masters.current(), kind, &[0xa0; 16], &run(0x40), &Counting);
        assert_eq!(hex(&record), expected, "{kind:?}");
        let opened = unwrap(&masters, kind, &[0xa0; 16], &record).unwrap();
        assert_eq!(opened.expose(), run(0x40).expose());
    }
}

const MASTER_WRAPS: [(WrapKind, &str); 4] = [
    (
        WrapKind::BucketKek,
        "010200000002000102030405060708090a0b0bf887ee4ac8eb62f0a8f5924aac0af279f41c1e0cd4a484489575011ba3234ba976b7dae11e41d1418acd1269385f90",
    ),
    (
        WrapKind::RealmSecret,
        "010300000002000102030405060708090a0b0e4beb7cd1cdcba8c7f8b3328b08cf74fd2b9548ddc742386c2ed4f16d9d3ed740951efe105cc8c61c4212023abb30fa",
    ),
    (
        WrapKind::NodeSecret,
        "010400000002000102030405060708090a0b567a21ee3698362a20e5bdc250febfc13015cf9b46b0444140009746ae1eefc1e981c2b24cc40ecb502c2e2726613cde",
    ),
    (
        WrapKind::UploadSecret,
        "010500000002000102030405060708090a0b614d35dc7a8c361739d7ea43c45fabf8555d09c335a4075495b36d0a65ca546bc94bef735a15efb6339e156b70aceaaa",
    ),
];

/// A page of two: the one-byte and the 65,537-byte chunk of the table.
pub(crate) fn page_of_two() -> (Vec<u8>, Vec<Secret<32>>) {
    let entry = |row: &Row| ClearEntry { chunk: row.id.parse().unwrap(), length: row.length as u32 };
    let clear = encode_clear(&[entry(&ROWS[0]), entry(&ROWS[3])]);
    (clear, vec![secret_of(&pattern(1)), secret_of(&pattern(65_537))])
}

pub(crate) fn root_of_one() -> Root {
    let (clear, secrets) = page_of_two();
    let blob = seal_page(&run(0x40), &bound().upload, 0, &clear, &secrets, &Counting).unwrap();
    let mut pages = PagesHasher::new();
    pages.page(&clear, &blob);
    Root {
        size: 65_538,
        chunks: 2,
        pages: 1,
        pages_upload: bound().upload,
        pages_hash: pages.finish(),
        content_hash: Some(plain_hash(&[pattern(1), pattern(65_537)].concat())),
        content_type: "text/plain".into(),
        user_metadata: BTreeMap::from([("author".into(), "me".into()), ("empty".into(), String::new())]),
    }
}

/// Version key 40..5f, the binding of the wrap vector, nonce 00..0b.
#[test]
fn page_and_root() {
    let (clear, secrets) = page_of_two();
    assert_eq!(hex(&clear), format!("{}00000001{}00010001", ROWS[0].id, ROWS[3].id));
    assert_eq!(decode_clear(&clear).unwrap().len(), 2);
    let blob = seal_page(&run(0x40), &bound().upload, 0, &clear, &secrets, &Counting).unwrap();
    assert_eq!(hex(&blob), PAGE_BLOB);
    let opened = open_page(&run(0x40), &bound().upload, 0, &clear, &blob).unwrap();
    assert!(opened.iter().zip(&secrets).all(|(a, b)| a.expose() == b.expose()) && opened.len() == 2);

    let root = root_of_one();
    assert_eq!(hex(&root.pages_hash), PAGES_HASH);
    let blob = seal_root(&run(0x40), &bound(), &root, &Counting).unwrap();
    assert_eq!(hex(&blob), ROOT_BLOB);
    assert!(open_root(&run(0x40), &bound(), &blob).unwrap() == root);
}

const PAGE_BLOB: &str = "000102030405060708090a0b18016dc7345dd7675aa9b1926e41da7f3bf521ad698893b0ac05b81519205ef345e387da39de\
    b70c86889eedfa496fd6acc717d8f454ceb52213d0bd801824ac80ad0aa06a71080d820d192d1efa1d67";
const PAGES_HASH: &str = "e48541158d1a4a75640682d326c136a76295d6f180178e57ad341552bc9a9656";
const ROOT_BLOB: &str = "000102030405060708090a0ba9b33bcd2ef64020d4bf86679baa6153b0fe2eb77ac8a456bedda626a73f4a5244b3e81ec74e\
    c752b76ac5e1e315c7e5a7a3980285abcee4dd4156c545038f3ebefd18417560c2e384bc688b25f61109ff3b68bd3d9d02a6\
    2264b0a95652da870c3d154a55c79368154539fd9b74e0842f432b6e47d366e3b22f034b622206914f29eb896f156c2302c7\
    01eb3e26dd07c2b407e46a960636907c72a4f2b1b680";

pub(crate) fn node_keys() -> NodeKeys {
    NodeKeys::derive(&run(0x80))
}

pub(crate) fn a_grant(allows: Allows) -> Grant {
    Grant {
        cluster: ClusterId([0xc0; 16]),
        node: NodeId::new("n1").unwrap(),
        incarnation: Incarnation([0x1c; 16]),
        principal: PrincipalId([0x9a; 16]),
        auth_epoch: Position::new(3, 1),
        scope: [0xa0; 16],
        realm: RealmId([0x5e; 16]),
        epoch: Position::new(77, 2),
        expires_ms: 123_456,
        allows,
    }
}

pub(crate) fn a_call<'a>(grant: &'a Grant, op: GrantOp) -> GrantCall<'a> {
    GrantCall {
        cluster: grant.cluster,
        node: &grant.node,
        incarnation: grant.incarnation,
        realm: grant.realm,
        op,
        now_ms: grant.expires_ms,
    }
}

pub(crate) fn a_receipt() -> Receipt {
    Receipt {
        cluster: ClusterId([0xc0; 16]),
        realm: RealmId([0x5e; 16]),
        node: NodeId::new("n1").unwrap(),
        incarnation: Incarnation([0x1c; 16]),
        scope: [0xa0; 16],
        epoch: Position::new(77, 2),
        chunks: vec![(ROWS[0].id.parse().unwrap(), 81), (ROWS[3].id.parse().unwrap(), 65_633)],
    }
}

pub(crate) fn expectation(receipt: &Receipt) -> ReceiptExpectation {
    ReceiptExpectation {
        cluster: receipt.cluster,
        realm: receipt.realm,
        incarnation: receipt.incarnation,
        scope: receipt.scope,
        min_epoch: receipt.epoch,
    }
}

/// Node secret 80..9f.
#[test]
fn grants_and_receipts() {
    let keys = node_keys();
    assert_eq!(hex(keys.grant.0.expose()), GRANT_KEY);
    assert_eq!(hex(keys.receipt.0.expose()), RECEIPT_KEY);

    let put = a_grant(Allows::Put { max_chunks: 64, max_bytes: 1 << 28, serial: 1 });
    let bytes = put.encode(&keys.grant).unwrap();
    assert_eq!(hex(&bytes), PUT_GRANT);
    let op = GrantOp::Put { sealed_length: 1 << 28 };
    assert_eq!(Grant::verify(&bytes, &keys.grant, &a_call(&put, op)), Ok(put.clone()));

    let chunk: ChunkId = ROWS[0].id.parse().unwrap();
    let get = a_grant(Allows::Get(vec![chunk, ROWS[3].id.parse().unwrap()]));
    let bytes = get.encode(&keys.grant).unwrap();
    assert_eq!(hex(&bytes), GET_GRANT);
    let op = GrantOp::Get { chunk };
    assert_eq!(Grant::verify(&bytes, &keys.grant, &a_call(&get, op)), Ok(get.clone()));

    let receipt = a_receipt();
    let bytes = receipt.encode(&keys.receipt).unwrap();
    assert_eq!(hex(&bytes), RECEIPT);
    let unverified = UnverifiedReceipt::parse(&bytes).unwrap();
    assert_eq!((unverified.node(), unverified.incarnation()), (&receipt.node, receipt.incarnation));
    let verified = unverified.verify(&keys.receipt).unwrap();
    assert_eq!(verified, receipt);
    assert_eq!(verified.check(&expectation(&receipt)), Ok(()));
    assert_eq!(verified.covers(&chunk, 81), Ok(()));
}

const GRANT_KEY: &str = "60873a28b4b11e532e5b8842044c3ad69d6487d372b93d2da2ea2b7fd05a3a80";
const RECEIPT_KEY: &str = "2133191bfc43eb87584705ac2c4ec1d8ec9a7803159717f1e77bcadf38f28d01";
const PUT_GRANT: &str = "0147c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0026e311c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c9a9a9a9a9a9a9a9a9a9a9a\
    9a9a9a9a9a0000000000030001a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a05e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e000000\
    00004d0002000000000001e240020000004000000000100000000000000000000001ed85e2c626eab94b3ae2e2e0d8bf\
    2e9f60fd7b224a87b83bd2dd81ec024329e0";
const GET_GRANT: &str = "0147c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0026e311c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c9a9a9a9a9a9a9a9a9a9a9a9a9a\
    9a9a9a0000000000030001a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a05e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e00000000004d00\
    02000000000001e24001000271ae9618c1e334162df6fb94f22d582a280656d0761091842c64bb1440426f38bf73ae89c2cf\
    e72ef35052e27faf7a2576f1763dd2be28a824ffb8729878e468c5d7e99b9aab7f33da484d45996cba71a9ada25fba757047\
    440999716695cede";
const RECEIPT: &str = "0152c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c05e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e026e311c1c1c1c1c1c1c1c1c1c1c1c1c\
    1c1c1ca0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a000000000004d0002000271ae9618c1e334162df6fb94f22d582a280656d076\
    1091842c64bb1440426f380000000000000051bf73ae89c2cfe72ef35052e27faf7a2576f1763dd2be28a824ffb8729878e4\
    6800000000000100614382cdf9037d8c56ea2fd1cbb7f38e44d92105746d8f556ad9482c45e9f99a63";

/// The table's ids are whole ids: a slip of the pen would otherwise pass unseen in `parse().unwrap()`.
#[test]
fn rows_are_well_formed() {
    for row in ROWS {
        assert!(from_hex::<32>(row.id).is_some() && from_hex::<8>(row.x).is_some());
    }
}
