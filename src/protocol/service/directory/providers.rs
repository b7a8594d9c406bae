//! The providers of one service in one datacenter: a sorted sequence, cheap to clone.
//!
//! It lies in chunks that clones share. A change copies one chunk and the list of chunks, if a clone still shares
//! them: of 10,000 providers at most 64, and about 200 pointers. A provider is found by binary search, and picked by
//! its index by binary search in the list of chunks.
//!
//! A vector of `imbl` has a better bound, but takes longer: an insertion into the middle of 5,000 providers, or a
//! removal, took it 97 us, and this one 9 us. Two providers take 3 KiB there, and about 200 bytes here.

use std::{fmt, sync::Arc};

use super::provider::Provider;
use crate::protocol::id::NodeId;

/// The providers of one service in one datacenter, sorted by node. Immutable for readers and cheap to clone.
#[derive(Clone, Default)]
pub struct Providers {
    chunks: Arc<Vec<Chunk>>,
}

/// Some providers, never none, sorted by node.
#[derive(Clone)]
struct Chunk {
    /// How many providers are in this chunk and those before it.
    end: usize,
    providers: Arc<Vec<Provider>>,
}

impl Providers {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chunks.last().map_or(0, |chunk| chunk.end)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The provider at this place in the order of nodes, counted from 0. O(log n).
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Provider> {
        let chunk = self.chunks.partition_point(|chunk| chunk.end <= index);
        let Chunk { end, providers } = self.chunks.get(chunk)?;
        providers.get(index + providers.len() - end)
    }

    /// The offer of a node. O(log n).
    #[must_use]
    pub fn find(&self, node: &NodeId) -> Option<&Provider> {
        let (chunk, place) = self.locate(node);
        self.chunks.get(chunk)?.providers.get(place.ok()?)
    }

    /// All of them, by node.
    pub fn iter(&self) -> impl Iterator<Item = &Provider> {
        self.chunks.iter().flat_map(|chunk| chunk.providers.iter())
    }

    /// Adds a provider, or replaces the one of the same node.
    pub(super) fn put(&mut self, provider: Provider) {
        let (at, place) = self.locate(&provider.node);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Chunk { end: 1, providers: Arc::new(vec![provider]) });
            return;
        };
        let providers = Arc::make_mut(&mut chunk.providers);
        match place {
            Ok(place) => providers[place] = provider,
            Err(place) => {
                providers.insert(place, provider);
                if providers.len() > CHUNK_MAX {
                    let upper = Arc::new(providers.split_off(CHUNK_MAX / 2));
                    chunks.insert(at + 1, Chunk { end: 0, providers: upper });
                }
                count(chunks, at);
            }
        }
    }

    /// Removes the provider of a node, if there is one.
    pub(super) fn remove(&mut self, node: &NodeId) {
        let (at, Ok(place)) = self.locate(node) else { return };
        let chunks = Arc::make_mut(&mut self.chunks);
        let providers = Arc::make_mut(&mut chunks[at].providers);
        providers.remove(place);
        if providers.is_empty() {
            chunks.remove(at);
        } else if providers.len() < CHUNK_MAX / 4 {
            merge(chunks, at);
        }
        count(chunks, at.saturating_sub(1));
    }

    /// The chunk of a node, and its place there: where it is, or where it would be. If there is no chunk, the first
    /// place of the first one.
    fn locate(&self, node: &NodeId) -> (usize, Result<usize, usize>) {
        let begins = |chunk: &Chunk| chunk.providers[0].node <= *node;
        let at = self.chunks.partition_point(begins).saturating_sub(1);
        let place = self.chunks.get(at).map_or(Err(0), |chunk| {
            chunk.providers.binary_search_by(|provider| provider.node.cmp(node))
        });
        (at, place)
    }

    /// The providers of both, without the first and the last chunks that they share.
    pub(super) fn unshared<'a>(
        one: Option<&'a Self>,
        other: Option<&'a Self>,
    ) -> (impl Iterator<Item = &'a Provider>, impl Iterator<Item = &'a Provider>) {
        let chunks = |of: Option<&'a Self>| of.map_or(&[][..], |of| &of.chunks[..]);
        let shared =
            |(one, other): &(&Chunk, &Chunk)| Arc::ptr_eq(&one.providers, &other.providers);
        let (one, other) = (chunks(one), chunks(other));
        let head = one.iter().zip(other).take_while(shared).count();
        let (one, other) = (&one[head..], &other[head..]);
        let tail = one.iter().rev().zip(other.iter().rev()).take_while(shared).count();
        let providers =
            |chunks: &'a [Chunk]| chunks.iter().flat_map(|chunk| chunk.providers.iter());
        (providers(&one[..one.len() - tail]), providers(&other[..other.len() - tail]))
    }

    /// Whether nothing was copied between these two.
    #[cfg(test)]
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks)
    }
}

impl PartialEq for Providers {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks) || self.iter().eq(other.iter())
    }
}

impl Eq for Providers {}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Joins a small chunk and one beside it, unless they would soon have to be split again.
fn merge(chunks: &mut Vec<Chunk>, small: usize) {
    let first = if small + 1 < chunks.len() { small } else { small.saturating_sub(1) };
    let Some([left, right]) = chunks.get_mut(first..first + 2) else { return };
    if left.providers.len() + right.providers.len() <= CHUNK_MAX * 3 / 4 {
        Arc::make_mut(&mut left.providers).extend(right.providers.iter().cloned());
        chunks.remove(first + 1);
    }
}

/// Counts again from this chunk on.
fn count(chunks: &mut [Chunk], from: usize) {
    let mut end = from.checked_sub(1).map_or(0, |before| chunks[before].end);
    for chunk in chunks.iter_mut().skip(from) {
        end += chunk.providers.len();
        chunk.end = end;
    }
}

/// Most providers in a chunk.
const CHUNK_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    use super::*;
    use crate::protocol::id::{Datacenter, Generation};

    #[test]
    fn has_nothing_where_nothing_was_put() {
        let mut none = Providers::default();
        none.remove(&node(0));
        assert!(none.is_empty() && none.get(0).is_none() && none.find(&node(0)).is_none());
        let mut one = Providers::default();
        one.put(provider(1, 0));
        assert_eq!((one.len(), one.get(1), one.find(&node(0))), (1, None, None));
        one.remove(&node(1));
        assert_eq!(one, none);
    }

    #[test]
    fn equals_a_sorted_map_after_any_changes_and_clones_keep_what_they_were() {
        for seed in 0..20 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let (mut providers, mut model) = (Providers::default(), BTreeMap::new());
            let mut before = (providers.clone(), model.clone());
            let names = [3, 70, 1_000][rng.random_range(0..3)];
            for step in 0..3_000 {
                // It grows, and shrinks again to nothing.
                let grows = rng.random_bool(if step < 1_500 { 0.8 } else { 0.2 });
                let number = rng.random_range(0..names);
                if grows {
                    let provider = provider(number, step);
                    providers.put(provider.clone());
                    model.insert(provider.node.clone(), provider);
                } else {
                    providers.remove(&node(number));
                    model.remove(&node(number));
                }
                assert_eq!(providers.len(), model.len(), "SEED={seed} step {step}");
                assert_eq!(providers.find(&node(number)), model.get(&node(number)), "SEED={seed}");
                if step % 100 == 0 {
                    assert_same(&providers, &model, seed);
                    assert_same(&before.0, &before.1, seed);
                    before = (providers.clone(), model.clone());
                }
            }
        }
    }

    #[test]
    fn chunks_are_neither_too_long_nor_too_many() {
        let mut providers = Providers::default();
        (0..10_000).for_each(|number| providers.put(provider(number * 7_919 % 10_000, 0)));
        assert!(providers.chunks.iter().all(|chunk| chunk.providers.len() <= CHUNK_MAX));
        assert!(providers.chunks.len() <= 10_000 / (CHUNK_MAX / 2), "{}", providers.chunks.len());
        (0..10_000).filter(|number| number % 50 > 0).for_each(|n| providers.remove(&node(n)));
        assert_eq!(providers.len(), 200);
        assert!(providers.chunks.len() <= 200 / (CHUNK_MAX / 8), "{}", providers.chunks.len());
    }

    #[test]
    fn a_change_copies_one_chunk() {
        let mut providers = Providers::default();
        (0..10_000).for_each(|number| providers.put(provider(number, 0)));
        let before = providers.clone();
        providers.put(provider(5_000, 1));
        let chunks = providers.chunks.iter().zip(&*before.chunks);
        let copied = chunks.filter(|(now, then)| !Arc::ptr_eq(&now.providers, &then.providers));
        assert_eq!((copied.count(), providers.chunks.len()), (1, before.chunks.len()));
    }

    fn assert_same(providers: &Providers, model: &BTreeMap<NodeId, Provider>, seed: u64) {
        assert!(providers.iter().eq(model.values()), "SEED={seed}");
        let indexed = (0..providers.len()).map(|index| providers.get(index).unwrap());
        assert!(indexed.eq(model.values()), "SEED={seed}");
        assert_eq!(providers.get(providers.len()), None, "SEED={seed}");
    }

    fn node(number: u32) -> NodeId {
        NodeId::new(&format!("n{number}")).unwrap()
    }

    fn provider(number: u32, epoch: u32) -> Provider {
        Provider {
            node: node(number),
            generation: Generation(1),
            datacenter: Datacenter::new("dc").unwrap(),
            minor: 0,
            weight: 1,
            clients: false,
            draining: false,
            suspect: false,
            epoch,
            hash: 0,
        }
    }
}
