//! The beginning of a cluster: its members form a group once, and whoever leads it first proposes
//! the first admin and the shared realm.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::{DfsError, ErrorCode, RealmId};
use metadata_core::query;
use server_kit::credentials::ApiKey;
use server_kit::{Shutdown, secret_file};
use std::time::Duration;
use tokio::time::Instant;

use crate::service::Operations;
use crate::service::auth::key_hash;

const PROPOSE_LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
const ADMIN_NAME: &str = "admin";

/// Forms the cluster if there is none, and sees to it that it is bootstrapped. Ends when it is.
pub async fn run(
    operations: Operations,
    initial: BTreeMap<String, String>,
    admin_key_file: Option<PathBuf>,
    shutdown: Shutdown,
) -> Result<(), DfsError> {
    if initial.is_empty() {
        return Ok(());
    }
    tokio::select! {
        () = shutdown.wait() => return Ok(()),
        formed = operations.parts.consensus.form_cluster(&initial) => {
            tracing::info!(outcome = ?formed?, "part of a cluster");
        }
    }
    while query::cluster(&operations.parts.consensus.local_view()?)?.is_none() {
        if operations.leads() {
            match propose(&operations, admin_key_file.as_ref()).await {
                Ok(()) => tracing::info!("cluster made"),
                Err(error) if error.is_retryable() || error.code == ErrorCode::FailedPrecondition => {
                    tracing::info!(code = %error.code, %error, "not made yet");
                }
                Err(error) => return Err(error),
            }
        }
        tokio::select! {
            () = shutdown.wait() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    Ok(())
}

async fn propose(operations: &Operations, admin_key_file: Option<&PathBuf>) -> Result<(), DfsError> {
    let path = admin_key_file.ok_or_else(|| {
        DfsError::new(ErrorCode::InvalidArgument, "admin_key_file is needed to make a cluster")
    })?;
    let admin = ApiKey::parse(&secret_file::read_text(path)?).map_err(|_| {
        DfsError::new(ErrorCode::InvalidArgument, format!("{} holds no API key", path.display()))
    })?;
    let parts = &operations.parts;
    let realm = || RealmId::generate(&*parts.clock, &*parts.entropy);
    let (admin_realm, shared_realm) = (realm(), realm());
    let wrapped = |realm: &RealmId| parts.keyring.wrap_realm_secret(realm, &parts.keyring.draw()).into();
    // As high as every member can follow; one that is silent counts as the oldest there is.
    let known = parts.consensus.members().await.iter().map(|member| member.feature_level.unwrap_or(0)).min();
    let kind = Kind::Bootstrap(v1::Bootstrap {
        cluster_id: parts.cluster.to_vec().into(),
        admin_id: admin.principal.to_vec().into(),
        admin_name: ADMIN_NAME.into(),
        admin_key_hash: key_hash(&admin).to_vec().into(),
        master_key_id: parts.keyring.master_id().to_vec().into(),
        admin_realm_id: admin_realm.to_vec().into(),
        wrapped_admin_realm_secret: wrapped(&admin_realm),
        shared_realm_id: shared_realm.to_vec().into(),
        wrapped_shared_realm_secret: wrapped(&shared_realm),
        feature_level: known.unwrap_or(0),
    });
    operations.propose_as_cluster(kind, Instant::now() + PROPOSE_LIMIT).await?;
    Ok(())
}
