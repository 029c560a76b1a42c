//! AppendPage: receipts checked, secrets sealed, references taken.

use std::collections::BTreeMap;

use chunk_format::page::{ClearEntry, encode_clear, seal_page};
use dfs_proto::v1;
use dfs_proto::v1::command::Kind;
use dfs_types::error::{ChunkNeed, Need};
use dfs_types::limits::{MAX_CHUNK_BYTES, MAX_PAGE_CHUNKS, MAX_RECEIPTS_PER_CHUNK};
use dfs_types::{ChunkId, DfsError, ErrorCode, RealmId, Secret, UploadId};

use chunk_format::seal::sealed_length;

use super::grants::{NodeTable, Receipted};
use super::session::Session;

impl Session {
    pub(super) async fn append_page(
        &self,
        request: v1::AppendPageRequest,
    ) -> Result<v1::CommitPosition, DfsError> {
        let id = UploadId::from_slice(&request.upload_id)?;
        if request.chunks.is_empty() || request.chunks.len() > MAX_PAGE_CHUNKS {
            return Err(DfsError::new(
                ErrorCode::LimitExceeded,
                format!("a page has 1 to {MAX_PAGE_CHUNKS} chunks"),
            ));
        }
        let (row, view) = self.upload_to_write(id).await?;
        if row.state() != v1::UploadState::Open {
            return Err(DfsError::new(
                ErrorCode::UploadNotFound,
                format!("upload {id} is not open any more"),
            ));
        }
        let table = NodeTable::load(&self.operations, &view)?;
        let realm = RealmId::from_slice(&row.realm_id)?;
        let mut entries = Vec::with_capacity(request.chunks.len());
        let mut secrets = Vec::with_capacity(request.chunks.len());
        let mut locations = Vec::with_capacity(request.chunks.len());
        let mut gone = Vec::new();
        // One receipt may cover many chunks of the page: it is checked once.
        let mut checked: BTreeMap<&[u8], Option<Receipted>> = BTreeMap::new();
        for (place, chunk) in request.chunks.iter().enumerate() {
            let index = request.first_index.saturating_add(place as u32);
            let chunk_id = ChunkId::from_slice(&chunk.chunk_id)?;
            if !(1..=MAX_CHUNK_BYTES).contains(&chunk.size) {
                return Err(DfsError::new(
                    ErrorCode::InvalidArgument,
                    format!("chunk {index}: size {} is not 1 to {MAX_CHUNK_BYTES}", chunk.size),
                ));
            }
            let secret = Secret::from_slice(&chunk.secret).ok_or_else(|| {
                DfsError::new(
                    ErrorCode::InvalidArgument,
                    format!("chunk {index}: the secret must be 32 bytes"),
                )
            })?;
            if chunk.receipts.len() > MAX_RECEIPTS_PER_CHUNK {
                return Err(DfsError::new(
                    ErrorCode::LimitExceeded,
                    format!("chunk {index}: at most {MAX_RECEIPTS_PER_CHUNK} receipts"),
                ));
            }
            let mut stored: BTreeMap<String, v1::StoredAt> = BTreeMap::new();
            for bytes in &chunk.receipts {
                if !checked.contains_key(bytes.as_ref()) {
                    let receipt = self
                        .operations
                        .check_receipt(&table, bytes, id.0, realm)
                        .map_err(|error| error.context(format!("chunk {index}")))?;
                    checked.insert(bytes, receipt);
                }
                let Some(receipt) = &checked[bytes.as_ref()] else { continue };
                if !receipt.chunks.contains(&(chunk_id, sealed_length(chunk.size))) {
                    return Err(DfsError::new(
                        ErrorCode::ReceiptRefused,
                        format!(
                            "chunk {index}: the receipt of {} is about other chunks",
                            receipt.stored.node_id
                        ),
                    ));
                }
                stored.insert(receipt.stored.node_id.clone(), receipt.stored.clone());
            }
            if stored.is_empty() && !chunk.receipts.is_empty() {
                gone.push(ChunkNeed { index, need: Need::Send });
            }
            entries.push(ClearEntry { chunk: chunk_id, length: chunk.size as u32 });
            secrets.push(secret);
            locations.push(v1::StoredAtList { stored: stored.into_values().collect() });
        }
        if !gone.is_empty() {
            return Err(DfsError::chunks_missing(
                "the nodes that took these chunks were formatted anew",
                gone,
            ));
        }
        let (key, _) = self.upload_key(&view, id, &row)?;
        let clear = encode_clear(&entries);
        let sealed =
            seal_page(&key, &id, request.first_index, &clear, &secrets, self.parts().keyring.entropy())?;
        let kind = Kind::AppendPage(v1::AppendPage {
            upload_id: id.to_vec().into(),
            first_index: request.first_index,
            clear: clear.into(),
            sealed: sealed.into(),
            locations,
        });
        let result = self.propose(&request.mutation, kind).await?;
        Ok(v1::CommitPosition { position: result.position })
    }
}
