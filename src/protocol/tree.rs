//! A Merkle tree over one node's entries, in the order in which they travel.
//!
//! The root depends only on the set of entries, not on the order in which they came: the owner and every
//! holder of a whole copy compute the same. A change costs O(log n) hashes. Entries are placed by their
//! version, so a run of versions lies together. The receiver of a run can be shown, with a few hashes beside
//! it, that this run is all that the owner has there ([`Tree::prove`], [`Proof::root`]): nothing in it is
//! forged and nothing is left out.
//!
//! The shape: a set of up to [`BUCKET_MAX`] entries is one list; a larger one is split by the first
//! hexadecimal digit in which two of its places differ. Hashes are BLAKE3 (O'Connor, Aumasson, Neves and
//! Wilcox-O'Hearn, 2020); lists and splits begin with different bytes, so that neither can pass for the
//! other.

use std::ops::Range;

use super::{
    entry::{Content, Entry},
    id::Version,
    wire::{fields, variants},
};

/// Most entries of a list.
pub const BUCKET_MAX: usize = 16;
/// Most steps of a proof: on a path to either end of a run there are at most 32 splits, with 16 parts each.
pub const PROOF_STEPS_MAX: usize = 2 * DIGITS as usize * WIDTH;

/// A BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

fields!(Hash { 0 });

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One entry, as the tree knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    version: Version,
    hash: Hash,
}

fields!(Leaf { version, hash });

impl Leaf {
    /// The leaf of an entry. Of a time to live it holds only the fact that there is one.
    #[must_use]
    pub fn new(key: &str, entry: &Entry) -> Self {
        match &entry.content {
            Content::Value { value, expires } => {
                let kind = if expires.is_some() { TIMED } else { LASTING };
                Self::of(key, entry.version, kind, value)
            }
            Content::Tombstone => Self::of(key, entry.version, DELETED, &[]),
        }
    }

    fn of(key: &str, version: Version, kind: u8, value: &[u8]) -> Self {
        let mut head = [0; 11];
        head[0] = kind;
        head[1..9].copy_from_slice(&version.0.to_le_bytes());
        // All sources limit keys to less than 64 KiB; a longer one would only be refused.
        let len = u16::try_from(key.len()).unwrap_or(u16::MAX);
        head[9..].copy_from_slice(&len.to_le_bytes());
        let mut hasher = blake3::Hasher::new();
        hasher.update(&head).update(key.as_bytes()).update(value);
        Self { version, hash: Hash(*hasher.finalize().as_bytes()) }
    }

    /// Where it stands: by version, and among those of one version by hash.
    fn place(&self) -> u128 {
        let [a, b, c, d, e, f, g, h, ..] = self.hash.0;
        u128::from(self.version.0) << 64 | u128::from(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// The tree. Hashes are kept, and computed again where something has changed.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    top: Node,
}

impl Tree {
    /// The tree of these entries.
    pub fn of<'a>(entries: impl Iterator<Item = (&'a str, &'a Entry)>) -> Self {
        let mut leaves: Vec<_> = entries.map(|(key, entry)| Leaf::new(key, entry)).collect();
        leaves.sort_unstable_by_key(Leaf::place);
        Self { top: Node::of(&leaves) }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.top.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts an entry in.
    pub fn insert(&mut self, leaf: Leaf) {
        self.top.insert(leaf);
    }

    /// Takes an entry out; returns whether it was there.
    pub fn remove(&mut self, leaf: &Leaf) -> bool {
        self.top.remove(leaf)
    }

    /// The hash of all.
    pub fn root(&mut self) -> Hash {
        self.top.hash()
    }

    /// The proof that the entries of the versions in `(from, to]` are these and no others, for a receiver
    /// that has them and the root. [`Tree::root`] has to have been called after the last change.
    #[must_use]
    pub fn prove(&self, from: Version, to: Version) -> Proof {
        let mut proof = Proof::default();
        self.top.prove(&run(from, to), &EVERYWHERE, &mut proof.steps);
        proof
    }
}

/// The surroundings of a run of entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    steps: Vec<Step>,
}

fields!(Proof { steps });

/// One part of the tree, in the order of a walk that goes down first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing of it is in the run: its hash.
    Beside(Hash),
    /// All of it is in the run.
    Within,
    /// A list with entries outside of the run: these.
    List(Vec<Leaf>),
    /// A split of the places that begin with the digits of `prefix` up to `depth`; a bit for each present
    /// part.
    Split { depth: u8, prefix: u128, parts: u16 },
}

variants!(Step {
    0 => Beside { 0: hash },
    1 => Within {},
    2 => List { 0: leaves },
    3 => Split { depth: depth, prefix: prefix, parts: parts },
});

impl Proof {
    /// Whether it is empty, as for an update that needs none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// How many steps it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// An upper bound of its bytes on the wire.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        let step = |step: &Step| match step {
            Step::List(leaves) => 2 + leaves.len() * 41,
            _ => 34,
        };
        self.steps.iter().map(step).sum::<usize>() + 3
    }

    /// The root of the tree in which the entries of the versions in `(from, to]` are exactly these;
    /// `None` if there is no such tree.
    #[must_use]
    pub fn root(&self, from: Version, to: Version, leaves: &[Leaf]) -> Option<Hash> {
        if self.steps.len() > PROOF_STEPS_MAX {
            return None;
        }
        let mut sorted = leaves.to_vec();
        sorted.sort_unstable_by_key(Leaf::place);
        let mut walk = Walk { run: run(from, to), steps: self.steps.iter(), leaves: &sorted };
        let hash = walk.hash(&EVERYWHERE, 0)?;
        (walk.steps.next().is_none() && walk.leaves.is_empty()).then_some(hash)
    }
}

/// Puts a tree together from a proof and the entries of the run.
struct Walk<'a> {
    run: Region,
    steps: std::slice::Iter<'a, Step>,
    /// Those not yet used, sorted.
    leaves: &'a [Leaf],
}

impl<'a> Walk<'a> {
    /// The hash of the entries in `region`; splits there are at `depth` or below.
    fn hash(&mut self, region: &Region, depth: u8) -> Option<Hash> {
        match self.steps.next()? {
            Step::Beside(hash) => region.is_apart(&self.run).then_some(*hash),
            Step::Within => {
                let inside = self.take(region);
                let whole = self.run.contains(region) && !inside.is_empty();
                whole.then(|| Node::of(inside).hash())
            }
            Step::List(others) => {
                let inside = self.take(region);
                let mut all: Vec<_> = others.iter().chain(inside).copied().collect();
                let fits = all.len() <= BUCKET_MAX
                    && others
                        .iter()
                        .all(|leaf| region.has(leaf.place()) && !self.run.has(leaf.place()));
                all.sort_unstable_by_key(Leaf::place);
                fits.then(|| list_hash(&all))
            }
            Step::Split { depth: at, prefix, parts } => {
                let whole = Region::of(*prefix, *at)?;
                if *at < depth || !region.contains(&whole) {
                    return None;
                }
                let mut hasher = split_hasher(*at, *prefix);
                for digit in (0..WIDTH).filter(|digit| parts & (1 << digit) != 0) {
                    let hash = self.hash(&part(*prefix, *at, digit), at + 1)?;
                    add_part(&mut hasher, digit, &hash);
                }
                Some(Hash(*hasher.finalize().as_bytes()))
            }
        }
    }

    /// The entries of the run in a region. Entries before it have no place in the tree and stay.
    fn take(&mut self, region: &Region) -> &'a [Leaf] {
        let count = self.leaves.iter().take_while(|leaf| region.has(leaf.place())).count();
        let (taken, rest) = self.leaves.split_at(count);
        self.leaves = rest;
        taken
    }
}

#[derive(Clone, Debug)]
enum Node {
    /// Up to [`BUCKET_MAX`] entries, sorted.
    List(Vec<Leaf>, Option<Hash>),
    Split(Box<Split>),
}

/// More entries than that, which share the digits before `depth`.
#[derive(Clone, Debug)]
struct Split {
    depth: u8,
    prefix: u128,
    len: usize,
    hash: Option<Hash>,
    parts: [Option<Node>; WIDTH],
}

impl Default for Node {
    fn default() -> Self {
        Self::List(Vec::new(), None)
    }
}

impl Node {
    /// Of sorted leaves.
    fn of(leaves: &[Leaf]) -> Self {
        let (Some(first), Some(last)) = (leaves.first(), leaves.last()) else {
            return Self::default();
        };
        let depth = common(first.place(), last.place());
        // Equal places are a list whatever their number: they cannot be split.
        if leaves.len() <= BUCKET_MAX || depth == DIGITS {
            return Self::List(leaves.to_vec(), None);
        }
        let mut parts = [const { None }; WIDTH];
        let mut rest = leaves;
        while let Some(leaf) = rest.first() {
            let digit = digit(leaf.place(), depth);
            let end = rest.partition_point(|leaf| self::digit(leaf.place(), depth) <= digit);
            parts[digit] = Some(Self::of(&rest[..end]));
            rest = &rest[end..];
        }
        let prefix = upto(first.place(), depth);
        Self::Split(Box::new(Split { depth, prefix, len: leaves.len(), hash: None, parts }))
    }

    fn len(&self) -> usize {
        match self {
            Self::List(leaves, _) => leaves.len(),
            Self::Split(split) => split.len,
        }
    }

    fn insert(&mut self, leaf: Leaf) {
        match self {
            Self::List(leaves, hash) => {
                let at = leaves.partition_point(|other| other.place() < leaf.place());
                leaves.insert(at, leaf);
                *hash = None;
                if leaves.len() > BUCKET_MAX {
                    *self = Self::of(leaves);
                }
            }
            Self::Split(split) => {
                let depth = common(split.prefix, leaf.place());
                if depth < split.depth {
                    return self.insert_above(leaf, depth);
                }
                split.hash = None;
                split.len += 1;
                match &mut split.parts[digit(leaf.place(), split.depth)] {
                    Some(node) => node.insert(leaf),
                    none => *none = Some(Self::List(vec![leaf], None)),
                }
            }
        }
    }

    /// Puts in an entry that differs from all others here in the digit at `depth`.
    fn insert_above(&mut self, leaf: Leaf, depth: u8) {
        let below = std::mem::take(self);
        let Self::Split(split) = &below else { return };
        let (prefix, len) = (split.prefix, split.len);
        let mut parts = [const { None }; WIDTH];
        parts[digit(prefix, depth)] = Some(below);
        parts[digit(leaf.place(), depth)] = Some(Self::List(vec![leaf], None));
        let prefix = upto(prefix, depth);
        *self = Self::Split(Box::new(Split { depth, prefix, len: len + 1, hash: None, parts }));
    }

    fn remove(&mut self, leaf: &Leaf) -> bool {
        match self {
            Self::List(leaves, hash) => {
                let Some(at) = leaves.iter().position(|other| other == leaf) else { return false };
                leaves.remove(at);
                *hash = None;
                true
            }
            Self::Split(split) => {
                if common(split.prefix, leaf.place()) < split.depth {
                    return false;
                }
                let part = &mut split.parts[digit(leaf.place(), split.depth)];
                let Some(node) = part else { return false };
                if !node.remove(leaf) {
                    return false;
                }
                if node.len() == 0 {
                    *part = None;
                }
                split.len -= 1;
                split.hash = None;
                self.shrink();
                true
            }
        }
    }

    /// Has the shape that this many entries have.
    fn shrink(&mut self) {
        let Self::Split(split) = self else { return };
        if split.len <= BUCKET_MAX {
            let mut leaves = Vec::with_capacity(split.len);
            self.collect(&mut leaves);
            *self = Self::List(leaves, None);
        } else if split.parts.iter().flatten().count() == 1 {
            let only = split.parts.iter_mut().find_map(Option::take);
            *self = only.unwrap_or_default();
        }
    }

    fn collect(&self, into: &mut Vec<Leaf>) {
        match self {
            Self::List(leaves, _) => into.extend_from_slice(leaves),
            Self::Split(split) => split.parts.iter().flatten().for_each(|node| node.collect(into)),
        }
    }

    fn hash(&mut self) -> Hash {
        match self {
            Self::List(leaves, hash) => *hash.get_or_insert_with(|| list_hash(leaves)),
            Self::Split(split) => {
                if let Some(hash) = split.hash {
                    return hash;
                }
                let mut hasher = split_hasher(split.depth, split.prefix);
                for (digit, part) in split.parts.iter_mut().enumerate() {
                    if let Some(node) = part {
                        add_part(&mut hasher, digit, &node.hash());
                    }
                }
                let hash = Hash(*hasher.finalize().as_bytes());
                split.hash = Some(hash);
                hash
            }
        }
    }

    /// The hash, if it is known; otherwise computes it.
    fn known_hash(&self) -> Hash {
        match self {
            Self::List(_, Some(hash)) => *hash,
            Self::List(leaves, None) => list_hash(leaves),
            Self::Split(split) => split.hash.unwrap_or_else(|| self.clone().hash()),
        }
    }

    /// Collects the parts beside a run; this lies in `region`.
    fn prove(&self, run: &Region, region: &Region, steps: &mut Vec<Step>) {
        if region.is_apart(run) {
            return steps.push(Step::Beside(self.known_hash()));
        }
        if run.contains(region) {
            return steps.push(Step::Within);
        }
        match self {
            Self::List(leaves, _) => {
                let others = leaves.iter().filter(|leaf| !run.has(leaf.place()));
                steps.push(Step::List(others.copied().collect()));
            }
            Self::Split(split) => {
                let Split { depth, prefix, .. } = **split;
                let there = split.parts.iter().enumerate().filter(|(_, part)| part.is_some());
                let parts = there.map(|(digit, _)| 1 << digit).sum();
                steps.push(Step::Split { depth, prefix, parts });
                for (digit, part) in split.parts.iter().enumerate() {
                    if let Some(node) = part {
                        node.prove(run, &self::part(prefix, depth, digit), steps);
                    }
                }
            }
        }
    }
}

/// Places from one to another, both included.
#[derive(Clone, Copy, Debug)]
struct Region {
    first: u128,
    last: u128,
}

impl Region {
    /// All places that begin with these digits; `None` if `prefix` has more digits.
    fn of(prefix: u128, depth: u8) -> Option<Self> {
        let whole = depth < DIGITS && upto(prefix, depth) == prefix;
        whole.then(|| Self { first: prefix, last: prefix | (u128::MAX >> (4 * u32::from(depth))) })
    }

    const fn has(&self, place: u128) -> bool {
        self.first <= place && place <= self.last
    }

    const fn contains(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// An empty region, whose last place is before its first, is apart from all.
    const fn is_apart(&self, other: &Self) -> bool {
        self.last < other.first || other.last < self.first || other.last < other.first
    }
}

/// The places of the versions in `(from, to]`.
const fn run(from: Version, to: Version) -> Region {
    let Range { start, end } = from.0..to.0;
    if start >= end {
        return Region { first: 1, last: 0 };
    }
    Region { first: ((start + 1) as u128) << 64, last: (end as u128) << 64 | u64::MAX as u128 }
}

fn part(prefix: u128, depth: u8, digit: usize) -> Region {
    let shift = 4 * u32::from(DIGITS - 1 - depth);
    let first = prefix | (digit as u128) << shift;
    Region { first, last: first | ((1 << shift) - 1) }
}

fn digit(place: u128, depth: u8) -> usize {
    (place >> (4 * u32::from(DIGITS - 1 - depth))) as usize % WIDTH
}

/// How many digits two places share from the left.
fn common(a: u128, b: u128) -> u8 {
    u8::try_from((a ^ b).leading_zeros() / 4).unwrap_or(DIGITS)
}

/// The digits before `depth`.
const fn upto(place: u128, depth: u8) -> u128 {
    if depth == 0 { 0 } else { place & (u128::MAX << (4 * (DIGITS - depth) as u32)) }
}

fn list_hash(leaves: &[Leaf]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[LIST]);
    for leaf in leaves {
        // The version as well, though the hash covers it: a leaf beside a run is sent as these two alone,
        // and it must not be passed off as standing elsewhere.
        hasher.update(&leaf.version.0.to_le_bytes()).update(&leaf.hash.0);
    }
    Hash(*hasher.finalize().as_bytes())
}

fn split_hasher(depth: u8, prefix: u128) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[SPLIT, depth]).update(&prefix.to_le_bytes());
    hasher
}

fn add_part(hasher: &mut blake3::Hasher, digit: usize, hash: &Hash) {
    hasher.update(&[digit as u8]).update(&hash.0);
}

/// Hexadecimal digits of a place.
const DIGITS: u8 = 32;
const WIDTH: usize = 16;
const EVERYWHERE: Region = Region { first: 0, last: u128::MAX };
/// The prefixes of hashes: of a value, of one with a time to live, of a tombstone, a list, a split.
const LASTING: u8 = 0;
const TIMED: u8 = 1;
const DELETED: u8 = 2;
const LIST: u8 = 3;
const SPLIT: u8 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn leaf(version: u64, key: u64) -> Leaf {
        Leaf::of(&format!("k{key}"), Version(version), LASTING, b"value")
    }

    fn tree(leaves: &[Leaf]) -> Tree {
        let mut tree = Tree::default();
        leaves.iter().for_each(|leaf| tree.insert(*leaf));
        tree
    }

    fn inside(leaves: &[Leaf], from: u64, to: u64) -> Vec<Leaf> {
        let inside = |leaf: &&Leaf| from < leaf.version.0 && leaf.version.0 <= to;
        leaves.iter().filter(inside).copied().collect()
    }

    #[test]
    fn a_proof_of_a_large_tree_is_short() {
        let leaves: Vec<_> = (1..=100_000).map(|n| leaf(n, n)).collect();
        let mut tree = tree(&leaves);
        let root = tree.root();
        let proof = tree.prove(Version(40_123), Version(43_210));
        assert!(proof.encoded_len_max() < 6_000, "{}", proof.encoded_len_max());
        let run = inside(&leaves, 40_123, 43_210);
        assert_eq!(proof.root(Version(40_123), Version(43_210), &run), Some(root));
    }

    #[test]
    fn a_batch_of_one_version_is_split_too() {
        let leaves: Vec<_> = (1..=10_000).map(|n| leaf(7, n)).collect();
        let mut tree = tree(&leaves);
        let root = tree.root();
        tree.remove(&leaves[17]);
        assert_ne!(tree.root(), root);
        tree.insert(leaves[17]);
        assert_eq!(tree.root(), root);
        let proof = tree.prove(Version(6), Version(7));
        assert_eq!(proof.root(Version(6), Version(7), &leaves), Some(root));
        assert_ne!(proof.root(Version(6), Version(7), &leaves[1..]), Some(root));
    }

    #[test]
    fn an_entry_of_the_run_cannot_be_passed_off_as_beside_it() {
        let leaves: Vec<_> = (1..=10).map(|n| leaf(n, n)).collect();
        let mut tree = tree(&leaves);
        let root = tree.root();
        let proof = tree.prove(Version(3), Version(6));
        let Step::List(mut others) = proof.steps[0].clone() else { unreachable!() };
        let moved = Leaf { version: Version(7), ..leaves[5] };
        others.push(moved);
        let lie = Proof { steps: vec![Step::List(others)] };
        assert_ne!(lie.root(Version(3), Version(6), &leaves[3..5]), Some(root));
        assert_eq!(proof.root(Version(3), Version(6), &leaves[3..6]), Some(root));
    }

    proptest! {
        #[test]
        fn the_root_depends_only_on_what_is_there(
            mut entries in prop::collection::btree_set((1u64..200, 0u64..50), 0..120),
            gone in prop::collection::vec((1u64..200, 0u64..50), 0..60),
        ) {
            let all: Vec<_> = entries.iter().map(|(v, k)| leaf(*v, *k)).collect();
            let mut grown = tree(&all);
            let _ = grown.root();
            for (version, key) in gone {
                prop_assert_eq!(grown.remove(&leaf(version, key)), entries.remove(&(version, key)));
            }
            let left: Vec<_> = entries.iter().rev().map(|(v, k)| leaf(*v, *k)).collect();
            prop_assert_eq!(grown.root(), tree(&left).root());
            prop_assert_eq!(grown.len(), left.len());
            let mut sorted = left;
            sorted.sort_unstable_by_key(Leaf::place);
            prop_assert_eq!(grown.root(), Tree { top: Node::of(&sorted) }.root());
        }

        #[test]
        fn a_run_is_proved_and_nothing_else_is(
            entries in prop::collection::btree_set((1u64..3_000, 0u64..5), 1..400),
            ends in (0u64..3_000, 0u64..3_000),
            pick in any::<prop::sample::Index>(),
        ) {
            let (from, to) = (ends.0.min(ends.1), ends.0.max(ends.1));
            let all: Vec<_> = entries.iter().map(|(v, k)| leaf(*v, *k)).collect();
            let mut tree = tree(&all);
            let root = tree.root();
            let proof = tree.prove(Version(from), Version(to));
            let run = inside(&all, from, to);
            let proved = |leaves: &[Leaf]| proof.root(Version(from), Version(to), leaves);
            prop_assert_eq!(proved(&run), Some(root));
            // One left out, one put in, one changed.
            if !run.is_empty() {
                let mut less = run.clone();
                let taken = less.remove(pick.index(run.len()));
                prop_assert_ne!(proved(&less), Some(root));
                less.push(Leaf { hash: Hash([7; 32]), ..taken });
                prop_assert_ne!(proved(&less), Some(root));
            }
            if to > from {
                let mut more = run.clone();
                more.push(leaf(to, 99));
                prop_assert_ne!(proved(&more), Some(root));
            }
            // A run that claims to be longer than the entries sent.
            if inside(&all, from, to + 100).len() > run.len() {
                prop_assert_ne!(proof.root(Version(from), Version(to + 100), &run), Some(root));
            }
        }

        #[test]
        fn never_panics_on_an_arbitrary_proof(
            steps in prop::collection::vec(
                prop_oneof![
                    any::<[u8; 32]>().prop_map(|hash| Step::Beside(Hash(hash))),
                    Just(Step::Within),
                    (any::<u8>(), any::<u128>(), any::<u16>())
                        .prop_map(|(depth, prefix, parts)| Step::Split { depth, prefix, parts }),
                    (0u8..33, any::<u16>())
                        .prop_map(|(depth, parts)| Step::Split { depth, prefix: 0, parts }),
                    prop::collection::vec((any::<u64>(), 0u64..3), 0..20).prop_map(|leaves| {
                        Step::List(leaves.into_iter().map(|(v, k)| leaf(v, k)).collect())
                    }),
                ],
                0..40,
            ),
            entries in prop::collection::vec((any::<u64>(), 0u64..3), 0..40),
            ends in any::<(u64, u64)>(),
        ) {
            let leaves: Vec<_> = entries.into_iter().map(|(v, k)| leaf(v, k)).collect();
            let _ = Proof { steps }.root(Version(ends.0), Version(ends.1), &leaves);
        }
    }
}
