//! Any bytes as a PKCS #10 request: refused, or a key that stands in a certificate of nobody else.
#![no_main]

use std::{sync::LazyLock, time::Duration};

use gossipmonger::{
    pki::{Authority, AuthorityOptions, LeafOptions},
    protocol::id::ClusterId,
    tls::{CertificateSummary, PeerName},
    unstable::PublicKey,
};
use libfuzzer_sys::fuzz_target;

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let cluster = ClusterId::new("demo").expect("a label");
    Authority::create(cluster, &AuthorityOptions::default()).expect("there is randomness")
});

fuzz_target!(|csr: &[u8]| {
    let Ok(key) = PublicKey::from_csr(csr) else { return };
    let name = PeerName::from_uri("spiffe://demo/eu/b").expect("a name");
    let options = LeafOptions::new(&name, Duration::from_secs(60));
    if let Ok(certificate) = AUTHORITY.certify(&options, key.spki()) {
        assert!(key.is_of(&certificate));
        let summary = CertificateSummary::from_certificate(&certificate).expect("it was made here");
        assert_eq!((summary.name, summary.is_authority), (Ok(name), false));
    }
});
