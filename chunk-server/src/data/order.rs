//! What a put asks for, checked: everything about its header that needs no grant, store or clock.

use std::time::Duration;

use chunk_format::seal::plain_length;
use dfs_proto::v1::{ForwardTo, PutHeader};
use dfs_types::limits::{
    FORWARD_STALL_MS, MAX_FORWARD_NODES, MAX_SEALED_BYTES, MIN_STREAM_BYTES_PER_SEC, STREAM_BASE_MS,
};
use dfs_types::{ChunkId, DfsError, ErrorCode, NodeId, RealmId};
use server_kit::request_id::RequestIdText;

use crate::peers::PeerNode;
use crate::store::ChunkKey;

/// A put's header with its fields read.
#[derive(Clone, Debug)]
pub struct PutOrder {
    pub key: ChunkKey,
    pub sealed_length: u64,
    pub grant: bytes::Bytes,
    pub request_id: RequestIdText,
    /// The next node, if there is one.
    pub next: Option<NextNode>,
}

/// The node to forward to, and what it is to do.
#[derive(Clone, Debug)]
pub struct NextNode {
    pub node: PeerNode,
    pub header: PutHeader,
    /// This node and those behind it, in order.
    pub behind: Vec<NodeId>,
}

impl NextNode {
    /// How long the nodes from here on may hold this one up. Shorter from node to node, so that of
    /// a row of waiting nodes the last gives up first and names the one that really stalls.
    pub fn stall(&self) -> Duration {
        Duration::from_millis(FORWARD_STALL_MS) * self.behind.len() as u32
    }
}

impl PutOrder {
    /// # Errors
    /// `invalid_argument` for a field out of its form, `limit_exceeded` for too many nodes.
    pub fn parse(header: PutHeader, own: &NodeId) -> Result<Self, DfsError> {
        let key = ChunkKey {
            realm: RealmId::from_slice(&header.realm_id)?,
            chunk: ChunkId::from_slice(&header.chunk_id)?,
        };
        check_sealed_length(header.sealed_length)?;
        if header.forward.len() > MAX_FORWARD_NODES {
            return Err(DfsError::new(
                ErrorCode::LimitExceeded,
                format!(
                    "{} nodes to forward to, at most {MAX_FORWARD_NODES} are allowed",
                    header.forward.len()
                ),
            ));
        }
        let request_id = request_id_or(&header.request_id, server_kit::request_id::current());
        let next = next_node(&header, &request_id, own)?;
        Ok(Self { key, sealed_length: header.sealed_length, grant: header.grant, request_id, next })
    }
}

fn next_node(
    header: &PutHeader,
    request_id: &RequestIdText,
    own: &NodeId,
) -> Result<Option<NextNode>, DfsError> {
    let Some((first, rest)) = header.forward.split_first() else { return Ok(None) };
    let mut behind = Vec::with_capacity(header.forward.len());
    for ForwardTo { node, .. } in &header.forward {
        let node = PeerNode::parse(node.as_ref())?;
        if node.id == *own || behind.contains(&node.id) {
            return Err(DfsError::new(
                ErrorCode::InvalidArgument,
                format!("node {} is in the list of nodes twice", node.id),
            ));
        }
        behind.push(node.id);
    }
    let onward = PutHeader {
        realm_id: header.realm_id.clone(),
        chunk_id: header.chunk_id.clone(),
        sealed_length: header.sealed_length,
        grant: first.grant.clone(),
        forward: rest.to_vec(),
        request_id: request_id.to_string(),
    };
    Ok(Some(NextNode { node: PeerNode::parse(first.node.as_ref())?, header: onward, behind }))
}

/// # Errors
/// `invalid_argument` for a length that no sealed chunk has.
pub fn check_sealed_length(sealed_length: u64) -> Result<(), DfsError> {
    if sealed_length <= MAX_SEALED_BYTES && plain_length(sealed_length).is_ok() {
        return Ok(());
    }
    Err(DfsError::new(
        ErrorCode::InvalidArgument,
        format!("no sealed chunk has {sealed_length} bytes (at most {MAX_SEALED_BYTES})"),
    ))
}

/// The longest a whole stream of `bytes` may take.
pub fn stream_deadline(bytes: u64) -> Duration {
    Duration::from_millis(STREAM_BASE_MS + bytes.saturating_mul(1000) / MIN_STREAM_BYTES_PER_SEC)
}

/// The id in a message if it is fit, else the one of the call.
pub fn request_id_or(text: &str, call: Option<RequestIdText>) -> RequestIdText {
    RequestIdText::parse(text).or(call).unwrap_or_else(RequestIdText::generate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::v1::NodeAddress;

    fn header(nodes: &[&str]) -> PutHeader {
        let to = |id: &&str| ForwardTo {
            node: Some(NodeAddress { node_id: (*id).into(), address: format!("{id}:1") }),
            grant: bytes::Bytes::copy_from_slice(id.as_bytes()),
        };
        PutHeader {
            realm_id: vec![1; 16].into(),
            chunk_id: vec![2; 32].into(),
            sealed_length: 81,
            grant: "n1".into(),
            forward: nodes.iter().map(to).collect(),
            request_id: "r".into(),
        }
    }

    fn parse(header: PutHeader) -> Result<PutOrder, DfsError> {
        PutOrder::parse(header, &NodeId::new("n1").unwrap())
    }

    #[test]
    fn the_next_node_gets_its_own_grant_and_the_rest_of_the_list() {
        let order = parse(header(&["n2", "n3"])).unwrap();
        let next = order.next.unwrap();
        assert_eq!((&next.header.grant[..], next.header.forward.len()), (&b"n2"[..], 1));
        assert_eq!(next.behind.len(), 2);
        let last = PutOrder::parse(next.header, &next.node.id).unwrap().next.unwrap();
        assert!(last.stall() < Duration::from_millis(FORWARD_STALL_MS) * 2);
        assert!(PutOrder::parse(last.header, &last.node.id).unwrap().next.is_none());
    }

    #[test]
    fn bad_headers_are_refused() {
        let many: Vec<String> = (2..30).map(|n| format!("n{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for bad in [
            PutHeader { realm_id: vec![1; 15].into(), ..header(&[]) },
            PutHeader { chunk_id: vec![1; 31].into(), ..header(&[]) },
            PutHeader { sealed_length: 0, ..header(&[]) },
            PutHeader { sealed_length: 80, ..header(&[]) },
            PutHeader { sealed_length: u64::MAX, ..header(&[]) },
            PutHeader { sealed_length: MAX_SEALED_BYTES + 1, ..header(&[]) },
            header(&["n1"]),
            header(&["n2", "n2"]),
            header(&["N2"]),
            header(&many),
        ] {
            assert!(parse(bad.clone()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn odd_request_ids_are_replaced() {
        for odd in ["", "a b", "a\nb", &"x".repeat(200)] {
            let order = parse(PutHeader { request_id: odd.into(), ..header(&[]) }).unwrap();
            assert_ne!(order.request_id.as_str(), odd);
        }
    }
}
