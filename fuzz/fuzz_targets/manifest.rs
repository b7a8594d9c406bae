//! Any bytes as the list of services that a node offers: refused, or a list that keeps the rules and comes back when
//! it is written.
#![no_main]

use gossipmonger::protocol::service::manifest::{MANIFEST_BYTES_MAX, Manifest, OFFERS_MAX};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    decode(bytes);
    // Few inputs find the format by themselves.
    decode(&[&[1, 0], bytes].concat());
    decode(&[&[2, 0], bytes].concat());
});

fn decode(bytes: &[u8]) {
    if let Ok(manifest) = Manifest::decode(bytes) {
        assert!(manifest.offers.len() <= OFFERS_MAX);
        assert!(manifest.offers.is_sorted_by(|one, next| one.key() < next.key()));
        assert!(manifest.offers.iter().all(|offer| offer.weight > 0));
        let again = manifest.encode();
        assert!(again.len() <= MANIFEST_BYTES_MAX);
        assert_eq!(Manifest::decode(&again), Ok(manifest));
    }
}
