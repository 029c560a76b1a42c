//! Master keys, bucket keys, and wrapped keys: the 66-byte record in which every key is stored.
//!
//! Owner: the metadata service. Nothing unwrapped is ever proposed, stored or logged: wrap before
//! proposing, unwrap when answering. A record is bound to what it is the key of, so a record moved to
//! another place does not open there.

use std::collections::BTreeMap;

use dfs_types::ids::from_hex;
use dfs_types::{BucketId, Entropy, FileId, PrincipalId, RequestId, Secret, UploadId};
use zeroize::Zeroizing;

use crate::aead::{MESSAGE_OVERHEAD, expand, open_message, seal_message};
use crate::error::FormatError;

/// Bytes of a wrapped key.
pub const WRAP_BYTES: usize = PREFIX_BYTES + MESSAGE_OVERHEAD + 32;
/// version | kind | u32 generation: also the message's associated data.
const PREFIX_BYTES: usize = 6;
const WRAP_VERSION: u8 = 1;

const _: () = assert!(WRAP_BYTES == 66);

/// What a wrapped key is the key of. Numbers are in records and never reused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum WrapKind {
    /// V of one version, under its bucket's KEK.
    VersionKey = 1,
    /// A bucket's KEK, under the master key; its id is the bucket's.
    BucketKek = 2,
    /// S of a realm, under the master key; its id is the realm's.
    RealmSecret = 3,
    /// A chunk server's secret, under the master key; its id is the incarnation.
    NodeSecret = 4,
    /// S of an upload without a realm, under the master key; its id is the upload's.
    UploadSecret = 5,
}

impl WrapKind {
    fn word(self) -> &'static str {
        match self {
            WrapKind::VersionKey => "version-key",
            WrapKind::BucketKek => "bucket-kek",
            WrapKind::RealmSecret => "realm-secret",
            WrapKind::NodeSecret => "node-secret",
            WrapKind::UploadSecret => "upload-secret",
        }
    }
}

/// One generation of the master key.
#[derive(Clone)]
pub struct Master {
    pub generation: u32,
    pub secret: Secret<32>,
}

impl Master {
    /// Names the key without telling anything about it: committed, so that a server with another key
    /// of the same generation notices.
    pub fn id(&self) -> [u8; 16] {
        *expand::<16>(&self.secret, &[b"dfs master v1 id\0"]).expose()
    }
}

/// The secret of the API key of a principal that a request made: the same on every try of the request,
/// so that an answer that was lost can be given again. The request's id is random, of 16 bytes; whoever
/// has the master key can tell the secret, as it can unwrap every other.
pub fn api_key_secret(master: &Master, request: &RequestId, principal: &PrincipalId) -> Secret<32> {
    expand(&master.secret, &[b"dfs master v1 api-key\0", request.as_bytes(), principal.as_bytes()])
}

/// All generations of the master key that a server has. The highest wraps, all unwrap.
#[derive(Clone)]
pub struct Masters(BTreeMap<u32, Master>);

impl Masters {
    /// Reads a master key file: lines `GENERATION:64-hex`; blank lines and `#` lines are skipped.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let mut masters = BTreeMap::new();
        for (number, line) in (1u32..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (generation, secret) =
                parse_master_line(line).ok_or(FormatError::MasterKeyLine { line: number })?;
            if masters.insert(generation, Master { generation, secret }).is_some() {
                return Err(FormatError::MasterKeyTwice { generation });
            }
        }
        if masters.is_empty() { Err(FormatError::MasterKeyMissing) } else { Ok(Self(masters)) }
    }

    /// The key that wraps: the highest generation.
    pub fn current(&self) -> &Master {
        self.0.last_key_value().expect("there is at least one master key").1
    }

    pub fn get(&self, generation: u32) -> Result<&Master, FormatError> {
        self.0.get(&generation).ok_or(FormatError::MasterGenerationUnknown { generation })
    }

    /// From the oldest generation to the newest.
    pub fn iter(&self) -> impl Iterator<Item = &Master> {
        self.0.values()
    }
}

fn parse_master_line(line: &str) -> Option<(u32, Secret<32>)> {
    let (generation, digits) = line.split_once(':')?;
    let generation = generation.parse().ok().filter(|generation| *generation > 0)?;
    let key = Zeroizing::new(from_hex::<32>(digits.trim())?);
    Some((generation, Secret::new(*key)))
}

/// A line of a master key file, without the line end. For the one who writes the file, mode 0600.
pub fn master_line(generation: u32, secret: &Secret<32>) -> Zeroizing<String> {
    let digits = Zeroizing::new(dfs_types::ids::hex(secret.expose()));
    Zeroizing::new(format!("{generation}:{}", *digits))
}

/// A bucket's key-encryption key, unwrapped.
#[derive(Clone)]
pub struct Kek {
    pub generation: u32,
    pub secret: Secret<32>,
}

/// What a version's key and root are bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VersionBinding {
    pub bucket: BucketId,
    pub file: FileId,
    pub upload: UploadId,
}

impl VersionBinding {
    pub(crate) fn info<'a>(&'a self, label: &'a [u8]) -> [&'a [u8]; 4] {
        [label, self.bucket.as_bytes(), self.file.as_bytes(), self.upload.as_bytes()]
    }
}

/// A new random key.
pub fn random_secret(entropy: &dyn Entropy) -> Secret<32> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    entropy.fill(bytes.as_mut_slice());
    Secret::new(*bytes)
}

/// Wraps V under its bucket's KEK.
pub fn wrap_version_key(
    kek: &Kek,
    bound: &VersionBinding,
    key: &Secret<32>,
    entropy: &dyn Entropy,
) -> Vec<u8> {
    seal_record(&version_wrap_key(kek, bound), WrapKind::VersionKey, kek.generation, key, entropy)
}

pub fn unwrap_version_key(
    kek: &Kek,
    bound: &VersionBinding,
    record: &[u8],
) -> Result<Secret<32>, FormatError> {
    let generation = read_prefix(record, WrapKind::VersionKey)?;
    if generation != kek.generation {
        return Err(FormatError::WrapGenerationMismatch { expected: kek.generation, found: generation });
    }
    open_record(&version_wrap_key(kek, bound), record)
}

/// Wraps a key of `kind` and `id` (see [`WrapKind`]) under a master key.
///
/// # Panics
/// For `VersionKey`, which belongs under a KEK.
pub fn wrap(
    master: &Master,
    kind: WrapKind,
    id: &[u8; 16],
    secret: &Secret<32>,
    entropy: &dyn Entropy,
) -> Vec<u8> {
    assert!(kind != WrapKind::VersionKey, "version keys are wrapped under their bucket's KEK");
    seal_record(&master_wrap_key(master, kind, id), kind, master.generation, secret, entropy)
}

/// Unwraps a key of `kind` and `id` under whichever master key wrapped it.
pub fn unwrap(
    masters: &Masters,
    kind: WrapKind,
    id: &[u8; 16],
    record: &[u8],
) -> Result<Secret<32>, FormatError> {
    let master = masters.get(read_prefix(record, kind)?)?;
    open_record(&master_wrap_key(master, kind, id), record)
}

/// The generation of the key that wrapped a record.
pub fn wrap_generation(record: &[u8]) -> Result<u32, FormatError> {
    check_length(record)?;
    Ok(u32::from_be_bytes([record[2], record[3], record[4], record[5]]))
}

fn version_wrap_key(kek: &Kek, bound: &VersionBinding) -> Secret<32> {
    expand(&kek.secret, &bound.info(b"dfs wrap v1 version-key\0"))
}

fn master_wrap_key(master: &Master, kind: WrapKind, id: &[u8; 16]) -> Secret<32> {
    expand(&master.secret, &[b"dfs wrap v1 ", kind.word().as_bytes(), b"\0", id])
}

fn seal_record(
    key: &Secret<32>,
    kind: WrapKind,
    generation: u32,
    secret: &Secret<32>,
    entropy: &dyn Entropy,
) -> Vec<u8> {
    let mut record = Vec::with_capacity(WRAP_BYTES);
    record.extend_from_slice(&[WRAP_VERSION, kind as u8]);
    record.extend_from_slice(&generation.to_be_bytes());
    let message = seal_message(key, &record, secret.expose(), entropy);
    record.extend_from_slice(&message);
    record
}

fn open_record(key: &Secret<32>, record: &[u8]) -> Result<Secret<32>, FormatError> {
    let (prefix, message) = record.split_at(PREFIX_BYTES);
    let plain = open_message(key, prefix, message).ok_or(FormatError::WrapForged)?;
    Secret::from_slice(&plain).ok_or(FormatError::WrapForged)
}

/// The generation, once length, version and kind are as they should be.
fn read_prefix(record: &[u8], kind: WrapKind) -> Result<u32, FormatError> {
    let generation = wrap_generation(record)?;
    if record[0] != WRAP_VERSION {
        return Err(FormatError::WrapVersion { version: record[0] });
    }
    if record[1] != kind as u8 {
        return Err(FormatError::WrapKindMismatch { expected: kind as u8, found: record[1] });
    }
    Ok(generation)
}

fn check_length(record: &[u8]) -> Result<(), FormatError> {
    if record.len() == WRAP_BYTES {
        Ok(())
    } else {
        Err(FormatError::WrapLength { length: record.len() as u64 })
    }
}
