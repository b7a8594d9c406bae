//! Names and counters, each in a type of its own so that none is mistaken for another.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bincode::{
    BorrowDecode, Decode, Encode,
    de::{BorrowDecoder, Decoder},
    enc::Encoder,
    error::{DecodeError, EncodeError},
};

/// Longest node, datacenter or cluster name, in bytes.
pub const LABEL_MAX: usize = 63;

/// A name was not a label: 1 to 63 of `a-z`, `0-9`, `.`, `_`, `-`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not a label: 1 to 63 of a-z, 0-9, '.', '_' and '-' are allowed")]
pub struct InvalidLabel {
    what: &'static str,
    value: String,
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses a label.
            ///
            /// # Errors
            /// [`InvalidLabel`] unless it is 1 to 63 of `a-z`, `0-9`, `.`, `_`, `-`.
            pub fn new(label: &str) -> Result<Self, InvalidLabel> {
                if is_label(label) {
                    Ok(Self(label.into()))
                } else {
                    Err(InvalidLabel { what: $what, value: shown(label) })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidLabel;
            fn from_str(label: &str) -> Result<Self, InvalidLabel> {
                Self::new(label)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidLabel;
            fn try_from(label: String) -> Result<Self, InvalidLabel> {
                Self::new(&label)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let label = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                Self::new(&label).map_err(serde::de::Error::custom)
            }
        }

        impl Encode for $name {
            fn encode<E: Encoder>(&self, to: &mut E) -> Result<(), EncodeError> {
                (*self.0).encode(to)
            }
        }

        impl<C> Decode<C> for $name {
            fn decode<D: Decoder<Context = C>>(from: &mut D) -> Result<Self, DecodeError> {
                let label = String::decode(from)?;
                Self::new(&label).map_err(|e| DecodeError::OtherString(e.to_string()))
            }
        }

        impl<'de, C> BorrowDecode<'de, C> for $name {
            fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(
                from: &mut D,
            ) -> Result<Self, DecodeError> {
                let label = <&str>::borrow_decode(from)?;
                Self::new(label).map_err(|e| DecodeError::OtherString(e.to_string()))
            }
        }
    };
}

label!(
    /// Names one cluster; members of different clusters never exchange state.
    ClusterId,
    "cluster"
);
label!(
    /// Names one node, unique in its cluster; its certificate proves it.
    NodeId,
    "node"
);
label!(
    /// Names the datacenter of a node.
    Datacenter,
    "datacenter"
);

fn is_label(label: &str) -> bool {
    (1..=LABEL_MAX).contains(&label.len())
        && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// The start of a refused name, so that an error message stays one line.
fn shown(label: &str) -> String {
    label.chars().take(LABEL_MAX + 1).collect()
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub struct $name(pub u64);

        impl $name {
            /// Before the first one.
            pub const ZERO: Self = Self(0);

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

counter!(
    /// One life of a node's process: the milliseconds of the wall clock at its start, or one more
    /// than the stored one if that is larger. It sorts before [`Version`].
    Generation
);
counter!(
    /// The place of a write in its owner's order of writes; the first is 1.
    Version
);
counter!(
    /// How often, within one generation, a node has refuted what others said of it.
    Incarnation
);

impl Generation {
    /// Whether it is so far in the future that no clock, however wrong, has given it: who took one
    /// near the end of the numbers could never start again.
    #[must_use]
    pub fn is_absurd(self, wall: SystemTime) -> bool {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u128::from(self.0) > since.saturating_add(GENERATION_AHEAD_MAX).as_millis()
    }
}

/// How far a generation may be ahead of our wall clock: ten years.
const GENERATION_AHEAD_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_label() {
        for bad in ["", "A", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert!(NodeId::new(bad).is_err(), "{bad:?}");
        }
        let error = Datacenter::new("EU").unwrap_err().to_string();
        assert!(error.starts_with("datacenter \"EU\" is not a label"), "{error}");
    }

    #[test]
    fn accepts_a_label_of_the_longest_length() {
        assert_eq!(NodeId::new(&"x".repeat(LABEL_MAX)).unwrap().as_str().len(), 63);
        assert!(ClusterId::new("a-b_c.9").is_ok());
    }

    #[test]
    fn refuses_a_bad_label_from_the_wire() {
        let config = bincode::config::standard();
        let bytes = bincode::encode_to_vec("NOT A LABEL", config).unwrap();
        assert!(bincode::decode_from_slice::<NodeId, _>(&bytes, config).is_err());
        assert!(bincode::borrow_decode_from_slice::<NodeId, _>(&bytes, config).is_err());
    }
}
