//! Reading: the whole state, or an error if any of it is wrong.

use ::redb::{ReadTransaction, ReadableTable};

use super::{
    fault::Fault,
    record::{self, Kind, Summary},
};
use crate::{protocol::revocation::Revocation, store::Stored};

/// The summary, after a check that the format is this version's.
pub(super) fn summary(transaction: &ReadTransaction) -> Result<Summary, Fault> {
    let table = transaction.open_table(Kind::Meta.table())?;
    let format = table.get(record::FORMAT)?.ok_or_else(|| missing("format"))?;
    match record::open::<u32>(Kind::Meta, record::FORMAT, format.value())? {
        record::FORMAT_VERSION => {}
        written => return Err(Fault::Format { written, read: record::FORMAT_VERSION }),
    }
    let summary = table.get(record::SUMMARY)?.ok_or_else(|| missing("summary"))?;
    record::open(Kind::Meta, record::SUMMARY, summary.value())
}

/// The whole state, if all of it is correct.
pub(super) fn load(transaction: &ReadTransaction) -> Result<Stored, Fault> {
    let expected = summary(transaction)?;
    let mut found = Summary::of_commit(expected.commit);
    let mut stored = Stored::default();
    each(transaction, Kind::Meta, &mut found, |key, bytes| meta(&mut stored, key, bytes))?;
    // Sorted already, which makes building the map from a list twice as fast as inserting.
    let mut entries = Vec::new();
    each(transaction, Kind::Entry, &mut found, |key, bytes| {
        entries.push((
            record::text(key)?.into(),
            record::decode::<record::Entry<'_>>(bytes)?.into_stored()?,
        ));
        Ok(())
    })?;
    stored.entries = entries.into_iter().collect();
    each(transaction, Kind::Peer, &mut found, |key, bytes| {
        let peer = record::decode::<record::Peer>(bytes)?.into_stored(record::text(key)?)?;
        stored.peers.insert(peer.node.clone(), peer);
        Ok(())
    })?;
    if found == expected {
        Ok(stored)
    } else {
        Err(Fault::Damaged(format!("expected {expected}, found {found}")))
    }
}

/// Passes `visit` the key and the verified bytes of each record except the summary, and counts them.
fn each(
    transaction: &ReadTransaction,
    kind: Kind,
    found: &mut Summary,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    for row in transaction.open_table(kind.table())?.iter()? {
        let (key, record) = row?;
        let (key, record) = (key.value(), record.value());
        if kind == Kind::Meta && key == record::SUMMARY {
            continue;
        }
        visit(key, record::verify(kind, key, record)?)?;
        found.add(record);
    }
    Ok(())
}

fn meta(stored: &mut Stored, key: &[u8], bytes: &[u8]) -> Result<(), Fault> {
    match key {
        record::FORMAT => {}
        record::IDENTITY => stored.identity = Some(record::decode(bytes)?),
        record::HEAD => stored.head = record::decode::<record::Head>(bytes)?.into_stored(),
        record::TAGS => stored.tags = Some(record::decode(bytes)?),
        record::LEFT => stored.left = record::decode(bytes)?,
        record::ENDPOINT_KEYS => {
            stored.endpoint_keys =
                Some(record::decode::<record::EndpointKeys>(bytes)?.into_stored());
        }
        _ if key.starts_with(record::REVOCATION) => {
            let statement = Revocation::decode(&key[record::REVOCATION.len()..])
                .map_err(|error| Fault::Damaged(error.to_string()))?;
            stored.revocations.insert(statement);
        }
        _ => {
            return Err(Fault::Damaged(format!(
                "unknown record {:?}",
                key.escape_ascii().to_string()
            )));
        }
    }
    Ok(())
}

fn missing(record: &str) -> Fault {
    Fault::Damaged(format!("the {record} record is missing"))
}
