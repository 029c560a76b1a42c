//! Who may call.

use dfs_proto::v1;
use dfs_types::{DfsError, PrincipalId};

use crate::kv::KvRead;
use crate::rows::principals::{Principals, PrincipalsByKey, PrincipalsByName};
use crate::rows::{self, Tail};

pub fn principal(kv: &dyn KvRead, id: PrincipalId) -> Result<Option<v1::PrincipalRow>, DfsError> {
    Ok(rows::get::<Principals>(kv, &id)?)
}

/// The principal whose API key's secret part has this BLAKE3-256 hash.
pub fn principal_by_key_hash(kv: &dyn KvRead, hash: &[u8; 32]) -> Result<Option<v1::PrincipalRow>, DfsError> {
    by_index(kv, rows::get::<PrincipalsByKey>(kv, hash)?)
}

pub fn principal_by_name(kv: &dyn KvRead, name: &str) -> Result<Option<v1::PrincipalRow>, DfsError> {
    by_index(kv, rows::get::<PrincipalsByName>(kv, &Tail(name.to_owned()))?)
}

fn by_index(kv: &dyn KvRead, index: Option<v1::IdRow>) -> Result<Option<v1::PrincipalRow>, DfsError> {
    match index {
        Some(row) => principal(kv, PrincipalId::from_slice(&row.id)?),
        None => Ok(None),
    }
}

/// Principals in order of id, behind `after`, at most `limit`.
pub fn principals_page(
    kv: &dyn KvRead,
    after: Option<PrincipalId>,
    limit: usize,
) -> Result<Vec<v1::PrincipalRow>, DfsError> {
    let page = rows::scan::<Principals>(kv, &(), after.as_ref(), limit)?;
    Ok(page.into_iter().map(|(_, row)| row).collect())
}
