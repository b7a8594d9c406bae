//! A node in another generation than the known one, or at another address: the state that the node had and
//! that generation lacks.

use std::fmt;

use super::{
    claim::after,
    delta::{ANCESTRY_MAX, NodeDelta},
    id::{Generation, Version},
    map::NodeMap,
    reason::Cause,
    record::Status,
};

/// How a node's new generation, or its new address, differs from the known one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Return {
    /// The generation that was known.
    pub earlier: Generation,
    /// The generation that follows; the same one if only the addresses have changed.
    pub generation: Generation,
    /// How many known versions of the earlier generation the new one does not continue.
    pub lost: u64,
    /// Whether there are keys among them, and not only changes of its record.
    pub lost_keys: bool,
    /// It had left on purpose.
    pub had_left: bool,
    /// It has received a claim of a later generation under its own name, and took the one after that.
    pub is_conflict: bool,
    /// Its former and present addresses, if they differ.
    pub moved: Option<(Vec<String>, Vec<String>)>,
}

/// The ways in which a node comes back that an operator should look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Returned {
    /// It had left on purpose, and its store does not know that.
    AfterLeaving,
    /// It lacks state of its earlier generation that its peers knew.
    Behind {
        /// The generation that its peers knew.
        earlier: Generation,
        /// How many versions of it are missing.
        versions: u64,
    },
    /// Two processes use its name.
    Twice {
        /// The generation that was there already.
        earlier: Generation,
    },
}

impl Returned {
    /// One word for it, as in events and in the causes of `why`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.cause().as_str()
    }

    /// The cause under which it is recorded beside the state transitions of the node.
    #[must_use]
    #[doc(hidden)]
    pub const fn cause(self) -> Cause {
        match self {
            Self::AfterLeaving => Cause::AfterLeaving,
            Self::Behind { .. } => Cause::Behind,
            Self::Twice { .. } => Cause::Twice,
        }
    }

    /// What happened to it, and what to do.
    #[must_use]
    #[doc(hidden)]
    pub fn detail(self) -> String {
        match self {
            Self::AfterLeaving => {
                "its store does not know that it left: the store is a copy from before, \
                 or was lost; to keep the node out, revoke its certificate"
                    .to_owned()
            }
            Self::Behind { earlier, versions } => format!(
                "{versions} versions of generation {earlier} are missing: its store was restored from an \
                 older copy, or was lost"
            ),
            Self::Twice { earlier } => format!(
                "a life began while generation {earlier} was still there; one name is for one node, so \
                 look for a second agent with a copy of its directory or certificate"
            ),
        }
    }
}

/// A sentence with the node as its subject.
impl fmt::Display for Returned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause().as_sentence(), self.detail())
    }
}

impl Return {
    /// The return of a node according to an update of it; `None` if it goes on where it was.
    #[must_use]
    pub fn of(known: &NodeMap, news: &NodeDelta) -> Option<Self> {
        let (version, record) = news.record.as_ref()?;
        let (earlier, generation) = (known.generation(), news.generation);
        let before = known.record()?;
        let renewed = generation > earlier;
        let changed = generation == earlier && *version > known.record_version();
        let moved = before.addresses != record.addresses && (renewed || changed);
        if !renewed && !moved {
            return None;
        }
        let reach = news.horizon.max(news.to);
        let kept = if renewed {
            kept((earlier, known.max_version()), &news.ancestry, reach)
        } else {
            known.max_version()
        };
        Some(Self {
            earlier,
            generation,
            lost: known.max_version().0.saturating_sub(kept.0),
            lost_keys: known.has_writes_after(kept),
            had_left: before.status == Status::Left && record.status == Status::Up,
            is_conflict: renewed && generation == after(earlier) && news.ancestry.is_empty(),
            moved: moved.then(|| (before.addresses.clone(), record.addresses.clone())),
        })
    }
}

/// Up to which of the known versions of an earlier generation a new one continues it. `ancestry`: the
/// generations that it continues, newest first; `reach`: how far it reaches itself.
#[must_use]
pub fn kept(
    (earlier, known): (Generation, Version),
    ancestry: &[(Generation, Version)],
    reach: Version,
) -> Version {
    match ancestry.iter().find(|(generation, _)| *generation <= earlier) {
        Some((_, upto)) => known.min(*upto),
        // It has started so often since that this is not known any more.
        None if ancestry.len() >= ANCESTRY_MAX => known,
        // It has received a claim about its own name, and goes on with its map in a generation that continues
        // none.
        None if reach > known => known,
        None => Version::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn life(generation: u64, version: u64) -> (Generation, Version) {
        (Generation(generation), Version(version))
    }

    #[test]
    fn a_life_keeps_of_an_earlier_one_what_its_store_had() {
        // A crash or a restart: all of it.
        assert_eq!(kept(life(5, 9), &[life(5, 9), life(4, 3)], Version(9)), Version(9));
        assert_eq!(kept(life(5, 7), &[life(5, 9)], Version(9)), Version(7));
        // A store that lost writes; one from before the known generation.
        assert_eq!(kept(life(5, 9), &[life(5, 6)], Version(7)), Version(6));
        assert_eq!(kept(life(5, 9), &[life(4, 3)], Version(4)), Version(3));
        // No store, or one of later generations only.
        assert_eq!(kept(life(5, 9), &[], Version(1)), Version(0));
        assert_eq!(kept(life(5, 9), &[life(6, 2)], Version(3)), Version(0));
    }

    #[test]
    fn nothing_is_called_lost_that_may_be_there() {
        assert_eq!(kept(life(5, 9), &[], Version(10)), Version(9), "a conflict of names");
        let lives: Vec<_> = (0..ANCESTRY_MAX as u64).rev().map(|n| life(10 + n, 3)).collect();
        assert_eq!(kept(life(5, 9), &lives, Version(3)), Version(9), "many restarts");
    }
}
