//! From an API key to a principal.
//!
//! The key's row is looked up in the state this server has applied, one point lookup, so there is no
//! cache that could outlive a revocation. A key it does not know may be younger than what it has
//! applied: then the leader is asked. All refusals are worded alike.

use std::time::Duration;

use dfs_types::{DfsError, ErrorCode, PrincipalId};
use http::HeaderMap;
use metadata_core::kv::KvRead;
use metadata_core::query;
use server_kit::credentials::{ApiKey, bearer, equal};
use tokio::time::Instant;

use super::Operations;
use super::call::{Call, Who};

/// What is stored of a key: its secret has 256 random bits, so one fast hash is enough.
pub fn key_hash(key: &ApiKey) -> [u8; 32] {
    *blake3::hash(key.secret.expose()).as_bytes()
}

/// The call of whoever shows this `authorization` header.
///
/// # Errors
/// `unauthenticated` for no key, a malformed one or one the cluster does not know; `unavailable` if
/// the key is not known here and no leader can be asked.
pub async fn authenticate(
    operations: &Operations,
    headers: &HeaderMap,
    limit: Option<Duration>,
) -> Result<Call, DfsError> {
    let key = ApiKey::parse(bearer(headers)?)?;
    let hash = key_hash(&key);
    let call = Call::new(Who::Principal(key.principal), limit);
    let known = check(&operations.parts.consensus.local_view()?, key.principal, &hash)?
        || operations.ask_leader_for_key(&call, &hash).await?;
    if known {
        Ok(call)
    } else {
        Err(DfsError::new(ErrorCode::Unauthenticated, "the API key is not one of this cluster's"))
    }
}

fn check(kv: &dyn KvRead, principal: PrincipalId, hash: &[u8; 32]) -> Result<bool, DfsError> {
    let row = query::principal(kv, principal)?;
    Ok(row.is_some_and(|row| equal(&row.key_hash, hash)))
}

/// The same against everything acknowledged before; on the leader only.
pub(super) async fn check_linearizable(
    operations: &Operations,
    principal: PrincipalId,
    hash: &[u8; 32],
    deadline: Instant,
) -> Result<bool, DfsError> {
    let view = operations.parts.consensus.read(deadline).await?;
    check(&view, principal, hash)
}
