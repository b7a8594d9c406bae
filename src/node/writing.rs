//! Writes of a handle: they return when the store has them.

use std::{collections::BTreeMap, time::Duration};

use tokio::sync::oneshot;

use super::{
    Gossipmonger,
    error::Error,
    messages::{StorageMessage, Writes},
};
use crate::protocol::{
    delta::entry_len_max,
    entry::{Key, Value},
    id::Version,
    write::Write,
};

impl Gossipmonger {
    /// Sets a key; the original's `update`. Returns its version once the store has it. The write is
    /// gossiped at once, without waiting for the store. Setting the same value again takes no
    /// version.
    ///
    /// # Errors
    /// [`Error::Refused`] names the limit; the other errors say whether anything has changed.
    pub async fn set(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
    ) -> Result<Version, Error> {
        self.set_many(vec![Write::set(key, value)]).await
    }

    /// Sets a key that expires: after `ttl` no reader sees it any more.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_with_ttl(
        &self,
        key: impl Into<Key>,
        value: impl Into<Value>,
        ttl: Duration,
    ) -> Result<Version, Error> {
        self.set_many(vec![Write::set(key, value).with_ttl(ttl)]).await
    }

    /// Deletes a key. Deleting a missing key takes no version.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn delete(&self, key: impl Into<Key>) -> Result<Version, Error> {
        self.set_many(vec![Write::delete(key)]).await
    }

    /// Writes a batch atomically: on every node, all of it becomes visible at once or none of it. If a
    /// key is written several times, the last write counts. At most
    /// [`BATCH_BYTES_MAX`](crate::protocol::replica::BATCH_BYTES_MAX) bytes.
    ///
    /// Overwritten values are not resent. A peer that catches up in several steps therefore keeps
    /// showing this node's previous keys until it has every write that replaced part of the batch.
    /// If you overwrite parts of batches faster than a peer can follow, that peer's view of this
    /// node stays at its last complete state.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_many(&self, batch: Vec<Write>) -> Result<Version, Error> {
        let bytes = |write: &Write| {
            entry_len_max(write.key.as_str().len(), write.value.as_ref().map_or(0, |v| v.len()))
        };
        let bytes = batch.iter().map(bytes).sum();
        self.write(bytes, || Writes::Batch(batch.clone())).await
    }

    /// Replaces this node's tags.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn set_tags(&self, tags: BTreeMap<String, String>) -> Result<Version, Error> {
        self.write(0, || Writes::Tags(tags.clone())).await
    }

    pub(super) async fn write(
        &self,
        bytes: usize,
        writes: impl Fn() -> Writes,
    ) -> Result<Version, Error> {
        let begun = self.shared.clock.now();
        let written = async {
            let written = tokio::time::timeout(CALL_TIMEOUT, self.try_write(bytes, writes)).await;
            written.unwrap_or(Err(Error::Timeout(CALL_TIMEOUT)))
        };
        let written = self.unless_ended(written).await;
        if let Ok(version) = &written {
            self.shared.diagnostics.written.set((*version, begun));
        }
        written
    }

    /// If a storage actor fails before it answers, another one takes its place; the write is made
    /// again, which takes no second version if the first was kept.
    async fn try_write(&self, bytes: usize, writes: impl Fn() -> Writes) -> Result<Version, Error> {
        let route = &self.shared.routes.storage;
        let mut storage = route.current().ok_or_else(|| self.stopped())?;
        loop {
            let permit = self.shared.write_room.take(bytes).await;
            let (reply, answer) = oneshot::channel();
            let sent = storage.cast(StorageMessage::Write(writes(), permit, reply));
            if sent.is_ok()
                && let Ok(answer) = answer.await
            {
                return answer;
            }
            storage = route.after(&storage).await;
        }
    }
}

/// How long a call may take, including back-pressure of the store.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
