//! What must hold after every entry, written once. Used by tests after every step and by an offline
//! check of a state (fsck). Reads everything: not for a serving member.

use std::collections::{BTreeMap, BTreeSet};

use dfs_proto::v1;
use dfs_types::{BucketId, FileId, RealmId, UploadId};

use crate::kv::KvRead;
use crate::query;
use crate::rows::buckets::{Buckets, BucketsByName};
use crate::rows::chunks::Chunks;
use crate::rows::deficits::Deficits;
use crate::rows::dropping::Dropping;
use crate::rows::expiry::Expiries;
use crate::rows::files::Files;
use crate::rows::heads::Heads;
use crate::rows::inline::Inlines;
use crate::rows::manifests::Manifests;
use crate::rows::node_chunks::NodeChunks;
use crate::rows::nodes::Nodes;
use crate::rows::pages::{self, PageStarts, Pages};
use crate::rows::principals::{Principals, PrincipalsByKey, PrincipalsByName};
use crate::rows::purged::{PendingPurges, Purged, PurgedByPosition};
use crate::rows::requests::{Requests, RequestsByPosition};
use crate::rows::seats::{Seats, SeatsByIncarnation};
use crate::rows::trash::Trash;
use crate::rows::uploads::{UploadTombstones, Uploads, UploadsByActivity};
use crate::rows::versions::{Newest, Versions};
use crate::rows::{self, ChunkKey, Pair, Row, Tail};
use crate::rules::chunks::{deficit_mark, wanted};
use crate::rules::roster::Roster;

type Found = Result<(), String>;

/// Checks every invariant; the error names the first that does not hold.
pub fn check_invariants(kv: &dyn KvRead) -> Result<(), String> {
    let counters = query::counters(kv).map_err(|error| error.to_string())?;
    identities(kv, &counters)?;
    names(kv, &counters)?;
    references(kv, &counters)?;
    copies(kv, &counters)?;
    purges(kv, &counters)?;
    indices(kv, &counters)
}

fn all<R: Row>(kv: &dyn KvRead) -> Result<Vec<Pair<R>>, String> {
    rows::scan::<R>(kv, &(), None, usize::MAX).map_err(|error| error.to_string())
}

fn one<R: Row>(kv: &dyn KvRead, key: &R::Key) -> Result<Option<R::Value>, String> {
    rows::get::<R>(kv, key).map_err(|error| error.to_string())
}

fn hold(condition: bool, what: impl FnOnce() -> String) -> Found {
    if condition { Ok(()) } else { Err(what()) }
}

fn same(what: &str, counter: u64, found: usize) -> Found {
    hold(counter == found as u64, || format!("counter {what} says {counter}, there are {found}"))
}

/// Principals, buckets, nodes and their indices.
fn identities(kv: &dyn KvRead, counters: &v1::CountersRow) -> Found {
    let principals = all::<Principals>(kv)?;
    same("principals", counters.principals, principals.len())?;
    same("principals", counters.principals, all::<PrincipalsByName>(kv)?.len())?;
    same("principals", counters.principals, all::<PrincipalsByKey>(kv)?.len())?;
    for (id, row) in &principals {
        let index = one::<PrincipalsByName>(kv, &Tail(row.name.clone()))?;
        hold(index.is_some_and(|index| index.id.as_ref() == id.as_bytes()), || format!("name of {id}"))?;
    }
    let buckets = all::<Buckets>(kv)?;
    same("buckets", counters.buckets, buckets.len())?;
    same("buckets", counters.buckets, all::<BucketsByName>(kv)?.len())?;
    let seats = all::<Seats>(kv)?;
    hold(seats.len() == all::<SeatsByIncarnation>(kv)?.len(), || "seats by incarnation".into())?;
    for (_, node) in all::<Nodes>(kv)? {
        let seat = one::<Seats>(kv, &node.seat)?;
        let right = match node.state() {
            v1::NodeState::Removed => seat.is_none_or(|seat| seat.retired),
            _ => seat.is_some_and(|seat| !seat.retired && seat.incarnation == node.incarnation),
        };
        hold(right, || format!("seat of node {}", node.node_id))?;
    }
    Ok(())
}

/// Heads, files, versions, expiry.
fn names(kv: &dyn KvRead, counters: &v1::CountersRow) -> Found {
    let heads = all::<Heads>(kv)?;
    same("files", counters.files, heads.iter().filter(|(_, head)| !head.deleted).count())?;
    let mut named = BTreeSet::new();
    for ((bucket, Tail(key)), head) in &heads {
        let file_id = FileId::from_slice(&head.file_id).map_err(|error| error.to_string())?;
        hold(one::<Buckets>(kv, bucket)?.is_some(), || format!("head {key:?} is in no bucket"))?;
        let file = one::<Files>(kv, &file_id)?.ok_or_else(|| format!("head {key:?} names no file"))?;
        let right = file.bucket_id.as_ref() == bucket.as_bytes() && file.key == *key;
        hold(right && !file.detached && !file.purged, || format!("file {file_id} is not at {key:?}"))?;
        named.insert(file_id);
        if !head.deleted {
            let row = one::<Versions>(kv, &(file_id, Newest(head.version)))?;
            let row = row.ok_or_else(|| format!("head {key:?} names no version"))?;
            let expected = crate::rules::versions::head_for(file_id, &file, head.version, &row);
            hold(expected == *head && row.expires_ms == 0, || {
                format!("head {key:?} and its version differ")
            })?;
        }
    }
    let mut versions: BTreeMap<FileId, u64> = BTreeMap::new();
    let mut expiring = 0;
    let rows = all::<Versions>(kv)?;
    same("versions", counters.versions, rows.len())?;
    for ((file_id, Newest(version)), row) in &rows {
        *versions.entry(*file_id).or_default() += 1;
        let file = one::<Files>(kv, file_id)?.ok_or_else(|| format!("version of no file {file_id}"))?;
        if row.expires_ms != 0 {
            expiring += 1;
            let index = one::<Expiries>(kv, &(row.expires_ms, *file_id, *version))?;
            hold(index.is_some(), || format!("version {version} of {file_id} would never expire"))?;
        } else if !file.purged {
            let bucket = BucketId::from_slice(&file.bucket_id).map_err(|error| error.to_string())?;
            let head = one::<Heads>(kv, &(bucket, Tail(file.key.clone())))?;
            let current = head.is_some_and(|head| !head.deleted && head.version == *version);
            hold(current && !file.detached, || {
                format!("version {version} of {file_id} is neither current nor expiring")
            })?;
        }
    }
    hold(all::<Expiries>(kv)?.len() == expiring, || "expiry rows of no version".into())?;
    let dropping = all::<Dropping>(kv)?;
    for (file_id, file) in all::<Files>(kv)? {
        let count = versions.get(&file_id).copied().unwrap_or(0);
        hold(count == file.versions && count > 0, || {
            format!("file {file_id} says {} versions, has {count}", file.versions)
        })?;
        if file.purged {
            let queued = dropping.iter().any(|(_, row)| row.id.as_ref() == file_id.as_bytes());
            hold(queued, || format!("purged file {file_id} is not queued"))?;
        } else {
            hold(file.detached != named.contains(&file_id), || format!("file {file_id} has no name"))?;
        }
    }
    Ok(())
}

/// Manifests, uploads, pages, and the references chunks have through them.
fn references(kv: &dyn KvRead, counters: &v1::CountersRow) -> Found {
    // Who owns a set of pages: its realm, target, and the first chunk still referenced.
    let mut owners: BTreeMap<UploadId, (v1::UploadRow, u32)> = BTreeMap::new();
    let own = |realm: &[u8], target: u32| v1::UploadRow {
        realm_id: realm.to_vec().into(),
        policy: Some(v1::Policy { target, min_ack: 1 }),
        ..Default::default()
    };
    let mut shared: BTreeMap<UploadId, u64> = BTreeMap::new();
    for (_, version) in all::<Versions>(kv)? {
        if let Ok(id) = UploadId::from_slice(&version.manifest_id) {
            *shared.entry(id).or_default() += 1;
        }
    }
    let manifests = all::<Manifests>(kv)?;
    same("manifests", counters.manifests, manifests.len())?;
    for (id, row) in &manifests {
        let found = shared.remove(id).unwrap_or(0);
        hold(found == row.refs && found > 0, || {
            format!("manifest {id} says {} versions, has {found}", row.refs)
        })?;
        if row.inline {
            hold(one::<Inlines>(kv, id)?.is_some(), || format!("manifest {id} lost its content"))?;
        } else {
            owners.insert(*id, (own(&row.realm_id, row.policy.unwrap_or_default().target), 0));
        }
    }
    hold(shared.is_empty(), || format!("versions without manifest: {shared:?}"))?;
    let inline = manifests.iter().filter(|(_, row)| row.inline).count();
    hold(all::<Inlines>(kv)?.len() == inline, || "inline content of no manifest".into())?;

    let uploads = all::<Uploads>(kv)?;
    let open: Vec<_> = uploads.iter().filter(|(_, row)| row.state() == v1::UploadState::Open).collect();
    same("uploads", counters.uploads, open.len())?;
    hold(all::<UploadsByActivity>(kv)?.len() == open.len(), || "uploads by activity".into())?;
    hold(all::<UploadTombstones>(kv)?.len() == uploads.len() - open.len(), || "upload tombstones".into())?;
    for (id, row) in open {
        let index = one::<UploadsByActivity>(kv, &(row.active_ms, *id))?;
        hold(index.is_some(), || format!("upload {id} would never expire"))?;
        hold(owners.insert(*id, (row.clone(), 0)).is_none(), || format!("two owners of {id}"))?;
    }
    let dropping = all::<Dropping>(kv)?;
    same("dropping", counters.dropping, dropping.len())?;
    for (_, row) in dropping.iter().filter(|(_, row)| row.kind() == v1::DroppingKind::Manifest) {
        let id = UploadId::from_slice(&row.id).map_err(|error| error.to_string())?;
        let before = owners.insert(id, (own(&row.realm_id, row.target), row.next));
        hold(before.is_none(), || format!("manifest {id} is dropped while owned"))?;
    }

    let mut expected: BTreeMap<ChunkKey, BTreeMap<u32, u64>> = BTreeMap::new();
    let pages = all::<Pages>(kv)?;
    hold(all::<PageStarts>(kv)?.len() == pages.len(), || "page starts".into())?;
    for ((id, first), page) in &pages {
        let (owner, next) = owners.get(id).ok_or_else(|| format!("pages of {id} have no owner"))?;
        let start = one::<PageStarts>(kv, &(*id, Newest(page.offset)))?;
        let right = start.is_some_and(|start| start.position == u64::from(*first));
        hold(right, || format!("page {first} of {id} is not found by offset"))?;
        let realm = RealmId::from_slice(&owner.realm_id).map_err(|error| error.to_string())?;
        let entries = pages::entries(&page.clear).ok_or("clear list")?;
        let size: u64 = entries.iter().map(|entry| u64::from(entry.plain)).sum();
        hold(size == page.size, || format!("size of page {first} of {id}"))?;
        for (place, entry) in entries.iter().enumerate() {
            if first + place as u32 >= *next {
                let key = ChunkKey { realm, chunk: entry.chunk };
                let target = owner.policy.unwrap_or_default().target;
                *expected.entry(key).or_default().entry(target).or_default() += 1;
            }
        }
    }
    for (key, row) in all::<Chunks>(kv)? {
        let found: BTreeMap<u32, u64> = row.refs.iter().map(|refs| (refs.target, refs.count)).collect();
        let should = expected.remove(&key).unwrap_or_default();
        hold(found == should, || {
            format!("chunk {} has references {found:?}, should have {should:?}", key.chunk)
        })?;
    }
    hold(expected.is_empty(), || format!("manifests list chunks that are gone: {:?}", expected.keys().next()))
}

/// Locations, deficits, trash.
fn copies(kv: &dyn KvRead, counters: &v1::CountersRow) -> Found {
    let mut roster = Roster::default();
    let mut of_seat: BTreeMap<u32, (u64, u64, u64)> = BTreeMap::new();
    let chunks = all::<Chunks>(kv)?;
    same("chunks", counters.chunks, chunks.len())?;
    let (mut deficits, mut trashed, mut locations) = (0, 0, 0);
    let mut trash_bytes = 0u64;
    let wanted_copies: u64 = chunks.iter().map(|(_, row)| u64::from(wanted(row))).sum();
    same("wanted copies", counters.wanted_copies, wanted_copies as usize)?;
    for (key, row) in &chunks {
        let (mut counting, mut leaving) = (0, 0);
        let mut exact = true;
        for location in &row.locations {
            locations += 1;
            let entry = of_seat.entry(location.seat).or_default();
            let in_trash = u64::from(row.trash_since != 0);
            *entry = (entry.0 + 1, entry.1 + row.sealed_length, entry.2 + in_trash);
            let index = one::<NodeChunks>(kv, &(location.seat, *key))?;
            hold(index.is_some(), || format!("chunk {} is not listed at seat {}", key.chunk, location.seat))?;
            let seat =
                one::<Seats>(kv, &location.seat)?.ok_or_else(|| format!("no seat {}", location.seat))?;
            exact &= !seat.recheck;
            let holder = roster.holder(kv, location.seat).map_err(|error| error.to_string())?;
            counting += u32::from(holder.counts() && !location.doubted);
            leaving += u32::from(holder.leaves() && !location.doubted);
        }
        let ordered = row.locations.windows(2).all(|pair| pair[0].seat < pair[1].seat);
        hold(ordered, || format!("locations of chunk {} are out of order", key.chunk))?;
        let should = deficit_mark(counting, leaving, wanted(row));
        hold(!exact || row.deficit == should, || {
            format!("chunk {} has deficit mark {}, should have {should}", key.chunk, row.deficit)
        })?;
        if row.deficit != 0 {
            deficits += 1;
            let queued = one::<Deficits>(kv, &((row.deficit - 1) as u8, *key))?;
            hold(queued.is_some(), || format!("deficit of chunk {} is not queued", key.chunk))?;
        }
        hold((row.trash_since != 0) == row.refs.is_empty(), || format!("trash mark of chunk {}", key.chunk))?;
        if row.trash_since != 0 {
            trashed += 1;
            trash_bytes += row.sealed_length;
            let queued = one::<Trash>(kv, &(row.trash_since, *key))?;
            hold(queued.is_some(), || format!("chunk {} is not in trash", key.chunk))?;
        }
    }
    same("deficits", counters.deficits, deficits)?;
    hold(all::<Deficits>(kv)?.len() == deficits, || "deficit rows of no chunk".into())?;
    same("trash_chunks", counters.trash_chunks, trashed)?;
    hold(counters.trash_bytes == trash_bytes, || {
        format!("trash_bytes is {}, the chunks in trash have {trash_bytes}", counters.trash_bytes)
    })?;
    hold(all::<Trash>(kv)?.len() == trashed, || "trash rows of no chunk".into())?;
    hold(all::<NodeChunks>(kv)?.len() == locations, || "chunks of a node without location".into())?;
    for (number, seat) in all::<Seats>(kv)? {
        let found = of_seat.remove(&number).unwrap_or_default();
        let said = (seat.chunks, seat.bytes, seat.trash_chunks);
        hold(found == said, || {
            format!("seat {number} says chunks, bytes and chunks in trash {said:?}, has {found:?}")
        })?;
    }
    Ok(())
}

fn purges(kv: &dyn KvRead, counters: &v1::CountersRow) -> Found {
    let pending = all::<PendingPurges>(kv)?;
    same("pending_purges", counters.pending_purges, pending.len())?;
    for (number, seat) in all::<Seats>(kv)? {
        let found = pending.iter().filter(|((seat, _), _)| *seat == number).count();
        same("purges of a seat", seat.purges, found)?;
    }
    let facts = all::<Purged>(kv)?;
    hold(all::<PurgedByPosition>(kv)?.len() == facts.len(), || "purge facts by position".into())?;
    for ((key, seat), row) in &facts {
        let index = one::<PurgedByPosition>(kv, &(row.position, *key, *seat))?;
        hold(index.is_some(), || format!("the fact about chunk {} would stay for ever", key.chunk))?;
    }
    Ok(())
}

fn indices(kv: &dyn KvRead, _: &v1::CountersRow) -> Found {
    let requests = all::<Requests>(kv)?;
    hold(all::<RequestsByPosition>(kv)?.len() == requests.len(), || "requests by position".into())?;
    for ((principal, request), row) in &requests {
        let index = one::<RequestsByPosition>(kv, &(row.position, *principal, *request))?;
        hold(index.is_some(), || format!("request {request} would stay for ever"))?;
    }
    Ok(())
}
