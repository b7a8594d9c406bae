//! The effects of an update on a copy, as a reader notices them.

use imbl::ordmap::DiffItem;

use crate::protocol::{
    entry::{Entry, Key, Value},
    id::Version,
    time::Time,
};

/// A visible effect of applying an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// The key has this value now.
    Updated(Key, Value, Version),
    /// The key has no value any more.
    Deleted(Key, Version),
}

/// The effects of an applied update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The visible effects, in version order.
    pub changes: Vec<KeyChange>,
    /// The owner has restarted.
    pub generation: bool,
    /// The owner's record is new.
    pub record: bool,
    /// The copy reaches further than before, visibly or not.
    pub advanced: bool,
    /// The owner has restarted and nothing of the copy is left.
    pub forgotten: bool,
}

/// The change that a reader notices when one entry came, went or was replaced.
pub(super) fn visible_change(item: DiffItem<'_, '_, Key, Entry>, now: Time) -> Option<KeyChange> {
    let (key, before, entry) = match item {
        DiffItem::Add(key, entry) => (key, None, entry),
        DiffItem::Update { old, new } => (new.0, Some(old.1), new.1),
        DiffItem::Remove(key, entry) => {
            return (!entry.is_tombstone()).then(|| KeyChange::Deleted(key.clone(), entry.version));
        }
    };
    match entry.visible(now) {
        Some(value) if before.and_then(|before| before.visible(now)) != Some(value) => {
            Some(KeyChange::Updated(key.clone(), value.clone(), entry.version))
        }
        None if entry.is_tombstone() && before.is_some_and(|before| !before.is_tombstone()) => {
            Some(KeyChange::Deleted(key.clone(), entry.version))
        }
        _ => None,
    }
}
