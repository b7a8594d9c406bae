//! A certificate authority without certificates, for tests of the pure part: who knows its secret can
//! vouch for any node, and everybody can check.

use std::sync::atomic::{AtomicU64, Ordering};

use gossipmonger::{
    ClusterId, Generation, NodeId,
    protocol::seal::{Credential, LifeKey, LifeSigner, Notary},
};

#[derive(Debug)]
pub(crate) struct TestNotary {
    cluster: ClusterId,
    secret: [u8; 32],
    revision: AtomicU64,
}

impl TestNotary {
    pub(crate) fn new(secret: u8) -> Self {
        Self {
            cluster: ClusterId::new("test").unwrap(),
            secret: [secret; 32],
            revision: AtomicU64::new(1),
        }
    }

    /// From now on there is another certificate, and with it another key.
    pub(crate) fn renew(&self) {
        self.revision.fetch_add(1, Ordering::Relaxed);
    }

    fn signature(&self, node: &NodeId, generation: Generation, key: &LifeKey) -> Vec<u8> {
        let statement = Credential::statement(&self.cluster, node, generation, key);
        blake3::keyed_hash(&self.secret, &statement).as_bytes().to_vec()
    }
}

impl Notary for TestNotary {
    fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The same key each time for one certificate, so that a run can be repeated.
    fn begin(
        &self,
        node: &NodeId,
        generation: Generation,
    ) -> Result<(LifeSigner, Credential), String> {
        let signer = LifeSigner::from_seed(&[6 + self.revision() as u8; 32])
            .map_err(|error| error.to_string())?;
        let signature = self.signature(node, generation, &signer.key());
        let chain = vec![node.as_str().as_bytes().to_vec()];
        let credential = Credential { key: signer.key(), chain, scheme: 1, signature };
        Ok((signer, credential))
    }

    fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    fn vet(
        &self,
        node: &NodeId,
        generation: Generation,
        credential: &Credential,
    ) -> Result<(), String> {
        let right = credential.signature == self.signature(node, generation, &credential.key);
        if right { Ok(()) } else { Err("not vouched for".to_owned()) }
    }
}
