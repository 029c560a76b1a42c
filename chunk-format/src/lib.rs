//! What is sealed where, and how it is proved: chunks, hash trees, ranges, keys, grants, receipts and
//! segment records. Pure: bytes in, bytes out; no I/O, no clock, no async. docs/formats.md has the
//! final text with the vectors.
//!
//! Public signatures (the modules follow within the hour; this list goes when they are here):
//!
//! ```text
//! error::FormatError                      thiserror; impl From<FormatError> for DfsError
//! seal:  plain_hash(plain: &[u8]) -> [u8; 32]
//!        content_secret(realm_secret: &Secret<32>, plain_hash: &[u8; 32]) -> Secret<32>
//!        sealed_length(plain_length: u64) -> u64              plain 1..=64 MiB
//!        plain_length(sealed_length: u64) -> Result<u64, FormatError>
//!        struct SealedChunk { bytes: Bytes, id: ChunkId, groups: Vec<[u8; 32]> }
//!        seal(secret: &Secret<32>, plain: &[u8]) -> Result<SealedChunk, FormatError>
//!        seal_in_place(secret: &Secret<32>, plain: BytesMut) -> Result<SealedChunk, FormatError>
//!        open(secret, plain_length: u64, id: &ChunkId, sealed: &[u8]) -> Result<Bytes, FormatError>
//!        open_in_place(secret, plain_length: u64, id: &ChunkId, sealed: BytesMut) -> Result<Bytes, FormatError>
//! tree:  GROUP_BYTES = 65_536; group_count(sealed_length: u64) -> u32
//!        struct GroupHasher: new(), update(&mut self, &[u8]), length(&self) -> u64, finish(self) -> (ChunkId, Vec<[u8; 32]>)
//!        group_chaining_value(index: u32, bytes: &[u8]) -> [u8; 32]   (not for a chunk of one group: its only value is the chunk id)
//!        root_of_groups(groups: &[[u8; 32]]) -> Option<ChunkId>
//!        proof(groups: &[[u8; 32]], sent: &[Range<u32>]) -> Vec<[u8; 32]>     minimal, left to right
//!        verify(sealed_length: u64, sent: &[Range<u32>], bytes: &[u8], proof: &[[u8; 32]], id: &ChunkId) -> Result<(), FormatError>
//!        proof_from_bytes(&[u8]) -> Result<Vec<[u8; 32]>, FormatError>
//! range: tail_first_group(sealed_length: u64) -> Result<u32, FormatError>
//!        sent_groups(sealed_length: u64, first_group: u32, group_count: u32 /* 0: to the end */) -> Result<[Range<u32>; 2], FormatError>
//!            what a node sends, in order: the groups asked for, then those of the tags and trailer not yet among them
//!        struct RangePlan { first_group, group_count, tail_first_group, .. }: new(plain_length, offset, length) -> Result, sent() -> [Range<u32>; 2],
//!            sent_bytes() -> u64, sealed_length() -> u64
//!        open_range(secret, plan: &RangePlan, id: &ChunkId, sent: BytesMut, proof: &[[u8; 32]]) -> Result<Bytes, FormatError>
//! keys:  struct Master { generation: u32, secret: Secret }: id() -> [u8; 16];  struct Masters: parse(text) -> Result, current() -> &Master, get(generation), iter()
//!        struct Kek { generation: u32, secret: Secret }
//!        enum WrapKind { VersionKey = 1, BucketKek = 2, RealmSecret = 3, NodeSecret = 4, UploadSecret = 5 };  WRAP_BYTES = 66
//!        wrap_version_key(kek: &Kek, bound: &VersionBinding { bucket, file, upload }, key: &Secret, entropy: &dyn Entropy) -> Vec<u8>; unwrap_version_key(kek, bound, record: &[u8]) -> Result<Secret, _>
//!        wrap(master: &Master, kind, id: &[u8; 16], secret: &Secret, entropy) -> Vec<u8>; unwrap(masters: &Masters, kind, id, record) -> Result<Secret, _>
//!            (id: bucket id, realm id, incarnation for a node's secret, upload id);  wrap_generation(record) -> Result<u32, _>
//! page:  struct ClearEntry { chunk: ChunkId, length: u32 }; encode_clear(&[ClearEntry]) -> Vec<u8>; decode_clear(&[u8]) -> Result<Vec<ClearEntry>, _>
//!        seal_page(v: &Secret, upload: &UploadId, first_index: u32, clear: &[u8], secrets: &[Secret], entropy) -> Result<Vec<u8>, _>
//!        open_page(v, upload, first_index, clear, blob: &[u8]) -> Result<Vec<Secret>, _>
//!        struct PagesHasher: new(), page(&mut self, clear: &[u8], blob: &[u8]), finish(self) -> [u8; 32]
//! root:  struct Root { size: u64, chunks: u32, pages: u32, pages_upload: UploadId, pages_hash: [u8; 32], content_hash: Option<[u8; 32]>, content_type: String, user_metadata: BTreeMap<String, String> }
//!        seal_root(v: &Secret, bound: &VersionBinding, root: &Root, entropy) -> Result<Vec<u8>, _>; open_root(v, bound, blob) -> Result<Root, _>
//! grant: struct NodeKeys { grant: GrantKey, receipt: ReceiptKey }: derive(node_secret: &Secret) -> Self
//!        struct Grant { cluster, node: NodeId, incarnation, principal, auth_epoch: Position, scope: [u8; 16] (upload, file or task id), realm, epoch: Position, expires_ms: u64 (cluster time), allows: Allows }
//!        enum Allows { Get(Vec<ChunkId>), Put { max_chunks: u32, max_bytes: u64 } }
//!        Grant::encode(&self, key: &GrantKey) -> Result<Vec<u8>, _>; Grant::verify(bytes: &[u8], key: &GrantKey, call: &GrantCall) -> Result<Grant, _>
//!        struct GrantCall { cluster, node: &NodeId, incarnation, realm, op: GrantOp { Get { chunk }, Put { sealed_length } }, now_ms: u64 (cluster time) }
//! receipt: struct Receipt { cluster, realm, node: NodeId, incarnation, scope: [u8; 16], epoch: Position, chunks: Vec<(ChunkId, u64)> }
//!        Receipt::encode(&self, key: &ReceiptKey) -> Result<Vec<u8>, _>
//!        struct UnverifiedReceipt: parse(bytes) -> Result, node() -> &NodeId, incarnation(), verify(self, key: &ReceiptKey) -> Result<Receipt, _>
//!        Receipt::check(&self, expected: &ReceiptExpectation { cluster, realm, incarnation, scope, min_epoch }) -> Result<(), _>;  Receipt::sealed_length_of(&ChunkId) -> Option<u64>
//! record: segment records (see the module)
//! ```

pub mod record;
