//! Writing: the changes of one commit to the tables, and how to undo them.

use std::collections::BTreeMap;

use ::redb::{ReadableTable, Table, WriteTransaction};

use super::{
    fault::Fault,
    record::{self, Bytes, EndpointKeys, Entry, Head, Kind, Peer, Summary},
};
use crate::{protocol::wire::Encode, store::Change};

/// For each [`Kind`] the records to change, `None` where one is removed: in the order of the tables,
/// which is the fastest to write, and once for a key that changed several times.
#[derive(Default)]
pub(super) struct Batch([BTreeMap<Vec<u8>, Option<Vec<u8>>>; Kind::ALL.len()]);

impl Batch {
    /// The records that `changes` amount to.
    pub(super) fn of(changes: &[Change]) -> Self {
        let mut batch = Self::default();
        changes.iter().for_each(|change| batch.add(change));
        batch
    }

    /// The records that turn an empty database into a store.
    pub(super) fn format() -> Self {
        let mut batch = Self::default();
        batch.put(Kind::Meta, record::FORMAT, &record::FORMAT_VERSION);
        batch
    }

    fn add(&mut self, change: &Change) {
        match change {
            Change::Identity { cluster, node } => {
                self.put(Kind::Meta, record::IDENTITY, &(cluster, node));
            }
            Change::Head(head) => self.put(Kind::Meta, record::HEAD, &Head::of(head)),
            Change::Put { key, entry } => {
                self.put(Kind::Entry, key.as_str().as_bytes(), &Entry::of(entry));
            }
            Change::Remove(key) => self.remove(Kind::Entry, key.as_str().as_bytes()),
            Change::Tags(tags) => self.put(Kind::Meta, record::TAGS, tags),
            Change::Left(left) => self.put(Kind::Meta, record::LEFT, left),
            Change::Peer(peer) => {
                self.put(Kind::Peer, peer.node.as_str().as_bytes(), &Peer::of(peer));
            }
            Change::ForgetPeer(node) => self.remove(Kind::Peer, node.as_str().as_bytes()),
            Change::EndpointKeys(keys) => {
                self.put(Kind::Meta, record::ENDPOINT_KEYS, &EndpointKeys::of(keys));
            }
            Change::Revocation(statement) => {
                self.put(Kind::Meta, &record::revocation(statement), &());
            }
            Change::DropRevocation(statement) => {
                self.remove(Kind::Meta, &record::revocation(statement));
            }
        }
    }

    fn put(&mut self, kind: Kind, key: &[u8], value: &impl Encode) {
        self.0[kind as usize].insert(key.into(), Some(record::seal(kind, key, value)));
    }

    fn remove(&mut self, kind: Kind, key: &[u8]) {
        self.0[kind as usize].insert(key.into(), None);
    }

    /// Writes all of it, including the summary; returns the undo of it.
    ///
    /// Only one table is open at a time: if redb panics while opening a second table, dropping the first
    /// panics too, and that ends the process.
    pub(super) fn write(self, transaction: &WriteTransaction) -> Result<Undo, Fault> {
        let mut summary = summary(transaction)?;
        let mut before = Vec::new();
        for (kind, records) in Kind::ALL.into_iter().zip(self.0) {
            let mut table = transaction.open_table(kind.table())?;
            for (key, after) in records {
                let old = replace(&mut table, &key, after.as_deref())?;
                summary.replace(kind, &key, old.as_deref(), after.as_deref())?;
                before.push((kind, key, old));
            }
        }
        summary.commit += 1;
        let sealed = record::seal(Kind::Meta, record::SUMMARY, &summary);
        let mut table = transaction.open_table(Kind::Meta.table())?;
        let old = replace(&mut table, record::SUMMARY, Some(&sealed))?;
        before.push((Kind::Meta, record::SUMMARY.into(), old));
        Ok(Undo { commit: summary.commit, before })
    }
}

/// The records that one commit replaced.
pub(super) struct Undo {
    /// The commit's number, see [`Summary::commit`].
    pub(super) commit: u64,
    /// By kind, as the tables must be opened one after the other.
    before: Vec<(Kind, Vec<u8>, Option<Vec<u8>>)>,
}

impl Undo {
    /// Puts them back; the commit must be the last one.
    pub(super) fn write(&self, transaction: &WriteTransaction) -> Result<(), Fault> {
        for same_kind in self.before.chunk_by(|one, next| one.0 == next.0) {
            let mut table = transaction.open_table(same_kind[0].0.table())?;
            for (_, key, before) in same_kind {
                replace(&mut table, key, before.as_deref())?;
            }
        }
        Ok(())
    }
}

/// The summary of the last commit; empty in a new database.
fn summary(transaction: &WriteTransaction) -> Result<Summary, Fault> {
    match transaction.open_table(Kind::Meta.table())?.get(record::SUMMARY)? {
        Some(sealed) => record::open(Kind::Meta, record::SUMMARY, sealed.value()),
        None => Ok(Summary::default()),
    }
}

/// Sets the record of `key`, or removes it, and returns the previous one.
fn replace(
    table: &mut Table<'_, Bytes, Bytes>,
    key: &[u8],
    after: Option<&[u8]>,
) -> Result<Option<Vec<u8>>, Fault> {
    let before = match after {
        Some(after) => table.insert(key, after)?,
        None => table.remove(key)?,
    };
    Ok(before.map(|record| record.value().to_vec()))
}
