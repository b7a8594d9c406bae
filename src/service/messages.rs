//! The messages of methods, encoded by the codec of their service.

use bytes::{Bytes, BytesMut};

use super::{
    Call, Cast, Service,
    codec::{Codec, CodecError},
};

pub(super) fn encode_question<M: Call>(ask: &M) -> Result<Bytes, CodecError> {
    encode::<M::Service, M>(ask)
}

pub(super) fn decode_question<M: Call>(from: Bytes) -> Result<M, CodecError> {
    decode::<M::Service, M>(from)
}

pub(super) fn encode_answer<M: Call>(reply: &M::Reply) -> Result<Bytes, CodecError> {
    encode::<M::Service, M::Reply>(reply)
}

pub(super) fn decode_answer<M: Call>(from: Bytes) -> Result<M::Reply, CodecError> {
    decode::<M::Service, M::Reply>(from)
}

pub(super) fn encode_cast<M: Cast>(message: &M) -> Result<Bytes, CodecError> {
    encode::<M::Service, M>(message)
}

pub(super) fn decode_cast<M: Cast>(from: Bytes) -> Result<M, CodecError> {
    decode::<M::Service, M>(from)
}

/// Any message of a service, in the codec of the service.
pub(super) fn encode<S: Service<Codec: Codec<T>>, T>(message: &T) -> Result<Bytes, CodecError> {
    let mut to = BytesMut::new();
    S::Codec::encode(message, &mut to).map(|()| to.freeze())
}

pub(super) fn decode<S: Service<Codec: Codec<T>>, T>(from: Bytes) -> Result<T, CodecError> {
    S::Codec::decode(from)
}
