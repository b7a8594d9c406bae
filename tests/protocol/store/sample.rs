//! Changes to try a store with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gossipmonger::{
    protocol::{
        id::{ClusterId, Datacenter, Generation, NodeId, Version},
        revocation::{IssuerId, Revocation},
    },
    store::{Change, EndpointKeys, Head, KnownPeer, StoredEntry},
};
use proptest::{collection, option, prelude::*};
use rand::{SeedableRng, rngs::StdRng};

/// Any change, of few keys and peers, so that they meet again.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (key(), entry()).prop_map(|(key, entry)| Change::Put { key: key.as_str().into(), entry }),
        4 => key().prop_map(|key| Change::Remove(key.as_str().into())),
        2 => head().prop_map(Change::Head),
        2 => peer().prop_map(Change::Peer),
        1 => node().prop_map(Change::ForgetPeer),
        1 => collection::btree_map("[a-z]{0,4}", any::<String>(), 0..3).prop_map(Change::Tags),
        1 => any::<bool>().prop_map(Change::Left),
        1 => revocation().prop_map(Change::Revocation),
        1 => revocation().prop_map(Change::DropRevocation),
        1 => (any::<[u8; 32]>(), any::<u64>()).prop_map(endpoint_keys),
        1 => node().prop_map(|node| Change::Identity {
            cluster: ClusterId::new("cluster").unwrap(),
            node,
        }),
    ]
}

/// Several commits of several changes each.
pub(crate) fn commits() -> impl Strategy<Value = Vec<Vec<Change>>> {
    collection::vec(collection::vec(change(), 0..12), 1..8)
}

/// Of few nodes and times, so that they meet again.
fn revocation() -> impl Strategy<Value = Revocation> {
    (node(), 0..3_u64).prop_map(|(node, cutoff)| {
        let (issuer, signature) = (IssuerId([7; 32]), vec![1; 64]);
        Revocation { node, issuer, cutoff, expires: 9, signature }
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[abc]{0,2}", 1 => any::<String>()]
}

fn entry() -> impl Strategy<Value = StoredEntry> {
    let value = prop_oneof![
        4 => collection::vec(any::<u8>(), 0..64),
        1 => collection::vec(any::<u8>(), 10_000..20_000),
    ];
    (any::<u64>(), option::of(value), option::of(time())).prop_map(|(version, value, expires)| {
        StoredEntry { version: Version(version), value: value.map(Into::into), expires }
    })
}

/// To the millisecond, as a store keeps it; also before 1970, where a clock without a battery starts.
fn time() -> impl Strategy<Value = SystemTime> {
    (-1_000_000..4_000_000_000_000_i64).prop_map(|millis| {
        let distance = Duration::from_millis(millis.unsigned_abs());
        if millis < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    })
}

fn head() -> impl Strategy<Value = Head> {
    let ancestry = collection::vec((any::<u64>(), any::<u64>()), 0..4);
    (any::<[u64; 3]>(), ancestry).prop_map(|([generation, max_version, gc_floor], ancestry)| Head {
        generation: Generation(generation),
        max_version: Version(max_version),
        gc_floor: Version(gc_floor),
        ancestry: ancestry.into_iter().map(|(g, v)| (Generation(g), Version(v))).collect(),
    })
}

fn node() -> impl Strategy<Value = NodeId> {
    "[ab]".prop_map(|name| NodeId::new(&name).unwrap())
}

fn peer() -> impl Strategy<Value = KnownPeer> {
    let addresses = collection::vec("[a-z]{1,8}:[1-9][0-9]{0,3}", 0..3);
    (node(), addresses, any::<u64>(), any::<bool>()).prop_map(
        |(node, addresses, generation, dead)| KnownPeer {
            node,
            datacenter: Datacenter::new("eu").unwrap(),
            addresses,
            generation: Generation(generation),
            dead,
        },
    )
}

fn endpoint_keys((half, connection_id): ([u8; 32], u64)) -> Change {
    let reset = [half, half].concat().try_into().unwrap();
    Change::EndpointKeys(EndpointKeys { reset, connection_id })
}

/// Random numbers for what proptest does not drive, by the number in the variable `SEED` or a new one.
/// The seed is printed, and so shown if the test fails.
pub(crate) fn random() -> StdRng {
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// Writes a file that only its owner may read, as the store's are.
pub(crate) fn write_private(path: &std::path::Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}
