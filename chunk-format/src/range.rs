//! Reading a part of a chunk: which 64 KiB groups of the sealed bytes a plaintext range needs, what a
//! node sends for them, and how they are checked and opened.
//!
//! Because frames lie first and in place, frame `i` is group `i` wherever the frame is whole. The tags
//! and the trailer follow the last frame, so the groups that hold them are always sent too.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use dfs_types::ChunkId;
use dfs_types::limits::FRAME_BYTES;

use crate::aead::TAG_BYTES;
use crate::error::FormatError;
use crate::seal::{ChunkKeys, ContentSecret, check_plain_length, header, plain_length, sealed_length};
use crate::tree::{self, GROUP_BYTES, GroupHash, bytes_of_groups, group_count};

/// The first group that holds a byte behind the frames.
pub fn tail_first_group(sealed_length: u64) -> Result<u32, FormatError> {
    Ok((plain_length(sealed_length)? / GROUP_BYTES) as u32)
}

/// What a node sends, in this order: the `group_count` groups from `first_group` (0: to the end), then
/// those of the tags and trailer that are not among them. Either may be empty.
///
/// # Errors
/// `GroupsOutside` if the groups asked for are not all groups of such a chunk, `SealedLength` if no
/// chunk has that length.
pub fn sent_groups(
    sealed_length: u64,
    first_group: u32,
    group_count: u32,
) -> Result<[Range<u32>; 2], FormatError> {
    let tail = tail_first_group(sealed_length)?;
    let total = tree::group_count(sealed_length);
    let end = match group_count {
        0 => total,
        count => first_group.checked_add(count).ok_or(FormatError::GroupsOutside)?,
    };
    if first_group >= total || end > total {
        return Err(FormatError::GroupsOutside);
    }
    if first_group > tail {
        // Asked for a part of the tail only: it starts earlier and is sent as one.
        return Ok([tail..tail, tail..total]);
    }
    Ok([first_group..end, tail.max(end)..total])
}

/// The groups that a plaintext range needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RangePlan {
    pub first_group: u32,
    pub group_count: u32,
    pub tail_first_group: u32,
    plain_length: u64,
    offset: u64,
    length: u64,
}

impl RangePlan {
    /// The plan for `length >= 1` bytes at `offset` of a chunk of `plain_length` bytes.
    pub fn new(plain_length: u64, offset: u64, length: u64) -> Result<Self, FormatError> {
        check_plain_length(plain_length)?;
        let end = offset.checked_add(length).ok_or(FormatError::RangeOutside)?;
        if length == 0 || end > plain_length {
            return Err(FormatError::RangeOutside);
        }
        let first_group = (offset / GROUP_BYTES) as u32;
        let group_count = end.div_ceil(GROUP_BYTES) as u32 - first_group;
        let tail_first_group = (plain_length / GROUP_BYTES) as u32;
        Ok(Self { first_group, group_count, tail_first_group, plain_length, offset, length })
    }

    pub fn sealed_length(&self) -> u64 {
        sealed_length(self.plain_length)
    }

    /// The groups a node sends, in order.
    pub fn sent(&self) -> [Range<u32>; 2] {
        let end = self.first_group + self.group_count;
        [self.first_group..end, self.tail_first_group.max(end)..group_count(self.sealed_length())]
    }

    /// The bytes of those groups.
    pub fn sent_bytes(&self) -> u64 {
        self.sent().iter().map(|range| bytes_of_groups(self.sealed_length(), range)).sum()
    }
}

/// Opens the range of `plan` from the bytes of its groups, where they lie. Every group is checked
/// against the chunk id before any of it is opened, then every frame against its tag.
pub fn open_range(
    secret: &ContentSecret,
    plan: &RangePlan,
    id: &ChunkId,
    mut sent: BytesMut,
    proof: &[GroupHash],
) -> Result<Bytes, FormatError> {
    let ranges = plan.sent();
    tree::verify(plan.sealed_length(), &ranges, &sent, proof, id)?;

    let keys = ChunkKeys::derive(secret, header(plan.plain_length));
    let frames_start = u64::from(plan.first_group) * GROUP_BYTES;
    let frames_end = (u64::from(ranges[0].end) * GROUP_BYTES).min(plan.plain_length);
    let mut rest = sent.split_off((frames_end - frames_start) as usize);
    // `rest` now begins with what the range's last group and the tail groups hold behind the frames
    // wanted: maybe frames that only come along with the tail. The tail proper is at the end.
    let tail_bytes = (plan.sealed_length() - plan.plain_length) as usize;
    rest.advance(rest.len() - tail_bytes);
    let tags = keys.check_tail(&rest)?;
    let wanted = plan.first_group as usize..ranges[0].end as usize;
    let tags = &tags[wanted.start..wanted.end.min(tags.len())];
    keys.open_frames(plan.plain_length, plan.first_group, &mut sent, tags)?;

    let skip = (plan.offset - frames_start) as usize;
    let opened = sent.freeze();
    Ok(opened.slice(skip..skip + plan.length as usize))
}

const _: () = assert!(FRAME_BYTES as u64 == GROUP_BYTES);
const _: () = assert!(TAG_BYTES == 16);
