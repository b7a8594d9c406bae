//! Why an authority could not be created, kept or used.

use std::{io, path::PathBuf};

use super::{file, phase::RotationPhase};
use crate::{
    protocol::{
        id::NodeId,
        revocation::{IssuerId, RevocationError},
    },
    tls::files::LoadError,
};

/// An authority could not be created, kept or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The file exists already; nothing was written.
    #[error("{} exists already and is not overwritten; move it away, or choose another directory", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be written.
    #[error("{} cannot be written: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        error: io::Error,
    },
    /// The authority's own certificate has expired.
    #[error(
        "the authority expired on {not_after}; make a new one and let the nodes trust both while certificates are replaced"
    )]
    Expired {
        /// Its expiry, by RFC 3339.
        not_after: String,
    },
    /// This phase of a rotation is not the next one. Nothing has changed.
    #[error("{wanted} is out of turn: the authority is {phase}; next is: {}", next(*.phase))]
    Phase {
        /// The requested phase.
        wanted: &'static str,
        /// The present phase of the rotation.
        phase: RotationPhase,
    },
    /// The list of revocations is damaged.
    #[error("{}: {error}; without it certificates could be issued that are revoked already", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: RevocationError,
    },
    /// A line of the list of revocations has no signature by an authority of the directory.
    #[error(
        "{}: no authority of this directory has signed the revocation of {node} (it names authority {issuer}): put \
         the certificate of that authority beside it as {}, or remove the line", path.display(), file::OLD_AUTHORITY
    )]
    Unsigned {
        /// The file.
        path: PathBuf,
        /// The node whose certificates the line covers.
        node: NodeId,
        /// The authority that it names.
        issuer: IssuerId,
    },
    /// A revocation is not signed, since its cutoff would be too far in the future.
    #[error("{0}; or an earlier revocation of this node has such a cutoff: see revocations.txt")]
    Ahead(RevocationError),
    /// A file could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A certificate could not be made.
    #[error("the certificate cannot be made: {0}")]
    Make(String),
}

const fn next(phase: RotationPhase) -> &'static str {
    match phase {
        RotationPhase::Settled => "ca rotate --phase prepare",
        RotationPhase::Prepared => "ca rotate --phase switch",
        RotationPhase::Switched => "ca rotate --phase finish",
    }
}

pub(super) fn made(error: rcgen::Error) -> AuthorityError {
    AuthorityError::Make(error.to_string())
}
