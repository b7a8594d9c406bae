//! The contract of the `Store` trait. To hold a store of your own against it, see [`check`].

use gossipmonger::store::{Change, Store, Stored, memory::MemoryStore};
use proptest::{prelude::*, test_runner::TestCaseResult};

use super::sample;

/// Commits to `store`, an empty one, what it also applies in memory; both must agree after every
/// commit and after every `reopen`, which does with the store what a restart would.
pub(crate) fn check<S: Store>(
    mut store: S,
    commits: &[Vec<Change>],
    reopen: impl Fn(S) -> S,
) -> TestCaseResult {
    let mut expected = Stored::default();
    prop_assert_eq!(&store.load().unwrap(), &expected);
    for changes in commits {
        store.commit(changes).unwrap();
        changes.iter().for_each(|change| expected.apply(change));
        prop_assert_eq!(&store.load().unwrap(), &expected);
        store = reopen(store);
        prop_assert_eq!(&store.load().unwrap(), &expected);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn memory_keeps_what_was_committed(commits in sample::commits()) {
        check(MemoryStore::new(), &commits, |store| store)?;
    }
}

mod redb {
    use std::fs;

    use gossipmonger::store::{StoreError, redb::RedbStore};
    use tempfile::TempDir;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

        #[test]
        fn redb_keeps_what_was_committed(commits in sample::commits()) {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("store");
            check(RedbStore::open(&path).unwrap(), &commits, |store| {
                drop(store);
                RedbStore::open(&path).unwrap()
            })?;
        }
    }

    #[test]
    fn refuses_a_file_that_is_open_already() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        let first = RedbStore::open(&path).unwrap();
        let error = RedbStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::InUse { .. }), "{error}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        drop(first);
        assert!(RedbStore::open(&path).is_ok());
    }

    #[test]
    #[cfg(unix)]
    fn refuses_a_file_that_others_may_read() {
        use std::os::unix::fs::PermissionsExt;

        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        drop(RedbStore::open(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o640, 0o604, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = RedbStore::open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod 600 {}", path.display())), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(RedbStore::open(&path).is_ok());
    }

    #[test]
    fn refuses_what_is_not_a_store() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        for content in [vec![], vec![0; 72 << 10], b"[cluster]\nname = \"demo\"\n".repeat(1000)] {
            sample::write_private(&path, &content);
            let error = RedbStore::open(&path).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert_eq!(fs::read(&path).unwrap(), content, "it must not be written to");
        }
    }

    #[test]
    fn refuses_a_directory_that_is_not_there() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("missing").join("store");
        let error = RedbStore::open(&path).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
    }

    #[test]
    fn leaves_nothing_but_the_file() {
        let directory = TempDir::new().unwrap();
        drop(RedbStore::open(directory.path().join("store")).unwrap());
        let names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["store"]);
    }

    #[test]
    fn shows_no_secrets() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("store");
        let store = RedbStore::open(&path).unwrap();
        assert_eq!(format!("{store:?}"), format!("RedbStore({path:?})"));
    }
}
