//! The content of the tables: a record per key, sealed with a checksum, and the [`Summary`] of them all.
//!
//! Everything in here is format version 1, together with the shape of the structs and the order of
//! their fields: bincode writes only these. If any of it changes, [`FORMAT_VERSION`] must be
//! raised.

use std::{
    fmt, str,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::redb::TableDefinition;

use super::fault::Fault;
use crate::{
    protocol::{
        entry::Value,
        id::{Datacenter, Generation, NodeId, Version},
        revocation::Revocation,
        wire::{self, Decode, Encode, decode_fields, encode_fields, fields},
    },
    store,
};

/// The format that this version reads and writes.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Key of the format version; of kind [`Kind::Meta`], like the following ones.
pub(super) const FORMAT: &[u8] = b"format";
/// Key of the [`Summary`].
pub(super) const SUMMARY: &[u8] = b"summary";
/// Key of the cluster and the node.
pub(super) const IDENTITY: &[u8] = b"identity";
/// Key of the [`Head`].
pub(super) const HEAD: &[u8] = b"head";
/// Key of the tags, a map of text to text.
pub(super) const TAGS: &[u8] = b"tags";
/// Key of whether the node left, a bool.
pub(super) const LEFT: &[u8] = b"left";
/// Key of the [`EndpointKeys`].
pub(super) const ENDPOINT_KEYS: &[u8] = b"endpoint keys";

/// The first bytes of the key of a revocation; the whole statement follows, and the record is empty.
pub(super) const REVOCATION: &[u8] = b"revocation ";

/// The key of a revocation.
pub(super) fn revocation(statement: &Revocation) -> Vec<u8> {
    [REVOCATION, &statement.encode()].concat()
}

/// Keys and records are bytes to redb.
pub(super) type Bytes = &'static [u8];

/// The table of a record. The number is part of its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One of a kind, under a fixed key.
    Meta,
    /// One of the node's own keys.
    Entry,
    /// A peer, under its name.
    Peer,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Meta, Self::Entry, Self::Peer];

    /// Its table.
    pub(super) const fn table(self) -> TableDefinition<'static, Bytes, Bytes> {
        TableDefinition::new(match self {
            Self::Meta => "meta",
            Self::Entry => "entries",
            Self::Peer => "peers",
        })
    }
}

/// The summary of all records except its own: it reveals an error in any of them, or a missing one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// The number of commits.
    pub(super) commit: u64,
    records: u64,
    /// The sum of their checksums, modulo 2^64; unlike a checksum of checksums it can be updated from
    /// the changed records alone.
    sum: u64,
}

fields!(Summary { commit, records, sum });

impl Summary {
    /// The summary of no records, to be filled for commit number `commit`.
    pub(super) fn of_commit(commit: u64) -> Self {
        Self { commit, ..Self::default() }
    }

    /// Counts a record.
    pub(super) fn add(&mut self, sealed: &[u8]) {
        self.records = self.records.wrapping_add(1);
        self.sum = self.sum.wrapping_add(u64::from(seal_of(sealed)));
    }

    /// Counts `after` in place of `before`, which must be correct: otherwise its error would be lost.
    pub(super) fn replace(
        &mut self,
        kind: Kind,
        key: &[u8],
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) -> Result<(), Fault> {
        if let Some(before) = before {
            verify(kind, key, before)?;
            self.records = self.records.wrapping_sub(1);
            self.sum = self.sum.wrapping_sub(u64::from(seal_of(before)));
        }
        if let Some(after) = after {
            self.add(after);
        }
        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records with a checksum of {:#x}", self.records, self.sum)
    }
}

/// Encodes `value` as the record of `key`: its CRC-32, little-endian, then bincode.
pub(super) fn seal(kind: Kind, key: &[u8], value: &impl Encode) -> Vec<u8> {
    let mut record = vec![0; SEAL_BYTES];
    wire::append(value, &mut record);
    let seal = checksum(kind, key, &record[SEAL_BYTES..]);
    record[..SEAL_BYTES].copy_from_slice(&seal.to_le_bytes());
    record
}

/// The bytes of `key`'s record, if its checksum is right.
pub(super) fn verify<'a>(kind: Kind, key: &[u8], record: &'a [u8]) -> Result<&'a [u8], Fault> {
    match record.split_first_chunk() {
        Some((seal, bytes)) if u32::from_le_bytes(*seal) == checksum(kind, key, bytes) => Ok(bytes),
        _ => Err(Fault::Damaged(format!(
            "the checksum of the {kind:?} record {:?} is wrong",
            String::from_utf8_lossy(key)
        ))),
    }
}

/// Verifies and decodes `key`'s record.
pub(super) fn open<'a, T: Decode<'a>>(
    kind: Kind,
    key: &[u8],
    record: &'a [u8],
) -> Result<T, Fault> {
    decode(verify(kind, key, record)?)
}

/// Decodes bytes that [`verify`] returned.
pub(super) fn decode<'a, T: Decode<'a>>(bytes: &'a [u8]) -> Result<T, Fault> {
    wire::from_slice(bytes, usize::MAX)
        .map_err(|error| Fault::Damaged(format!("a record cannot be read: {error}")))
}

/// A table's key as text.
pub(super) fn text(key: &[u8]) -> Result<&str, Fault> {
    str::from_utf8(key).map_err(|_| Fault::Damaged("a key is not text".into()))
}

/// A [`store::StoredEntry`]; its key is the record's.
pub(super) struct Entry<'a> {
    version: Version,
    value: Option<&'a [u8]>,
    /// Milliseconds since 1970, possibly in the future.
    expires: Option<i64>,
}

encode_fields!(Entry<'a> { version, value, expires });
decode_fields!(Entry<'a> { version, value, expires });

impl<'a> Entry<'a> {
    pub(super) fn of(entry: &'a store::StoredEntry) -> Self {
        Self {
            version: entry.version,
            value: entry.value.as_deref(),
            expires: entry.expires.map(to_millis),
        }
    }

    pub(super) fn into_stored(self) -> Result<store::StoredEntry, Fault> {
        Ok(store::StoredEntry {
            version: self.version,
            value: self.value.map(Value::from),
            expires: self.expires.map(from_millis).transpose()?,
        })
    }
}

/// A [`store::Head`].
pub(super) struct Head {
    generation: Generation,
    max_version: Version,
    gc_floor: Version,
    ancestry: Vec<(Generation, Version)>,
}

fields!(Head { generation, max_version, gc_floor, ancestry });

impl Head {
    pub(super) fn of(head: &store::Head) -> Self {
        let store::Head { generation, max_version, gc_floor, ancestry } = head.clone();
        Self { generation, max_version, gc_floor, ancestry }
    }

    pub(super) fn into_stored(self) -> store::Head {
        let Self { generation, max_version, gc_floor, ancestry } = self;
        store::Head { generation, max_version, gc_floor, ancestry }
    }
}

/// A [`store::KnownPeer`]; its name is the record's key.
pub(super) struct Peer {
    datacenter: Datacenter,
    addresses: Vec<String>,
    generation: Generation,
    dead: bool,
}

fields!(Peer { datacenter, addresses, generation, dead });

impl Peer {
    pub(super) fn of(peer: &store::KnownPeer) -> Self {
        let store::KnownPeer { node: _, datacenter, addresses, generation, dead } = peer.clone();
        Self { datacenter, addresses, generation, dead }
    }

    pub(super) fn into_stored(self, name: &str) -> Result<store::KnownPeer, Fault> {
        let Self { datacenter, addresses, generation, dead } = self;
        let node = NodeId::new(name).map_err(|error| Fault::Damaged(error.to_string()))?;
        Ok(store::KnownPeer { node, datacenter, addresses, generation, dead })
    }
}

/// [`store::EndpointKeys`].
pub(super) struct EndpointKeys {
    reset: [u8; 64],
    connection_id: u64,
}

fields!(EndpointKeys { reset, connection_id });

impl EndpointKeys {
    pub(super) fn of(keys: &store::EndpointKeys) -> Self {
        Self { reset: keys.reset, connection_id: keys.connection_id }
    }

    pub(super) fn into_stored(self) -> store::EndpointKeys {
        store::EndpointKeys { reset: self.reset, connection_id: self.connection_id }
    }
}

fn checksum(kind: Kind, key: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind as u8]);
    // The length keeps key and bytes apart.
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(bytes);
    hasher.finalize()
}

/// The checksum in a sealed record; 0 if it is too short to have one, which [`verify`] refuses.
fn seal_of(record: &[u8]) -> u32 {
    record.first_chunk().map_or(0, |seal| u32::from_le_bytes(*seal))
}

/// Clamped to 64 bits: 292 million years from 1970, in either direction.
fn to_millis(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |ms| -ms),
    }
}

fn from_millis(millis: i64) -> Result<SystemTime, Fault> {
    let distance = Duration::from_millis(millis.unsigned_abs());
    let time = match millis {
        0.. => UNIX_EPOCH.checked_add(distance),
        ..0 => UNIX_EPOCH.checked_sub(distance),
    };
    time.ok_or_else(|| Fault::Damaged(format!("{millis} ms after 1970 is no time")))
}

const SEAL_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_changed_byte_in_every_place() {
        let sealed = seal(Kind::Entry, b"key", &"value");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(verify(Kind::Entry, b"key", &changed).is_err(), "byte {at}");
            assert!(verify(Kind::Entry, b"key", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn refuses_the_record_of_another_key() {
        let sealed = seal(Kind::Entry, b"key", &"value");
        assert!(verify(Kind::Entry, b"ke", &sealed).is_err());
        assert!(verify(Kind::Peer, b"key", &sealed).is_err());
        assert!(verify(Kind::Entry, b"key", &sealed).is_ok());
    }

    #[test]
    fn refuses_bytes_behind_a_value() {
        let sealed = seal(Kind::Meta, LEFT, &(true, 7_u8));
        assert!(open::<bool>(Kind::Meta, LEFT, &sealed).is_err());
    }

    #[test]
    fn notices_an_older_record_of_the_same_key() {
        let [old, new] = ["old", "new"].map(|v| seal(Kind::Entry, b"key", &v));
        let mut expected = Summary::default();
        expected.add(&old);
        expected.replace(Kind::Entry, b"key", Some(&old), Some(&new)).unwrap();
        let mut found = Summary::default();
        found.add(&old);
        assert_ne!(found, expected);
    }

    #[test]
    fn keeps_times_to_the_millisecond() {
        for millis in [0, 1, -1, 1_700_000_000_123, i64::MAX, -i64::MAX] {
            assert_eq!(from_millis(millis).map(to_millis).unwrap(), millis);
        }
        let time = UNIX_EPOCH + Duration::from_nanos(1_999_999);
        assert_eq!(to_millis(time), 1);
    }

    /// If this fails, existing stores become unreadable: raise the version, and read both.
    #[test]
    fn writes_format_version_1_to_the_byte() {
        let entry = store::StoredEntry {
            version: Version(300),
            value: Some(Value::from("v")),
            expires: Some(UNIX_EPOCH + Duration::from_millis(5)),
        };
        let sealed = seal(Kind::Entry, b"key", &Entry::of(&entry));
        assert_eq!(sealed[SEAL_BYTES..], [251, 44, 1, 1, 1, b'v', 1, 10]);
        assert_eq!(
            seal_of(&sealed),
            crc32fast::hash(b"\x01\x03\0\0\0\0\0\0\0key\xfb\x2c\x01\x01\x01v\x01\x0a")
        );
        let head = store::Head {
            generation: Generation(1),
            max_version: Version(2),
            gc_floor: Version(3),
            ancestry: vec![(Generation(4), Version(5))],
        };
        let sealed = seal(Kind::Meta, HEAD, &Head::of(&head));
        assert_eq!(sealed[SEAL_BYTES..], [1, 2, 3, 1, 4, 5]);
        let peer = store::KnownPeer {
            node: NodeId::new("n").unwrap(),
            datacenter: Datacenter::new("d").unwrap(),
            addresses: vec!["a:1".into()],
            generation: Generation(6),
            dead: true,
        };
        let sealed = seal(Kind::Peer, b"n", &Peer::of(&peer));
        assert_eq!(sealed[SEAL_BYTES..], *b"\x01d\x01\x03a:1\x06\x01");
        let summary = Summary { commit: 1, records: 2, sum: 3 };
        assert_eq!(seal(Kind::Meta, SUMMARY, &summary)[SEAL_BYTES..], [1, 2, 3]);
        let keys = EndpointKeys { reset: [9; 64], connection_id: 8 };
        let sealed = seal(Kind::Meta, ENDPOINT_KEYS, &keys);
        assert_eq!(sealed[SEAL_BYTES..], [[9; 64].as_slice(), &[8]].concat());
    }
}
