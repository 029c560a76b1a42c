//! Buckets: create, get, list, set, delete.

use chunk_format::keys::Kek;
use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::limits::{DEFAULT_KEEP_MS, MAX_LIST_ENTRIES};
use dfs_types::{BucketId, BucketName, DfsError, ErrorCode};
use metadata_core::{policy, query};

use super::session::Session;
use crate::keyring::FIRST_KEK_GENERATION;

fn message(row: &v1::BucketRow, position: u64) -> v1::Bucket {
    v1::Bucket {
        bucket_id: row.bucket_id.clone(),
        name: row.name.clone(),
        policy: row.policy,
        keep_ms: row.keep_ms,
        realm: row.realm,
        owner: row.owner.clone(),
        created_unix_ms: row.created_unix_ms,
        position,
    }
}

impl Session {
    pub(super) async fn create_bucket(
        &self,
        request: v1::CreateBucketRequest,
    ) -> Result<v1::Bucket, DfsError> {
        let name = BucketName::new(request.name.as_str())?;
        let wanted = policy::complete(request.policy.as_ref(), &policy::DEFAULT)?;
        let realm = match v1::RealmKind::try_from(request.realm) {
            Ok(v1::RealmKind::Unspecified) => v1::RealmKind::Private,
            Ok(realm) => realm,
            Err(_) => return Err(DfsError::new(ErrorCode::InvalidArgument, "there is no such realm kind")),
        };
        let id = BucketId::generate(&*self.parts().clock, &*self.parts().entropy);
        let kek = Kek { generation: FIRST_KEK_GENERATION, secret: self.parts().keyring.draw() };
        let kind = Kind::PutBucket(v1::PutBucket {
            bucket_id: id.to_vec().into(),
            name: name.to_string(),
            policy: Some(wanted),
            keep_ms: request.keep_ms.unwrap_or(DEFAULT_KEEP_MS),
            realm: realm.into(),
            wrapped_kek: self.parts().keyring.wrap_bucket_kek(&id, &kek).into(),
            kek_generation: kek.generation,
        });
        let result = self.propose(&request.mutation, kind).await?;
        // A repeated call drew another id; the one of the first is in the state.
        Ok(message(&query::bucket_for(&self.local()?, self.principal()?, name.as_str())?, result.position))
    }

    pub(super) async fn get_bucket(&self, request: v1::GetBucketRequest) -> Result<v1::Bucket, DfsError> {
        let name = BucketName::new(request.name.as_str())?;
        let view = self.view().await?;
        Ok(message(&query::bucket_for(&view, self.principal()?, name.as_str())?, view.position().0))
    }

    pub(super) async fn list_buckets(
        &self,
        request: v1::ListBucketsRequest,
    ) -> Result<v1::ListBucketsResponse, DfsError> {
        let limit = list_limit(request.limit)?;
        let view = self.view().await?;
        let after = (!request.cursor.is_empty()).then_some(request.cursor.as_str());
        let page = query::buckets_page(&view, self.principal()?, after, limit)?;
        let position = view.position().0;
        Ok(v1::ListBucketsResponse {
            buckets: page.buckets.iter().map(|row| message(row, position)).collect(),
            next_cursor: page.next_after.unwrap_or_default(),
            position,
        })
    }

    pub(super) async fn set_bucket(&self, request: v1::SetBucketRequest) -> Result<v1::Bucket, DfsError> {
        let name = BucketName::new(request.name.as_str())?;
        let (bucket, _) = self.bucket_to_write(&name).await?;
        let wanted = match request.policy {
            Some(given) => Some(policy::complete(Some(&given), &bucket.policy.unwrap_or(policy::DEFAULT))?),
            None => None,
        };
        let kind = Kind::SetBucket(v1::SetBucket {
            name: name.to_string(),
            policy: wanted,
            keep_ms: request.keep_ms,
        });
        let result = self.propose(&request.mutation, kind).await?;
        Ok(message(&query::bucket_for(&self.local()?, self.principal()?, name.as_str())?, result.position))
    }

    pub(super) async fn delete_bucket(
        &self,
        request: v1::DeleteBucketRequest,
    ) -> Result<v1::CommitPosition, DfsError> {
        let name = BucketName::new(request.name.as_str())?;
        // Not looked up before: a repeated call must get the stored answer, and the bucket is gone.
        let result = self
            .propose(&request.mutation, Kind::DropBucket(v1::DropBucket { name: name.to_string() }))
            .await?;
        Ok(v1::CommitPosition { position: result.position })
    }
}

/// A list's limit with its default, or `invalid_argument`.
pub(super) fn list_limit(limit: u32) -> Result<usize, DfsError> {
    match limit {
        0 => Ok(MAX_LIST_ENTRIES as usize),
        1..=MAX_LIST_ENTRIES => Ok(limit as usize),
        _ => Err(DfsError::new(
            ErrorCode::InvalidArgument,
            format!("limit {limit} is not 1 to {MAX_LIST_ENTRIES}"),
        )),
    }
}
