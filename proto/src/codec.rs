//! The gRPC codec of all generated services: prost, with buffers sized by message type.
//!
//! Owner: a codec lives as long as its call. A data message of 256 KiB outgrows tonic's default buffer
//! of 8 KiB at once; here its room is made in one step. Only the two message types that carry chunk
//! bytes get it, each in its own direction, because a buffer is allocated for every call and the other
//! messages are small.

use std::any::TypeId;
use std::marker::PhantomData;

use dfs_types::limits::DATA_MESSAGE_BYTES;
use prost::Message;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::{Status, codec};
use tonic_prost::ProstCodec;

use crate::v1;

/// What frames a data message: gRPC's prefix, the oneof's tag and length.
const FRAMING_BYTES: usize = 64;

/// `application/grpc+proto` for messages to encode (`T`) and to decode (`U`).
pub struct SizedCodec<T, U> {
    types: PhantomData<(T, U)>,
}

impl<T, U> Default for SizedCodec<T, U> {
    fn default() -> Self {
        Self { types: PhantomData }
    }
}

/// The buffers for messages of type `M`.
fn settings<M: 'static>() -> BufferSettings {
    if carries_data::<M>() {
        BufferSettings::new(DATA_MESSAGE_BYTES + FRAMING_BYTES, DATA_MESSAGE_BYTES)
    } else {
        BufferSettings::default()
    }
}

fn carries_data<M: 'static>() -> bool {
    let bulk = [TypeId::of::<v1::PutRequest>(), TypeId::of::<v1::GetResponse>()];
    bulk.contains(&TypeId::of::<M>())
}

impl<T, U> Codec for SizedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SizedEncoder<T>;
    type Decoder = <ProstCodec<T, U> as codec::Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        SizedEncoder { settings: settings::<T>(), message: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(settings::<U>())
    }
}

/// Encodes into room that was made for the whole message: later messages of a stream find no buffer,
/// because the earlier one's went to the connection.
pub struct SizedEncoder<T> {
    settings: BufferSettings,
    message: PhantomData<T>,
}

impl<T: Message> Encoder for SizedEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.encoded_len());
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunk_bytes_get_large_buffers() {
        assert!(carries_data::<v1::PutRequest>() && carries_data::<v1::GetResponse>());
        assert!(!carries_data::<v1::PutResponse>() && !carries_data::<v1::ListResponse>());
    }

    #[test]
    fn the_framing_of_a_full_data_message_fits() {
        let data = bytes::Bytes::from(vec![0; DATA_MESSAGE_BYTES]);
        let put = v1::PutRequest { part: Some(v1::put_request::Part::Data(data.clone())) };
        let get = v1::GetResponse { part: Some(v1::get_response::Part::Data(data)) };
        let grpc_prefix = 5;
        for length in [put.encoded_len(), get.encoded_len()] {
            assert!(length + grpc_prefix <= DATA_MESSAGE_BYTES + FRAMING_BYTES);
        }
    }
}
