//! A value that is set once or replaced, read as a copy, and awaited.
//!
//! `tokio::sync::watch` returns a guard of its lock. If a guard stays alive while the same thread reads
//! again, this deadlocks as soon as a writer waits in between; the temporaries of a `match` or of a
//! branch of `select!` live longer than they look. So no guard leaves this file, and `clippy.toml`
//! refuses the methods that return one everywhere else.

#![expect(clippy::disallowed_methods, reason = "no guard leaves this file")]

use tokio::sync::watch;

#[derive(Debug)]
pub(crate) struct Slot<T>(watch::Sender<Option<T>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl<T: Clone> Slot<T> {
    pub(crate) fn get(&self) -> Option<T> {
        self.0.borrow().clone()
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Replaces the value.
    pub(crate) fn set(&self, value: T) {
        self.0.send_replace(Some(value));
    }

    /// Sets the value unless one is set: the first one stays.
    pub(crate) fn set_first(&self, value: T) {
        self.0.send_if_modified(|slot| {
            let first = slot.is_none();
            if first {
                *slot = Some(value);
            }
            first
        });
    }

    /// Waits for a value.
    pub(crate) async fn wait(&self) -> T {
        self.wait_for(|_| true).await
    }

    /// Waits for a value that `suits`, which must not touch the slot.
    pub(crate) async fn wait_for(&self, mut suits: impl FnMut(&T) -> bool) -> T {
        let mut values = self.0.subscribe();
        let found = values.wait_for(|value| value.as_ref().is_some_and(&mut suits)).await;
        // The sender lives as long as `self`.
        found.ok().and_then(|value| value.clone()).expect("the slot has a value that suits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_value_stays_and_a_later_one_replaces() {
        let slot = Slot::default();
        assert_eq!((slot.is_set(), slot.get()), (false, None));
        slot.set_first(1);
        slot.set_first(2);
        assert_eq!((slot.get(), slot.wait().await), (Some(1), 1));
        slot.set(3);
        assert_eq!((slot.is_set(), slot.get()), (true, Some(3)));
        let (found, ()) = tokio::join!(slot.wait_for(|value| *value > 3), async { slot.set(4) });
        assert_eq!(found, 4);
    }
}
