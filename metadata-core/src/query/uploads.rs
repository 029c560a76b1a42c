//! Uploads, for their owners.

use dfs_proto::v1;
use dfs_types::{DfsError, ErrorCode, UploadId};

use super::read::page_entries;
use crate::kv::KvRead;
use crate::rows;
use crate::rows::pages::{Entry, Pages};
use crate::rows::uploads::Uploads;

/// None: never begun, or forgotten. The row may be a tombstone: look at its state.
pub fn upload(kv: &dyn KvRead, id: UploadId) -> Result<Option<v1::UploadRow>, DfsError> {
    Ok(rows::get::<Uploads>(kv, &id)?)
}

/// An upload of this viewer (or any, for an administrator), open or committed.
/// Errors: `upload_not_found`.
pub fn upload_for(
    kv: &dyn KvRead,
    viewer: &v1::PrincipalRow,
    id: UploadId,
) -> Result<v1::UploadRow, DfsError> {
    upload(kv, id)?
        .filter(|row| viewer.role() == v1::Role::Admin || row.owner == viewer.principal_id)
        .filter(|row| row.state() != v1::UploadState::Ended)
        .ok_or_else(|| DfsError::new(ErrorCode::UploadNotFound, format!("there is no upload {id}")))
}

/// The chunks in the page of an open upload that holds chunk `index`: the index of the page's first
/// chunk and its entries. None: no page holds it yet. Looks at pages from the start by their lengths
/// (at most 4,096).
pub fn upload_entries(
    kv: &dyn KvRead,
    id: UploadId,
    index: u32,
) -> Result<Option<(u32, Vec<Entry>)>, DfsError> {
    let mut first = 0;
    while let Some(page) = rows::get::<Pages>(kv, &(id, first))? {
        let entries = page_entries(&page)?;
        let next = first + entries.len() as u32;
        if index < next || entries.is_empty() {
            return Ok(Some((first, entries)));
        }
        first = next;
    }
    Ok(None)
}
