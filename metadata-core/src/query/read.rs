//! What a reader of a version needs: the chunks that hold a range, the pages with their sealed secrets,
//! or the inline content.

use dfs_proto::v1;
use dfs_types::limits::MAX_PLAN_CHUNKS;
use dfs_types::{DfsError, ErrorCode, RealmId, UploadId};

use super::chunks::{ChunkView, view_chunk};
use crate::kv::KvRead;
use crate::rows::inline::Inlines;
use crate::rows::pages::{self, PageStarts, Pages};
use crate::rows::versions::Newest;
use crate::rows::{self, ChunkKey, Kind, RowError};
use crate::rules::roster::Roster;

/// The chunks of a range and the pages they stand in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    pub chunks: Vec<WindowChunk>,
    /// (index of its first chunk, page), in order: at most as many as the chunks need.
    pub pages: Vec<(u32, v1::PageRow)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WindowChunk {
    /// In the file.
    pub index: u32,
    /// Which of `Window::pages` lists it, and at which place.
    pub page: usize,
    pub place: usize,
    /// Of its first plaintext byte in the file.
    pub offset: u64,
    /// Plaintext bytes.
    pub size: u64,
    pub chunk: ChunkView,
}

/// The sealed content of an inline version. Errors: `internal` if the version is not inline.
pub fn inline(kv: &dyn KvRead, version: &v1::VersionRow) -> Result<v1::InlineRow, DfsError> {
    Ok(rows::must_get::<Inlines>(kv, &manifest_id(version)?)?)
}

/// The chunks that hold `[offset, offset + length)` of a version kept in pages, in order, at most
/// `max_chunks` (0 or more than 64: 64). `length` 0: to the end. Errors: `invalid_argument` for an
/// offset beyond the end.
pub fn window(
    kv: &dyn KvRead,
    version: &v1::VersionRow,
    offset: u64,
    length: u64,
    max_chunks: usize,
) -> Result<Window, DfsError> {
    if offset > version.size {
        let message = format!("offset {offset} is beyond the end, the file has {} bytes", version.size);
        return Err(DfsError::new(ErrorCode::InvalidArgument, message));
    }
    let end = if length == 0 { version.size } else { offset.saturating_add(length).min(version.size) };
    let max = if max_chunks == 0 { MAX_PLAN_CHUNKS } else { max_chunks.min(MAX_PLAN_CHUNKS) };
    let mut window = Window::default();
    if version.inline || offset == end {
        return Ok(window);
    }
    let manifest = manifest_id(version)?;
    let realm = RealmId::from_slice(&version.realm_id)?;
    let mut roster = Roster::default();
    let mut first = page_at(kv, manifest, offset)?;
    while first < version.chunks && window.chunks.len() < max {
        let page = rows::must_get::<Pages>(kv, &(manifest, first))?;
        let entries = page_entries(&page)?;
        let next = first + entries.len() as u32;
        let mut start = page.offset;
        for (place, entry) in entries.iter().enumerate() {
            let size = u64::from(entry.plain);
            if start >= end || window.chunks.len() == max {
                break;
            }
            if start + size > offset {
                let key = ChunkKey { realm, chunk: entry.chunk };
                window.chunks.push(WindowChunk {
                    index: first + place as u32,
                    page: window.pages.len(),
                    place,
                    offset: start,
                    size,
                    chunk: view_chunk(kv, &mut roster, key)?,
                });
            }
            start += size;
        }
        let done = start >= end || entries.is_empty();
        window.pages.push((first, page));
        if done {
            break;
        }
        first = next;
    }
    Ok(window)
}

pub(super) fn manifest_id(version: &v1::VersionRow) -> Result<UploadId, DfsError> {
    Ok(UploadId::from_slice(&version.manifest_id)
        .map_err(|_| RowError::corrupt(Kind::Version, "no manifest id"))?)
}

pub(super) fn page_entries(page: &v1::PageRow) -> Result<Vec<pages::Entry>, RowError> {
    pages::entries(&page.clear).ok_or_else(|| RowError::corrupt(Kind::Page, "clear list length"))
}

/// Index of the first chunk of the page that holds `offset`.
fn page_at(kv: &dyn KvRead, manifest: UploadId, offset: u64) -> Result<u32, RowError> {
    let from = rows::key_bytes::<PageStarts>(&(manifest, Newest(offset)));
    let (_, to) = rows::prefix_range::<PageStarts>(&manifest);
    match rows::scan_range::<PageStarts>(kv, &from, &to, 1)?.pop() {
        Some((_, row)) => Ok(row.position as u32),
        None => Err(RowError::corrupt(Kind::PageStart, "no page holds the offset")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query;
    use crate::testing::{CHUNK_BYTES, World, begin, commit, page};

    /// Three pages of 2, 1 and 3 chunks of 1,000 bytes.
    fn file() -> (World, v1::VersionRow) {
        let (mut world, ann, bucket) = World::with_nodes(&["a", "b", "c"], 3);
        let c = begin(&world, ann, &bucket, "a", 3);
        let upload = world.ok(ann, c).created_id;
        let at = [world.at("n1"), world.at("n2"), world.at("n3")];
        world.ok(ann, page(&upload, 0, &[1, 2], &at));
        world.ok(ann, page(&upload, 2, &[3], &at[..2]));
        world.ok(ann, page(&upload, 3, &[4, 1, 5], &at));
        let id = UploadId::from_slice(&upload).unwrap();
        let (first, entries) = query::upload_entries(&world.kv, id, 4).unwrap().unwrap();
        assert_eq!((first, entries.len()), (3, 3));
        assert_eq!(query::upload_entries(&world.kv, id, 6).unwrap(), None);
        world.ok(ann, commit(&upload, 6));
        let path = "/photos/a".parse().unwrap();
        let view = query::find_by_path(&world.kv, &world.row(ann), &path, None).unwrap();
        (world, view.row.unwrap())
    }

    fn shown(window: &Window) -> Vec<(u32, u64, u8)> {
        let show = |chunk: &WindowChunk| (chunk.index, chunk.offset, chunk.chunk.key.chunk.0[0]);
        window.chunks.iter().map(show).collect()
    }

    #[test]
    fn windows_hold_exactly_what_a_range_needs() {
        let (world, row) = file();
        let window = |offset, length, max| super::window(&world.kv, &row, offset, length, max).unwrap();
        let all = window(0, 0, 0);
        assert_eq!(
            shown(&all),
            [(0, 0, 1), (1, 1000, 2), (2, 2000, 3), (3, 3000, 4), (4, 4000, 1), (5, 5000, 5)]
        );
        assert_eq!(all.pages.iter().map(|(first, _)| *first).collect::<Vec<_>>(), [0, 2, 3]);
        assert_eq!((all.chunks[4].page, all.chunks[4].place), (2, 1));
        assert_eq!(shown(&window(1999, 2, 0)), [(1, 1000, 2), (2, 2000, 3)]);
        assert_eq!(shown(&window(2000, 1, 0)), [(2, 2000, 3)]);
        assert_eq!(shown(&window(5999, 1, 0)), [(5, 5000, 5)]);
        assert_eq!(shown(&window(2500, 0, 2)), [(2, 2000, 3), (3, 3000, 4)]);
        assert_eq!(shown(&window(6000, 0, 0)), []);
        let error = super::window(&world.kv, &row, 6001, 1, 0).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArgument);
        assert_eq!(row.size, 6 * u64::from(CHUNK_BYTES));
        let copies = &all.chunks[0].chunk.copies;
        assert_eq!(
            copies.iter().map(|copy| copy.holder.address.as_str()).collect::<Vec<_>>(),
            ["n1:3001", "n2:3001", "n3:3001"]
        );
    }

    #[test]
    fn the_worst_chunk_is_found_page_by_page() {
        let (world, row) = file();
        let mut next = Some(0);
        let mut seen = Vec::new();
        while let Some(first) = next {
            let step = query::worst_chunk(&world.kv, &row, first).unwrap();
            let (index, view) = step.worst.unwrap();
            seen.push((index, view.present, view.wanted));
            next = step.next_index;
        }
        assert_eq!(seen, [(0, 3, 3), (2, 2, 3), (3, 3, 3)]);
        let found = query::chunk_of_version(&world.kv, &row, crate::testing::chunk_id(5)).unwrap().unwrap();
        assert_eq!(found.0, 5);
        assert_eq!(query::chunk_of_version(&world.kv, &row, crate::testing::chunk_id(9)).unwrap(), None);
    }
}
