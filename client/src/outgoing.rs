//! What every call carries in its headers beside its message: the request id, for the logs of the servers
//! it goes through, and its place in a trace, where traces are sent.

use tonic::metadata::MetadataValue;

pub(crate) fn outgoing<M>(message: M, request_id: &str) -> tonic::Request<M> {
    let mut request = tonic::Request::new(message);
    let id = MetadataValue::try_from(request_id).expect("hex is ASCII");
    request.metadata_mut().insert("x-request-id", id);
    traces::inject(request.metadata_mut().as_mut());
    request
}

/// The name of a call by the type of its message: `Stat` for `StatRequest`.
pub(crate) fn call_name<Q>() -> &'static str {
    let name = std::any::type_name::<Q>();
    let name = name.rsplit("::").next().unwrap_or(name);
    name.strip_suffix("Request").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_named_by_its_message_and_carries_its_id() {
        assert_eq!(call_name::<dfs_proto::v1::ListRequest>(), "List");
        let request = outgoing((), "00ff");
        assert_eq!(request.metadata().get("x-request-id").unwrap(), "00ff");
        assert!(!request.metadata().contains_key("traceparent"), "no trace was started");
    }
}
