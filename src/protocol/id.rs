//! Names and counters, each in a type of its own so that they cannot be confused.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{
    list::SHARED_BYTES,
    wire::{Decode, DecodeError, Decoder, Encode, Sink, fields},
};

/// Longest node, datacenter or cluster name, in bytes.
pub const LABEL_MAX: usize = 63;

/// A name was not a label: 1 to 63 of `a-z`, `0-9`, `.`, `_`, `-`, but not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {value:?} is not a label: 1 to 63 of a-z, 0-9, '.', '_' and '-' are allowed, but not . or .."
)]
pub struct InvalidLabel {
    what: &'static str,
    value: String,
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        ///
        /// One pointer wide; a clone shares the text.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Label);

        impl $name {
            /// Parses a label.
            ///
            /// # Errors
            /// [`InvalidLabel`] unless it is 1 to 63 of `a-z`, `0-9`, `.`, `_`, `-`, but not `.` or `..`.
            pub fn new(label: &str) -> Result<Self, InvalidLabel> {
                match Label::new(label) {
                    Some(label) => Ok(Self(label)),
                    None => Err(InvalidLabel { what: $what, value: shown(label) }),
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
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
                self.as_str()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let label = <std::borrow::Cow<'de, str>>::deserialize(from)?;
                Self::new(&label).map_err(serde::de::Error::custom)
            }
        }

        impl Encode for $name {
            fn encode(&self, to: &mut impl Sink) {
                self.as_str().encode(to);
            }
        }

        impl Decode<'_> for $name {
            fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                from.claim(LABEL_BYTES)?;
                let label = <&str>::decode(from)?;
                Self::new(label).map_err(|error| DecodeError::OtherString(error.to_string()))
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
    /// Names a person or program that sends requests to nodes without being a member.
    ClientId,
    "client"
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
label!(
    /// Names a service that nodes offer.
    ServiceName,
    "service"
);

/// The text of a name, behind one pointer: in a large cluster most of a node's memory is tables with a line
/// per node and peer. Compares and hashes as the text does.
#[derive(Clone)]
struct Label(Arc<Text>);

/// Padded with zeros, which sort before every byte of a label, so that eight bytes at a time can be compared;
/// the last byte is the length.
struct Text([u8; LABEL_MAX + 1]);

/// The size of a name in memory behind its pointer, which its decoder claims.
const LABEL_BYTES: usize = LABEL_MAX + 1 + SHARED_BYTES;

impl Label {
    fn new(label: &str) -> Option<Self> {
        if !is_label(label) {
            return None;
        }
        let mut bytes = [0; LABEL_MAX + 1];
        bytes[..label.len()].copy_from_slice(label.as_bytes());
        bytes[LABEL_MAX] = u8::try_from(label.len()).ok()?;
        Some(Self(Arc::new(Text(bytes))))
    }

    fn as_bytes(&self) -> &[u8] {
        let bytes = &self.0.0;
        &bytes[..usize::from(bytes[LABEL_MAX])]
    }

    /// Eight bytes at a time, as numbers that sort as the bytes do.
    fn words(&self) -> impl Iterator<Item = u64> {
        let (words, _) = self.0.0.as_chunks::<8>();
        words.iter().map(|word| u64::from_be_bytes(*word))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).expect("a label is ASCII")
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.words().eq(other.words())
    }
}

impl Eq for Label {}

impl Ord for Label {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.0, &other.0) {
            return Ordering::Equal;
        }
        self.words().cmp(other.words())
    }
}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// SPIFFE forbids `.` and `..` as path segments, and in file names they mean other directories.
fn is_label(label: &str) -> bool {
    (1..=LABEL_MAX).contains(&label.len())
        && !matches!(label, "." | "..")
        && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-'))
}

/// The start of a rejected name, so that an error message stays one line.
fn shown(label: &str) -> String {
    label.chars().take(LABEL_MAX + 1).collect()
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub struct $name(pub u64);

        fields!($name { 0 });

        impl $name {
            /// Before the first one.
            #[doc(hidden)]
            pub const ZERO: Self = Self(0);

            /// The one after this.
            #[must_use]
            #[doc(hidden)]
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
    /// One generation of a node: the milliseconds of the wall clock at the start of its process, or one more
    /// than the stored generation if that is larger. It sorts before [`Version`].
    Generation
);
counter!(
    /// The place of a write in its owner's order of writes; the first is 1.
    Version
);
counter!(
    /// How often, within one generation, a node has refuted suspicions of it.
    Incarnation
);

impl Generation {
    /// The generation that begins when the wall clock shows this.
    #[must_use]
    #[doc(hidden)]
    pub fn of(wall: SystemTime) -> Self {
        let millis = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        Self(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// The last generation that a node accepts of any peer when the wall clock shows this.
    #[must_use]
    #[doc(hidden)]
    pub fn last(wall: SystemTime) -> Self {
        let ahead = u64::try_from(GENERATION_AHEAD_MAX.as_millis()).unwrap_or(u64::MAX);
        Self(Self::of(wall).0.saturating_add(ahead))
    }

    /// Whether it is so far in the future that no clock, however wrong, has produced it: a node that took a
    /// generation near the end of the numbers could never start again.
    #[must_use]
    #[doc(hidden)]
    pub fn is_absurd(self, wall: SystemTime) -> bool {
        self > Self::last(wall)
    }
}

/// How far a generation may be ahead of our wall clock: ten years.
const GENERATION_AHEAD_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::wire;

    #[test]
    fn refuses_what_is_not_a_label() {
        for bad in ["", ".", "..", "A", "a b", "a/b", "ä", &"x".repeat(64)] {
            assert!(NodeId::new(bad).is_err(), "{bad:?}");
        }
        let error = Datacenter::new("EU").unwrap_err().to_string();
        assert!(error.starts_with("datacenter \"EU\" is not a label"), "{error}");
    }

    #[test]
    fn accepts_a_label_of_the_longest_length() {
        assert_eq!(NodeId::new(&"x".repeat(LABEL_MAX)).unwrap().as_str().len(), 63);
        for good in ["a-b_c.9", "...", ".a", "a."] {
            assert!(ClusterId::new(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_name_is_one_pointer_and_compares_as_its_text() {
        assert_eq!(size_of::<NodeId>(), size_of::<usize>());
        let texts = ["a", "a-b", "a.", "a0", "aa", "b", &"x".repeat(LABEL_MAX)];
        for one in texts {
            for other in texts {
                let names = [NodeId::new(one).unwrap(), NodeId::new(other).unwrap()];
                assert_eq!(names[0].cmp(&names[1]), one.cmp(other), "{one} {other}");
                assert_eq!(names[0] == names[1], one == other);
            }
        }
        let names = std::collections::HashSet::from([NodeId::new("a").unwrap()]);
        assert!(names.contains("a"), "it hashes as its text");
    }

    #[test]
    fn refuses_a_bad_label_from_the_wire() {
        let bytes = wire::to_vec(&"NOT A LABEL");
        assert!(wire::from_slice::<NodeId>(&bytes, usize::MAX).is_err());
    }
}
