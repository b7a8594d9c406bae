//! Certificates for development, in one call.

use std::path::Path;

use super::{
    authority::{Authority, AuthorityOptions},
    error::AuthorityError,
    files::Existing,
    leaf::LEAF_VALIDITY,
};
use crate::protocol::id::{ClusterId, Datacenter, InvalidLabel, NodeId};

/// Makes a directory with certificate, key and roots for each of `nodes`: `directory/NODE`, for
/// [`Builder::directory`](crate::Builder::directory) or for an agent. All are in the datacenter `dev`. It is for development and
/// tests: nobody keeps the authority's key, so no node can be added later and no certificate renewed. They are valid
/// for [`LEAF_VALIDITY`].
///
/// # Errors
/// [`AuthorityError::Exists`] if there is one of the directories; then nothing is written. [`AuthorityError::Make`] if a
/// name is not a label (`a-z`, `0-9`, `.`, `_`, `-`). [`AuthorityError::Write`], naming the file.
pub fn throwaway<N: AsRef<str>>(
    directory: impl AsRef<Path>,
    cluster: &str,
    nodes: impl IntoIterator<Item = N>,
) -> Result<(), AuthorityError> {
    let label = |error: InvalidLabel| AuthorityError::Make(error.to_string());
    let authority =
        Authority::create(ClusterId::new(cluster).map_err(label)?, &AuthorityOptions::default())?;
    let datacenter = Datacenter::new(DATACENTER).map_err(label)?;
    let mut made = Vec::new();
    for node in nodes {
        let node = NodeId::new(node.as_ref()).map_err(label)?;
        let path = directory.as_ref().join(node.as_str());
        if path.exists() {
            return Err(AuthorityError::Exists { path });
        }
        made.push((path, authority.issue(node, datacenter.clone(), LEAF_VALIDITY)?));
    }
    made.iter().try_for_each(|(path, issued)| issued.save(path, Existing::Refuse))
}

const DATACENTER: &str = "dev";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_a_name_that_is_not_a_label_and_makes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let made = |cluster, node| throwaway(directory.path(), cluster, ["a", node]);
        for (cluster, node, names) in
            [("demo", "B", "\"B\""), ("demo", "..", "\"..\""), ("", "b", "\"\"")]
        {
            let error = made(cluster, node).unwrap_err().to_string();
            assert!(error.contains(names) && error.contains("not a label"), "{error}");
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn overwrites_no_directory_and_makes_none_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        throwaway(directory.path(), "demo", ["b"]).unwrap();
        let error = throwaway(directory.path(), "demo", ["a", "b"]).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        assert!(!directory.path().join("a").exists());
    }
}
