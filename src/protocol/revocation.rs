//! Revocations: statements signed by a certificate authority that end the certificates of a name, and their
//! union.
//!
//! A statement names a node and a cutoff: every certificate of that name that is valid from the cutoff or
//! earlier is revoked, and so is every generation of the node that had begun by then. A node that is issued a
//! certificate after that is accepted again. Statements are only ever added, until their last certificate has
//! expired: nodes that merge them in any order get the same set, and no node can withdraw one.
//! [`Authorities`] decides whether a signature counts; this module reads no certificate and no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use siphasher::sip::SipHasher24;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    id::{ClusterId, Generation, NodeId},
    wire::{self, fields},
};

/// Most statements that are kept: with keys of Ed25519 they take 200 kB, with RSA of 4096 bits 640 kB. Beyond
/// it the statements that expire first are dropped.
pub const REVOCATIONS_MAX: usize = 1_024;
/// Longest signature, in bytes: that of an RSA key of 4096 bits.
pub const SIGNATURE_BYTES_MAX: usize = 512;
/// Longest statement, in bytes: a name of 63, an issuer of 32, two times of 9, a signature, and 4 of
/// lengths.
pub const STATEMENT_BYTES_MAX: usize = 63 + 32 + 2 * 9 + SIGNATURE_BYTES_MAX + 4;
/// How long a statement is kept after its end, in seconds: clocks may differ by this much.
pub const LINGER: u64 = 3_600;
/// How far in the future a cutoff may be, in seconds: more than clocks differ by. A statement with a later cutoff
/// revokes certificates that do not exist yet; it is neither accepted nor signed.
pub const CUTOFF_AHEAD_MAX: u64 = 300;

/// A statement of a certificate authority: the certificates of a node that are valid from the cutoff or
/// earlier are revoked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revocation {
    /// The name in the certificates.
    pub node: NodeId,
    /// Which authority says so.
    pub issuer: IssuerId,
    /// The cutoff: certificates that are valid from this moment or an earlier one are revoked, in seconds
    /// since 1970.
    pub cutoff: u64,
    /// The latest possible end of such a certificate, in seconds since 1970.
    pub expires: u64,
    /// The authority's signature of [`Revocation::message`]; at most [`SIGNATURE_BYTES_MAX`].
    pub signature: Vec<u8>,
}

fields!(Revocation { node, issuer, cutoff, expires, signature });

/// A certificate authority: the SHA-256 of its public key (`SubjectPublicKeyInfo`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerId(pub [u8; 32]);

fields!(IssuerId { 0 });

/// The view of which authorities are trusted at present.
pub trait Authorities: fmt::Debug + Send + Sync {
    /// Whether an authority that is trusted now has signed this for our cluster.
    ///
    /// # Errors
    /// [`RevocationError::UnknownIssuer`] or [`RevocationError::Forged`].
    fn verify(&self, statement: &Revocation) -> Result<(), RevocationError>;

    /// The start of the validity of this node's own certificate, in seconds since 1970; `None` if it has
    /// none: then the beginning of its generation counts.
    fn valid_from(&self) -> Option<u64>;

    /// Refuses the certificates that these are about, from now on and at once.
    fn enforce(&self, _revocations: &Arc<Revocations>) {}
}

/// A statement is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RevocationError {
    /// The bytes do not decode to a statement.
    #[error("these bytes are no revocation: {0}")]
    Malformed(String),
    /// The authority that signed it is not trusted (any more).
    #[error(
        "the revocation is of authority {0}, which is not among our roots: sign it with the key of an \
         authority that is"
    )]
    UnknownIssuer(IssuerId),
    /// The authority has not signed it.
    #[error("the revocation was not signed by authority {0}, which it names, for this cluster")]
    Forged(IssuerId),
    /// Every certificate that it could be about has expired.
    #[error("the revocation ended, with the last certificate it can be about, before now")]
    Expired,
    /// Its cutoff is too far in the future.
    #[error(
        "the cutoff of the revocation, {}, is more than {} s in the future: compare the clock of this machine \
         with the clock of the authority's machine", date(*.0), CUTOFF_AHEAD_MAX
    )]
    Ahead(u64),
    /// The set is full of statements that end later.
    #[error("{REVOCATIONS_MAX} revocations that end later are known, more are not kept")]
    Full,
}

impl Revocation {
    /// The signed bytes: they cannot be confused with another use of the key, or with another cluster.
    #[must_use]
    #[doc(hidden)]
    pub fn message(&self, cluster: &ClusterId) -> Vec<u8> {
        let mut message = LABEL.to_vec();
        for name in [cluster.as_str(), self.node.as_str()] {
            message.extend((name.len() as u64).to_be_bytes());
            message.extend(name.as_bytes());
        }
        message.extend(self.issuer.0);
        message.extend(self.cutoff.to_be_bytes());
        message.extend(self.expires.to_be_bytes());
        message
    }

    /// The encoded statement, as it travels and is kept.
    #[must_use]
    #[doc(hidden)]
    pub fn encode(&self) -> Vec<u8> {
        wire::to_vec(self)
    }

    /// Decodes a statement; [`Authorities`] decides whether it is true.
    ///
    /// # Errors
    /// [`RevocationError::Malformed`]. It never panics.
    #[doc(hidden)]
    pub fn decode(bytes: &[u8]) -> Result<Self, RevocationError> {
        let malformed = |why: &dyn fmt::Display| RevocationError::Malformed(why.to_string());
        let statement: Self =
            wire::from_slice(bytes, 2 * STATEMENT_BYTES_MAX).map_err(|error| malformed(&error))?;
        statement.check().map_err(|why| malformed(&why))?;
        Ok(statement)
    }

    /// The same in hexadecimal, for files.
    #[must_use]
    pub fn to_text(&self) -> String {
        hex(&self.encode())
    }

    /// Reads [`Revocation::to_text`].
    ///
    /// # Errors
    /// [`RevocationError::Malformed`]. It never panics.
    pub fn from_text(text: &str) -> Result<Self, RevocationError> {
        let malformed = |why: &str| RevocationError::Malformed(why.to_owned());
        if text.len() > 2 * STATEMENT_BYTES_MAX {
            return Err(malformed("too long"));
        }
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
        let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
        match bytes {
            Some(bytes) if rest.is_empty() => Self::decode(&bytes),
            _ => Err(malformed("not in hexadecimal")),
        }
    }

    /// Reads a list: a statement a line, and lines that are empty or begin with `#`.
    ///
    /// # Errors
    /// [`RevocationError::Malformed`], naming the line. It never panics.
    pub fn list_from_text(text: &str) -> Result<Vec<Self>, RevocationError> {
        let mut list = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let in_line =
                |error| RevocationError::Malformed(format!("line {}: {error}", number + 1));
            if list.len() == REVOCATIONS_MAX {
                let many = format!("more than {REVOCATIONS_MAX} statements");
                return Err(in_line(RevocationError::Malformed(many)));
            }
            list.push(Self::from_text(line).map_err(in_line)?);
        }
        Ok(list)
    }

    /// Checks the limits of a statement that was decoded as a part of another message.
    pub(crate) fn check(&self) -> Result<(), String> {
        let len = self.signature.len();
        if len > SIGNATURE_BYTES_MAX {
            return Err(format!("signature of {len} bytes, at most {SIGNATURE_BYTES_MAX} may be"));
        }
        if self.cutoff > SECONDS_MAX || self.expires > SECONDS_MAX {
            return Err("a time beyond the year 9999".to_owned());
        }
        Ok(())
    }

    /// Refuses a statement whose cutoff is more than [`CUTOFF_AHEAD_MAX`] after now (in seconds since 1970).
    ///
    /// # Errors
    /// [`RevocationError::Ahead`].
    #[doc(hidden)]
    pub const fn check_cutoff(&self, now: u64) -> Result<(), RevocationError> {
        if self.cutoff > now.saturating_add(CUTOFF_AHEAD_MAX) {
            return Err(RevocationError::Ahead(self.cutoff));
        }
        Ok(())
    }

    /// Whether nothing is lost if the other one is kept instead. Of two with the same content from the same
    /// authority (signatures of ECDSA are random) the one with the lesser signature is dropped.
    fn is_covered_by(&self, other: &Self) -> bool {
        let times = |s: &Self| (s.cutoff, s.expires);
        (&self.node, self.issuer) == (&other.node, other.issuer)
            && self.cutoff <= other.cutoff
            && self.expires <= other.expires
            && (times(self) != times(other) || self.signature <= other.signature)
    }

    fn is_over(&self, now: u64) -> bool {
        now > self.expires.saturating_add(LINGER)
    }
}

impl fmt::Display for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&hex(&self.0))
    }
}

impl fmt::Debug for IssuerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The union of all accepted statements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    statements: BTreeSet<Revocation>,
    /// The latest of each node.
    cutoffs: BTreeMap<NodeId, u64>,
    sum: u64,
}

impl Revocations {
    /// Takes over the statements of a store without verifying their signatures: they were verified on
    /// arrival.
    #[must_use]
    #[doc(hidden)]
    pub fn restored(statements: impl IntoIterator<Item = Revocation>) -> Self {
        let mut this = Self::default();
        for statement in statements {
            this.merge(statement);
        }
        this
    }

    /// Adds a statement, unless it adds nothing new. Returns those that it replaces.
    #[doc(hidden)]
    pub fn merge(&mut self, statement: Revocation) -> Option<Vec<Revocation>> {
        if self.covers(&statement) {
            return None;
        }
        let mut gone: Vec<_> =
            self.of(&statement.node).filter(|old| old.is_covered_by(&statement)).cloned().collect();
        gone.iter().for_each(|old| self.take_out(old));
        self.put_in(statement.clone());
        if self.statements.len() > REVOCATIONS_MAX
            && let Some(first) = self.statements.iter().min_by_key(|s| (s.expires, *s)).cloned()
        {
            self.take_out(&first);
            if first == statement {
                return None;
            }
            gone.push(first);
        }
        Some(gone)
    }

    /// Drops those whose last certificate has expired, and returns them. `now`: in seconds since 1970.
    #[doc(hidden)]
    pub fn expire(&mut self, now: u64) -> Vec<Revocation> {
        let over: Vec<_> = self.statements.iter().filter(|s| s.is_over(now)).cloned().collect();
        over.iter().for_each(|statement| self.take_out(statement));
        over
    }

    /// Whether this statement, or one that covers it, is in the set.
    #[must_use]
    #[doc(hidden)]
    pub fn covers(&self, statement: &Revocation) -> bool {
        self.of(&statement.node).any(|known| statement.is_covered_by(known))
    }

    /// The latest cutoff of a node, in seconds since 1970.
    #[must_use]
    pub fn cutoff(&self, node: &NodeId) -> Option<u64> {
        self.cutoffs.get(node).copied()
    }

    /// Whether a certificate of this name, valid from then on (in seconds since 1970), is revoked.
    #[must_use]
    pub fn revokes(&self, node: &NodeId, valid_from: u64) -> bool {
        self.cutoff(node).is_some_and(|cutoff| valid_from <= cutoff)
    }

    /// Whether a generation of this node had begun by the cutoff.
    #[must_use]
    #[doc(hidden)]
    pub fn ends(&self, node: &NodeId, generation: Generation) -> bool {
        self.cutoff(node).is_some_and(|cutoff| generation < first_life_after(cutoff))
    }

    /// All statements.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Revocation> {
        self.statements.iter()
    }

    /// Those about one node.
    #[doc(hidden)]
    pub fn of<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = &'a Revocation> {
        let lowest = Revocation {
            node: node.clone(),
            issuer: IssuerId([0; 32]),
            cutoff: 0,
            expires: 0,
            signature: Vec::new(),
        };
        self.statements.range(lowest..).take_while(move |statement| statement.node == *node)
    }

    /// The statements that a holder of these lacks.
    #[must_use]
    #[doc(hidden)]
    pub fn lacking(&self, theirs: &[Revocation]) -> Vec<Revocation> {
        let mut known: BTreeMap<&NodeId, Vec<&Revocation>> = BTreeMap::new();
        theirs.iter().for_each(|theirs| known.entry(&theirs.node).or_default().push(theirs));
        let has = |ours: &&Revocation| {
            let theirs = known.get(&ours.node).map_or(&[][..], Vec::as_slice);
            theirs.iter().any(|theirs| ours.is_covered_by(theirs))
        };
        self.statements.iter().filter(|ours| !has(ours)).cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.statements.len()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Equal sums mean equal sets: a weak sum is enough, since only an authority can add a statement.
    #[must_use]
    #[doc(hidden)]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    fn put_in(&mut self, statement: Revocation) {
        self.sum = self.sum.wrapping_add(term(&statement));
        let cutoff = self.cutoffs.entry(statement.node.clone()).or_default();
        *cutoff = statement.cutoff.max(*cutoff);
        self.statements.insert(statement);
    }

    fn take_out(&mut self, statement: &Revocation) {
        if !self.statements.remove(statement) {
            return;
        }
        self.sum = self.sum.wrapping_sub(term(statement));
        match self.of(&statement.node).map(|left| left.cutoff).max() {
            Some(cutoff) => self.cutoffs.insert(statement.node.clone(), cutoff),
            None => self.cutoffs.remove(&statement.node),
        };
    }
}

/// The contribution of one statement to the sum.
fn term(statement: &Revocation) -> u64 {
    SipHasher24::new().hash(&statement.encode())
}

/// The first generation that began after a cutoff: generations are counted in milliseconds.
#[must_use]
pub const fn first_life_after(cutoff: u64) -> Generation {
    Generation(cutoff.saturating_add(1).saturating_mul(1_000))
}

/// Seconds since 1970 as a date, by RFC 3339.
#[must_use]
pub fn date(seconds: u64) -> String {
    let moment =
        i64::try_from(seconds).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    let shown = moment.and_then(|moment| moment.format(&Rfc3339).ok());
    shown.unwrap_or_else(|| format!("{seconds} s after 1970"))
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The purpose of the signature.
const LABEL: &[u8] = b"gossipmonger 1 revocation\0";
/// The end of the year 9999, as in certificates (RFC 5280 section 4.1.2.5).
const SECONDS_MAX: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_statement() {
        let encoded = statement("a", 1, 10, 20).encode();
        assert_eq!(Revocation::decode(&encoded).unwrap(), statement("a", 1, 10, 20));
        for len in 0..encoded.len() {
            assert!(Revocation::decode(&encoded[..len]).is_err(), "cut at {len}");
        }
        assert!(Revocation::decode(&[&encoded[..], &[0]].concat()).is_err());
        let long =
            Revocation { signature: vec![0; SIGNATURE_BYTES_MAX + 1], ..statement("a", 1, 10, 20) };
        assert!(Revocation::decode(&long.encode()).is_err());
        let late = statement("a", 1, 10, u64::MAX);
        assert!(Revocation::decode(&late.encode()).is_err());
    }

    #[test]
    fn the_longest_statement_is_within_its_limit() {
        let longest = Revocation {
            node: NodeId::new(&"x".repeat(63)).unwrap(),
            issuer: IssuerId([255; 32]),
            cutoff: SECONDS_MAX,
            expires: SECONDS_MAX,
            signature: vec![255; SIGNATURE_BYTES_MAX],
        };
        assert_eq!(longest.encode().len(), STATEMENT_BYTES_MAX);
        assert_eq!(Revocation::from_text(&longest.to_text()).unwrap(), longest);
    }

    #[test]
    fn refuses_a_list_with_a_line_that_is_none_and_names_it() {
        let text = format!("# b\n\n{}\n", statement("b", 1, 2, 3).to_text());
        assert_eq!(Revocation::list_from_text(&text).unwrap(), [statement("b", 1, 2, 3)]);
        for bad in ["zz", "0", "00", "é"] {
            let error = Revocation::list_from_text(&format!("{text}{bad}\n")).unwrap_err();
            assert!(error.to_string().contains("line 4"), "{error}");
        }
    }

    #[test]
    fn signs_nothing_that_could_mean_another_statement() {
        let cluster = |name| ClusterId::new(name).unwrap();
        let base = statement("ab", 1, 10, 20);
        let message = base.message(&cluster("c"));
        for other in [
            statement("a", 1, 10, 20).message(&cluster("cb")),
            statement("b", 1, 10, 20).message(&cluster("ca")),
            statement("ab", 2, 10, 20).message(&cluster("c")),
            statement("ab", 1, 11, 20).message(&cluster("c")),
            statement("ab", 1, 10, 21).message(&cluster("c")),
        ] {
            assert_ne!(message, other);
        }
    }

    #[test]
    fn comes_to_the_same_union_in_every_order() {
        let all = [
            statement("a", 1, 10, 20),
            statement("a", 1, 10, 30),
            statement("a", 1, 15, 25),
            statement("a", 2, 5, 5),
            statement("b", 1, 1, 1),
            Revocation { signature: vec![9], ..statement("b", 1, 1, 1) },
        ];
        let union = Revocations::restored(all.clone());
        // The second covers the first; the last two have the same content.
        assert_eq!(union.len(), 4);
        for shift in 0..all.len() {
            let mut turned = all.clone();
            turned.rotate_left(shift);
            assert_eq!(Revocations::restored(turned.clone()), union);
            turned.reverse();
            assert_eq!(Revocations::restored(turned), union);
        }
        assert_eq!(union.cutoff(&node("a")), Some(15));
        assert!(union.lacking(&all).is_empty());
        assert_eq!(union.lacking(&all[..5]), [all[5].clone()]);
    }

    #[test]
    fn forgets_nothing_before_its_last_certificate_has_expired() {
        let mut union = Revocations::restored([statement("a", 1, 10, 20)]);
        assert!(union.expire(20 + LINGER).is_empty());
        assert_eq!(union.expire(21 + LINGER).len(), 1);
        assert_eq!(union, Revocations::default());
    }

    #[test]
    fn a_certificate_issued_after_the_cutoff_is_welcome() {
        let union = Revocations::restored([statement("a", 1, 10, 20)]);
        let a = node("a");
        assert!(union.revokes(&a, 10) && !union.revokes(&a, 11) && !union.revokes(&node("b"), 0));
        assert!(union.ends(&a, Generation(10_999)) && !union.ends(&a, Generation(11_000)));
    }

    #[test]
    fn keeps_no_more_than_it_may_and_those_that_last() {
        let mut union = Revocations::default();
        for n in 0..REVOCATIONS_MAX as u64 {
            assert!(union.merge(statement(&format!("n{n}"), 1, 1, 1_000 + n)).is_some());
        }
        assert_eq!(union.merge(statement("early", 1, 1, 999)), None);
        let gone = union.merge(statement("late", 1, 1, 9_999)).unwrap();
        assert_eq!(gone, [statement("n0", 1, 1, 1_000)]);
        assert_eq!(union.len(), REVOCATIONS_MAX);
    }

    fn statement(name: &str, issuer: u8, cutoff: u64, expires: u64) -> Revocation {
        let (node, issuer) = (node(name), IssuerId([issuer; 32]));
        Revocation { node, issuer, cutoff, expires, signature: vec![1, 2] }
    }

    fn node(name: &str) -> NodeId {
        NodeId::new(name).unwrap()
    }
}
