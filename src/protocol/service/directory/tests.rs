//! Each transition by itself, and any sequence of them against an index that is computed from nothing.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

use super::{DirectoryOutput as Output, *};
use crate::protocol::{
    id::Datacenter,
    service::{ServiceId, ServiceName, ServiceVersion, clients::Clients, manifest::BadManifest},
    state::PeerState::{self, *},
};

#[test]
fn a_garbled_manifest_counts_as_empty_and_is_reported_once() {
    let mut bench = Bench::default();
    let garbled = Value::from(&[9, 9]);
    bench.see("a", 1, Live, &manifest(&["stock"]));
    let outputs = bench.see("a", 1, Live, &garbled);
    let bad = Output::BadManifest { node: node("a"), error: BadManifest::UnknownFormat(9) };
    assert_eq!(outputs, [bad.clone(), left("stock", "a", 1, Gone::Withdrawn)]);
    assert_eq!(bench.see("a", 1, Suspect, &garbled), []);
    assert_eq!(bench.see("a", 2, Live, &garbled), [ended("a", 1, Gone::Restarted)]);
    assert_eq!(bench.see("b", 1, Live, &garbled).len(), 1, "each node is reported");
    bench.see("a", 2, Live, &manifest(&["stock"]));
    assert_eq!(bench.see("a", 2, Live, &garbled)[0], bad, "it is another change");
}

#[test]
fn an_earlier_generation_changes_nothing_until_the_node_is_forgotten() {
    let mut bench = Bench::default();
    bench.see("a", 2, Live, &manifest(&["stock"]));
    assert_eq!(bench.see("a", 1, Dead, &manifest(&[])), []);
    bench.forget("a");
    assert_eq!(bench.see("a", 1, Live, &manifest(&["stock"])), [bench.joined("stock", "a")]);
}

#[test]
fn what_is_known_already_has_no_effect() {
    let mut bench = Bench::default();
    assert_eq!(bench.forget("a"), []);
    let stock = manifest(&["stock"]);
    for state in [Unheard, Live, Suspect, Unreachable, Dead, Left] {
        bench.see("a", 1, state, &stock);
        let version = bench.directory.listings().version();
        assert_eq!(bench.see("a", 1, state, &stock), [], "{state:?}");
        assert_eq!(bench.directory.listings().version(), version);
    }
}

#[test]
fn a_node_is_not_listed_before_it_is_live() {
    let mut bench = Bench::default();
    let stock = manifest(&["stock"]);
    assert_eq!(bench.see("a", 1, Unheard, &stock), []);
    assert_eq!(bench.see("a", 1, Unreachable, &stock), []);
    assert_eq!(bench.see("a", 1, Live, &stock), [bench.joined("stock", "a")]);
}

#[test]
fn suspicion_changes_an_offer_and_does_not_end_it() {
    let mut bench = Bench::default();
    let stock = manifest(&["stock"]);
    bench.see("a", 1, Live, &stock);
    let outputs = bench.see("a", 1, Suspect, &stock);
    assert!(bench.provider("stock", "a").suspect);
    assert_eq!(outputs, [bench.changed("stock", "a")]);
    let outputs = bench.see("a", 1, Live, &stock);
    assert!(!bench.provider("stock", "a").suspect);
    assert_eq!(outputs, [bench.changed("stock", "a")]);
}

#[test]
fn draining_changes_all_offers() {
    let mut bench = Bench::default();
    bench.see("a", 1, Live, &manifest(&["stock", "till"]));
    let draining = Manifest { draining: true, ..plain(&["stock", "till"]) };
    let outputs = bench.see("a", 1, Live, &Value::from(draining.encode()));
    assert!(bench.provider("till", "a").draining);
    assert_eq!(outputs, [bench.changed("stock", "a"), bench.changed("till", "a")]);
}

#[test]
fn other_properties_change_one_offer() {
    let mut bench = Bench::default();
    bench.see("a", 1, Live, &manifest(&["stock", "till"]));
    let mut other = plain(&["stock", "till"]);
    other.offers[1].weight = 7;
    other.offers[1].clients = Clients::all();
    other.offers[1].version.minor = 3;
    let outputs = bench.see("a", 1, Live, &Value::from(other.encode()));
    let till = bench.provider("till", "a");
    assert_eq!((till.weight, till.clients, till.minor), (7, true, 3));
    assert_eq!(outputs, [bench.changed("till", "a")]);
}

#[test]
fn a_node_that_moves_is_listed_in_its_new_datacenter_alone() {
    let mut bench = Bench::default();
    let stock = manifest(&["stock"]);
    bench.see("a", 1, Live, &stock);
    bench.datacenter = datacenter("us");
    let outputs = bench.see("a", 1, Live, &stock);
    assert_eq!(outputs, [bench.changed("stock", "a")]);
    let listings = bench.directory.listings();
    let listing = listings.get(&service("stock")).unwrap();
    assert_eq!((listing.len(), listing.datacenter(&datacenter("eu"))), (1, None));
    assert_eq!(listing.datacenter(&datacenter("us")).unwrap().len(), 1);
}

#[test]
fn a_withdrawn_offer_leaves_and_one_of_a_new_epoch_is_another() {
    let mut bench = Bench::default();
    bench.see("a", 1, Live, &manifest(&["stock", "till"]));
    let outputs = bench.see("a", 1, Live, &manifest(&["till"]));
    assert_eq!(outputs, [left("stock", "a", 1, Gone::Withdrawn)]);
    let mut again = plain(&["till"]);
    again.offers[0].epoch = 1;
    let outputs = bench.see("a", 1, Live, &Value::from(again.encode()));
    assert_eq!(outputs, [left("till", "a", 1, Gone::Withdrawn), bench.joined("till", "a")]);
    let outputs = bench.see_none("a", 1, Live);
    let [Output::Left { epoch: 1, why: Gone::Withdrawn, .. }] = &*outputs else {
        panic!("{outputs:?}")
    };
    assert!(bench.directory.listings().is_empty());
}

#[test]
fn a_later_generation_ends_the_earlier_one_even_before_its_manifest_arrives() {
    let mut bench = Bench::default();
    let stock = manifest(&["stock"]);
    bench.see("a", 1, Live, &stock);
    let (end, leave) = (ended("a", 1, Gone::Restarted), left("stock", "a", 1, Gone::Restarted));
    assert_eq!(bench.see("a", 2, Live, &stock), [end, leave, bench.joined("stock", "a")]);
    let (end, leave) = (ended("a", 2, Gone::Restarted), left("stock", "a", 2, Gone::Restarted));
    assert_eq!(bench.see_none("a", 3, Live), [end, leave]);
    assert_eq!(bench.see("a", 3, Live, &stock), [bench.joined("stock", "a")]);
    let (end, leave) = (ended("a", 3, Gone::Restarted), left("stock", "a", 3, Gone::Restarted));
    let dead = ended("a", 4, Gone::NodeDead);
    assert_eq!(bench.see("a", 4, Dead, &stock), [end, dead, leave]);
}

#[test]
fn a_node_that_is_dead_left_or_forgotten_ends_once() {
    let stock = manifest(&["stock"]);
    for (state, why) in [(Dead, Gone::NodeDead), (Left, Gone::NodeLeft)] {
        let mut bench = Bench::default();
        bench.see("a", 1, Live, &stock);
        let outputs = bench.see("a", 1, state, &stock);
        assert_eq!(outputs, [ended("a", 1, why), left("stock", "a", 1, why)]);
        // The other state, the cut of its datacenter, its end by a restart: no call is pending since.
        for state in [Left, Unreachable, Dead, Unheard] {
            assert_eq!(bench.see("a", 1, state, &stock), [], "{state:?}");
        }
        assert_eq!(bench.forget("a"), []);
    }
    let mut bench = Bench::default();
    bench.see("a", 1, Live, &stock);
    let (end, leave) =
        (ended("a", 1, Gone::NodeForgotten), left("stock", "a", 1, Gone::NodeForgotten));
    assert_eq!(bench.forget("a"), [end, leave]);
    assert_eq!(bench.forget("a"), []);
}

#[test]
fn a_dead_node_that_comes_back_is_listed_again_and_can_end_again() {
    let mut bench = Bench::default();
    let stock = manifest(&["stock"]);
    for _ in 0..3 {
        assert_eq!(bench.see("a", 1, Live, &stock), [bench.joined("stock", "a")]);
        let outputs = bench.see("a", 1, Dead, &stock);
        assert_eq!(outputs[0], ended("a", 1, Gone::NodeDead));
    }
}

#[test]
fn an_unreachable_node_leaves_but_does_not_end() {
    let mut bench = Bench::default();
    let both = manifest(&["stock", "till"]);
    bench.see("a", 1, Live, &both);
    let leave = |name| left(name, "a", 1, Gone::Unreachable);
    assert_eq!(bench.see("a", 1, Unreachable, &both), [leave("stock"), leave("till")]);
    assert_eq!(bench.see("a", 1, Unheard, &both), []);
    // It withdraws an offer that is not listed, which is known when it returns.
    assert_eq!(bench.see("a", 1, Unreachable, &manifest(&["till"])), []);
    let returned = Output::Returned { node: node("a"), generation: Generation(1) };
    let outputs = bench.see("a", 1, Live, &manifest(&["till"]));
    assert_eq!(outputs, [bench.joined("till", "a"), returned]);
}

#[test]
fn an_unreachable_node_ends_when_it_is_dead_or_a_later_generation_is_seen() {
    let stock = manifest(&["stock"]);
    let unreachable = || {
        let mut bench = Bench::default();
        bench.see("a", 1, Live, &stock);
        bench.see("a", 1, Unreachable, &stock);
        bench
    };
    let dead = unreachable().see("a", 1, Dead, &stock);
    assert_eq!(dead, [ended("a", 1, Gone::NodeDead)]);
    let restarted = unreachable().see("a", 2, Unreachable, &stock);
    assert_eq!(restarted, [ended("a", 1, Gone::Restarted)]);
    assert_eq!(unreachable().forget("a"), [ended("a", 1, Gone::NodeForgotten)]);
}

#[test]
fn listings_that_readers_hold_do_not_change() {
    let mut bench = Bench::default();
    bench.see("a", 1, Live, &manifest(&["stock"]));
    let before = bench.directory.listings();
    bench.see("b", 1, Live, &manifest(&["stock", "till"]));
    bench.see("a", 1, Dead, &manifest(&["stock"]));
    assert_eq!((before.len(), before.version()), (1, 1));
    let listing = before.get(&service("stock")).unwrap();
    assert!(listing.find(&node("a")).is_some() && listing.find(&node("b")).is_none());
    assert_eq!(bench.directory.listings().version(), 3);
}

#[test]
fn nodes_that_offer_the_same_share_its_name_in_memory() {
    let mut bench = Bench::default();
    bench.see("a", 1, Live, &manifest(&["stock"]));
    bench.see("b", 1, Unheard, &manifest(&["stock"]));
    bench.see("b", 1, Live, &manifest(&["stock"]));
    let name = |node: NodeId| bench.directory.nodes[&node].manifest.offers[0].name.as_str();
    assert!(std::ptr::eq(name(node("a")), name(node("b"))));
}

#[test]
fn the_hash_of_a_node_stays_the_same() {
    let mut bench = Bench::default();
    bench.see("node-1", 1, Live, &manifest(&["stock"]));
    assert_eq!(bench.provider("stock", "node-1").hash, 1_411_048_690_986_509_909);
}

/// After any sequence of updates the listings are those that the last input of each node gives, and the outputs
/// alone give the same listings.
#[test]
fn any_sequence_gives_what_is_computed_from_nothing() {
    for seed in 0..60 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut directory = Directory::default();
        let (mut inputs, mut watched) = (BTreeMap::new(), Watched::default());
        let values = values(&mut rng);
        for step in 0..400 {
            let context = format!("SEED={seed} step {step}");
            let node = node(&format!("n{}", rng.random_range(0..8)));
            let input = rng.random_bool(0.95).then(|| Input::random(&mut rng, &values));
            let mut out = Vec::new();
            let before = directory.listings().version();
            directory.update(&node, input.as_ref().map(Input::seen), &mut out);
            let listings = directory.listings();
            let counted = out.iter().any(|out| {
                matches!(out, Output::Joined(..) | Output::Changed(..) | Output::Left { .. })
            });
            assert_eq!(listings.version(), before + u64::from(counted), "{context}");
            match input {
                None => drop(inputs.remove(&node)),
                Some(input) => {
                    let latest = inputs.entry(node.clone()).or_insert_with(|| input.clone());
                    if input.generation >= latest.generation {
                        *latest = input;
                    }
                }
            }
            out.into_iter().for_each(|output| watched.take(output, &context));
            watched.check(&node, inputs.get(&node), &context);
            assert_eq!(flat(&listings), watched.offers, "{context}");
            assert_eq!(flat(&listings), from_nothing(&inputs), "{context}");
        }
        let mut again = Directory::default();
        for (node, input) in &inputs {
            again.update(node, Some(input.seen()), &mut Vec::new());
        }
        assert_eq!(flat(&again.listings()), flat(&directory.listings()), "SEED={seed}");
    }
}

#[test]
fn of_ten_thousand_nodes_an_update_touches_only_the_offers_of_its_own() {
    let offers = |n: usize| -> Vec<String> {
        let mut names: Vec<_> = (0..20).map(|k| format!("s{}", (n + k * 20) % 400)).collect();
        names.sort();
        names
    };
    let names: Vec<_> = (0..400).map(offers).collect();
    let manifests: Vec<_> = names.iter().map(|names| plain(names)).collect();
    let values: Vec<_> = manifests.iter().map(|manifest| Value::from(manifest.encode())).collect();
    let mut bench = Bench::default();
    for n in 0..10_000 {
        let outputs = bench.see(&format!("n{n}"), 1, Live, &values[n % 400]);
        assert_eq!(outputs.len(), 20);
    }
    let mut touched = |n: usize, state, value: &Value| {
        let before = bench.directory.listings();
        let outputs = bench.see(&format!("n{n}"), 1, state, value).len();
        let after = bench.directory.listings();
        let touched = after.touched_since(&before);
        let names = names[n % 400].iter().map(|name| service(name)).collect::<BTreeSet<_>>();
        assert!(touched.iter().all(|service| names.contains(service)), "{touched:?}");
        (outputs, touched.len())
    };
    assert_eq!(touched(5_000, Live, &values[200]), (0, 0));
    let mut heavier = manifests[200].clone();
    heavier.offers[3].weight = 9;
    assert_eq!(touched(5_000, Live, &Value::from(heavier.encode())), (1, 1));
    heavier.offers.truncate(18);
    assert_eq!(touched(5_000, Live, &Value::from(heavier.encode())), (2, 2));
    assert_eq!(touched(7_777, Suspect, &values[177]), (20, 20));
    assert_eq!(touched(7_777, Dead, &values[177]), (21, 20), "and one end");
    assert_eq!(touched(7_777, Live, &values[177]), (20, 20));
}

/// A directory, and the datacenter in which nodes are seen.
struct Bench {
    directory: Directory,
    datacenter: Datacenter,
}

impl Default for Bench {
    fn default() -> Self {
        Self { directory: Directory::default(), datacenter: datacenter("eu") }
    }
}

impl Bench {
    fn see(
        &mut self,
        name: &str,
        generation: u64,
        state: PeerState,
        manifest: &Value,
    ) -> Vec<Output> {
        let (generation, datacenter) = (Generation(generation), self.datacenter.clone());
        let manifest = Some(manifest.clone());
        self.update(name, Some(Input { generation, datacenter, state, manifest }))
    }

    fn see_none(&mut self, name: &str, generation: u64, state: PeerState) -> Vec<Output> {
        let (generation, datacenter) = (Generation(generation), self.datacenter.clone());
        self.update(name, Some(Input { generation, datacenter, state, manifest: None }))
    }

    fn forget(&mut self, name: &str) -> Vec<Output> {
        self.update(name, None)
    }

    fn update(&mut self, name: &str, input: Option<Input>) -> Vec<Output> {
        let mut out = Vec::new();
        self.directory.update(&node(name), input.as_ref().map(Input::seen), &mut out);
        out
    }

    fn provider(&self, name: &str, of: &str) -> Provider {
        let listings = self.directory.listings();
        listings.get(&service(name)).unwrap().find(&node(of)).unwrap().clone()
    }

    /// That the provider which is listed now has joined.
    fn joined(&self, name: &str, of: &str) -> Output {
        Output::Joined(service(name), self.provider(name, of))
    }

    /// That it has changed to what is listed now.
    fn changed(&self, name: &str, of: &str) -> Output {
        Output::Changed(service(name), self.provider(name, of))
    }
}

/// What is seen of a node.
#[derive(Clone, Debug)]
struct Input {
    generation: Generation,
    datacenter: Datacenter,
    state: PeerState,
    manifest: Option<Value>,
}

impl Input {
    fn random(rng: &mut SmallRng, values: &[Option<Value>]) -> Self {
        let states = [Unheard, Live, Live, Live, Suspect, Unreachable, Dead, Left];
        Self {
            generation: Generation(rng.random_range(1..4)),
            datacenter: datacenter(["eu", "eu", "us"].choose(rng).unwrap()),
            state: *states.choose(rng).unwrap(),
            manifest: values.choose(rng).unwrap().clone(),
        }
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            generation: self.generation,
            datacenter: &self.datacenter,
            state: self.state,
            manifest: self.manifest.as_ref(),
        }
    }
}

/// What a reader of the outputs alone knows.
#[derive(Default)]
struct Watched {
    offers: BTreeMap<(ServiceId, NodeId), Provider>,
    /// The generations that have ended, and were not listed since.
    ended: BTreeSet<(NodeId, Generation)>,
    away: BTreeSet<(NodeId, Generation)>,
}

impl Watched {
    fn take(&mut self, output: Output, context: &str) {
        match output {
            Output::Joined(service, provider) => {
                self.ended.remove(&(provider.node.clone(), provider.generation));
                let before = self.offers.insert((service, provider.node.clone()), provider);
                assert_eq!(before, None, "{context}: joined twice");
            }
            Output::Changed(service, provider) => {
                let after = provider.clone();
                let before = self.offers.insert((service, provider.node.clone()), provider);
                let before = before.unwrap_or_else(|| panic!("{context}: was not listed"));
                assert_ne!(before, after, "{context}: nothing changed");
                let registration = (before.generation, before.epoch);
                assert_eq!(registration, (after.generation, after.epoch), "{context}: another");
            }
            Output::Left { service, node, generation, epoch, why } => {
                let before = self.offers.remove(&(service, node.clone()));
                let before = before.unwrap_or_else(|| panic!("{context}: was not listed"));
                assert_eq!((before.generation, before.epoch), (generation, epoch), "{context}");
                let ended = self.ended.contains(&(node.clone(), generation));
                let ends = !matches!(why, Gone::Withdrawn | Gone::Unreachable);
                assert_eq!(ended, ends, "{context}: {why:?}");
                if why == Gone::Unreachable {
                    self.away.insert((node, generation));
                }
            }
            Output::Ended { node, generation, why } => {
                assert!(!matches!(why, Gone::Withdrawn | Gone::Unreachable), "{context}");
                self.away.remove(&(node.clone(), generation));
                let first = self.ended.insert((node, generation));
                assert!(first, "{context}: ended twice");
            }
            Output::Returned { node, generation } => {
                self.away.remove(&(node, generation));
            }
            Output::BadManifest { .. } => {}
        }
    }

    /// Checks the ends against the latest input of a node, and forgets what does not matter any more.
    fn check(&mut self, node: &NodeId, latest: Option<&Input>, context: &str) {
        let Some(latest) = latest else {
            self.ended.retain(|(ended, _)| ended != node);
            return;
        };
        let present = (node.clone(), latest.generation);
        match latest.state {
            // A node without offers does not join when it comes back.
            Live | Suspect => {
                self.ended.remove(&present);
                assert!(!self.away.contains(&present), "{context}: its return was not reported");
            }
            Dead | Left => assert!(self.ended.contains(&present), "{context}: its end is missing"),
            Unheard | Unreachable => {}
        }
        let earlier = self
            .away
            .iter()
            .any(|(away, generation)| away == node && *generation < latest.generation);
        assert!(!earlier, "{context}: the end of an earlier generation is missing");
    }
}

fn from_nothing(inputs: &BTreeMap<NodeId, Input>) -> BTreeMap<(ServiceId, NodeId), Provider> {
    let mut offers = BTreeMap::new();
    for (node, input) in inputs.iter().filter(|(_, input)| input.state.is_live()) {
        let manifest = input.manifest.as_ref().and_then(|value| Manifest::decode(value).ok());
        let Some(manifest) = manifest else { continue };
        for offer in manifest.offers {
            let provider = Provider {
                node: node.clone(),
                generation: input.generation,
                datacenter: input.datacenter.clone(),
                minor: offer.version.minor,
                weight: offer.weight,
                clients: !offer.clients.is_none(),
                draining: manifest.draining,
                suspect: input.state == Suspect,
                epoch: offer.epoch,
                hash: hash(node.as_str()),
            };
            let service = ServiceId { name: offer.name, major: offer.version.major };
            offers.insert((service, node.clone()), provider);
        }
    }
    offers
}

fn flat(listings: &Listings) -> BTreeMap<(ServiceId, NodeId), Provider> {
    let mut offers = BTreeMap::new();
    for (service, listing) in listings.iter() {
        assert_eq!(listing.iter().count(), listing.len(), "{service}");
        assert!(!listing.is_empty(), "{service}");
        for (datacenter, providers) in listing.datacenters() {
            assert!(!providers.is_empty(), "{service} {datacenter}");
            assert!(providers.iter().is_sorted_by(|one, next| one.node < next.node));
            for provider in providers.iter() {
                assert_eq!(provider.datacenter, *datacenter);
                offers.insert((service.clone(), provider.node.clone()), provider.clone());
            }
        }
    }
    offers
}

/// Manifests that differ in everything, garbled ones, and none.
fn values(rng: &mut SmallRng) -> Vec<Option<Value>> {
    let mut values = vec![None, Some(Value::from(&[1])), Some(Value::from(&[7, 7]))];
    for _ in 0..20 {
        let mut offers = Vec::new();
        for name in ["a", "b", "c", "d"] {
            for major in [1, 2] {
                if rng.random_bool(0.4) {
                    offers.push(Offered {
                        name: ServiceName::new(name).unwrap(),
                        version: ServiceVersion::new(major, rng.random_range(0..2)),
                        weight: rng.random_range(1..3),
                        clients: if rng.random() { Clients::all() } else { Clients::default() },
                        epoch: rng.random_range(0..2),
                    });
                }
            }
        }
        let manifest = Manifest { draining: rng.random_bool(0.2), offers };
        values.push(Some(Value::from(manifest.encode())));
    }
    values
}

fn manifest(names: &[&str]) -> Value {
    Value::from(plain(names).encode())
}

/// The first major version of each.
fn plain(names: &[impl AsRef<str>]) -> Manifest {
    let offered = |name: &str| Offered {
        name: ServiceName::new(name).unwrap(),
        version: ServiceVersion::new(1, 0),
        weight: 1,
        clients: Clients::default(),
        epoch: 0,
    };
    let offers = names.iter().map(|name| offered(name.as_ref())).collect();
    Manifest { draining: false, offers }
}

fn ended(name: &str, generation: u64, why: Gone) -> Output {
    Output::Ended { node: node(name), generation: Generation(generation), why }
}

fn left(name: &str, of: &str, generation: u64, why: Gone) -> Output {
    let (service, node, generation) = (service(name), node(of), Generation(generation));
    Output::Left { service, node, generation, epoch: 0, why }
}

fn service(name: &str) -> ServiceId {
    ServiceId { name: ServiceName::new(name).unwrap(), major: 1 }
}

fn node(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn datacenter(name: &str) -> Datacenter {
    Datacenter::new(name).unwrap()
}
