//! Where a call runs: here if this server leads, else at the leader, by one hop.
//!
//! While there is no leader, or it changes, the call waits and tries again until its deadline. A
//! mutation carries its caller's request id, so that trying again never runs it twice; a call that
//! came from another member is never passed on, so there are no loops.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use dfs_proto::v1;
use dfs_proto::v1::raft_client::RaftClient;
use dfs_types::limits::MAX_GRPC_MESSAGE_BYTES;
use dfs_types::{DfsError, ErrorCode, NodeId, PrincipalId};
use prost::Message;
use server_kit::request_id::{self, RequestIdText};
use tokio::time::Instant;
use transport::{Expect, Role};

use super::call::{Call, Who};
use super::methods::{Method, cluster_methods, metadata_methods};
use super::session::Session;
use super::{Operations, auth};
use crate::raft::{ForwardHandler, Member};

/// Pause before another try while there is no leader: first and longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
/// One hop may take this long before another leader is looked for.
const HOP_DEADLINE: Duration = Duration::from_millis(4_000);

/// A request message: what it asks for and what answers it.
pub trait Operation: Message + Default + Clone + 'static {
    const METHOD: Method;
    type Response: Message + Default;

    /// Runs the operation on the leader, for an admitted caller.
    fn execute(self, session: &Session) -> impl Future<Output = Result<Self::Response, DfsError>> + Send;
}

macro_rules! operations {
    ($($name:ident, $function:ident, $request:ident, $response:ident;)*) => {
        $(
            impl Operation for v1::$request {
                const METHOD: Method = Method::$name;
                type Response = v1::$response;

                fn execute(self, session: &Session) -> impl Future<Output = Result<v1::$response, DfsError>> + Send {
                    session.$function(self)
                }
            }
        )*
    };
}
metadata_methods!(operations);
cluster_methods!(operations);

/// Counts down a call's tries.
struct Tries {
    pause: Duration,
}

impl Tries {
    fn new() -> Self {
        Self { pause: FIRST_PAUSE }
    }

    /// Waits a little longer than the last time; false when the deadline is too near.
    async fn again(&mut self, deadline: Instant) -> bool {
        let next = Instant::now() + self.pause;
        if next >= deadline {
            return false;
        }
        tokio::time::sleep_until(next).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        true
    }
}

impl Operations {
    /// Runs the request here or at the leader.
    ///
    /// # Errors
    /// The operation's own; `unavailable` if no leader was found before the deadline;
    /// `unknown_outcome` if a mutation was passed on and no answer came back.
    pub async fn call<R: Operation>(&self, call: &Call, request: R) -> Result<R::Response, DfsError> {
        let started = Instant::now();
        let answer = self.call_inner(call, request).await;
        crate::telemetry::operation(R::METHOD.as_str(), answer.as_ref().err(), started);
        answer
    }

    async fn call_inner<R: Operation>(&self, call: &Call, request: R) -> Result<R::Response, DfsError> {
        let mut tries = Tries::new();
        let mut encoded: Option<Bytes> = None;
        let mut passed_on = false;
        loop {
            let answer = if self.leads() {
                self.execute(call, request.clone()).await
            } else if let Some(leader) = self.other_leader() {
                let payload = encoded.get_or_insert_with(|| request.encode_to_vec().into()).clone();
                match self.hop(call, R::METHOD.as_str(), payload, &leader).await {
                    Hop::Answer(Ok(payload)) => R::Response::decode(payload).map_err(|_| {
                        DfsError::new(ErrorCode::Internal, "the leader's answer does not decode")
                    }),
                    Hop::Answer(Err(error)) => Err(error),
                    Hop::Lost(error) => {
                        passed_on = true;
                        Err(error)
                    }
                }
            } else {
                Err(self.no_leader()?)
            };
            match answer {
                Err(error) if error.code == ErrorCode::Unavailable => {
                    if !tries.again(call.deadline).await {
                        return Err(if passed_on { unknown(R::METHOD, error) } else { error });
                    }
                }
                answer => return answer,
            }
        }
    }

    /// A leader whose own database is damaged gives itself up, and the next one has what it could not
    /// read: the caller waits for that instead of getting the error.
    fn hand_over(&self, error: DfsError) -> DfsError {
        if error.code != ErrorCode::Io || !self.parts.consensus.is_damaged() {
            return error;
        }
        DfsError::new(
            ErrorCode::Unavailable,
            format!(
                "the database of {} is damaged, and another server takes over: {}",
                self.parts.name, error.message
            ),
        )
    }

    /// What a call is told if no leader turns up before its deadline.
    ///
    /// # Errors
    /// A server of no cluster says so at once: waiting would only keep the caller from those that can answer.
    fn no_leader(&self) -> Result<DfsError, DfsError> {
        if self.parts.consensus.me().address.is_empty() {
            return Err(DfsError::new(ErrorCode::Unavailable, "this server is part of no cluster yet"));
        }
        Ok(DfsError::new(ErrorCode::Unavailable, "the metadata service has no leader now"))
    }

    fn other_leader(&self) -> Option<Member> {
        self.parts.consensus.leader().filter(|leader| leader.name != self.parts.name)
    }

    /// Runs the request on this server, which must lead.
    pub async fn execute<R: Operation>(&self, call: &Call, request: R) -> Result<R::Response, DfsError> {
        let session = Session::admit(self, call, R::METHOD).map_err(|error| self.hand_over(error))?;
        match tokio::time::timeout_at(call.deadline, request.execute(&session)).await {
            // Here, so that a call which another member passed on hears it too.
            Ok(answer) => answer.map_err(|error| self.hand_over(error)),
            Err(_) => Err(unknown(R::METHOD, DfsError::new(ErrorCode::Timeout, "the deadline has passed"))),
        }
    }

    async fn hop(&self, call: &Call, method: &str, payload: Bytes, leader: &Member) -> Hop {
        let lost = |what: String| Hop::Lost(DfsError::new(ErrorCode::Unavailable, what));
        let Ok(name) = NodeId::new(leader.name.as_str()) else {
            return lost(format!("the leader's name {:?} is not one", leader.name));
        };
        let expect = Expect::server(Role::MetadataServer, name);
        let channel = match self.parts.members.get(&leader.address, &expect) {
            Ok(channel) => channel,
            Err(error) => return lost(format!("the leader {} cannot be reached: {error}", leader.name)),
        };
        let limit = call.time_left().min(HOP_DEADLINE);
        let request = v1::ForwardRequest {
            method: method.into(),
            payload,
            principal_id: match &call.who {
                Who::Principal(id) => id.to_vec().into(),
                Who::Node(_) => Bytes::new(),
            },
            request_id: call.request_id.to_string(),
            deadline_ms: limit.as_millis() as u64,
        };
        let mut client = RaftClient::new(channel)
            .max_decoding_message_size(MAX_GRPC_MESSAGE_BYTES * 2)
            .max_encoding_message_size(MAX_GRPC_MESSAGE_BYTES * 2);
        let mut request = tonic::Request::new(request);
        request_id::propagate(request.metadata_mut().as_mut());
        match tokio::time::timeout(limit, client.forward(request)).await {
            Ok(Ok(response)) => {
                let response = response.into_inner();
                Hop::Answer(match response.error {
                    Some(error) => Err(error.into()),
                    None => Ok(response.payload),
                })
            }
            Ok(Err(status)) => {
                lost(format!("the leader {} did not answer: {}", leader.name, status.message()))
            }
            Err(_) => {
                self.parts.members.discard(&leader.address, &expect);
                lost(format!("the leader {} did not answer in time", leader.name))
            }
        }
    }

    /// Asks the leader whether a principal has an API key with this hash.
    pub(crate) async fn ask_leader_for_key(&self, call: &Call, hash: &[u8; 32]) -> Result<bool, DfsError> {
        let mut tries = Tries::new();
        loop {
            let answer = if self.leads() {
                let Who::Principal(id) = &call.who else { return Ok(false) };
                let known = auth::check_linearizable(self, *id, hash, call.deadline).await;
                known.map_err(|error| self.hand_over(error))
            } else if let Some(leader) = self.other_leader() {
                let payload = Bytes::copy_from_slice(hash);
                match self.hop(call, Method::Authenticate.as_str(), payload, &leader).await {
                    Hop::Answer(Ok(payload)) => Ok(payload.as_ref() == [1]),
                    Hop::Answer(Err(error)) | Hop::Lost(error) => Err(error),
                }
            } else {
                Err(self.no_leader()?)
            };
            match answer {
                Err(error) if error.code == ErrorCode::Unavailable => {
                    if !tries.again(call.deadline).await {
                        return Err(error);
                    }
                }
                answer => return answer,
            }
        }
    }

    async fn execute_forwarded(&self, request: v1::ForwardRequest) -> Result<Bytes, DfsError> {
        let method = Method::from_name(&request.method).ok_or_else(|| {
            DfsError::new(ErrorCode::Unimplemented, format!("no operation is called {:?}", request.method))
        })?;
        if !self.leads() {
            return Err(DfsError::new(ErrorCode::Unavailable, "this server does not lead"));
        }
        let limit = Duration::from_millis(request.deadline_ms);
        let principal = || PrincipalId::from_slice(&request.principal_id).map(Who::Principal);
        let call = |who| Call::new(who, Some(limit));
        match method {
            Method::Authenticate => {
                let hash: [u8; 32] =
                    request.payload.as_ref().try_into().map_err(|_| {
                        DfsError::new(ErrorCode::InvalidArgument, "a key hash must be 32 bytes")
                    })?;
                let id = PrincipalId::from_slice(&request.principal_id)?;
                let known = auth::check_linearizable(self, id, &hash, Instant::now() + limit)
                    .await
                    .map_err(|error| self.hand_over(error))?;
                Ok(Bytes::copy_from_slice(&[u8::from(known)]))
            }
            // The member that passes a node's call on has checked its certificate against the node id
            // inside.
            Method::RegisterNode => {
                let message: v1::RegisterNodeRequest = decode(request.payload.clone())?;
                let call = call(Who::Node(NodeId::new(message.node_id.as_str())?));
                Ok(self.execute(&call, message).await?.encode_to_vec().into())
            }
            Method::Heartbeat => {
                let message: v1::HeartbeatRequest = decode(request.payload.clone())?;
                let call = call(Who::Node(NodeId::new(message.node_id.as_str())?));
                Ok(self.execute(&call, message).await?.encode_to_vec().into())
            }
            method => self.execute_encoded(&call(principal()?), method, request.payload.clone()).await,
        }
    }
}

macro_rules! encoded {
    ($($name:ident, $function:ident, $request:ident, $response:ident;)*) => {
        impl Operations {
            /// Decodes the request of `method`, runs it here, and encodes the answer.
            pub async fn execute_encoded(&self, call: &Call, method: Method, payload: Bytes) -> Result<Bytes, DfsError> {
                match method {
                    $(Method::$name => {
                        let request: v1::$request = decode(payload)?;
                        Ok(self.execute(call, request).await?.encode_to_vec().into())
                    })*
                    Method::RegisterNode | Method::Heartbeat | Method::Authenticate => {
                        Err(DfsError::new(ErrorCode::PermissionDenied, "only servers may call this"))
                    }
                }
            }
        }
    };
}
metadata_methods!(encoded);

fn decode<M: Message + Default>(payload: Bytes) -> Result<M, DfsError> {
    M::decode(payload).map_err(|_| DfsError::new(ErrorCode::InvalidArgument, "the request does not decode"))
}

enum Hop {
    /// The leader, or a server that was it, answered.
    Answer(Result<Bytes, DfsError>),
    /// No answer: the call may have run or not.
    Lost(DfsError),
}

/// The error of a call whose fate is not known: reads can simply be repeated.
fn unknown(method: Method, error: DfsError) -> DfsError {
    if method.repeats_safely() {
        return error;
    }
    DfsError::new(ErrorCode::UnknownOutcome, format!("{}; it may have been done", error.message))
}

#[async_trait::async_trait]
impl ForwardHandler for Operations {
    async fn forward(&self, request: v1::ForwardRequest) -> v1::ForwardResponse {
        let id = RequestIdText::parse(&request.request_id).unwrap_or_else(RequestIdText::generate);
        match request_id::scope(id, self.execute_forwarded(request)).await {
            Ok(payload) => v1::ForwardResponse { payload, error: None },
            Err(error) => v1::ForwardResponse { payload: Bytes::new(), error: Some((&error).into()) },
        }
    }
}
