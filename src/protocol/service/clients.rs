//! Which clients an offer admits, as its node publishes it. Other nodes list to a client only the offers that admit it.
//!
//! It only hides offers, and permits nothing: the node that offers the service checks each request itself.

use crate::protocol::hash::hash;

/// Most names of clients in one offer.
pub const CLIENT_NAMES_MAX: usize = 64;

/// The role in a client's certificate, as a rank; each rank includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rank {
    /// The least one: every client has it.
    Read,
    /// The next one.
    Watch,
    /// The highest one.
    Admin,
}

/// The clients that an offer admits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    rank: Option<Rank>,
    names: Vec<u32>,
}

/// A client, as an offer judges it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Viewer {
    rank: Rank,
    names: Vec<u32>,
}

impl Clients {
    /// Those of this rank or a higher one, and those with one of these names.
    pub fn new(rank: Option<Rank>, names: impl IntoIterator<Item = u32>) -> Self {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        Self { rank, names }
    }

    /// All clients.
    #[must_use]
    pub const fn all() -> Self {
        Self { rank: Some(Rank::Read), names: Vec::new() }
    }

    /// Whether it admits no client.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.rank.is_none() && self.names.is_empty()
    }

    /// The rank that suffices; `None` if none does.
    #[must_use]
    pub const fn rank(&self) -> Option<Rank> {
        self.rank
    }

    /// The hashes of the names that suffice, sorted, each of them once.
    #[must_use]
    pub fn names(&self) -> &[u32] {
        &self.names
    }

    /// Whether it admits this client. Two names may have one hash.
    #[must_use]
    pub fn admits(&self, viewer: &Viewer) -> bool {
        self.rank.is_some_and(|rank| viewer.rank >= rank)
            || viewer.names.iter().any(|name| self.names.binary_search(name).is_ok())
    }

    /// Those that this or the other one admits. If the names are too many for one offer, all clients.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        let both = [self.rank, other.rank];
        let rank = both.into_iter().flatten().min();
        let all = Self::new(rank, self.names.iter().chain(&other.names).copied());
        if all.names.len() > CLIENT_NAMES_MAX { Self::all() } else { all }
    }
}

impl Viewer {
    /// A client of this rank, which has these names.
    pub fn new(rank: Rank, names: impl IntoIterator<Item = u32>) -> Self {
        Self { rank, names: names.into_iter().collect() }
    }
}

/// The hash by which an offer names a client.
#[must_use]
pub fn name_hash(name: &str) -> u32 {
    // The upper half: any bits do.
    (hash(name) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admits_a_client_by_its_rank_or_by_one_of_its_names_only() {
        let (till, shop) = (name_hash("till"), name_hash("spiffe://demo/client/read/till"));
        let viewer = |rank| Viewer::new(rank, [till, shop]);
        let nobody = Clients::default();
        assert!(nobody.is_none() && !nobody.admits(&viewer(Rank::Admin)));
        let watch = Clients::new(Some(Rank::Watch), []);
        assert!(!watch.admits(&viewer(Rank::Read)));
        assert!(watch.admits(&viewer(Rank::Watch)) && watch.admits(&viewer(Rank::Admin)));
        for name in [till, shop] {
            let named = Clients::new(Some(Rank::Admin), [7, name, 7]);
            assert!(named.admits(&viewer(Rank::Read)));
            assert!(!named.admits(&Viewer::new(Rank::Watch, [name_hash("other")])));
        }
        assert!(Clients::all().admits(&Viewer::new(Rank::Read, [])));
    }

    #[test]
    fn either_of_two_admits_what_each_admits_and_too_many_names_stand_for_all() {
        let admin = Clients::new(Some(Rank::Admin), [1]);
        let both = admin.or(&Clients::new(Some(Rank::Watch), [2]));
        assert_eq!(both, Clients::new(Some(Rank::Watch), [1, 2]));
        assert_eq!(admin.or(&Clients::default()), admin);
        let many = Clients::new(None, 0..CLIENT_NAMES_MAX as u32);
        assert_eq!(many.or(&Clients::new(None, [3])), many);
        assert_eq!(many.or(&Clients::new(None, [1_000])), Clients::all());
    }
}
