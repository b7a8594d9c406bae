//! Integers, truth values, bytes and texts, which bincode encodes and decodes.

use bincode::error::DecodeError;

use super::{
    decode::{Decode, Decoder},
    encode::{Encode, Sink},
};

macro_rules! primitives {
    ($($primitive:ty),+ $(,)?) => {
        $(
            impl Encode for $primitive {
                #[inline]
                fn encode(&self, to: &mut impl Sink) {
                    to.put(self);
                }
            }

            impl Decode<'_> for $primitive {
                #[inline]
                fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                    from.take()
                }
            }
        )+
    };
}

primitives!((), bool, u16, u32, u64, u128, i64);

impl Encode for u8 {
    #[inline]
    fn encode(&self, to: &mut impl Sink) {
        to.put(self);
    }

    #[inline]
    fn encode_list(items: &[Self], to: &mut impl Sink) {
        to.put(items);
    }

    #[inline]
    fn encode_array<const N: usize>(items: &[Self; N], to: &mut impl Sink) {
        to.put(items);
    }
}

impl<'a> Decode<'a> for u8 {
    #[inline]
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        from.take()
    }

    #[inline]
    fn decode_list(from: &mut Decoder<'a>) -> Result<Vec<Self>, DecodeError> {
        // bincode would fill the vector with zeros first.
        from.take::<&[Self]>().map(<[Self]>::to_vec)
    }

    #[inline]
    fn decode_array<const N: usize>(from: &mut Decoder<'a>) -> Result<[Self; N], DecodeError> {
        from.take()
    }
}

impl<'a> Decode<'a> for &'a [u8] {
    #[inline]
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        from.take()
    }
}

impl Encode for str {
    #[inline]
    fn encode(&self, to: &mut impl Sink) {
        to.put(self);
    }
}

impl<'a> Decode<'a> for &'a str {
    #[inline]
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        from.take()
    }
}

impl Encode for String {
    #[inline]
    fn encode(&self, to: &mut impl Sink) {
        to.put(self.as_str());
    }
}

impl Decode<'_> for String {
    #[inline]
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        // bincode would copy the text before it checks it.
        from.take::<&str>().map(ToOwned::to_owned)
    }
}
