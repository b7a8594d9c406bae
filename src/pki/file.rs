//! The names of the files that [`Authority::save`](super::Authority::save) and
//! [`Issued::save`](super::Issued::save) write, and of those that a node has beside them.

/// The authority's certificate, in its own directory.
pub const AUTHORITY: &str = "ca.pem";
/// The authority's private key.
pub const AUTHORITY_KEY: &str = "ca.key";
/// A node's certificate, in the node's directory.
pub const CERTIFICATE: &str = "node.pem";
/// A client's certificate, in its own directory.
pub const CLIENT_CERTIFICATE: &str = "client.pem";
/// A client's private key.
pub const CLIENT_KEY: &str = "client.key";
/// A node's private key.
pub const KEY: &str = "node.key";
/// The certificates of the authorities a node trusts.
pub const ROOTS: &str = "roots.pem";
/// The next authority, during a rotation.
pub const NEXT_AUTHORITY: &str = "ca-next.pem";
/// Its private key.
pub const NEXT_AUTHORITY_KEY: &str = "ca-next.key";
/// The previous authority, during a rotation.
pub const OLD_AUTHORITY: &str = "ca-old.pem";
/// Its private key.
pub const OLD_AUTHORITY_KEY: &str = "ca-old.key";
/// The authority's revocations, in its own directory.
pub const REVOCATIONS: &str = "revocations.txt";
/// The configuration of a node, in its directory; it may be missing.
pub const CONFIG: &str = "gossipmonger.toml";
/// The store of an agent, in the node's directory.
pub const STORE: &str = "store.redb";
