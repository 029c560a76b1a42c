//! Buckets, as far as the caller may see them. One that may not be seen answers like none.

use dfs_proto::v1;
use dfs_types::limits::MAX_LIST_ROWS_EXAMINED;
use dfs_types::{BucketId, DfsError, ErrorCode};

use crate::kv::KvRead;
use crate::rows::buckets::{Buckets, BucketsByName};
use crate::rows::{self, Tail};

/// Owners see their buckets, administrators all of them.
pub fn may_see(viewer: &v1::PrincipalRow, bucket: &v1::BucketRow) -> bool {
    viewer.role() == v1::Role::Admin || viewer.principal_id == bucket.owner
}

pub fn bucket_by_id(kv: &dyn KvRead, id: BucketId) -> Result<Option<v1::BucketRow>, DfsError> {
    Ok(rows::get::<Buckets>(kv, &id)?)
}

/// The bucket of this name. Errors: `bucket_not_found`.
pub fn bucket_for(kv: &dyn KvRead, viewer: &v1::PrincipalRow, name: &str) -> Result<v1::BucketRow, DfsError> {
    if let Some(index) = rows::get::<BucketsByName>(kv, &Tail(name.to_owned()))? {
        let bucket = rows::must_get::<Buckets>(kv, &BucketId::from_slice(&index.id)?)?;
        if may_see(viewer, &bucket) {
            return Ok(bucket);
        }
    }
    Err(DfsError::new(ErrorCode::BucketNotFound, format!("there is no bucket {name:?}")))
}

/// Some buckets in order of name.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketPage {
    pub buckets: Vec<v1::BucketRow>,
    /// Ask for those behind this name; None: the end.
    pub next_after: Option<String>,
}

/// Buckets the viewer may see, behind the name `after`, at most `limit`; a page may be empty and yet
/// have a next one, because others' buckets count as rows examined.
pub fn buckets_page(
    kv: &dyn KvRead,
    viewer: &v1::PrincipalRow,
    after: Option<&str>,
    limit: usize,
) -> Result<BucketPage, DfsError> {
    let examine = MAX_LIST_ROWS_EXAMINED as usize;
    let after = after.map(|name| Tail(name.to_owned()));
    let names = rows::scan::<BucketsByName>(kv, &(), after.as_ref(), examine)?;
    let complete = names.len() < examine;
    let last = names.last().map(|(name, _)| name.0.clone());
    let mut page = BucketPage { buckets: Vec::new(), next_after: None };
    for (_, index) in names {
        let bucket = rows::must_get::<Buckets>(kv, &BucketId::from_slice(&index.id)?)?;
        if may_see(viewer, &bucket) {
            if page.buckets.len() == limit {
                page.next_after = page.buckets.last().map(|bucket| bucket.name.clone());
                return Ok(page);
            }
            page.buckets.push(bucket);
        }
    }
    if !complete {
        page.next_after = last;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{World, bucket};

    #[test]
    fn pages_of_ones_own_buckets() {
        let mut world = World::new();
        let (ann, bob) = (world.user("ann"), world.user("bob"));
        for n in 0..6 {
            world.ok(if n % 2 == 0 { ann } else { bob }, bucket(&format!("bucket-{n}"), 3, 0));
        }
        let page = |who, after: Option<&str>, limit| {
            let page = buckets_page(&world.kv, &world.row(who), after, limit).unwrap();
            (page.buckets.into_iter().map(|bucket| bucket.name).collect::<Vec<_>>(), page.next_after)
        };
        let (names, next) = page(ann, None, 2);
        assert_eq!((names, next.as_deref()), (vec!["bucket-0".into(), "bucket-2".into()], Some("bucket-2")));
        assert_eq!(page(ann, next.as_deref(), 2), (vec!["bucket-4".to_owned()], None));
        assert_eq!(page(world.admin, None, 9).0.len(), 6);
    }
}
