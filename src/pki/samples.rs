//! Authorities and certificates for tests.

use std::{path::Path, time::Duration};

use super::{
    authority::{Authority, AuthorityOptions},
    file,
    issued::Issued,
    leaf::LeafOptions,
};
use crate::{
    protocol::id::ClusterId,
    tls::{Identity, name::PeerName},
};

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn authority() -> Authority {
    let options = AuthorityOptions::default();
    Authority::create(ClusterId::new("demo").unwrap(), &options).unwrap()
}

pub(super) fn name(node: &str) -> PeerName {
    PeerName::from_uri(&format!("spiffe://demo/eu/{node}")).unwrap()
}

pub(super) fn issue(ca: &Authority, node: &str) -> Issued {
    ca.issue_with(&LeafOptions::new(&name(node), DAY)).unwrap()
}

pub(super) fn load_node(directory: &Path) -> Identity {
    Identity::from_pem_files(directory.join(file::CERTIFICATE), directory.join(file::KEY)).unwrap()
}
