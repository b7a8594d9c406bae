//! Bounds what the bytes of another node can make a derived decoder do: how deep a message is nested, so that it cannot
//! overflow the stack, and how many values it has, since those of types without content take no bytes.

use std::{cell::Cell, fmt, marker::PhantomData};

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// Deepest nesting of a message. serde_json has 128; a level of a derived type takes some hundreds of bytes of a stack
/// of 2 MiB.
const DEPTH_MAX: u32 = 128;
/// Most values of a message for each of its bytes: a byte in a newtype in a list in a structure counts four times.
const VALUES_PER_BYTE: usize = 8;
/// And this many more, for values that take no bytes.
const VALUES_FREE: usize = 65_536;

/// Decodes a message, within the bounds for so many bytes.
pub(super) struct Message<'a, T> {
    bounds: Bounds<'a>,
    message: PhantomData<T>,
}

/// The values that a message may still have.
pub(super) struct Values(Cell<usize>);

impl Values {
    /// Of a message of so many bytes.
    pub(super) const fn of(bytes: usize) -> Self {
        Self(Cell::new(bytes.saturating_mul(VALUES_PER_BYTE).saturating_add(VALUES_FREE)))
    }

    /// To decode the message.
    pub(super) const fn message<T>(&self) -> Message<'_, T> {
        Message { bounds: Bounds { depth: DEPTH_MAX, values: self }, message: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Message<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<T, D::Error> {
        T::deserialize(Bounded { inner: from, bounds: self.bounds })
    }
}

/// What is left of both bounds.
#[derive(Clone, Copy)]
struct Bounds<'a> {
    depth: u32,
    values: &'a Values,
}

impl Bounds<'_> {
    /// For what is inside of a value.
    fn inside<E: Error>(self) -> Result<Self, E> {
        let deeper = self.depth.checked_sub(1);
        let depth = deeper.ok_or_else(|| E::custom(format!("nested deeper than {DEPTH_MAX}")))?;
        Ok(Self { depth, ..self })
    }

    /// Counts a value.
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.values.0.get().checked_sub(1);
        self.values.0.set(left.ok_or_else(|| E::custom("more values than its bytes justify"))?);
        Ok(())
    }
}

/// Anything of serde's, with the bounds for what goes through it.
struct Bounded<'a, I> {
    inner: I,
    bounds: Bounds<'a>,
}

/// Methods of a deserializer: each counts a value and passes on a visitor with the bounds.
macro_rules! deserialize {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(
            self,
            $($argument: $type,)*
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            self.bounds.count()?;
            self.inner.$method($($argument,)* Bounded { inner: visitor, bounds: self.bounds })
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Bounded<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// Methods of a visitor that take a value without a value inside.
macro_rules! visit {
    ($($method:ident($type:ty);)*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

/// Methods of a visitor that take a value with others inside.
macro_rules! visit_inside {
    ($($method:ident: $access:ident;)*) => {
        $(fn $method<A: $access<'de>>(self, access: A) -> Result<V::Value, A::Error> {
            let bounds = self.bounds.inside()?;
            self.inner.$method(Bounded { inner: access, bounds })
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Bounded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool(bool);
        visit_i8(i8);
        visit_i16(i16);
        visit_i32(i32);
        visit_i64(i64);
        visit_i128(i128);
        visit_u8(u8);
        visit_u16(u16);
        visit_u32(u32);
        visit_u64(u64);
        visit_u128(u128);
        visit_f32(f32);
        visit_f64(f64);
        visit_char(char);
        visit_str(&str);
        visit_borrowed_str(&'de str);
        visit_string(String);
        visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]);
        visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    visit_inside! {
        visit_some: Deserializer;
        visit_newtype_struct: Deserializer;
        visit_seq: SeqAccess;
        visit_map: MapAccess;
        visit_enum: EnumAccess;
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Bounded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Bounded { inner: from, bounds: self.bounds })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_element_seed(Bounded { inner: seed, bounds: self.bounds })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.inner.next_key_seed(Bounded { inner: seed, bounds: self.bounds })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(Bounded { inner: seed, bounds: self.bounds })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'a, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Bounded<'a, A> {
    type Error = A::Error;
    type Variant = Bounded<'a, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let bounds = self.bounds;
        let (value, variant) = self.inner.variant_seed(Bounded { inner: seed, bounds })?;
        Ok((value, Bounded { inner: variant, bounds }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Bounded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.newtype_variant_seed(Bounded { inner: seed, bounds: self.bounds })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.inner.tuple_variant(len, Bounded { inner: visitor, bounds: self.bounds })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.inner.struct_variant(fields, Bounded { inner: visitor, bounds: self.bounds })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::{Bytes, BytesMut};
    use serde::{Deserialize, Serialize, de::DeserializeOwned};

    use super::{
        super::{Bincode, Codec},
        *,
    };

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct List {
        next: Option<Box<Self>>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        Node(Box<Self>, Box<Self>),
        Named { inner: Box<Self> },
        Boxed(Box<Self>),
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Everything {
        flag: bool,
        numbers: (i8, u16, i32, u64, i128),
        real: f64,
        letter: char,
        text: String,
        bytes: Vec<u8>,
        some: Option<Unit>,
        none: Option<u8>,
        newtype: Newtype,
        map: BTreeMap<String, Vec<Tree>>,
        result: Result<(), String>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Unit;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Newtype(u32);

    fn decode<T: Serialize + DeserializeOwned>(bytes: Vec<u8>) -> Result<T, String> {
        Bincode::decode(Bytes::from(bytes)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_message_nested_too_deep_is_refused_before_the_stack_ends() {
        for bytes in [1_000, 16_384, 1 << 20] {
            let refused = decode::<List>(vec![1; bytes]).unwrap_err();
            assert!(refused.contains("nested deeper"), "{refused}");
            for variant in 1..=3 {
                let refused = decode::<Tree>(vec![variant; bytes]).unwrap_err();
                assert!(refused.contains("nested deeper"), "variant {variant}: {refused}");
            }
        }
        let list = |len: usize| [vec![1; len], vec![0]].concat();
        // A structure and an option are a level each.
        let most = DEPTH_MAX as usize / 2 - 1;
        assert!(decode::<List>(list(most)).is_ok() && decode::<List>(list(most + 1)).is_err());
    }

    #[test]
    fn values_without_bytes_have_a_limit() {
        let claims = |len: u64| bincode::encode_to_vec(len, bincode::config::standard()).unwrap();
        assert_eq!(decode::<Vec<()>>(claims(60_000)).unwrap().len(), 60_000);
        for len in [100_000, 1 << 33, u64::MAX] {
            let refused = decode::<Vec<()>>(claims(len)).unwrap_err();
            assert!(refused.contains("more values") || refused.contains("usize"), "{refused}");
        }
    }

    #[test]
    fn a_list_of_the_smallest_values_in_the_longest_body_is_decoded() {
        let bytes: Vec<_> = (0..1 << 20).map(|n| n as u8).collect();
        let mut encoded = BytesMut::new();
        Bincode::encode(&bytes, &mut encoded).unwrap();
        assert_eq!(decode::<Vec<u8>>(encoded.to_vec()).unwrap(), bytes);
    }

    #[test]
    fn each_kind_of_value_comes_back() {
        let tree = || Tree::Named { inner: Box::new(Tree::Boxed(Box::new(Tree::Leaf))) };
        let everything = Everything {
            flag: true,
            numbers: (-1, 2, -3, u64::MAX, i128::MIN),
            real: 0.5,
            letter: 'ä',
            text: "text".to_owned(),
            bytes: vec![1, 2, 3],
            some: Some(Unit),
            none: None,
            newtype: Newtype(4),
            map: [(
                "a".to_owned(),
                vec![Tree::Leaf, Tree::Node(Box::new(tree()), Box::new(tree()))],
            )]
            .into(),
            result: Err("no".to_owned()),
        };
        let mut encoded = BytesMut::new();
        Bincode::encode(&everything, &mut encoded).unwrap();
        assert_eq!(decode::<Everything>(encoded.to_vec()).unwrap(), everything);
    }
}
