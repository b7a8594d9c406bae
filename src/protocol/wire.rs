//! The encoding of everything that travels or is stored: bincode's standard one.
//!
//! bincode encodes and decodes the integers, truth values, bytes, texts and lengths, and counts the memory that a
//! decoded value takes. The traits for all other types are the crate's own, so that the public types implement no
//! trait of bincode.
//!
//! A struct is its fields in order, without names. An enum is the number of the variant, then its fields. A list
//! begins with its length, an array does not.

mod decode;
mod encode;
mod fields;
mod primitives;
mod sequences;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    decode::{Decode, Decoder, from_slice},
    encode::{Encode, Sink, append, to_vec},
    fields::{decode_fields, encode_fields, fields, variants},
};
pub(crate) use bincode::error::DecodeError;
