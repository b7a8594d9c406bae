//! Decoding: bincode decodes the primitives, and a type takes its parts in order.

use bincode::{
    BorrowDecode,
    config::{Configuration, Limit, LittleEndian, Varint},
    de::{
        BorrowDecoder, Decoder as _, DecoderImpl,
        read::{BorrowReader, SliceReader},
    },
    error::DecodeError,
};

/// A value that can be decoded. One that borrows from the bytes names their lifetime.
pub(crate) trait Decode<'a>: Sized {
    /// Takes the parts of the value.
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError>;

    /// Decodes a list: its length, then its items.
    #[inline]
    fn decode_list(from: &mut Decoder<'a>) -> Result<Vec<Self>, DecodeError> {
        let len = from.len()?;
        from.claim_items::<Self>(len)?;
        // Each item takes a byte or more.
        let mut items = Vec::with_capacity(len.min(from.rest()));
        for _ in 0..len {
            from.give_back(size_of::<Self>());
            items.push(Self::decode(from)?);
        }
        Ok(items)
    }

    /// Decodes an array: its items.
    #[inline]
    fn decode_array<const N: usize>(from: &mut Decoder<'a>) -> Result<[Self; N], DecodeError> {
        from.claim_items::<Self>(N)?;
        let mut items = Vec::with_capacity(N);
        for _ in 0..N {
            from.give_back(size_of::<Self>());
            items.push(Self::decode(from)?);
        }
        let found = items.len();
        items.try_into().map_err(|_| DecodeError::ArrayLengthMismatch { required: N, found })
    }
}

/// The bytes that are left to decode, and the memory that the value may still take.
pub(crate) struct Decoder<'a>(DecoderImpl<SliceReader<'a>, Largest, ()>);

impl<'a> Decoder<'a> {
    /// Decodes a primitive.
    #[inline]
    pub(super) fn take<T: BorrowDecode<'a, ()>>(&mut self) -> Result<T, DecodeError> {
        T::borrow_decode(&mut self.0)
    }

    /// Claims memory before it is allocated.
    #[inline]
    pub(crate) fn claim(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.0.claim_bytes_read(bytes)
    }

    /// Claims the memory of this many items before it is allocated.
    #[inline]
    pub(crate) fn claim_items<T>(&mut self, len: usize) -> Result<(), DecodeError> {
        self.0.claim_container_read::<T>(len)
    }

    /// Gives back claimed memory, because the decoded item claims it too.
    #[inline]
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.0.unclaim_bytes_read(bytes);
    }

    /// Decodes the length of a list.
    #[inline]
    pub(super) fn len(&mut self) -> Result<usize, DecodeError> {
        let len = self.take()?;
        usize::try_from(len).map_err(|_| DecodeError::OutsideUsizeRange(len))
    }

    /// The number of bytes that are left. bincode's reader tells it only in its error for too few bytes. No slice
    /// has as many bytes as are asked for here.
    #[inline]
    fn rest(&mut self) -> usize {
        match self.0.borrow_reader().take_bytes(usize::MAX) {
            Err(DecodeError::UnexpectedEnd { additional }) => usize::MAX - additional,
            _ => 0,
        }
    }
}

/// Bytes that are not one encoded value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOneValue {
    /// They are no value of this type.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// More bytes follow the value.
    #[error("{0} bytes left over")]
    LeftOver(usize),
}

/// Decodes one value from all of the bytes. The value may take this much memory at most.
pub(crate) fn from_slice<'a, T: Decode<'a>>(
    bytes: &'a [u8],
    memory: usize,
) -> Result<T, NotOneValue> {
    let mut decoder = Decoder(DecoderImpl::new(SliceReader::new(bytes), CONFIG, ()));
    // bincode's limit is a constant of the type. A claim at the start reduces it to the limit of this value.
    decoder.claim(usize::MAX - memory)?;
    let value = T::decode(&mut decoder)?;
    match decoder.rest() {
        0 => Ok(value),
        rest => Err(NotOneValue::LeftOver(rest)),
    }
}

/// The standard configuration, with the largest limit.
type Largest = Configuration<LittleEndian, Varint, Limit<{ usize::MAX }>>;
const CONFIG: Largest = bincode::config::standard().with_limit();
