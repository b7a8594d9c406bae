//! Why a node could not be built.

use std::path::PathBuf;

use crate::{node::config::ConfigError, store::StoreError, tls::LoadError};

/// A node could not be built from these settings. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A setting without which there is no node.
    #[error("`{setting}` is missing: {remedy}")]
    Missing {
        /// The setting.
        setting: &'static str,
        /// What to do.
        remedy: String,
    },
    /// Settings of which only one may be given.
    #[error("`{}` and `{}` contradict each other: {remedy}", settings[0], settings[1])]
    Contradiction {
        /// The settings.
        settings: [&'static str; 2],
        /// What to do.
        remedy: &'static str,
    },
    /// A value is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Certificate, key or roots cannot be used.
    #[error(transparent)]
    Credentials(#[from] LoadError),
    /// The `gossipmonger.toml` of the directory cannot be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason, and what to do.
        reason: String,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) fn lack(setting: &'static str, remedy: impl Into<String>) -> BuildError {
    BuildError::Missing { setting, remedy: remedy.into() }
}
