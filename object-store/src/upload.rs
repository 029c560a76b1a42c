//! A multipart upload in the order of its parts: one put of the SDK, fed part by part. The put runs in
//! a task of its own, so parts' futures may be awaited in any order.
//!
//! Crash promise: nothing is visible before `complete` answers. An upload that is dropped without it
//! ends as an error of its source, never as a shorter file.

use std::collections::VecDeque;

use bytes::Bytes;
use dfs_client::{DfsError, ErrorCode, PutResult, Source};
use futures::future::{BoxFuture, FutureExt, Shared};
use object_store::path::Path;
use object_store::{MultipartUpload, PutMultipartOptions, PutPayload, Result, UploadPart};
use tokio::sync::{mpsc, oneshot};
use tokio_util::io::StreamReader;

use crate::error::{error, generic};
use crate::{DfsObjectStore, meta, write};

type Outcome = std::result::Result<PutResult, DfsError>;

enum Message {
    /// A part, and who waits until it was read.
    Part(PutPayload, oneshot::Sender<()>),
    End,
}

pub(crate) struct Upload {
    location: Path,
    /// Gone once completed or aborted.
    parts: Option<mpsc::UnboundedSender<Message>>,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Upload {
    pub fn begin(store: &DfsObjectStore, location: &Path, opts: PutMultipartOptions) -> Result<Self> {
        let options = write::put_options(&opts.attributes, &opts.tags)?;
        let (parts, queue) = mpsc::unbounded_channel();
        let (client, path) = (store.client.clone(), store.path(location));
        let source = Source::reader(StreamReader::new(Box::pin(pieces(queue))));
        let put = tokio::spawn(async move { client.put(&path, source, options).await });
        let died = |_| Err(DfsError::new(ErrorCode::Internal, "the upload's task died"));
        let outcome = async move { put.await.unwrap_or_else(died) }.boxed().shared();
        Ok(Self { location: location.clone(), parts: Some(parts), outcome })
    }
}

/// The parts' bytes in order. A part's sender is told when its last byte was taken.
fn pieces(
    queue: mpsc::UnboundedReceiver<Message>,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send {
    struct State {
        queue: mpsc::UnboundedReceiver<Message>,
        part: VecDeque<Bytes>,
        waiting: Option<oneshot::Sender<()>>,
    }
    let state = State { queue, part: VecDeque::new(), waiting: None };
    futures::stream::unfold(Some(state), |state| async move {
        let mut state = state?;
        loop {
            if let Some(piece) = state.part.pop_front() {
                return Some((Ok(piece), Some(state)));
            }
            if let Some(waiting) = state.waiting.take() {
                // Nobody need wait for a part.
                let _ = waiting.send(());
            }
            match state.queue.recv().await {
                Some(Message::Part(payload, waiting)) => {
                    state.part = payload.into_iter().filter(|piece| !piece.is_empty()).collect();
                    state.waiting = Some(waiting);
                }
                Some(Message::End) => return None,
                None => return Some((Err(std::io::Error::other("the upload was aborted")), None)),
            }
        }
    })
}

#[async_trait::async_trait]
impl MultipartUpload for Upload {
    /// Resolves when the part's bytes were read; `complete` says when they are durable.
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (taken, was_taken) = oneshot::channel();
        if let Some(parts) = &self.parts {
            // A put that has ended drops the queue: the outcome says why.
            let _ = parts.send(Message::Part(data, taken));
        }
        let (outcome, path) = (self.outcome.clone(), self.location.to_string());
        let over = self.parts.is_none();
        async move {
            if over {
                return Err(generic("the upload was completed or aborted already"));
            }
            match was_taken.await {
                Ok(()) => Ok(()),
                Err(_) => match outcome.await {
                    Err(failed) => Err(error(failed, path)),
                    Ok(_) => Err(generic("the upload was completed before this part")),
                },
            }
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<object_store::PutResult> {
        let parts =
            self.parts.take().ok_or_else(|| generic("the upload was completed or aborted already"))?;
        // As above.
        let _ = parts.send(Message::End);
        let done = self.outcome.clone().await.map_err(|failed| error(failed, self.location.to_string()))?;
        Ok(meta::put_result(done.version))
    }

    async fn abort(&mut self) -> Result<()> {
        drop(self.parts.take());
        match self.outcome.clone().await {
            Err(_) => Ok(()),
            Ok(_) => Err(generic("the upload was completed already")),
        }
    }
}
