//! What has to be proved before the words of others change anything: one table, and the machine that
//! judges what is said of this node's own name.
//!
//! A claim is a sentence that can end a node, begin a life of it, revoke, remove or move a node. Who
//! says it proves at most its own name by its certificate: that proves nothing about others.
//! [`Claim::is_proved_by`] says what does.

use std::collections::BTreeMap;

use super::{
    id::{Datacenter, Generation, NodeId},
    seal::Certified,
};

/// What a peer can say that ends, begins, revokes, removes or moves a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// "A later life of your name is known": the node begins a life after that one.
    LaterLife,
    /// "Another process has your name": the node ends.
    Twin,
    /// "This node has begun a life": its copy begins anew.
    NewLife,
    /// "This node is in that datacenter."
    Datacenter,
    /// "The certificates of this node are revoked."
    Revocation,
    /// "An operator has removed this node."
    Removal,
    /// "This node is suspect, or dead."
    Accusation,
}

/// What stands behind a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: the speaker has proved no name. The close of a connection before the end of its
    /// handshake is of this kind.
    Nobody,
    /// One member says so. Its certificate proves its name, not what it says.
    Member,
    /// Several members say so, each over a connection of its own.
    Several,
    /// The node that it is about has signed it, with a key that a certificate of its name vouches for.
    Signed,
    /// The certificate of the node that it is about says so.
    Certificate,
    /// Another process shows a certificate of that name at this moment, over a connection.
    Present,
    /// An authority of the cluster has signed it.
    Authority,
}

/// Whether the heads of maps have to be signed: the configuration's `signing = "require"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// All are, and what is not signed is refused.
    Signed,
    /// They need not be.
    Unsigned,
}

impl Claim {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::LaterLife,
        Self::Twin,
        Self::NewLife,
        Self::Datacenter,
        Self::Revocation,
        Self::Removal,
        Self::Accusation,
    ];

    /// The proofs of which one is needed. `SECURITY.md` has the same table.
    #[must_use]
    pub const fn needs(self, heads: Heads) -> &'static [Proof] {
        match (self, heads) {
            (Self::LaterLife, Heads::Signed) | (Self::Twin, _) => &[Proof::Signed, Proof::Present],
            (Self::LaterLife, Heads::Unsigned) => &[Proof::Several, Proof::Signed, Proof::Present],
            (Self::NewLife, Heads::Signed) => &[Proof::Signed],
            (Self::NewLife, Heads::Unsigned) => &[Proof::Member, Proof::Signed],
            (Self::Datacenter, Heads::Signed) => &[Proof::Certificate],
            (Self::Datacenter, Heads::Unsigned) => &[Proof::Member, Proof::Certificate],
            (Self::Revocation, _) => &[Proof::Authority],
            (Self::Removal, _) => &[Proof::Member],
            (Self::Accusation, _) => &[Proof::Several],
        }
    }

    /// Whether this is proof enough.
    #[must_use]
    pub fn is_proved_by(self, heads: Heads, proof: Proof) -> bool {
        self.needs(heads).contains(&proof)
    }
}

impl Certified {
    /// Whether this certificate can vouch for a life that began then: not for one that began after its
    /// end, or whoever has the key of one that has expired could go on in its node's name for ever. It
    /// may be younger than the life, since a renewed one goes on to vouch for it.
    #[must_use]
    pub fn reaches(&self, life: Generation) -> bool {
        life <= self.last_life()
    }

    /// The last life that it can vouch for.
    #[must_use]
    pub fn last_life(&self) -> Generation {
        Generation(self.not_after.saturating_mul(1_000).saturating_add(LIFE_SLACK_MS))
    }

    /// Whether it has become valid. `clock`: what the clock shows now.
    #[must_use]
    pub fn has_begun(&self, clock: Generation) -> bool {
        self.not_before.saturating_mul(1_000) <= clock.0.saturating_add(LIFE_SLACK_MS)
    }

    /// Whether what the other certificate vouched for may be vouched for by this one from now on: it began
    /// no earlier, or ends no earlier. A certificate that has been renewed since is neither, so whoever
    /// has its key says nothing more in its node's name, not even in a life that began before its end.
    #[must_use]
    pub const fn succeeds(&self, before: &Self) -> bool {
        self.not_before >= before.not_before || self.not_after >= before.not_after
    }

    /// Whether a node of this certificate may say that it is there.
    #[must_use]
    pub fn places(&self, datacenter: &Datacenter) -> bool {
        self.datacenter.as_ref().is_none_or(|proved| proved == datacenter)
    }
}

/// How this node has come to know of a later life of its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This member says so.
    Said(NodeId),
    /// A head of that life is signed with a key that a certificate of our name vouches for.
    Signed,
    /// The same, but the certificate is one from before that of this process: it shows a past of ours at
    /// most, or who has its key, never that another process has our name now.
    SignedBefore,
    /// A process with a certificate of our name has introduced itself in that life.
    Present,
}

/// What is done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Nothing: it is no later life.
    Known,
    /// Nothing: it is not proved.
    Unproved {
        /// Whether it is worth telling: this member says so again and again, which an honest one that
        /// holds a proof does not.
        tell: bool,
    },
    /// Nothing: no clock can have given that life, or our certificate cannot vouch for a later one.
    TooFar,
    /// A life is begun that is later than this one.
    Renew(Generation),
    /// This node ends: another process has its name now.
    End,
}

/// Where this node stands when it hears a claim about its name.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its present life.
    pub ours: Generation,
    /// The life that its clock would give now.
    pub clock: Generation,
    /// The last life that is believed of anybody.
    pub last: Generation,
    /// Whether heads have to be signed.
    pub heads: Heads,
    /// How many other members it knows that are not dead and have not left.
    pub members: usize,
}

/// Judges what is said of this node's own name.
#[derive(Clone, Debug, Default)]
pub struct OwnName {
    /// Lives begun upon a proof.
    proved: u32,
    /// Lives begun upon hearsay.
    hearsay: u32,
    /// Lives begun upon heads that an earlier certificate of ours vouches for.
    past: u32,
    /// The latest life that each member has said it knows, and how often.
    said: BTreeMap<NodeId, (Generation, u32)>,
}

impl OwnName {
    /// `renewed`: this process has begun a life upon a proof before.
    #[must_use]
    pub fn new(renewed: bool) -> Self {
        Self { proved: u32::from(renewed), ..Self::default() }
    }

    /// Whether this process has begun a life upon a proof.
    #[must_use]
    pub const fn renewed(&self) -> bool {
        self.proved > 0
    }

    /// Whether this process has begun a life for what it heard, proved or not.
    #[must_use]
    pub const fn has_answered(&self) -> bool {
        self.proved > 0 || self.hearsay > 0
    }

    /// Judges a claim that there is a life `heard` of this node's name, or in the same life a later
    /// state than its own.
    pub fn judge(&mut self, heard: Generation, by: Heard, at: &Standing) -> Ruling {
        if heard < at.ours {
            return Ruling::Known;
        }
        let proof = match by {
            Heard::Said(member) => return self.said(heard, member, at),
            Heard::SignedBefore => return self.signed_before(heard, at),
            Heard::Signed => Proof::Signed,
            Heard::Present => Proof::Present,
        };
        if heard > at.last {
            return Ruling::TooFar;
        }
        // A signature has no date: the life may be one of our own past. But a life that is exactly one
        // step after ours answers it, and another state of ours was written by another process.
        let answers = heard == after(at.ours) || heard == at.ours;
        let now = proof == Proof::Present || answers;
        let ends = now || self.proved >= PROVED_LIVES_MAX;
        if self.proved > 0 && ends && Claim::Twin.is_proved_by(at.heads, proof) {
            return Ruling::End;
        }
        if !Claim::LaterLife.is_proved_by(at.heads, proof) {
            return Ruling::Unproved { tell: false };
        }
        self.proved += 1;
        self.said.clear();
        Ruling::Renew(after(heard))
    }

    /// An earlier certificate of ours vouches for it: it may be our past, so a later life begins, a few
    /// times. Its end limits how far that goes.
    fn signed_before(&mut self, heard: Generation, at: &Standing) -> Ruling {
        if heard > at.last {
            return Ruling::TooFar;
        }
        if self.past >= PAST_LIVES_MAX || !Claim::LaterLife.is_proved_by(at.heads, Proof::Signed) {
            return Ruling::Unproved { tell: false };
        }
        self.past += 1;
        Ruling::Renew(after(heard))
    }

    /// A member says so. Where heads are signed, that is nothing; else several have to.
    fn said(&mut self, heard: Generation, member: NodeId, at: &Standing) -> Ruling {
        if !self.said.contains_key(&member) && self.said.len() >= WITNESSES_MAX {
            return Ruling::Unproved { tell: false };
        }
        let claim = self.said.entry(member).or_default();
        claim.1 = claim.1.saturating_add(1);
        let unproved = Ruling::Unproved { tell: claim.1 == CLAIMS_TOLERATED };
        // What is too far ahead is remembered against the member, and says nothing of our lives.
        let far = at.clock.max(at.ours).0.saturating_add(HEARSAY_AHEAD_MAX_MS);
        if heard.0 > far || heard > at.last {
            return unproved;
        }
        claim.0 = heard;
        if !Claim::LaterLife.is_proved_by(at.heads, Proof::Several)
            || self.hearsay >= HEARSAY_LIVES_MAX
        {
            return unproved;
        }
        // The latest life that enough of them know: one who lies alone does not say how far it goes.
        let mut known: Vec<_> = self.said.values().map(|(life, _)| *life).collect();
        known.sort_unstable_by(|a, b| b.cmp(a));
        let needed = at.members.clamp(1, SEVERAL);
        let Some(life) = known.get(needed - 1).copied().filter(|life| *life >= at.ours) else {
            return unproved;
        };
        self.hearsay += 1;
        self.said.clear();
        Ruling::Renew(after(life))
    }
}

/// The life that is begun when `heard` was heard of.
pub(super) fn after(heard: Generation) -> Generation {
    Generation(heard.0.saturating_add(ANSWER_STEP))
}

/// How far clocks may be apart when a life is compared with the dates of a certificate, in milliseconds:
/// what Kerberos allows (RFC 4120, section 1.6).
pub const LIFE_SLACK_MS: u64 = 300_000;
/// How far the life that a process begins is after the one it has heard of: two that have one name know
/// by it that the other one lives. Starts of one process do not lie so far apart by chance.
pub const ANSWER_STEP: u64 = 1_021;
/// Members that have to say that a later life of this node is known, where heads need not be signed;
/// all that it knows, if those are fewer.
pub const SEVERAL: usize = 3;
/// Lives that a process begins upon hearsay. After that it needs a proof.
pub const HEARSAY_LIVES_MAX: u32 = 2;
/// How far ahead of its clock, and of its present life, a node follows hearsay, in milliseconds: a day,
/// which is more than a wrong time zone.
pub const HEARSAY_AHEAD_MAX_MS: u64 = 86_400_000;
/// Lives that a process begins upon signed heads of lives that need not be of now: a node that has lost
/// its store may hear of one life of its past from each side of a partition. At the next one it ends.
pub const PROVED_LIVES_MAX: u32 = 8;
/// Lives that a process begins upon heads that only an earlier certificate of its name vouches for.
pub const PAST_LIVES_MAX: u32 = 8;
/// Claims of one member that are not told to the operator: one that holds a proof shows it with the first.
pub const CLAIMS_TOLERATED: u32 = 3;
/// Members whose claims about this node's name are remembered.
pub const WITNESSES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = HEARSAY_AHEAD_MAX_MS;

    fn at(ours: u64, heads: Heads, members: usize) -> Standing {
        let last = Generation(1_000 * DAY);
        Standing { ours: Generation(ours), clock: Generation(ours), last, heads, members }
    }

    fn said(name: &mut OwnName, member: &str, heard: u64, at: &Standing) -> Ruling {
        name.judge(Generation(heard), Heard::Said(NodeId::new(member).unwrap()), at)
    }

    #[test]
    fn words_without_a_name_prove_nothing_and_a_member_ends_nobody() {
        for claim in Claim::ALL {
            for heads in [Heads::Signed, Heads::Unsigned] {
                assert!(!claim.is_proved_by(heads, Proof::Nobody), "{claim:?}");
            }
        }
        for heads in [Heads::Signed, Heads::Unsigned] {
            for claim in [Claim::Twin, Claim::LaterLife, Claim::Revocation, Claim::Accusation] {
                assert!(!claim.is_proved_by(heads, Proof::Member), "{claim:?}");
            }
            assert!(!Claim::Twin.is_proved_by(heads, Proof::Several));
            assert!(!Claim::Revocation.is_proved_by(heads, Proof::Signed));
        }
        assert!(!Claim::LaterLife.is_proved_by(Heads::Signed, Proof::Several));
    }

    #[test]
    fn hearsay_begins_no_life_where_heads_are_signed_however_many_say_so() {
        let (mut name, at) = (OwnName::default(), at(10, Heads::Signed, 5));
        for round in 0..5 {
            for member in ["a", "b", "c", "d", "e"] {
                let ruling = said(&mut name, member, 20 + u64::from(round), &at);
                let tell = round + 1 == CLAIMS_TOLERATED;
                assert_eq!(ruling, Ruling::Unproved { tell }, "{member}");
            }
        }
        assert!(!name.has_answered());
    }

    #[test]
    fn several_have_to_say_so_and_one_that_lies_does_not_say_how_far() {
        let (mut name, at) = (OwnName::default(), at(10, Heads::Unsigned, 5));
        assert_eq!(said(&mut name, "liar", 900, &at), Ruling::Unproved { tell: false });
        assert_eq!(said(&mut name, "liar", 901, &at), Ruling::Unproved { tell: false });
        assert_eq!(said(&mut name, "a", 20, &at), Ruling::Unproved { tell: false });
        assert_eq!(said(&mut name, "b", 25, &at), Ruling::Renew(after(Generation(20))));
        assert!(!name.renewed(), "that is no proof");
    }

    #[test]
    fn hearsay_is_limited_in_number_and_in_how_far_it_jumps() {
        let mut name = OwnName::default();
        let mut ours = 10;
        assert_eq!(
            said(&mut name, "a", ours + DAY + 1, &at(ours, Heads::Unsigned, 1)),
            Ruling::Unproved { tell: false }
        );
        for _ in 0..HEARSAY_LIVES_MAX {
            let ruling = said(&mut name, "a", ours + 1, &at(ours, Heads::Unsigned, 1));
            ours = after(Generation(ours + 1)).0;
            assert_eq!(ruling, Ruling::Renew(Generation(ours)));
        }
        for n in 0..100 {
            let ruling = said(&mut name, "a", ours + n, &at(ours, Heads::Unsigned, 1));
            assert!(matches!(ruling, Ruling::Unproved { .. }), "{ruling:?}");
        }
    }

    #[test]
    fn past_lives_that_it_signed_end_nobody_and_one_that_answers_does() {
        let mut name = OwnName::default();
        let mut ours = 10;
        // Two sides of a healed partition, and a third.
        for past in [5_000, 9_000, 20_000] {
            let ruling = name.judge(Generation(past), Heard::Signed, &at(ours, Heads::Signed, 5));
            ours = after(Generation(past)).0;
            assert_eq!(ruling, Ruling::Renew(Generation(ours)));
        }
        let answer = after(Generation(ours));
        let twin = name.judge(answer, Heard::Signed, &at(ours, Heads::Signed, 5));
        assert_eq!(twin, Ruling::End);
    }

    #[test]
    fn an_earlier_certificate_ends_nobody_however_often_it_answers() {
        let mut name = OwnName::default();
        let mut ours = 10;
        for _ in 0..PAST_LIVES_MAX {
            // Exactly what a twin would answer.
            let heard = after(Generation(ours));
            let ruling = name.judge(heard, Heard::SignedBefore, &at(ours, Heads::Signed, 5));
            assert_eq!(ruling, Ruling::Renew(after(heard)));
            ours = after(heard).0;
        }
        let heard = after(Generation(ours));
        let ruling = name.judge(heard, Heard::SignedBefore, &at(ours, Heads::Signed, 5));
        assert_eq!(ruling, Ruling::Unproved { tell: false });
        assert!(!name.renewed(), "nothing proves that another process lives");
    }

    #[test]
    fn of_a_process_with_its_certificate_the_first_word_renews_and_the_second_ends() {
        for heads in [Heads::Signed, Heads::Unsigned] {
            let mut name = OwnName::default();
            let first = name.judge(Generation(50), Heard::Present, &at(10, heads, 5));
            assert_eq!(first, Ruling::Renew(after(Generation(50))));
            let second = name.judge(Generation(9_999), Heard::Present, &at(2_000, heads, 5));
            assert_eq!(second, Ruling::End);
        }
    }

    #[test]
    fn a_certificate_vouches_for_no_life_that_began_after_its_end() {
        let certified = Certified { not_before: 1_000, not_after: 2_000, datacenter: None };
        assert!(!certified.reaches(Generation(2_000_000 + LIFE_SLACK_MS + 1)));
        assert!(certified.reaches(Generation(2_000_000 + LIFE_SLACK_MS)));
        // It was renewed since the life began, and is valid by now; or not yet.
        assert!(certified.reaches(Generation(500_000)));
        assert!(certified.has_begun(Generation(1_000_000 - LIFE_SLACK_MS)));
        assert!(!certified.has_begun(Generation(1_000_000 - LIFE_SLACK_MS - 1)));
    }

    #[test]
    fn a_life_goes_on_with_no_older_certificate_and_a_node_is_where_its_certificate_says() {
        let dates = |not_before, not_after| Certified { not_before, not_after, datacenter: None };
        assert!(!dates(999, 8_999).succeeds(&dates(1_000, 9_000)));
        assert!(dates(1_000, 9_000).succeeds(&dates(1_000, 9_000)));
        assert!(dates(1_001, 2_000).succeeds(&dates(1_000, 9_000)), "a shorter one, issued later");
        assert!(
            dates(999, 9_001).succeeds(&dates(1_000, 9_000)),
            "a longer one, backdated further"
        );
        let at = |not_before, place: Option<&str>| {
            let datacenter = place.map(|name| Datacenter::new(name).unwrap());
            Certified { not_before, not_after: 9_000, datacenter }
        };
        let there = Datacenter::new("there").unwrap();
        assert!(!at(0, Some("here")).places(&there));
        assert!(at(0, Some("there")).places(&there) && at(0, None).places(&there));
    }

    #[test]
    fn no_more_witnesses_are_remembered_than_the_limit() {
        let (mut name, at) = (OwnName::default(), at(10, Heads::Signed, 5));
        for n in 0..2 * WITNESSES_MAX {
            said(&mut name, &format!("n{n}"), 20, &at);
        }
        assert_eq!(name.said.len(), WITNESSES_MAX);
    }
}
