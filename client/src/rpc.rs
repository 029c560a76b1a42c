//! Calls to the metadata service: rotation over its addresses, retries under one deadline, request
//! ids. A mutation keeps its request id over all retries, so the service runs it at most once.

use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dfs_proto::v1;
use dfs_proto::v1::metadata_client::MetadataClient;
use dfs_types::ids::hex;
use dfs_types::{DfsError, Entropy, ErrorCode, OsEntropy};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::awake::{Awake, Deadline};
use crate::dial::Dials;
use crate::longest::Longest;
use crate::outgoing::{call_name, outgoing};
use crate::retry::{Backoff, Verdict, attempt_time, judge};
use crate::{Config, Result};

/// Lists and read plans with long keys pass the default of 4 MiB.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// The generated client every call goes through.
pub(crate) type Metadata = MetadataClient<Channel>;

/// Answers that carry the commit position they reflect.
pub(crate) trait Positioned {
    fn seen(&self) -> u64;
}

macro_rules! positioned {
    ($($message:ident)*) => { $(impl Positioned for v1::$message {
        fn seen(&self) -> u64 { self.position }
    })* };
}

positioned! {
    Bucket ListBucketsResponse CommitPosition InitUploadResponse PlanChunksResponse UploadInfo
    CommitUploadResponse FileInfo OpenReadResponse ListResponse ListVersionsResponse DeleteResponse
    ChunkLocations ListNodesResponse ClusterStatusResponse ListMembersResponse PrincipalInfo
    ListPrincipalsResponse RaiseFeatureLevelResponse
}

impl Positioned for v1::ReportReplicaResponse {
    fn seen(&self) -> u64 {
        0
    }
}

impl Positioned for v1::NodeInfo {
    fn seen(&self) -> u64 {
        0
    }
}

/// The way to the metadata service. One per client.
pub(crate) struct Rpc {
    addresses: Vec<String>,
    /// The address that answered last: where the next call begins.
    current: AtomicUsize,
    /// The highest commit position any answer showed.
    seen: AtomicU64,
    authorization: MetadataValue<Ascii>,
    longest: Longest,
    awake: Awake,
}

impl Rpc {
    pub fn new(config: &Config, longest: Longest, awake: Awake) -> Result<Self> {
        if config.metadata.is_empty() {
            return Err(DfsError::new(ErrorCode::InvalidArgument, "no metadata address is configured"));
        }
        let mut authorization = MetadataValue::try_from(format!("Bearer {}", config.api_key.as_str()))
            .map_err(|_| {
                DfsError::new(ErrorCode::InvalidArgument, "the API key has characters no key has")
            })?;
        authorization.set_sensitive(true);
        Ok(Self {
            addresses: config.metadata.clone(),
            current: AtomicUsize::new(0),
            seen: AtomicU64::new(0),
            authorization,
            longest,
            awake,
        })
    }

    pub fn authorization(&self) -> &MetadataValue<Ascii> {
        &self.authorization
    }

    /// Runs a read: any failed attempt may be repeated.
    pub async fn read<Q, A, F, Fut>(
        &self,
        dials: &Dials,
        patience: Duration,
        request: Q,
        method: F,
    ) -> Result<A>
    where
        Q: Clone,
        A: Positioned,
        F: Fn(Metadata, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let _timing = self.longest.time();
        let id = hex(&OsEntropy.array::<16>());
        let (answer, _) = self.attempts(dials, &self.awake.deadline(patience), &id, request, &method).await;
        answer
    }

    /// Runs a mutation: every attempt carries the same request id. When the time is over and some
    /// attempt may have been run, the answer is `unknown_outcome`.
    pub async fn mutate<Q, A, B, F, Fut>(
        &self,
        dials: &Dials,
        patience: Duration,
        build: B,
        method: F,
    ) -> Result<A>
    where
        Q: Clone,
        A: Positioned,
        B: Fn(v1::Mutation) -> Q,
        F: Fn(Metadata, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let _timing = self.longest.time();
        let deadline = self.awake.deadline(patience);
        // A request that claims to have seen nothing would be refused by a cluster with a history.
        if self.seen.load(Ordering::Relaxed) == 0 {
            self.learn_position(dials, &deadline).await?;
        }
        let mut redrawn = false;
        loop {
            let request_id: [u8; 16] = OsEntropy.array();
            let mutation = v1::Mutation {
                request_id: request_id.to_vec().into(),
                seen_position: self.seen.load(Ordering::Relaxed),
            };
            let request = build(mutation);
            let (answer, ambiguous) =
                self.attempts(dials, &deadline, &hex(&request_id), request, &method).await;
            match answer {
                // Never run under this id, nor by an attempt before: a new id is safe, once.
                Err(error) if error.code == ErrorCode::RequestTooOld && !ambiguous && !redrawn => {
                    redrawn = true;
                    self.learn_position(dials, &deadline).await?;
                }
                Err(error)
                    if ambiguous && (error.is_retryable() || error.code == ErrorCode::RequestTooOld) =>
                {
                    return Err(DfsError::new(
                        ErrorCode::UnknownOutcome,
                        format!("{}; whether the change was made is not known", error.message),
                    ));
                }
                other => return other,
            }
        }
    }

    async fn learn_position(&self, dials: &Dials, deadline: &Deadline) -> Result<()> {
        let id = hex(&OsEntropy.array::<16>());
        let request = v1::ListBucketsRequest { cursor: String::new(), limit: 1 };
        let method = |mut client: Metadata, request| async move { client.list_buckets(request).await };
        self.attempts(dials, deadline, &id, request, &method).await.0.map(|_| ())
    }

    /// Tries until an answer is final or the deadline passed, as one span whatever the number of tries. The
    /// flag says whether an attempt ended without anybody saying that it was not run.
    #[tracing::instrument(
        name = "call",
        skip_all,
        fields(otel.name = call_name::<Q>(), otel.kind = "client", request_id = request_id)
    )]
    async fn attempts<Q, A, F, Fut>(
        &self,
        dials: &Dials,
        deadline: &Deadline,
        request_id: &str,
        request: Q,
        method: &F,
    ) -> (Result<A>, bool)
    where
        Q: Clone,
        A: Positioned,
        F: Fn(Metadata, Request<Q>) -> Fut,
        Fut: Future<Output = std::result::Result<Response<A>, Status>>,
    {
        let mut backoff = Backoff::new();
        let mut ambiguous = false;
        let mut attempt = 0;
        loop {
            let place = self.current.load(Ordering::Relaxed);
            let address = &self.addresses[place % self.addresses.len()];
            let time = attempt_time(attempt, deadline.remaining());
            let error = match dials.metadata(address) {
                Err(error) => error,
                Ok(channel) => {
                    let client = MetadataClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                    let request = self.request(request.clone(), request_id, time);
                    match timeout(time, method(client, request)).await {
                        Ok(Ok(answer)) => {
                            let answer = answer.into_inner();
                            self.seen.fetch_max(answer.seen(), Ordering::Relaxed);
                            return (Ok(answer), ambiguous);
                        }
                        Ok(Err(status)) => match judge(&status) {
                            Verdict::Final(error) => return (Err(error), ambiguous),
                            Verdict::NotRun(error) => error,
                            Verdict::Ambiguous(error) => {
                                ambiguous = true;
                                error
                            }
                        },
                        Err(_) => {
                            ambiguous = true;
                            dials.suspect_metadata(address);
                            DfsError::new(ErrorCode::Timeout, "no answer in time")
                        }
                    }
                }
            };
            attempt += 1;
            let next = place.wrapping_add(1);
            let _ = self.current.compare_exchange(place, next, Ordering::Relaxed, Ordering::Relaxed);
            tracing::debug!(address, request_id, attempt, code = %error.code, error = %error.message, "call failed");
            let pause = backoff.pause();
            if pause >= deadline.remaining() {
                let error = error.context(format!("metadata server {address} (attempt {attempt})"));
                return (Err(error), ambiguous);
            }
            // Another address may be fine at once; only a full round without luck is worth a pause.
            if (attempt as usize).is_multiple_of(self.addresses.len()) || attempt > 8 {
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn request<Q>(&self, message: Q, request_id: &str, time: Duration) -> Request<Q> {
        let mut request = outgoing(message, request_id);
        request.set_timeout(time);
        request.metadata_mut().insert("authorization", self.authorization.clone());
        request
    }
}
