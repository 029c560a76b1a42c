//! The keys of a stopped cluster: every wrapped record of a metadata server's own state, and what is in
//! it, unwrapped here with the cluster's master key.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use dfs_types::{BucketId, FileId, Incarnation, OsEntropy, RealmId, Secret, UploadId};
use metadata_core::kv::KvRead;
use metadata_core::query;
use metadata_core::rows::buckets::Buckets;
use metadata_core::rows::nodes::Nodes;
use metadata_core::rows::principals::Principals;
use metadata_core::rows::uploads::Uploads;
use metadata_core::rows::versions::Versions;
use metadata_core::rows::{self, Pair, Row};
use metadata_server::keyring::Keyring;
use metadata_server::kv::{Compression, StateDb, StoreOptions};

/// How the secret of an upload that shares with nobody is called.
pub const OWN_REALM: &str = "the own realm's secret";
const MOST_ROWS: usize = 10_000;

/// One key as it is stored, and its raw bytes, which must be stored nowhere.
pub struct StoredKey {
    pub what: String,
    pub wrapped: Vec<u8>,
    pub raw: Vec<u8>,
}

fn all<R: Row>(kv: &dyn KvRead) -> Result<Vec<Pair<R>>> {
    let found = rows::scan::<R>(kv, &(), None, MOST_ROWS)?;
    ensure!(found.len() < MOST_ROWS, "more rows than this looks at");
    Ok(found)
}

/// Every key in the state below `data_dir`, of a metadata server that does not run.
pub fn stored_keys(data_dir: &Path, master_key_file: &Path) -> Result<Vec<StoredKey>> {
    let keyring = Keyring::load(master_key_file, Arc::new(OsEntropy))?;
    let db =
        StateDb::open_read_only(&current_state(data_dir)?, &StoreOptions::new(Compression::None, 4 << 20))?;
    let mut keys = Vec::new();
    let mut add = |what: String, wrapped: &[u8], raw: Secret<32>| {
        keys.push(StoredKey { what, wrapped: wrapped.to_vec(), raw: raw.expose().to_vec() });
    };

    let cluster = query::cluster(&db)?.context("the state has a cluster")?;
    let shared = RealmId::from_slice(&cluster.shared_realm_id)?;
    let wrapped = &cluster.wrapped_shared_realm_secret;
    add("the shared realm's secret".into(), wrapped, keyring.realm_secret(&shared, wrapped)?);
    for (id, row) in all::<Principals>(&db)? {
        let realm = RealmId::from_slice(&row.realm_id)?;
        let raw = keyring.realm_secret(&realm, &row.wrapped_realm_secret)?;
        add(format!("the realm secret of {id}"), &row.wrapped_realm_secret, raw);
    }
    for (name, row) in all::<Nodes>(&db)? {
        let incarnation = Incarnation::from_slice(&row.incarnation)?;
        let raw = keyring.node_secret(&incarnation, &row.wrapped_secret)?;
        add(format!("the secret of {name:?}"), &row.wrapped_secret, raw);
    }
    for (id, row) in all::<Buckets>(&db)? {
        let kek = keyring.bucket_kek(&id, row.kek_generation, &row.wrapped_kek)?;
        add(format!("the key of bucket {}", row.name), &row.wrapped_kek, kek.secret);
    }
    for ((file, _), row) in all::<Versions>(&db)? {
        let bound = chunk_format::keys::VersionBinding {
            bucket: BucketId::from_slice(&row.seal_bucket)?,
            file: FileId::from_slice(&row.seal_file)?,
            upload: UploadId::from_slice(&row.seal_upload)?,
        };
        let bucket = query::bucket_by_id(&db, bound.bucket)?.context("the bucket of a version")?;
        let kek = keyring.bucket_kek(&bound.bucket, bucket.kek_generation, &bucket.wrapped_kek)?;
        let raw = keyring.version_key(&kek, &bound, &row.wrapped_version_key)?;
        add(format!("the key of a version of {file}"), &row.wrapped_version_key, raw);
    }
    for (id, row) in all::<Uploads>(&db)? {
        if row.wrapped_version_key.is_empty() {
            continue;
        }
        let bound = chunk_format::keys::VersionBinding {
            bucket: BucketId::from_slice(&row.bucket_id)?,
            file: FileId::from_slice(&row.file_id)?,
            upload: id,
        };
        let bucket = query::bucket_by_id(&db, bound.bucket)?.context("the bucket of an upload")?;
        let kek = keyring.bucket_kek(&bound.bucket, bucket.kek_generation, &bucket.wrapped_kek)?;
        let raw = keyring.version_key(&kek, &bound, &row.wrapped_version_key)?;
        add(format!("the key of upload {id}"), &row.wrapped_version_key, raw);
        if !row.wrapped_realm_secret.is_empty() {
            let raw = keyring.upload_secret(&id, &row.wrapped_realm_secret)?;
            add(format!("{OWN_REALM} of upload {id}"), &row.wrapped_realm_secret, raw);
        }
    }
    Ok(keys)
}

/// The database that `state/CURRENT` names.
fn current_state(data_dir: &Path) -> Result<std::path::PathBuf> {
    let pointer = std::fs::read_to_string(data_dir.join("state/CURRENT"))?;
    match pointer.lines().nth(1) {
        Some(name) if !name.is_empty() => Ok(data_dir.join("state").join(name)),
        _ => bail!("state/CURRENT says {pointer:?}"),
    }
}
