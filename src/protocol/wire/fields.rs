//! Structs as the sequence of their fields, and enums as the number of a variant with its fields.
//!
//! The order of the fields here is that on the wire. A field that is missing does not compile.

/// Encodes and decodes a struct field by field.
macro_rules! fields {
    ($name:ident { $($field:tt),+ $(,)? }) => {
        $crate::protocol::wire::encode_fields!($name { $($field),+ });
        $crate::protocol::wire::decode_fields!($name { $($field),+ });
    };
}

/// Encodes a struct field by field.
macro_rules! encode_fields {
    ($name:ident $(<$life:lifetime>)? { $($field:tt),+ $(,)? }) => {
        impl $(<$life>)? $crate::protocol::wire::Encode for $name $(<$life>)? {
            #[inline]
            fn encode(&self, to: &mut impl $crate::protocol::wire::Sink) {
                let Self { $($field: _),+ } = self;
                $($crate::protocol::wire::Encode::encode(&self.$field, to);)+
            }
        }
    };
}

/// Decodes a struct field by field.
macro_rules! decode_fields {
    ($name:ident { $($field:tt),+ $(,)? }) => {
        impl $crate::protocol::wire::Decode<'_> for $name {
            #[inline]
            fn decode(
                from: &mut $crate::protocol::wire::Decoder<'_>,
            ) -> Result<Self, $crate::protocol::wire::DecodeError> {
                Ok(Self { $($field: $crate::protocol::wire::Decode::decode(from)?),+ })
            }
        }
    };
    ($name:ident<$life:lifetime> { $($field:tt),+ $(,)? }) => {
        impl<$life> $crate::protocol::wire::Decode<$life> for $name<$life> {
            #[inline]
            fn decode(
                from: &mut $crate::protocol::wire::Decoder<$life>,
            ) -> Result<Self, $crate::protocol::wire::DecodeError> {
                Ok(Self { $($field: $crate::protocol::wire::Decode::decode(from)?),+ })
            }
        }
    };
}

/// Encodes and decodes an enum: the number of the variant, then its fields.
macro_rules! variants {
    ($name:ident { $($number:literal => $variant:ident { $($field:tt: $value:ident),* }),+ $(,)? }) => {
        impl $crate::protocol::wire::Encode for $name {
            #[inline]
            fn encode(&self, to: &mut impl $crate::protocol::wire::Sink) {
                match self {
                    $(Self::$variant { $($field: $value),* } => {
                        $crate::protocol::wire::Encode::encode(&($number as u32), to);
                        $($crate::protocol::wire::Encode::encode($value, to);)*
                    })+
                }
            }
        }

        impl $crate::protocol::wire::Decode<'_> for $name {
            #[inline]
            fn decode(
                from: &mut $crate::protocol::wire::Decoder<'_>,
            ) -> Result<Self, $crate::protocol::wire::DecodeError> {
                match <u32 as $crate::protocol::wire::Decode>::decode(from)? {
                    $($number => Ok(Self::$variant {
                        $($field: $crate::protocol::wire::Decode::decode(from)?),*
                    }),)+
                    number => Err($crate::protocol::wire::DecodeError::OtherString(format!(
                        "no variant {number}"
                    ))),
                }
            }
        }
    };
}

pub(crate) use {decode_fields, encode_fields, fields, variants};
