//! One put of more than inline size, from init to commit: owns the tasks, the pages and the note.

use std::collections::BTreeMap;
use std::sync::Arc;

use dfs_proto::v1;
use dfs_types::limits::chunk_bytes_at;
use dfs_types::{ChunkId, DfsError, DfsPath, ErrorCode, UploadId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::PutResult;
use super::calls::{self, Content};
use super::chunk::{self, Before, Upload};
use super::pages::Pages;
use super::planner::Planner;
use super::resume::{self, About, Note, Noted};
use super::source::{Chunks, FileStamp, Memory, Piece};
use crate::options::{FileRef, Policy, PutOptions};
use crate::progress::Progress;
use crate::{Client, Result};

/// Why a put ended without a version.
pub(crate) enum Ended {
    Failed(DfsError),
    /// The resumed upload was of another content. It was dropped, with its note.
    SourceChanged,
}

impl From<DfsError> for Ended {
    fn from(error: DfsError) -> Self {
        Ended::Failed(error)
    }
}

impl From<Ended> for DfsError {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Failed(error) => error,
            Ended::SourceChanged => {
                DfsError::new(ErrorCode::Integrity, "the source changed while it was put; put it anew")
            }
        }
    }
}

/// What one put is about.
pub(crate) struct Transfer<'a> {
    pub client: &'a Client,
    pub path: &'a DfsPath,
    pub options: &'a PutOptions,
    pub memory: &'a Memory,
    pub progress: &'a Progress,
}

/// An upload at the leader, new or gone on with.
struct Session {
    upload: UploadId,
    realm: bytes::Bytes,
    policy: Policy,
    appended: u32,
    /// Chunks that an earlier run sealed.
    before: BTreeMap<u32, ChunkId>,
    resumed: bool,
}

impl Transfer<'_> {
    /// Fails before any byte moved when the condition is lost already. The commit decides for good.
    pub async fn check_condition(&self) -> Result<()> {
        let Some(wanted) = self.options.if_version else { return Ok(()) };
        let current = match self.client.stat(FileRef::from(self.path)).await {
            Ok(info) if !info.deleted => info.version,
            Ok(_) => 0,
            Err(error) if error.code == ErrorCode::NotFound => 0,
            Err(error) => return Err(error),
        };
        if current == wanted {
            return Ok(());
        }
        let message = match current {
            0 => format!("{} does not exist", self.path),
            version => format!("{} is at version {version}", self.path),
        };
        Err(DfsError::new(ErrorCode::VersionMismatch, message))
    }

    pub async fn run(
        &self,
        chunks: Chunks,
        first: Piece,
        may_resume: bool,
    ) -> std::result::Result<PutResult, Ended> {
        let stamp = chunks.stamp.clone();
        let path = self.path.to_string();
        let about = stamp.as_ref().map(|stamp| About {
            cluster: self.client.inner.config.cluster_id,
            path: &path,
            stamp,
        });
        let (mut note, noted) = match (&self.options.resume_file, &about) {
            (Some(file), Some(about)) => match resume::open(file, about)? {
                Some((note, noted)) => (Some(note), noted),
                None => (None, None),
            },
            _ => (None, None),
        };
        let session = self.session(noted, may_resume, chunks.expected, stamp.is_some()).await?;
        if let (Some(note), Some(about)) = (&mut note, &about) {
            // Written anew, because a crash may have left a cut line at the end.
            note.begin(about, session.upload)?;
            for (index, id) in &session.before {
                note.sent(*index, *id)?;
            }
        }
        let (upload, resumed) = (session.upload, session.resumed);
        match self.transfer(session, chunks, first, stamp.clone(), &mut note).await {
            Ok(result) => {
                if let Some(note) = note {
                    note.remove();
                }
                Ok(result)
            }
            Err(error) if resumed && error.code == ErrorCode::Integrity => {
                calls::abort(self.client, upload).await;
                if let Some(note) = note {
                    note.remove();
                }
                Err(Ended::SourceChanged)
            }
            Err(error) => {
                // With a note the upload stays, so that the next run goes on; unless that is useless.
                let useless = matches!(
                    error.code,
                    ErrorCode::VersionMismatch | ErrorCode::UploadNotFound | ErrorCode::Integrity
                );
                if note.is_none() || useless {
                    calls::abort(self.client, upload).await;
                    if let Some(note) = note {
                        note.remove();
                    }
                }
                Err(error.into())
            }
        }
    }

    /// The noted upload if it is still there and of this source, else a new one.
    /// `expected`: bytes the source is thought to have. Takes no source: a borrowed one, held over a call,
    /// would keep the whole put from moving between threads.
    async fn session(
        &self,
        noted: Option<Noted>,
        may_resume: bool,
        expected: Option<u64>,
        is_file: bool,
    ) -> Result<Session> {
        if let Some(noted) = noted {
            if noted.matches && may_resume {
                match self.resume(&noted, expected.unwrap_or(u64::MAX)).await {
                    Ok(Some(session)) => return Ok(session),
                    Ok(None) => calls::abort(self.client, noted.upload).await,
                    Err(error) if error.code == ErrorCode::UploadNotFound => {}
                    Err(error) => return Err(error),
                }
            } else {
                calls::abort(self.client, noted.upload).await;
            }
        }
        // The size of a file is not promised: it may grow while it is read.
        let size = if is_file { None } else { expected };
        let begun = calls::begin(self.client, self.path, size, self.options.policy).await?;
        Ok(Session {
            upload: begun.upload,
            realm: begun.realm,
            policy: begun.policy,
            appended: 0,
            before: BTreeMap::new(),
            resumed: false,
        })
    }

    /// `None` when the upload is there but cannot be checked against what this run will seal.
    async fn resume(&self, noted: &Noted, source_bytes: u64) -> Result<Option<Session>> {
        let request = v1::GetUploadRequest { upload_id: noted.upload.to_vec().into() };
        let method =
            |mut metadata: crate::rpc::Metadata, request| async move { metadata.get_upload(request).await };
        let inner = &self.client.inner;
        let info = inner.rpc.read(&inner.dials, self.client.patience(), request, method).await?;
        let mut before = noted.sent.clone();
        // The last page's entries are known to the leader even if our note lost them.
        let first_known = info.chunks.saturating_sub(info.entries.len() as u32);
        for (index, entry) in (first_known..).zip(&info.entries) {
            before.insert(index, ChunkId::from_slice(&entry.chunk_id)?);
        }
        let checkable = (0..info.chunks).all(|index| before.contains_key(&index));
        if info.path != self.path.to_string()
            || !checkable
            || info.bytes != bytes_of(info.chunks).min(source_bytes)
        {
            return Ok(None);
        }
        Ok(Some(Session {
            upload: noted.upload,
            realm: info.realm_id,
            policy: Policy::resolved(info.policy),
            appended: info.chunks,
            before,
            resumed: true,
        }))
    }

    async fn transfer(
        &self,
        session: Session,
        mut chunks: Chunks,
        first: Piece,
        stamp: Option<FileStamp>,
        note: &mut Option<Note>,
    ) -> Result<PutResult> {
        let parallel = self.client.inner.config.parallel_chunks.max(1);
        let upload = Arc::new(Upload {
            client: self.client.clone(),
            id: session.upload,
            realm: session.realm,
            policy: session.policy,
            planner: Planner::start(self.client.clone(), session.upload),
            progress: self.progress.clone(),
            appended: session.appended,
        });
        let memory = self.memory.clone();
        let (send_piece, mut pieces) = mpsc::channel(1);
        let reader = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut next = Some(first);
            while let Some(piece) = next {
                if send_piece.send(piece).await.is_err() {
                    break;
                }
                next = chunks.next(&memory).await?;
            }
            Ok::<Chunks, DfsError>(chunks)
        }));
        let mut pages = Pages::new(Arc::clone(&upload), stamp, self.client.memory_bytes);
        let mut under_way: JoinSet<Result<chunk::DoneChunk>> = JoinSet::new();
        let (mut count, mut reading) = (0u32, true);
        while reading || !under_way.is_empty() {
            tokio::select! {
                piece = pieces.recv(), if reading && under_way.len() < parallel => match piece {
                    None => reading = false,
                    Some(piece) => {
                        count += 1;
                        let before = session.before.get(&piece.index).copied();
                        let before = before.map_or(Before::Nothing, Before::Sent);
                        let upload = Arc::clone(&upload);
                        let run = async move { chunk::run(&upload, piece, before).await };
                        under_way.spawn(run.in_current_span());
                    }
                },
                Some(done) = under_way.join_next(), if !under_way.is_empty() => {
                    let done = done.map_err(|_| DfsError::new(ErrorCode::Internal, "a chunk's task died"))??;
                    if let Some(note) = note && !session.before.contains_key(&done.index) {
                        note.sent(done.index, done.id)?;
                    }
                    pages.add(done).await?;
                }
            }
        }
        let chunks = reader.await.map_err(|_| DfsError::new(ErrorCode::Internal, "the reader died"))??;
        if count < session.appended {
            return Err(DfsError::new(
                ErrorCode::Integrity,
                "the source is shorter than the interrupted upload",
            ));
        }
        pages.finish().await?;
        let content = Content { chunks: count, size: chunks.offset(), hash: Some(chunks.content_hash()) };
        calls::commit(self.client, session.upload, content, self.options).await
    }
}

/// Bytes of the first `chunks` chunks of any file that is longer.
fn bytes_of(chunks: u32) -> u64 {
    (0..chunks).fold(0, |offset, _| offset + chunk_bytes_at(offset))
}
