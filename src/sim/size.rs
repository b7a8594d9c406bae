//! The length of a message on the wire, computed without making it.

use bincode::{config, enc::EncoderImpl, enc::write::SizeWriter};

use crate::protocol::wire::Encode;

/// Bytes of the message in the wire's encoding.
pub(super) fn encoded_len(message: &impl Encode) -> usize {
    let mut encoder = EncoderImpl::new(SizeWriter::default(), config::standard());
    message.encode(&mut encoder);
    encoder.into_writer().bytes_written
}
