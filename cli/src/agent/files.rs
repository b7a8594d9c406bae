//! Watches the files of certificate, key and roots, which anything may replace at any time.
//!
//! They are looked at, not subscribed to: that works on every file system, through symbolic links that
//! are swapped (as Kubernetes and SPIRE do), and needs no one to tell us. They are loaded when they have
//! stopped changing. Files that cannot be used may be on their way still, so they are tried again for
//! some seconds before that is said; what is in force stays in force.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::time::MissedTickBehavior;

use super::{
    offload::{FILE_TIMEOUT, FILES, offload},
    server::Agent,
};

/// Watches until the task is aborted.
pub(super) async fn watch(agent: Arc<Agent>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What has changed while the node started is found by the first look.
    let mut watch = Watch::default();
    loop {
        looks.tick().await;
        let files = agent.reloader.credential_files().await;
        let look = move || Ok(Stamps::of(&files));
        let stamps = match offload(&FILES, LOOKING, FILE_TIMEOUT, look).await {
            Ok(stamps) => stamps,
            Err(error) => {
                agent.reloader.refuse(&error);
                // Loaded anew when they answer again: that takes back what was just said.
                watch = Watch::default();
                continue;
            }
        };
        if !watch.is_to_be_tried(stamps) {
            continue;
        }
        match agent.reloader.renew().await {
            Ok(()) => watch.settle(),
            Err(error) => {
                if watch.failed() {
                    agent.reloader.refuse(&error);
                }
            }
        }
    }
}

/// What was seen of the files, and what came of it.
#[derive(Debug, Default)]
struct Watch {
    seen: Stamps,
    /// Looks since they have last changed or were last tried to no avail.
    quiet: u32,
    /// How often the present ones could not be used.
    failures: u32,
    settled: bool,
}

impl Watch {
    /// Takes how the files look now; says whether they are to be loaded.
    fn is_to_be_tried(&mut self, stamps: Stamps) -> bool {
        if stamps != self.seen {
            *self = Self { seen: stamps, ..Self::default() };
            return false;
        }
        self.quiet = self.quiet.saturating_add(1);
        let wait = if self.failures < FAILURES { 1 } else { RETRY_LOOKS };
        !self.settled && self.quiet >= wait
    }

    /// What is in the files is in force.
    fn settle(&mut self) {
        self.settled = true;
    }

    /// It cannot be used; says whether that is to be told.
    fn failed(&mut self) -> bool {
        self.quiet = 0;
        self.failures = self.failures.saturating_add(1);
        self.failures >= FAILURES
    }
}

/// How the files look from outside; of one that is not there, nothing.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stamps([Option<[i128; 7]>; 3]);

impl Stamps {
    fn of(files: &[PathBuf; 3]) -> Self {
        let mut stamps = [None; 3];
        for (stamp, file) in stamps.iter_mut().zip(files) {
            // Follows links: whatever is behind them now has another inode than what was.
            *stamp = fs::metadata(file).ok().as_ref().map(Self::one);
        }
        Self(stamps)
    }

    fn one(file: &Metadata) -> [i128; 7] {
        [
            file.dev().into(),
            file.ino().into(),
            file.size().into(),
            file.mtime().into(),
            file.mtime_nsec().into(),
            file.ctime().into(),
            file.ctime_nsec().into(),
        ]
    }
}

/// What is said of files that are waited for.
const LOOKING: &str = "looking at certificate, key and roots";
/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// So often files that cannot be used are tried, a look apart, before it is told.
pub(super) const FAILURES: u32 = 4;
/// After that they are tried again this many looks apart: a certificate may become valid.
const RETRY_LOOKS: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(version: i128) -> Stamps {
        Stamps([Some([version; 7]), None, None])
    }

    #[test]
    fn does_not_load_files_that_are_changing() {
        let mut watch = Watch::default();
        for version in 1..10 {
            assert!(!watch.is_to_be_tried(stamps(version)));
        }
        assert!(watch.is_to_be_tried(stamps(9)));
        watch.settle();
        assert!(!watch.is_to_be_tried(stamps(9)));
        assert!(!watch.is_to_be_tried(stamps(10)));
        assert!(watch.is_to_be_tried(stamps(10)));
    }

    #[test]
    fn tells_of_files_that_stay_unusable_and_tries_them_again_later() {
        let mut watch = Watch::default();
        assert!(!watch.is_to_be_tried(stamps(1)));
        for failure in 1..=FAILURES {
            assert!(watch.is_to_be_tried(stamps(1)));
            assert_eq!(watch.failed(), failure == FAILURES);
        }
        let waits = (1..).find(|_| watch.is_to_be_tried(stamps(1)));
        assert_eq!(waits, Some(RETRY_LOOKS));
        assert!(watch.failed());
        // Others are tried at once.
        assert!(!watch.is_to_be_tried(stamps(2)) && watch.is_to_be_tried(stamps(2)));
        assert!(!watch.failed());
    }

    #[test]
    fn sees_a_link_that_is_swapped() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("node.pem"), "same").unwrap();
        }
        std::os::unix::fs::symlink("one", path("data")).unwrap();
        let files = ["data/node.pem", "none", "none"].map(path);
        let before = Stamps::of(&files);
        assert_eq!(before, Stamps::of(&files));
        std::os::unix::fs::symlink("two", path("new")).unwrap();
        fs::rename(path("new"), path("data")).unwrap();
        assert_ne!(before, Stamps::of(&files));
    }
}
