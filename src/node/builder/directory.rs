//! The directory of a node, as a builder reads it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::error::{BuildError, lack};
use crate::{
    node::config::{Config, ConfigError},
    pki::file,
    store::{Store, memory::MemoryStore},
    tls::{ClientRoles, Identity, Naming, Roots},
};

#[cfg(feature = "config-file")]
type Settings = crate::node::config::file::ConfigFile;
/// Without the feature no file is read.
#[cfg(not(feature = "config-file"))]
#[derive(Default)]
struct Settings {}

/// A node's directory, and its `gossipmonger.toml`.
pub(super) struct Directory {
    path: PathBuf,
    #[cfg_attr(not(feature = "config-file"), expect(dead_code, reason = "there is none"))]
    settings: Settings,
}

impl Directory {
    /// Reads `gossipmonger.toml`, if it is there.
    pub(super) fn read(path: PathBuf) -> Result<Self, BuildError> {
        if !path.is_dir() {
            let path = path.display();
            return Err(lack("directory", format!("there is no directory {path}; {HOW_TO_MAKE}")));
        }
        let config = path.join(file::CONFIG);
        // A dangling link counts as present.
        let settings = match config.symlink_metadata() {
            Ok(_) => settings(&config)?,
            Err(_) => Settings::default(),
        };
        Ok(Self { path, settings })
    }

    /// Loads certificate, key and roots.
    pub(super) fn credentials(&self) -> Result<(Identity, Roots), BuildError> {
        let files = self.credential_files();
        if let Some(absent) = files.iter().find(|file| !file.exists()) {
            let absent = absent.display();
            return Err(lack("directory", format!("there is no {absent} in it; {HOW_TO_MAKE}")));
        }
        let [certificate, key, roots] = files;
        let identity = Identity::from_pem_files_named(&certificate, &key, &self.naming()?)?;
        Ok((identity, Roots::from_pem_file(&roots)?))
    }

    /// An error of a value that the file has.
    pub(super) fn refused(&self, error: &ConfigError) -> BuildError {
        BuildError::File { path: self.path.join(file::CONFIG), reason: error.to_string() }
    }
}

#[cfg(feature = "config-file")]
impl Directory {
    fn credential_files(&self) -> [PathBuf; 3] {
        self.settings.credential_files(&self.path)
    }

    fn naming(&self) -> Result<Naming, BuildError> {
        self.settings
            .naming()
            .map_err(|(_, reason)| BuildError::File { path: self.path.join(file::CONFIG), reason })
    }

    /// Applies the settings of the file.
    pub(super) fn apply(&self, config: Config) -> Config {
        self.settings.apply(config)
    }

    /// The roles of clients that the file gives.
    pub(super) fn clients(&self) -> ClientRoles {
        self.settings.clients.clone().unwrap_or_default().into_iter().collect()
    }

    fn store_file(&self) -> Option<PathBuf> {
        self.settings.store_file(&self.path)
    }
}

#[cfg(not(feature = "config-file"))]
impl Directory {
    fn credential_files(&self) -> [PathBuf; 3] {
        [file::CERTIFICATE, file::KEY, file::ROOTS].map(|name| self.path.join(name))
    }

    #[expect(clippy::unnecessary_wraps, reason = "the file may say otherwise, if it is read")]
    fn naming(&self) -> Result<Naming, BuildError> {
        Ok(Naming::default())
    }

    pub(super) fn apply(&self, config: Config) -> Config {
        config
    }

    pub(super) fn clients(&self) -> ClientRoles {
        ClientRoles::default()
    }

    fn store_file(&self) -> Option<PathBuf> {
        Some(self.path.join(file::STORE))
    }
}

#[cfg(feature = "config-file")]
fn settings(path: &Path) -> Result<Settings, BuildError> {
    use crate::node::config::file::FileError;
    Settings::read(path, []).map_err(|error| {
        let reason = match error {
            FileError::Parse { reason, .. } => reason,
            FileError::Read { source, .. } => source.to_string(),
            FileError::Range { source, .. } => source.to_string(),
            FileError::Dangling { target, .. } => {
                format!("is a link to {}, which is not there", target.display())
            }
        };
        BuildError::File { path: path.to_owned(), reason }
    })
}

#[cfg(not(feature = "config-file"))]
fn settings(path: &Path) -> Result<Settings, BuildError> {
    let reason = "this program cannot read it: add the feature where you depend on gossipmonger, features = \
                  [\"config-file\"], or remove the file and set its values in code"
        .to_owned();
    Err(BuildError::File { path: path.to_owned(), reason })
}

/// The store that was given, or that of the directory if it is asked for, or one in memory.
pub(super) fn store(
    given: (Option<Arc<dyn Store>>, bool),
    directory: Option<&Directory>,
) -> Result<Arc<dyn Store>, BuildError> {
    let kept = directory.and_then(Directory::store_file);
    match given {
        (Some(_), true) => Err(BuildError::Contradiction {
            settings: ["store", "keep_store"],
            remedy: "a node has one store: keep one of them",
        }),
        (Some(store), false) => Ok(store),
        (None, true) => open(directory, kept),
        (None, false) => match kept.filter(|kept| kept.exists()) {
            Some(kept) => {
                let kept = kept.display();
                Err(lack("store", format!("the directory has one, {kept}; {HOW_TO_GO_ON}")))
            }
            None => Ok(Arc::new(MemoryStore::new())),
        },
    }
}

/// Opens the store of the directory.
#[cfg(feature = "redb")]
fn open(
    directory: Option<&Directory>,
    kept: Option<PathBuf>,
) -> Result<Arc<dyn Store>, BuildError> {
    match (directory, kept) {
        (_, Some(file)) => Ok(Arc::new(crate::store::redb::RedbStore::open(file)?)),
        (Some(directory), None) => Err(BuildError::File {
            path: directory.path.join(file::CONFIG),
            reason: "store = \"memory\" and `keep_store` contradict each other: keep one of them"
                .to_owned(),
        }),
        (None, None) => Err(lack(
            "directory",
            "`keep_store` keeps the store in it: set it, or set `store` instead of `keep_store`",
        )),
    }
}

/// Nothing asks for it.
#[cfg(not(feature = "redb"))]
fn open(_: Option<&Directory>, _: Option<PathBuf>) -> Result<Arc<dyn Store>, BuildError> {
    Ok(Arc::new(MemoryStore::new()))
}

/// Refuses a certificate that every peer with the same roots would refuse.
pub(super) fn judged(
    identity: &Identity,
    roots: &Roots,
    directory: Option<&Directory>,
    now: SystemTime,
) -> Result<(), BuildError> {
    roots.judge(identity, now).map(drop).map_err(|error| match directory {
        Some(directory) => error.in_file(&directory.credential_files()[0]).into(),
        None => error.into(),
    })
}

const HOW_TO_MAKE: &str = "`gossipmonger join` and `gossipmonger cert issue` make one, and in development \
     gossipmonger::pki::throwaway";
const HOW_TO_GO_ON: &str = "without it the node would have lost its keys: call `keep_store` (feature `redb`) to go on \
     with it, or set `store`, which may be a new MemoryStore";
