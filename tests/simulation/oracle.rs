//! What copies may look like, derived from what each owner wrote, life by life.

use std::collections::{BTreeMap, BTreeSet};

use gossipmonger::{
    protocol::{
        entry::{Content, Entry, Key, Value},
        id::{Generation, NodeId, Version},
        view::NodeView,
    },
    sim::hooks::Witness,
};

/// All writes ever made.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    lives: BTreeMap<(NodeId, Generation), Log>,
}

/// The writes that led to one life's map: those it continues and its own.
#[derive(Debug, Default, Clone)]
struct Log {
    /// `None` is a deletion.
    writes: BTreeMap<Key, BTreeMap<Version, Option<Value>>>,
}

impl Witness for Oracle {
    fn begin(
        &mut self,
        node: &NodeId,
        generation: Generation,
        continues: Option<(Generation, Version)>,
    ) -> Result<(), String> {
        let log = match continues {
            Some((earlier, upto)) => self.log(node, earlier)?.clone().upto(upto),
            None => Log::default(),
        };
        match self.lives.insert((node.clone(), generation), log) {
            None => Ok(()),
            Some(_) => Err(format!("{node} lives generation {generation} twice")),
        }
    }

    fn wrote(
        &mut self,
        node: &NodeId,
        generation: Generation,
        version: Version,
        key: &Key,
        value: Option<&Value>,
    ) -> Result<(), String> {
        let life = self.lives.get_mut(&(node.clone(), generation));
        let log = life.ok_or_else(|| format!("{node} writes in no life of its own"))?;
        let writes = log.writes.entry(key.clone()).or_default();
        match writes.insert(version, value.cloned()) {
            None => Ok(()),
            Some(_) => Err(format!("{node} used version {version} of {key} twice")),
        }
    }

    fn check(&self, owner: &NodeId, view: &NodeView) -> Result<(), String> {
        let log = self.log(owner, view.generation)?;
        for (key, entry) in &view.entries {
            log.check_held(key, entry, view)?;
        }
        let seen: BTreeSet<Version> = view.entries.values().map(|entry| entry.version).collect();
        for (key, writes) in &log.writes {
            log.check_complete(key, writes, view)?;
            check_whole(key, writes, &seen, view)?;
        }
        Ok(())
    }
}

impl Oracle {
    fn log(&self, node: &NodeId, generation: Generation) -> Result<&Log, String> {
        let life = self.lives.get(&(node.clone(), generation));
        life.ok_or_else(|| format!("{node} never lived generation {generation}"))
    }
}

impl Log {
    fn upto(mut self, version: Version) -> Self {
        for writes in self.writes.values_mut() {
            writes.retain(|at, _| *at <= version);
        }
        self
    }

    /// What is held was written, and not beyond what the copy claims.
    fn check_held(&self, key: &Key, entry: &Entry, view: &NodeView) -> Result<(), String> {
        let version = entry.version;
        let written = self.writes.get(key).and_then(|writes| writes.get(&version));
        let Some(written) = written else {
            return Err(format!(
                "{key} at {version} was never written: {:?} {view:?}",
                self.writes.get(key)
            ));
        };
        if version > view.max_version {
            return Err(format!("{key} at {version} is beyond {}", view.max_version));
        }
        let same = match (&entry.content, written) {
            (Content::Value { value, .. }, Some(written)) => value == written,
            (Content::Tombstone, None) => true,
            _ => false,
        };
        if !same {
            return Err(format!("{key} at {version} is {entry:?}, written was {written:?}"));
        }
        if entry.is_tombstone() && version <= view.gc_floor {
            return Err(format!("the tombstone of {key} at {version} was to be dropped"));
        }
        Ok(())
    }

    /// What the owner has not written since is there, all of it: no gap, nothing deleted that came
    /// back.
    fn check_complete(
        &self,
        key: &Key,
        writes: &BTreeMap<Version, Option<Value>>,
        view: &NodeView,
    ) -> Result<(), String> {
        let max = view.max_version;
        let Some((last, content)) = writes.last_key_value() else { return Ok(()) };
        // A later write replaces this one: the copy may have it already without having that.
        if *last > max {
            return Ok(());
        }
        let collected = content.is_none() && *last <= view.gc_floor;
        match view.entries.get(key) {
            None if collected => Ok(()),
            Some(entry) if entry.version == *last && !collected => Ok(()),
            held => Err(format!(
                "at {max} (floor {}) {key} is {held:?}, last written at {last}: {content:?} {view:?}",
                view.gc_floor
            )),
        }
    }
}

/// Of a batch that is seen in part, all else is seen too, or what the owner wrote later instead.
fn check_whole(
    key: &Key,
    writes: &BTreeMap<Version, Option<Value>>,
    seen: &BTreeSet<Version>,
    view: &NodeView,
) -> Result<(), String> {
    let Some((batch, _)) = writes.iter().rev().find(|(version, _)| seen.contains(version)) else {
        return Ok(());
    };
    let collected = |(version, content): (&Version, &Option<Value>)| {
        content.is_none() && *version <= view.gc_floor
    };
    match view.entries.get(key) {
        Some(entry) if entry.version >= *batch => Ok(()),
        None if writes.range(batch..).any(collected) => Ok(()),
        held => Err(format!("half of the batch {batch} is seen: {key} is {held:?} {view:?}")),
    }
}
