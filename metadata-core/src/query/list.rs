//! Lists of a bucket's keys, with prefix and folding. Each call examines a bounded number of rows and
//! hands back a cursor; folded prefixes are jumped over by seeking, not walked through.

use dfs_proto::v1;
use dfs_types::ids::hex;
use dfs_types::limits::{MAX_CURSOR_BYTES, MAX_KEY_BYTES, MAX_LIST_ENTRIES, MAX_LIST_ROWS_EXAMINED};
use dfs_types::{BucketId, DfsError, ErrorCode};

use crate::kv::KvRead;
use crate::rows::heads::Heads;
use crate::rows::{self, Part, Tail};

/// First byte of a cursor, before the key bytes at which to go on.
const CURSOR_FORMAT: u8 = 1;
const _: () = assert!(2 * (MAX_KEY_BYTES + 1) <= MAX_CURSOR_BYTES);

#[derive(Clone, Debug, Default)]
pub struct ListParams<'a> {
    pub prefix: &'a str,
    /// Empty: no folding.
    pub delimiter: &'a str,
    /// Opaque, from the page before; empty: from the start.
    pub cursor: &'a str,
    /// 1..=1,000; 0 means 1,000.
    pub limit: u32,
    pub include_deleted: bool,
    /// Only keys behind this one, in byte order; empty: all.
    pub start_after: &'a str,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Listed {
    File { key: String, head: v1::HeadRow },
    CommonPrefix(String),
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListPage {
    pub entries: Vec<Listed>,
    /// Empty: the end. A page may be empty and yet have a cursor.
    pub next_cursor: String,
    /// Rows looked at, for metrics and tests.
    pub examined: u32,
}

/// One page. Errors: `invalid_argument` for a malformed cursor or too long a prefix or delimiter,
/// `limit_exceeded` for a limit above 1,000.
pub fn list(kv: &dyn KvRead, bucket: BucketId, params: &ListParams<'_>) -> Result<ListPage, DfsError> {
    list_bounded(kv, bucket, params, MAX_LIST_ROWS_EXAMINED)
}

fn list_bounded(
    kv: &dyn KvRead,
    bucket: BucketId,
    params: &ListParams<'_>,
    bound: u32,
) -> Result<ListPage, DfsError> {
    if params.prefix.len() > MAX_KEY_BYTES || params.delimiter.len() > MAX_KEY_BYTES {
        return Err(DfsError::new(
            ErrorCode::InvalidArgument,
            "prefix or delimiter is longer than a key can be",
        ));
    }
    if params.limit > MAX_LIST_ENTRIES {
        let message = format!("limit is {}, at most {MAX_LIST_ENTRIES} are allowed", params.limit);
        return Err(DfsError::new(ErrorCode::LimitExceeded, message));
    }
    let limit = if params.limit == 0 { MAX_LIST_ENTRIES } else { params.limit } as usize;
    let (mut from, to) = rows::prefix_range::<Heads>(&(bucket, Tail(params.prefix.to_owned())));
    let key_start = from.len() - params.prefix.len();
    if !params.cursor.is_empty() {
        let mut start = from[..key_start].to_vec();
        start.extend_from_slice(&read_cursor(params.cursor)?);
        // A cursor cannot leave the bucket or the prefix it is used with.
        from = from.max(start);
    }

    if !params.start_after.is_empty() {
        if params.start_after.len() > MAX_KEY_BYTES {
            return Err(DfsError::new(ErrorCode::InvalidArgument, "start_after is longer than a key can be"));
        }
        let mut start = from[..key_start].to_vec();
        start.extend_from_slice(params.start_after.as_bytes());
        start.push(0);
        from = from.max(start);
    }

    let mut page = ListPage::default();
    while from < to {
        let left = bound - page.examined;
        if left == 0 || page.entries.len() == limit {
            // Without a row behind it, a cursor would promise a page that is not there.
            if kv.scan(rows_space(), &from, &to, 1).map_err(rows::RowError::from)?.is_empty() {
                break;
            }
            page.next_cursor = write_cursor(&from[key_start..]);
            break;
        }
        // Small batches, since a fold throws away what was read behind it.
        let batch = left.min(if params.delimiter.is_empty() { 256 } else { 32 }) as usize;
        let found = rows::scan_range::<Heads>(kv, &from, &to, batch)?;
        if found.is_empty() {
            break;
        }
        let exhausted = found.len() < batch;
        let mut folded = false;
        for ((_, Tail(key)), head) in found {
            if page.entries.len() == limit {
                break;
            }
            page.examined += 1;
            from = rows::key_bytes::<Heads>(&(bucket, Tail(key.clone())));
            from.push(0);
            if head.deleted && !params.include_deleted {
                continue;
            }
            if let Some(common) = fold(&key, params) {
                from = rows::successor(&rows::key_bytes::<Heads>(&(bucket, Tail(common.to_owned()))));
                page.entries.push(Listed::CommonPrefix(common.to_owned()));
                folded = true;
                break;
            }
            page.entries.push(Listed::File { key, head });
        }
        if exhausted && !folded && page.entries.len() < limit {
            break;
        }
    }
    Ok(page)
}

fn rows_space() -> crate::kv::Space {
    <Heads as rows::Row>::SPACE
}

/// The common prefix this key folds into, if any.
fn fold<'k>(key: &'k str, params: &ListParams<'_>) -> Option<&'k str> {
    if params.delimiter.is_empty() {
        return None;
    }
    let rest = key.get(params.prefix.len()..)?;
    let at = rest.find(params.delimiter)?;
    Some(&key[..params.prefix.len() + at + params.delimiter.len()])
}

fn write_cursor(key: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(1 + key.len());
    CURSOR_FORMAT.write(&mut bytes);
    bytes.extend_from_slice(key);
    hex(&bytes)
}

fn read_cursor(text: &str) -> Result<Vec<u8>, DfsError> {
    let malformed = || DfsError::new(ErrorCode::InvalidArgument, "the cursor is not one of ours");
    if text.len() > MAX_CURSOR_BYTES || !text.len().is_multiple_of(2) || !text.is_ascii() {
        return Err(malformed());
    }
    let bytes: Option<Vec<u8>> =
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect();
    match bytes.ok_or_else(malformed)?.split_first() {
        Some((&CURSOR_FORMAT, key)) => Ok(key.to_vec()),
        _ => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{MemoryKv, Overlay};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const BUCKET: BucketId = BucketId([1; 16]);

    fn store(keys: &BTreeSet<String>, deleted: &BTreeSet<String>) -> MemoryKv {
        let mut kv = MemoryKv::new();
        let base = MemoryKv::new();
        let mut tx = Overlay::new(&base);
        for key in keys {
            let head = v1::HeadRow { deleted: deleted.contains(key), ..Default::default() };
            rows::put::<Heads>(&mut tx, &(BUCKET, Tail(key.clone())), &head);
        }
        // Another bucket's keys must never show.
        rows::put::<Heads>(&mut tx, &(BucketId([2; 16]), Tail("zz".into())), &v1::HeadRow::default());
        kv.apply(tx.into_writes());
        kv
    }

    fn words(page: &ListPage) -> Vec<String> {
        let word = |entry: &Listed| match entry {
            Listed::File { key, .. } => key.clone(),
            Listed::CommonPrefix(prefix) => format!("{prefix}*"),
        };
        page.entries.iter().map(word).collect()
    }

    #[test]
    fn folding_seeks_over_a_million_keys_in_a_few_rows() {
        let mut keys: BTreeSet<String> = (0..5000).map(|n| format!("big/{n:05}")).collect();
        keys.insert("zoo".into());
        let kv = store(&keys, &BTreeSet::new());
        let page = list(&kv, BUCKET, &ListParams { delimiter: "/", ..Default::default() }).unwrap();
        assert_eq!(words(&page), ["big/*", "zoo"]);
        assert!(page.examined <= 3, "examined {}", page.examined);
    }

    #[test]
    fn start_after_leaves_out_what_is_before_it_and_stays_inside_the_prefix() {
        let keys = ["a/1", "a/2", "a/2/x", "b"].map(String::from).into_iter().collect();
        let kv = store(&keys, &BTreeSet::new());
        let after = |prefix, delimiter, start_after| {
            let params = ListParams { prefix, delimiter, start_after, ..Default::default() };
            words(&list(&kv, BUCKET, &params).unwrap())
        };
        assert_eq!(after("", "", "a/2"), ["a/2/x", "b"]);
        assert_eq!(after("a/", "", "a/1"), ["a/2", "a/2/x"]);
        assert_eq!(after("a/", "", "0"), ["a/1", "a/2", "a/2/x"]);
        assert_eq!(after("", "/", "a/1"), ["a/*", "b"]);
        assert!(after("a/", "", "zz").is_empty());
        let long = "k".repeat(MAX_KEY_BYTES + 1);
        let params = ListParams { start_after: &long, ..Default::default() };
        assert_eq!(list(&kv, BUCKET, &params).unwrap_err().code, ErrorCode::InvalidArgument);
    }

    #[test]
    fn a_page_of_deleted_names_is_empty_with_a_cursor() {
        let keys: BTreeSet<String> = (0..50).map(|n| format!("{n:03}")).collect();
        let kv = store(&keys, &keys);
        let page = list_bounded(&kv, BUCKET, &ListParams::default(), 20).unwrap();
        assert!(page.entries.is_empty() && !page.next_cursor.is_empty());
        assert_eq!(page.examined, 20);
    }

    #[test]
    fn cursors_of_others_are_refused() {
        let kv = store(&BTreeSet::new(), &BTreeSet::new());
        for cursor in ["zz", "0", "02aa", "é1", &"01".repeat(2000)] {
            let error = list(&kv, BUCKET, &ListParams { cursor, ..Default::default() }).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidArgument, "{cursor:?}");
        }
    }

    proptest! {
        /// Pages put together are the sorted, filtered, folded set of keys, whatever the page size.
        #[test]
        fn pages_add_up(
            keys in prop::collection::btree_set("[ab/é]{1,5}", 0..40),
            gone in prop::collection::btree_set("[ab/é]{1,5}", 0..10),
            prefix in "[ab/]{0,2}", delimiter in "(/|a/|)", limit in 1u32..5, bound in 1u32..9,
        ) {
            let kv = store(&keys, &gone);
            let mut expected: Vec<String> = Vec::new();
            for key in keys.iter().filter(|key| !gone.contains(*key) && key.starts_with(&prefix)) {
                let at = if delimiter.is_empty() { None } else { key[prefix.len()..].find(&delimiter) };
                let word = match at {
                    Some(at) => format!("{}*", &key[..prefix.len() + at + delimiter.len()]),
                    None => key.clone(),
                };
                if expected.last() != Some(&word) {
                    expected.push(word);
                }
            }
            let mut found = Vec::new();
            let mut cursor = String::new();
            for _ in 0..200 {
                let params = ListParams { prefix: &prefix, delimiter: &delimiter, cursor: &cursor, limit, ..Default::default() };
                let page = list_bounded(&kv, BUCKET, &params, bound).unwrap();
                prop_assert!(page.examined <= bound && page.entries.len() <= limit as usize);
                found.extend(words(&page));
                cursor = page.next_cursor;
                if cursor.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, expected);
        }
    }
}
