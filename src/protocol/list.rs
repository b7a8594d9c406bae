//! Lists from the network with a known largest length: a larger count is refused before anything is decoded.

use std::collections::{BTreeMap, BTreeSet};

use super::wire::{Decode, DecodeError, Decoder};

/// Decodes a list of at most `max` items.
pub(crate) fn few<'a, T: Decode<'a>>(
    from: &mut Decoder<'a>,
    max: usize,
) -> Result<Vec<T>, DecodeError> {
    let len = count(from, max)?;
    from.claim_items::<T>(len)?;
    let mut items = Vec::with_capacity(len);
    // The claim for the items is not given back, in contrast to bincode: an item claims the memory behind its
    // pointers, but neither the pointers nor any unused memory.
    for _ in 0..len {
        items.push(T::decode(from)?);
    }
    Ok(items)
}

/// Decodes a set of at most `max` items.
pub(crate) fn few_of<'a, T: Decode<'a> + Ord>(
    from: &mut Decoder<'a>,
    max: usize,
) -> Result<BTreeSet<T>, DecodeError> {
    Ok(few(from, max)?.into_iter().collect())
}

/// Decodes a map of at most `max` items.
pub(crate) fn few_by<'a, K: Decode<'a> + Ord, V: Decode<'a>>(
    from: &mut Decoder<'a>,
    max: usize,
) -> Result<BTreeMap<K, V>, DecodeError> {
    Ok(few::<(K, V)>(from, max)?.into_iter().collect())
}

fn count(from: &mut Decoder<'_>, max: usize) -> Result<usize, DecodeError> {
    let len = u64::decode(from)?;
    match usize::try_from(len) {
        Ok(len) if len <= max => Ok(len),
        _ => Err(DecodeError::OtherString(format!("a list of {len}, at most {max} are allowed"))),
    }
}

/// The overhead of memory behind a pointer of its own beside its contents: two counts, and the allocator's
/// data. The decoder claims it, so that many short texts do not take many times the limit
/// [`DECODE_BYTES_MAX`](super::message::DECODE_BYTES_MAX).
pub(crate) const SHARED_BYTES: usize = 32;
