//! Every way in which bytes can fail to be what they claim. One variant a cause, so that a test or a
//! log line names the check that fired; codes for callers come from one exhaustive map.

use dfs_types::{DfsError, ErrorCode};

#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    // Chunks.
    #[error("a chunk holds 1 to 67,108,864 bytes, not {length}")]
    PlainLength { length: u64 },
    #[error("no chunk has a sealed length of {length} bytes")]
    SealedLength { length: u64 },
    #[error("{found} sealed bytes where the manifest's length makes {expected}")]
    LengthMismatch { expected: u64, found: u64 },
    #[error("the sealed bytes do not hash to the chunk id")]
    ChunkIdMismatch,
    #[error("the chunk's header is not the one its manifest entry makes")]
    HeaderMismatch,
    #[error("the chunk commits to another key")]
    CommitmentMismatch,
    #[error("frame {index} fails its tag")]
    FrameForged { index: u32 },

    // Hash tree and ranges.
    #[error("the range lies outside the chunk")]
    RangeOutside,
    #[error("the groups asked for are not groups of the chunk")]
    GroupsOutside,
    #[error("{found} bytes were sent for groups of {expected}")]
    GroupBytes { expected: u64, found: u64 },
    #[error("the proof has {found} chaining values where {expected} are needed")]
    ProofLength { expected: u64, found: u64 },
    #[error("the groups and their proof do not lead to the chunk id")]
    ProofMismatch,

    // Master keys and wraps.
    #[error("line {line} of the master key file is not GENERATION:64-hex")]
    MasterKeyLine { line: u32 },
    #[error("the master key file names generation {generation} twice")]
    MasterKeyTwice { generation: u32 },
    #[error("the master key file has no key")]
    MasterKeyMissing,
    #[error("the master key of generation {generation} is not here")]
    MasterGenerationUnknown { generation: u32 },
    #[error("a wrapped key has 66 bytes, not {length}")]
    WrapLength { length: u64 },
    #[error("wrapped key record version {version} is not known")]
    WrapVersion { version: u8 },
    #[error("a wrapped key of kind {found} where kind {expected} is needed")]
    WrapKindMismatch { expected: u8, found: u8 },
    #[error("the key was wrapped under generation {found}, not {expected}")]
    WrapGenerationMismatch { expected: u32, found: u32 },
    #[error("the wrapped key does not open: changed, or bound to something else")]
    WrapForged,

    // Manifest pages.
    #[error("a page's clear list has {length} bytes, not 36 for each of 1 to 1,024 chunks")]
    ClearListLength { length: u64 },
    #[error("entry {index} of a page has a length no chunk has")]
    ClearEntryLength { index: u32 },
    #[error("{found} secrets for {expected} chunks")]
    PageCount { expected: u64, found: u64 },
    #[error("the page does not open: changed, or of another list, place or upload")]
    PageForged,

    // Version roots.
    #[error("the root does not open: changed, or of another file, bucket or upload")]
    RootForged,
    #[error("root version {version} is not known")]
    RootVersion { version: u8 },
    #[error("the root's fields do not read")]
    RootMalformed,
    #[error("a field of the root is over its limit")]
    RootTooLarge,

    // Grants.
    #[error("the grant does not read")]
    GrantMalformed,
    #[error("grant version {version} is not known")]
    GrantVersion { version: u8 },
    #[error("the grant lists more than its limits allow, or nothing")]
    GrantLimits,
    #[error("the grant's MAC is wrong")]
    GrantForged,
    #[error("the grant is for another cluster")]
    GrantCluster,
    #[error("the grant is for another node")]
    GrantNode,
    #[error("the grant is for another incarnation of this node")]
    GrantIncarnation,
    #[error("the grant is for another realm")]
    GrantRealm,
    #[error("the grant is for another operation")]
    GrantOperation,
    #[error("the grant does not list this chunk")]
    GrantChunk,
    #[error("the chunk is larger than all the grant allows")]
    GrantBytes,
    #[error("the grant expired at cluster time {expired_ms} ms, now is {now_ms} ms")]
    GrantExpired { expired_ms: u64, now_ms: u64 },

    // Receipts.
    #[error("the receipt does not read")]
    ReceiptMalformed,
    #[error("receipt version {version} is not known")]
    ReceiptVersion { version: u8 },
    #[error("the receipt lists more chunks than one may, or none")]
    ReceiptLimits,
    #[error("the receipt's MAC is wrong")]
    ReceiptForged,
    #[error("the receipt is of another cluster")]
    ReceiptCluster,
    #[error("the receipt is of another incarnation of its node")]
    ReceiptIncarnation,
    #[error("the receipt is of another realm")]
    ReceiptRealm,
    #[error("the receipt is of another upload or task")]
    ReceiptScope,
    #[error("the receipt's epoch {epoch} is below {needed}")]
    ReceiptEpoch { epoch: u64, needed: u64 },
    #[error("the receipt does not cover the chunk, or gives it another length")]
    ReceiptChunk,
}

impl FormatError {
    /// The code by which callers act on it. No `_`: a new variant must choose.
    pub fn code(&self) -> ErrorCode {
        use FormatError::*;
        match self {
            PlainLength { .. } | RangeOutside | GroupsOutside | PageCount { .. } | RootTooLarge => {
                ErrorCode::InvalidArgument
            }
            ClearListLength { .. } | ClearEntryLength { .. } => ErrorCode::ManifestMismatch,
            SealedLength { .. }
            | LengthMismatch { .. }
            | ChunkIdMismatch
            | HeaderMismatch
            | CommitmentMismatch
            | FrameForged { .. }
            | GroupBytes { .. }
            | ProofLength { .. }
            | ProofMismatch
            | WrapLength { .. }
            | WrapVersion { .. }
            | WrapKindMismatch { .. }
            | WrapForged
            | PageForged
            | RootForged
            | RootVersion { .. }
            | RootMalformed => ErrorCode::Integrity,
            MasterKeyLine { .. }
            | MasterKeyTwice { .. }
            | MasterKeyMissing
            | MasterGenerationUnknown { .. }
            | WrapGenerationMismatch { .. } => ErrorCode::FailedPrecondition,
            GrantMalformed
            | GrantVersion { .. }
            | GrantLimits
            | GrantForged
            | GrantCluster
            | GrantNode
            | GrantIncarnation
            | GrantRealm
            | GrantOperation
            | GrantChunk
            | GrantBytes
            | GrantExpired { .. } => ErrorCode::GrantRefused,
            ReceiptMalformed
            | ReceiptVersion { .. }
            | ReceiptLimits
            | ReceiptForged
            | ReceiptCluster
            | ReceiptIncarnation
            | ReceiptRealm
            | ReceiptScope
            | ReceiptEpoch { .. }
            | ReceiptChunk => ErrorCode::ReceiptRefused,
        }
    }
}

impl From<FormatError> for DfsError {
    fn from(error: FormatError) -> Self {
        DfsError::new(error.code(), error.to_string())
    }
}
