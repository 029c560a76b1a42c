//! "Who are you": asked before a cluster is formed, before a member is added, and before elections;
//! and by every member each second (`rounds.rs`).

use std::sync::Arc;

use dfs_proto::status::from_status;
use dfs_proto::v1;
use dfs_types::{ClusterId, DfsError, ErrorCode};
use tonic::Request;

use super::api::HELLO_TIMEOUT;
use super::marks::{Conscience, Mark, Marks};
use super::peers::Peers;
use crate::space::Space;

#[derive(Clone)]
pub struct Greeter {
    pub peers: Peers,
    pub name: String,
    pub cluster: ClusterId,
    pub raft_id: u64,
    pub marks: Arc<Marks>,
    pub conscience: Conscience,
    /// This server's own word, as it tells it to others.
    pub space: Arc<Space>,
    pub feature_level: u32,
}

impl Greeter {
    /// Asks the member called `name` at `address`; its certificate must say so. Remembers what it says
    /// it has, and hears what it remembers of this one.
    pub async fn hello(&self, name: &str, address: &str) -> Result<v1::HelloResponse, DfsError> {
        let mut request = Request::new(v1::HelloRequest {
            name: self.name.clone(),
            cluster_id: self.cluster.to_vec().into(),
            raft_id: self.raft_id,
        });
        request.set_timeout(HELLO_TIMEOUT);
        let mut client = self.peers.client(name, address)?;
        let failed = |why: String| {
            DfsError::new(
                ErrorCode::Unavailable,
                format!("member {name} at {address} does not answer: {why}"),
            )
        };
        match tokio::time::timeout(HELLO_TIMEOUT, client.hello(request)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                if answer.name != name || answer.raft_id == 0 {
                    return Err(failed(format!("it calls itself {:?}", answer.name)));
                }
                if let Some(mark) = Mark::from_bytes(&answer.mark) {
                    self.marks.learn(answer.raft_id, &mark);
                }
                if let Some(remembered) = Mark::from_bytes(&answer.remembered) {
                    self.conscience.face(&remembered).map_err(failed)?;
                }
                Ok(answer)
            }
            Ok(Err(status)) => Err(failed(from_status(&status).message)),
            Err(_) => Err(failed("too slow".into())),
        }
    }
}
