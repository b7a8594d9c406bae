//! The slots of an issuer: which clients are served concurrently, and which one is disconnected when a slot is needed.
//!
//! A client takes a visitor's slot; one source has a few of them. When none is free, the oldest connection
//! without a request ends. A client that has shown a member's certificate moves to a member's slot. Visitors
//! cannot take those, so strangers cannot keep members from renewing.

use std::{collections::BTreeMap, net::IpAddr};

use crate::protocol::id::NodeId;

/// Concurrent clients that have not shown a member's certificate.
pub(super) const VISITORS_MAX: usize = 48;
/// Of these, the clients of one address, or IPv6 network of 64 bits.
pub(super) const VISITORS_PER_SOURCE: usize = 8;
/// Concurrent members, in slots of their own.
pub(super) const MEMBERS_MAX: usize = 16;
/// Of these, the slots of one member.
pub(super) const PLACES_PER_MEMBER: usize = 2;

/// The slots. `L` ends a connection.
#[derive(Debug)]
pub(super) struct Places<L> {
    next: u64,
    /// By arrival, the oldest first.
    taken: BTreeMap<u64, Place<L>>,
}

#[derive(Debug)]
struct Place<L> {
    source: IpAddr,
    /// The member whose certificate it has shown, if it has a member's slot.
    member: Option<NodeId>,
    /// Whether its request is being answered or was granted: then it keeps its slot.
    busy: bool,
    leave: L,
}

/// Every slot that this client could get is taken by a connection that keeps it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<L> Default for Places<L> {
    fn default() -> Self {
        Self { next: 0, taken: BTreeMap::new() }
    }
}

impl<L> Places<L> {
    /// Takes a slot for a client. Returns its number, and the end of the connection that gives way.
    pub(super) fn enter(&mut self, source: IpAddr, leave: L) -> Result<(u64, Option<L>), Full> {
        let of_source = |place: &Place<L>| place.member.is_none() && place.source == source;
        let visitor = |place: &Place<L>| place.member.is_none();
        let gone = if self.count(of_source) >= VISITORS_PER_SOURCE {
            Some(self.give_way(of_source).ok_or(Full)?)
        } else if self.count(visitor) >= VISITORS_MAX {
            Some(self.give_way(visitor).ok_or(Full)?)
        } else {
            None
        };
        let place = Place { source, member: None, busy: false, leave };
        let number = self.next;
        self.next += 1;
        self.taken.insert(number, place);
        Ok((number, gone))
    }

    /// Moves a client that has shown a member's certificate to a member's slot, if one is free. Returns the end of
    /// the connection that gives way.
    pub(super) fn prove(&mut self, number: u64, member: &NodeId) -> Option<L> {
        if !self.taken.contains_key(&number) {
            return None;
        }
        let of_member = |place: &Place<L>| place.member.as_ref() == Some(member);
        let any_member = |place: &Place<L>| place.member.is_some();
        let (mut gone, mut room) = (None, true);
        if self.count(of_member) >= PLACES_PER_MEMBER {
            gone = self.give_way(of_member);
            room = gone.is_some();
        } else if self.count(any_member) >= MEMBERS_MAX {
            gone = self.give_way(any_member);
            room = gone.is_some();
        }
        if room && let Some(place) = self.taken.get_mut(&number) {
            place.member = Some(member.clone());
        }
        gone
    }

    /// Sets whether a connection keeps its slot: from its request on, unless that is refused.
    pub(super) fn set_busy(&mut self, number: u64, busy: bool) {
        if let Some(place) = self.taken.get_mut(&number) {
            place.busy = busy;
        }
    }

    /// Frees a slot.
    pub(super) fn leave(&mut self, number: u64) {
        self.taken.remove(&number);
    }

    fn count(&self, among: impl Fn(&Place<L>) -> bool) -> usize {
        self.taken.values().filter(|place| among(place)).count()
    }

    /// Removes the oldest connection among these that does not keep its slot.
    fn give_way(&mut self, among: impl Fn(&Place<L>) -> bool) -> Option<L> {
        let mut idle = self.taken.iter().filter(|(_, place)| !place.busy && among(place));
        let number = *idle.next()?.0;
        self.taken.remove(&number).map(|place| place.leave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_visit_of_a_source_gives_way_to_its_next_one() {
        let mut places = Places::default();
        for n in 0..VISITORS_PER_SOURCE {
            assert_eq!(places.enter(source(1), n), Ok((n as u64, None)));
        }
        assert_eq!(places.enter(source(1), 100).unwrap().1, Some(0));
        assert_eq!(places.enter(source(2), 101).unwrap().1, None, "others lose nothing");
        // Clients that are being answered stay, and their source gets no further slot.
        let numbers: Vec<_> = places.taken.keys().copied().collect();
        numbers.iter().for_each(|number| places.set_busy(*number, true));
        assert_eq!(places.enter(source(1), 102), Err(Full));
        // A client that was refused gives way.
        places.set_busy(numbers[3], false);
        assert_eq!(places.enter(source(1), 103).unwrap().1, Some(4));
    }

    #[test]
    fn the_oldest_visit_without_a_request_gives_way_when_all_places_are_taken() {
        let mut places = Places::default();
        for n in 0..VISITORS_MAX {
            assert_eq!(places.enter(source(n), n).unwrap().1, None);
        }
        places.set_busy(0, true);
        assert_eq!(places.enter(source(1_000), 1_000).unwrap().1, Some(1));
        for n in 0..10 * VISITORS_MAX {
            places.enter(source(2_000 + n), 0).unwrap();
            assert_eq!(places.taken.len(), VISITORS_MAX);
        }
        assert!(places.taken.contains_key(&0), "it is being answered");
        places.taken.values_mut().for_each(|place| place.busy = true);
        assert_eq!(places.enter(source(9_999), 0), Err(Full));
        places.leave(0);
        assert_eq!(places.enter(source(9_999), 0).unwrap().1, None);
    }

    #[test]
    fn visitors_take_no_place_of_a_member() {
        let mut places = Places::default();
        for n in 0..VISITORS_MAX - 1 {
            places.enter(source(n), n).unwrap();
        }
        let (member, gone) = places.enter(source(1_000), 1_000).unwrap();
        assert_eq!((gone, places.prove(member, &node(0))), (None, None));
        for n in 0..10 * VISITORS_MAX {
            places.enter(source(2_000 + n), 7).unwrap();
        }
        assert!(places.taken.contains_key(&member));
        assert_eq!(places.taken.len(), VISITORS_MAX + 1);
    }

    #[test]
    fn one_member_does_not_take_the_places_of_all() {
        let mut places = Places::default();
        let mut come = |name, leave| {
            let (number, _) = places.enter(source(leave), leave).unwrap();
            (number, places.prove(number, &node(name)))
        };
        assert_eq!((come(0, 0).1, come(0, 1).1), (None, None));
        assert_eq!(come(0, 2).1, Some(0), "its own oldest");
        for n in 0..MEMBERS_MAX {
            come(1 + n, 10 + n);
        }
        let of_members = places.taken.values().filter(|place| place.member.is_some());
        assert_eq!(of_members.count(), MEMBERS_MAX);
        // A client that has given way does not get a slot back.
        assert_eq!(places.prove(0, &node(0)), None);
        assert!(!places.taken.contains_key(&0));
    }

    fn source(n: usize) -> IpAddr {
        IpAddr::from(u32::try_from(n).unwrap().to_be_bytes())
    }

    fn node(n: usize) -> NodeId {
        NodeId::new(&format!("n{n}")).unwrap()
    }
}
