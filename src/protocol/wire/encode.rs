//! Encoding: bincode encodes the primitives, and a type passes its parts on in order.

use bincode::{
    config::{Configuration, standard},
    enc::{EncoderImpl, write::Writer},
    error::EncodeError,
};

/// An encoder that takes the parts of a value.
pub(crate) trait Sink {
    /// Takes a primitive.
    fn put(&mut self, primitive: &(impl bincode::Encode + ?Sized));
}

/// A value that can be encoded. That never fails.
pub(crate) trait Encode {
    /// Passes on the parts of the value.
    fn encode(&self, to: &mut impl Sink);

    /// Encodes a list: its length, then its items.
    #[inline]
    fn encode_list(items: &[Self], to: &mut impl Sink)
    where
        Self: Sized,
    {
        put_len(items.len(), to);
        items.iter().for_each(|item| item.encode(to));
    }

    /// Encodes an array: its items.
    #[inline]
    fn encode_array<const N: usize>(items: &[Self; N], to: &mut impl Sink)
    where
        Self: Sized,
    {
        items.iter().for_each(|item| item.encode(to));
    }
}

/// Encodes the length of a list.
#[inline]
pub(super) fn put_len(len: usize, to: &mut impl Sink) {
    to.put(&(len as u64));
}

impl<W: Writer> Sink for EncoderImpl<W, Configuration> {
    #[inline]
    fn put(&mut self, primitive: &(impl bincode::Encode + ?Sized)) {
        // A primitive is encoded unless the writer fails, and the writers of this crate take all bytes.
        let put = primitive.encode(self);
        debug_assert!(put.is_ok(), "{put:?}");
    }
}

/// A writer that appends to a vector.
struct Append<'a>(&'a mut Vec<u8>);

impl Writer for Append<'_> {
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends the encoded value.
pub(crate) fn append(value: &impl Encode, bytes: &mut Vec<u8>) {
    value.encode(&mut EncoderImpl::new(Append(bytes), standard()));
}

/// The encoded value.
pub(crate) fn to_vec(value: &impl Encode) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(value, &mut bytes);
    bytes
}
