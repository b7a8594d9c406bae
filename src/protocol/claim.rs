//! The proof that a peer's statement needs before it changes anything: one table, and the machine that judges
//! claims about this node's own name.
//!
//! A claim is a statement that can end a node, begin a generation of it, revoke, remove or move a node. The
//! speaker's certificate proves only the speaker's own name, and nothing about others.
//! [`Claim::is_proved_by`] lists the sufficient proofs.

use std::collections::BTreeMap;

use super::{
    id::{Datacenter, Generation, NodeId},
    seal::Certified,
};

/// The statements of a peer that end, begin, revoke, remove or move a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// "A later generation of your name is known": the node begins a generation after that one.
    LaterLife,
    /// "Another process has your name": the node ends.
    Twin,
    /// "This node has begun a generation": its copy begins again.
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

/// The proof behind a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// None: the speaker has proved no name. The close of a connection before the end of its handshake is of
    /// this kind.
    Nobody,
    /// One member says so. Its certificate proves its name, not its statement.
    Member,
    /// Several members say so, each over a connection of its own.
    Several,
    /// The node that the claim is about has signed it, with a key for which a certificate of its name
    /// vouches.
    Signed,
    /// The certificate of the node that the claim is about says so.
    Certificate,
    /// Another process shows a certificate of that name at this moment, over a connection.
    Present,
    /// An authority of the cluster has signed it.
    Authority,
}

/// Whether the heads of maps have to be signed: the configuration's `signing = "require"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heads {
    /// All heads are signed, and unsigned ones are refused.
    Signed,
    /// Heads may be unsigned.
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

    /// The proofs of which one is sufficient. `SECURITY.md` has the same table.
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
    /// Whether this certificate can vouch for a generation that began then. It cannot if the generation began
    /// after its end: otherwise a holder of the key of an expired certificate could act in its node's name
    /// for ever. The certificate may be younger than the generation, since a renewed one continues to vouch
    /// for it.
    #[must_use]
    pub fn reaches(&self, life: Generation) -> bool {
        life <= self.last_life()
    }

    /// The last generation for which it can vouch.
    #[must_use]
    pub fn last_life(&self) -> Generation {
        Generation(self.not_after.saturating_mul(1_000).saturating_add(LIFE_SLACK_MS))
    }

    /// Whether it has become valid. `clock`: the present time of the clock.
    #[must_use]
    pub fn has_begun(&self, clock: Generation) -> bool {
        self.not_before.saturating_mul(1_000) <= clock.0.saturating_add(LIFE_SLACK_MS)
    }

    /// Whether this certificate may from now on replace the other one: it began no earlier, or ends no
    /// earlier. Neither is true of a certificate that has been renewed since, so a holder of its key cannot
    /// act in its node's name any more, not even in a generation that began before its end.
    #[must_use]
    pub const fn succeeds(&self, before: &Self) -> bool {
        self.not_before >= before.not_before || self.not_after >= before.not_after
    }

    /// Whether a node of this certificate may announce its presence.
    #[must_use]
    pub fn places(&self, datacenter: &Datacenter) -> bool {
        self.datacenter.as_ref().is_none_or(|proved| proved == datacenter)
    }
}

/// How this node has learned of a later generation of its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// This member says so.
    Said(NodeId),
    /// A head of that generation is signed with a key for which a certificate of our name vouches.
    Signed,
    /// The same, but the certificate is older than that of this process: it shows a past of ours at most, or
    /// a holder of its key, but not that another process uses our name now.
    SignedBefore,
    /// A process with a certificate of our name has introduced itself in that generation.
    Present,
}

/// The reaction of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// None: the generation is not a later one.
    Known,
    /// Nothing: it is not proved.
    Unproved {
        /// Whether to report it: this member repeats the claim, which an honest member with a proof does not
        /// do.
        tell: bool,
    },
    /// None: no clock can have produced that generation, or our certificate cannot vouch for a later one.
    TooFar,
    /// The node begins a generation that is later than this one.
    Renew(Generation),
    /// This node ends: another process uses its name now.
    End,
}

/// The state of this node when it receives a claim about its name.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// Its present generation.
    pub ours: Generation,
    /// The generation that its clock would yield now.
    pub clock: Generation,
    /// The last generation that is accepted of any node.
    pub last: Generation,
    /// Whether heads have to be signed.
    pub heads: Heads,
    /// How many other members it knows that are not dead and have not left.
    pub members: usize,
}

/// Judges claims about this node's own name.
#[derive(Clone, Debug, Default)]
pub struct OwnName {
    /// Generations begun after a proof.
    proved: u32,
    /// Generations begun after hearsay.
    hearsay: u32,
    /// Generations begun after heads for which an earlier certificate of ours vouches.
    past: u32,
    /// The latest generation that each member claims to know, and the number of its claims.
    said: BTreeMap<NodeId, (Generation, u32)>,
}

impl OwnName {
    /// `renewed`: this process has begun a generation after a proof before.
    #[must_use]
    pub fn new(renewed: bool) -> Self {
        Self { proved: u32::from(renewed), ..Self::default() }
    }

    /// Whether this process has begun a generation after a proof.
    #[must_use]
    pub const fn renewed(&self) -> bool {
        self.proved > 0
    }

    /// Whether this process has begun a generation because of a claim, proved or not.
    #[must_use]
    pub const fn has_answered(&self) -> bool {
        self.proved > 0 || self.hearsay > 0
    }

    /// Judges a claim that there is a generation `heard` of this node's name, or in the same generation a
    /// later state than its own.
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
        // A signature has no date: the generation may be one of our own past. But a generation that is
        // exactly one step after ours answers it, and another state of ours was written by another process.
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

    /// An earlier certificate of ours vouches for it: it may be our past, so a later generation begins, a few
    /// times. The end of that certificate limits how far this goes.
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

    /// A member says so. Where heads are signed, this has no effect; otherwise several members have to say
    /// so.
    fn said(&mut self, heard: Generation, member: NodeId, at: &Standing) -> Ruling {
        if !self.said.contains_key(&member) && self.said.len() >= WITNESSES_MAX {
            return Ruling::Unproved { tell: false };
        }
        let claim = self.said.entry(member).or_default();
        claim.1 = claim.1.saturating_add(1);
        let unproved = Ruling::Unproved { tell: claim.1 == CLAIMS_TOLERATED };
        // A generation too far ahead is counted against the member, and has no effect on our generations.
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
        // The latest generation that enough members claim to know: a single liar cannot choose it.
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

/// The generation to begin after `heard` was reported.
pub(super) fn after(heard: Generation) -> Generation {
    Generation(heard.0.saturating_add(ANSWER_STEP))
}

/// The largest difference between clocks when a generation is compared with the dates of a certificate, in
/// milliseconds: the tolerance of Kerberos (RFC 4120, section 1.6).
pub const LIFE_SLACK_MS: u64 = 300_000;
/// The distance from a reported generation to the one that a process begins because of it: by this distance
/// two processes with one name detect that the other one lives. Starts of one process are never that far
/// apart by chance.
pub const ANSWER_STEP: u64 = 1_021;
/// Members that have to claim that a later generation of this node is known, where heads may be unsigned; all
/// that it knows, if those are fewer.
pub const SEVERAL: usize = 3;
/// Generations that a process begins after hearsay. After these it needs a proof.
pub const HEARSAY_LIVES_MAX: u32 = 2;
/// How far ahead of its clock, and of its present generation, a node follows hearsay, in milliseconds: a day,
/// which is more than a wrong time zone.
pub const HEARSAY_AHEAD_MAX_MS: u64 = 86_400_000;
/// Generations that a process begins after signed heads of generations that may be old: a node that has lost
/// its store may hear of one generation of its past from each side of a partition. At the next one it ends.
pub const PROVED_LIVES_MAX: u32 = 8;
/// Generations that a process begins after heads for which only an earlier certificate of its name vouches.
pub const PAST_LIVES_MAX: u32 = 8;
/// Claims of one member that are not reported to the operator: a member with a proof shows it with the first.
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
        // Two sides of a healed partition, and a third side.
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
            // Exactly the answer of a twin.
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
        // It was renewed after the generation began, and is valid by now; or not yet.
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
