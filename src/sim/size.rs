//! How long a message is on the wire, without making it.

use bincode::{Encode, config, enc::EncoderImpl, enc::write::SizeWriter};

/// Bytes of the message in the wire's encoding.
pub(super) fn encoded_len(message: &impl Encode) -> usize {
    let mut encoder = EncoderImpl::new(SizeWriter::default(), config::standard());
    // It is made here, so there is nothing in it that could fail to encode.
    let _ = message.encode(&mut encoder);
    encoder.into_writer().bytes_written
}
