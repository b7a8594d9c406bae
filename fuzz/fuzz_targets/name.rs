//! Any URI of a certificate, and any certificate: what is read of it is what stands there, and nobody is
//! both a node and a client.
#![no_main]

use gossipmonger::tls::{CertificateSummary, ClientName, PeerName};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (String, Vec<u8>)| {
    let (uri, certificate) = input;
    let (node, client) = (PeerName::from_uri(&uri), ClientName::from_uri(&uri));
    assert!(node.is_err() || client.is_err());
    if let Ok(node) = node {
        assert_eq!(node.to_uri(), uri);
    }
    if let Ok(client) = client {
        assert_eq!(client.to_uri(), uri);
    }
    if let Ok(summary) = CertificateSummary::from_certificate(&certificate.into()) {
        assert!(summary.name.is_err() || summary.client.is_none());
        let _ = summary.to_string();
    }
});
