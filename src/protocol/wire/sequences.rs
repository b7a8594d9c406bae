//! Lists, sets, maps, arrays, tuples, options, and pointers, in the encoding that bincode gives them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bincode::error::DecodeError;

use super::{
    decode::{Decode, Decoder},
    encode::{Encode, Sink, put_len},
};

impl<T: Encode> Encode for [T] {
    #[inline]
    fn encode(&self, to: &mut impl Sink) {
        T::encode_list(self, to);
    }
}

impl<T: Encode> Encode for Vec<T> {
    #[inline]
    fn encode(&self, to: &mut impl Sink) {
        T::encode_list(self, to);
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Vec<T> {
    #[inline]
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        T::decode_list(from)
    }
}

impl<T: Encode> Encode for BTreeSet<T> {
    fn encode(&self, to: &mut impl Sink) {
        put_len(self.len(), to);
        self.iter().for_each(|item| item.encode(to));
    }
}

impl<'a, T: Decode<'a> + Ord> Decode<'a> for BTreeSet<T> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let len = from.len()?;
        from.claim_items::<T>(len)?;
        let mut set = Self::new();
        for _ in 0..len {
            from.give_back(size_of::<T>());
            set.insert(T::decode(from)?);
        }
        Ok(set)
    }
}

impl<K: Encode, V: Encode> Encode for BTreeMap<K, V> {
    fn encode(&self, to: &mut impl Sink) {
        put_len(self.len(), to);
        self.iter().for_each(|entry| entry.encode(to));
    }
}

impl<'a, K: Decode<'a> + Ord, V: Decode<'a>> Decode<'a> for BTreeMap<K, V> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let len = from.len()?;
        from.claim_items::<(K, V)>(len)?;
        let mut map = Self::new();
        for _ in 0..len {
            from.give_back(size_of::<(K, V)>());
            map.insert(K::decode(from)?, V::decode(from)?);
        }
        Ok(map)
    }
}

impl<T: Encode, const N: usize> Encode for [T; N] {
    #[inline]
    fn encode(&self, to: &mut impl Sink) {
        T::encode_array(self, to);
    }
}

impl<'a, T: Decode<'a>, const N: usize> Decode<'a> for [T; N] {
    #[inline]
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        T::decode_array(from)
    }
}

macro_rules! tuple {
    ($($item:ident $index:tt),+) => {
        impl<$($item: Encode),+> Encode for ($($item,)+) {
            #[inline]
            fn encode(&self, to: &mut impl Sink) {
                $(self.$index.encode(to);)+
            }
        }

        impl<'a, $($item: Decode<'a>),+> Decode<'a> for ($($item,)+) {
            #[inline]
            fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
                Ok(($($item::decode(from)?,)+))
            }
        }
    };
}

tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2, D 3, E 4);

impl<T: Encode> Encode for Option<T> {
    #[inline]
    fn encode(&self, to: &mut impl Sink) {
        to.put(&self.is_some());
        if let Some(value) = self {
            value.encode(to);
        }
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Option<T> {
    #[inline]
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        if from.take()? { T::decode(from).map(Some) } else { Ok(None) }
    }
}

macro_rules! pointers {
    ($($pointer:ty),+) => {
        $(
            impl<T: Encode + ?Sized> Encode for $pointer {
                #[inline]
                fn encode(&self, to: &mut impl Sink) {
                    (**self).encode(to);
                }
            }
        )+
    };
}

pointers!(&T, Box<T>, Arc<T>);

impl<'a, T: Decode<'a>> Decode<'a> for Box<T> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        T::decode(from).map(Self::new)
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Arc<T> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        T::decode(from).map(Self::new)
    }
}
