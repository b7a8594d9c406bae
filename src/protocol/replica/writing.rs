//! This node's own writes: which are refused, which take a version, and which changes the store has to keep.

use std::collections::BTreeMap;

use super::{BATCH_BYTES_MAX, Replica, outcome::Before};
use crate::protocol::{
    digest::DigestEntry,
    entry::{Content, Entry, Key, Value},
    event::Event,
    id::{NodeId, Version},
    record::{NodeRecord, Status, check_tags},
    route::Output,
    service::manifest::{MANIFEST_KEY, Manifest},
    time::Time,
};
use crate::protocol::{
    durable::{Change, Head, StoredEntry},
    write::{Write, WriteError, Written},
};

impl Replica {
    /// Writes a batch: all of it becomes visible at once, as one version, or none of it.
    ///
    /// A write that changes nothing takes no version.
    ///
    /// # Errors
    /// [`WriteError`] names the limit; then nothing has changed.
    pub fn write(
        &mut self,
        now: Time,
        batch: Vec<Write>,
        out: &mut Vec<Output>,
    ) -> Result<Written, WriteError> {
        if let Some(write) = batch.iter().find(|write| write.key.is_reserved()) {
            return Err(WriteError::Reserved { key: write.key.clone() });
        }
        self.write_any(now, batch, out)
    }

    /// Replaces the list of the services that this node offers.
    ///
    /// # Errors
    /// As [`Replica::write`].
    pub fn announce(
        &mut self,
        now: Time,
        manifest: &Manifest,
        out: &mut Vec<Output>,
    ) -> Result<Written, WriteError> {
        let write = match manifest.offers.is_empty() && !manifest.draining {
            true => Write::delete(MANIFEST_KEY),
            false => Write::set(MANIFEST_KEY, manifest.encode()),
        };
        self.write_any(now, vec![write], out)
    }

    fn write_any(
        &mut self,
        now: Time,
        batch: Vec<Write>,
        out: &mut Vec<Output>,
    ) -> Result<Written, WriteError> {
        batch.iter().try_for_each(|write| self.check_write(write))?;
        let batch = self.without_idle(now, batch);
        if batch.is_empty() {
            let version = self.own.map.max_version();
            return Ok(Written { version, changed: false, persist: Vec::new() });
        }
        self.check_room(&batch)?;
        let before = self.before(&self.config.node);
        let version = self.own.map.next_version();
        let mut persist = Vec::with_capacity(batch.len() + 1);
        let timed = batch.iter().any(|write| write.ttl.is_some() || write.value.is_none());
        let entries = batch.len();
        for write in batch {
            persist.push(self.write_one(now, version, write, out));
        }
        if timed {
            self.wake(now, out);
        }
        persist.push(Change::Head(self.head()));
        self.wrote(now, before, entries, out);
        Ok(Written { version, changed: true, persist })
    }

    /// Replaces the tags.
    ///
    /// # Errors
    /// [`WriteError::Record`] if there are too many or too long ones.
    pub fn set_tags(
        &mut self,
        now: Time,
        tags: BTreeMap<String, String>,
        out: &mut Vec<Output>,
    ) -> Result<Written, WriteError> {
        check_tags(&tags)?;
        let old = self.own_record();
        if old.tags == tags {
            let version = self.own.map.max_version();
            return Ok(Written { version, changed: false, persist: Vec::new() });
        }
        let before = self.before(&self.config.node);
        let mut persist = self.write_record(NodeRecord { tags: tags.clone(), ..old });
        persist.push(Change::Tags(tags));
        self.touched_own(now, before, out);
        Ok(Written { version: self.own.map.max_version(), changed: true, persist })
    }

    /// Publishes that the node is leaving, or has left. The caller decides whether a later start remembers it
    /// ([`Change::Left`]).
    pub fn set_status(&mut self, now: Time, status: Status, out: &mut Vec<Output>) -> Written {
        let before = self.before(&self.config.node);
        let persist = self.write_record(NodeRecord { status, ..self.own_record() });
        self.touched_own(now, before, out);
        Written { version: self.own.map.max_version(), changed: true, persist }
    }

    pub(super) fn check_write(&self, write: &Write) -> Result<(), WriteError> {
        let (key, limits) = (&write.key, &self.config.limits);
        // An existing key can be deleted, also if the limits were higher when it was written.
        if write.value.is_none() && self.own.map.entries().contains_key(key) {
            return Ok(());
        }
        let len = key.as_str().len();
        if !(1..=limits.key_bytes).contains(&len) {
            return Err(WriteError::Key { len, max: limits.key_bytes });
        }
        let len = write.value.as_ref().map_or(0, |value| value.len());
        if len > limits.value_bytes {
            return Err(WriteError::Value { key: key.clone(), len, max: limits.value_bytes });
        }
        if write.ttl.is_some_and(|ttl| ttl.is_zero()) {
            return Err(WriteError::Ttl { key: key.clone() });
        }
        Ok(())
    }

    /// Drops writes without effect, and all but the last write of a key.
    pub(super) fn without_idle(&self, now: Time, batch: Vec<Write>) -> Vec<Write> {
        let mut sorted = batch;
        // Stable, and little work if the keys are in order already, as in most large batches.
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let mut last: Vec<Write> = Vec::with_capacity(sorted.len());
        for write in sorted {
            match last.last_mut() {
                Some(before) if before.key == write.key => *before = write,
                _ => last.push(write),
            }
        }
        last.retain(|write| !self.is_idle(now, write));
        last
    }

    pub(super) fn is_idle(&self, now: Time, write: &Write) -> bool {
        match (self.own.map.entries().get(&write.key), &write.value) {
            (None, None) => true,
            (Some(old), None) => old.is_tombstone(),
            (Some(old), Some(value)) => {
                let lasting = matches!(old.content, Content::Value { expires: None, .. });
                lasting && write.ttl.is_none() && old.visible(now) == Some(value)
            }
            (None, Some(_)) => false,
        }
    }

    pub(super) fn check_room(&self, batch: &[Write]) -> Result<(), WriteError> {
        let limits = &self.config.limits;
        let (mut keys, mut bytes) = (self.own.map.live_keys(), self.own.map.bytes());
        let batch_bytes: usize = batch.iter().map(Write::encoded_len_max).sum();
        if batch.len() > 1 && batch_bytes > BATCH_BYTES_MAX {
            return Err(WriteError::Batch { len: batch_bytes, max: BATCH_BYTES_MAX });
        }
        // Far from the limits there is no need to look at the replaced entries.
        if keys + batch.len() <= limits.keys && bytes + batch_bytes <= limits.bytes {
            return Ok(());
        }
        for write in batch {
            let key = write.key.as_str().len();
            let value = write.value.as_ref().map_or(0, |value| value.len());
            let old = self.own.map.entries().get(&write.key);
            bytes = (bytes + value).saturating_sub(old.map_or(0, Entry::value_len));
            bytes += if old.is_none() { key } else { 0 };
            keys += usize::from(write.value.is_some());
            keys -= usize::from(old.is_some_and(|old| !old.is_tombstone()));
        }
        let grows = |now: usize, before: usize, max| now > max && now > before;
        if grows(keys, self.own.map.live_keys(), limits.keys) {
            return Err(WriteError::Keys { len: keys, max: limits.keys });
        }
        if grows(bytes, self.own.map.bytes(), limits.bytes) {
            return Err(WriteError::State { len: bytes, max: limits.bytes });
        }
        Ok(())
    }

    pub(super) fn write_one(
        &mut self,
        now: Time,
        version: Version,
        write: Write,
        out: &mut Vec<Output>,
    ) -> Change {
        let Write { key, value, ttl } = write;
        let expires = ttl.map(|ttl| now + ttl);
        self.own.expiries.replace(&self.own.map, &key, expires);
        let content = match value.clone() {
            Some(value) => Content::Value { value, expires },
            None => Content::Tombstone,
        };
        if value.is_none() {
            self.own.tombstones.push(now, version);
        }
        out.push(Output::Event(self.own_event(&key, value.as_ref(), version)));
        self.own.map.write(key.clone(), Entry { version, content });
        let expires = expires.and_then(|at| self.clock.wall_then(at));
        Change::Put { key, entry: StoredEntry { version, value, expires } }
    }

    pub(super) fn own_event(&self, key: &Key, value: Option<&Value>, version: Version) -> Event {
        let (peer, generation) = (self.config.node.clone(), self.own.map.generation());
        match value.cloned() {
            Some(value) => Event::Updated { peer, key: key.clone(), value, generation, version },
            None => Event::Deleted { peer, key: key.clone(), generation, version },
        }
    }

    pub(super) fn own_record(&self) -> NodeRecord {
        self.own
            .map
            .record()
            .map_or_else(|| self.config.record.clone(), |record| (**record).clone())
    }

    pub(super) fn write_record(&mut self, record: NodeRecord) -> Vec<Change> {
        let version = self.own.map.next_version();
        self.own.map.write_record(version, record);
        self.published.outdate();
        self.published.touched(self.config.node.clone(), &mut self.copies);
        vec![Change::Head(self.head())]
    }

    pub(super) fn head(&self) -> Head {
        Head {
            generation: self.own.map.generation(),
            max_version: self.own.map.max_version(),
            gc_floor: self.own.map.gc_floor(),
            ancestry: self.own.map.ancestry().to_vec(),
        }
    }

    /// The own map has changed: readers and peers have to see it. `before`: its line before that.
    pub(super) fn touched_own(&mut self, now: Time, before: Before, out: &mut Vec<Output>) {
        self.touched(&before);
        let since = self.own.pace.release().unwrap_or(before.line);
        self.push.note(since, None, false);
        self.tell_news(now, out);
    }

    /// Own keys have changed: after an overload the change waits to be pushed. A peer that asks in an
    /// exchange is sent it all the same.
    pub(super) fn wrote(
        &mut self,
        now: Time,
        before: Before,
        entries: usize,
        out: &mut Vec<Output>,
    ) {
        if self.own.pace.wrote(now, entries) {
            return self.touched_own(now, before, out);
        }
        self.touched(&before);
        self.own.pace.hold(now, before.line);
        self.arm(now, out);
    }

    /// A node's map has changed, or is gone: updates readers and sums.
    pub(super) fn touched(&mut self, before: &Before) {
        self.sum_up(before);
        self.published.touched(before.line.node.clone(), &mut self.copies);
    }

    /// Replaces a line in the sums of all lines.
    pub(super) fn sum_up(&mut self, before: &Before) {
        self.published.outdate();
        let key = self.config.sketch_key;
        let node = &before.line.node;
        let summed =
            |told: bool, line: &DigestEntry| (told && !line.is_part()).then(|| key.symbol(line));
        let old = summed(before.told, &before.line);
        let new = summed(self.is_told_of(node), &self.line(node));
        self.published.replace(old, new);
    }

    /// A node's line as it is now.
    pub(super) fn before(&self, node: &NodeId) -> Before {
        Before { line: self.line(node), told: self.is_told_of(node) }
    }

    /// Whether a node is in our digest.
    pub(super) fn is_told_of(&self, node: &NodeId) -> bool {
        *node == self.config.node
            || (self.copies.contains_key(node) && !self.forgotten.is_retired(node))
    }
}
