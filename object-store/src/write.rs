//! Changes that are one call of the cluster: puts of what is at hand, deletes, copies, renames.

use bytes::Bytes;
use dfs_client::Condition;
use dfs_client::{FileRef, Source};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, Error, PutMode, PutOptions, PutPayload, PutResult, RenameOptions,
    RenameTargetMode, Result, TagSet,
};
use tokio_util::io::StreamReader;

use crate::error::{error, taken};
use crate::{DfsObjectStore, STORE, attributes, meta};

/// Payloads of several pieces up to this are joined, longer ones are streamed.
const JOIN_BYTES: usize = 1 << 20;
/// Deletes of one stream under way at once.
const PARALLEL_DELETES: usize = 16;

impl DfsObjectStore {
    pub(crate) async fn put_whole(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let mut options = put_options(&opts.attributes, &opts.tags)?;
        options.if_version = match &opts.mode {
            PutMode::Overwrite => None,
            PutMode::Create => Some(0),
            PutMode::Update(update) => Some(meta::wanted(update, location.as_ref())?),
        };
        let done = self.client.put(&self.path(location), source(payload), options).await;
        match done {
            Ok(done) => Ok(meta::put_result(done.version)),
            Err(failed) if opts.mode == PutMode::Create => Err(taken(failed, location.to_string())),
            Err(failed) => Err(error(failed, location.to_string())),
        }
    }

    pub(crate) fn delete_all(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .map_ok(move |location| {
                let store = store.clone();
                async move {
                    let path = store.path(&location);
                    let done = store.client.delete(path, Condition::default(), false).await;
                    done.map_err(|failed| error(failed, location.to_string()))?;
                    Ok(location)
                }
            })
            .try_buffered_in_order(PARALLEL_DELETES)
    }

    pub(crate) async fn copy_by_reference(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let create = options.mode == CopyMode::Create;
        let condition = Condition { if_version: None, if_to_version: create.then_some(0) };
        let copied = self.client.copy(FileRef::from(self.path(from)), &self.path(to), condition).await;
        copied.map(drop).map_err(|failed| changed(failed, create, from, to))
    }

    pub(crate) async fn rename_with_history(
        &self,
        from: &Path,
        to: &Path,
        options: RenameOptions,
    ) -> Result<()> {
        let create = options.target_mode == RenameTargetMode::Create;
        let condition = Condition { if_version: None, if_to_version: create.then_some(0) };
        let renamed = self.client.rename(&self.path(from), &self.path(to), condition).await;
        renamed.map(drop).map_err(|failed| changed(failed, create, from, to))
    }
}

/// Which of the two locations an error is about.
fn changed(failed: dfs_client::DfsError, create: bool, from: &Path, to: &Path) -> Error {
    if create && failed.code == dfs_client::ErrorCode::VersionMismatch {
        return taken(failed, to.to_string());
    }
    error(failed, from.to_string())
}

/// The SDK's options for these attributes. Nothing here keeps tags, and dropping them would be a lie.
pub(crate) fn put_options(attributes: &Attributes, tags: &TagSet) -> Result<dfs_client::PutOptions> {
    if !tags.is_empty() {
        return Err(Error::NotImplemented { operation: "tags".into(), implementer: STORE.into() });
    }
    let (content_type, user_metadata) = attributes::stored(attributes)?;
    Ok(dfs_client::PutOptions { content_type, user_metadata, ..Default::default() })
}

/// One piece is handed on as it is, few bytes are joined, many are read piece by piece.
fn source(payload: PutPayload) -> Source {
    if payload.as_ref().len() <= 1 || payload.content_length() <= JOIN_BYTES {
        return Source::from(Bytes::from(payload));
    }
    let pieces = payload.into_iter().filter(|piece| !piece.is_empty()).map(Ok::<_, std::io::Error>);
    Source::reader(StreamReader::new(futures::stream::iter(pieces)))
}

/// Runs the futures of a fallible stream some at once; every outcome is told, in order, and an error
/// does not end the others.
trait BufferedInOrder<T> {
    fn try_buffered_in_order(self, count: usize) -> BoxStream<'static, Result<T>>;
}

impl<S, F, T> BufferedInOrder<T> for S
where
    S: futures::Stream<Item = Result<F>> + Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    fn try_buffered_in_order(self, count: usize) -> BoxStream<'static, Result<T>> {
        self.map(|next| async move {
            match next {
                Ok(work) => work.await,
                Err(failed) => Err(failed),
            }
        })
        .buffered(count)
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_refused_rather_than_lost() {
        let mut tags = TagSet::default();
        tags.push("a", "b");
        let refused = put_options(&Attributes::new(), &tags).err();
        assert!(matches!(refused, Some(Error::NotImplemented { .. })));
        assert!(put_options(&Attributes::new(), &TagSet::default()).is_ok());
    }

    #[test]
    fn long_payloads_of_many_pieces_are_not_joined() {
        let many: PutPayload = (0..3).map(|n| Bytes::from(vec![n; JOIN_BYTES / 2])).collect();
        assert!(matches!(source(many), Source::Reader(_)));
        let few: PutPayload = (0..3).map(|n| Bytes::from(vec![n; 10])).collect();
        assert!(matches!(source(few), Source::Bytes(bytes) if bytes.len() == 30));
        let one = PutPayload::from(vec![0; 2 * JOIN_BYTES]);
        assert!(matches!(source(one), Source::Bytes(_)));
    }
}
