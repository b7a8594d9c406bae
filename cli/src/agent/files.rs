//! Watches the files of certificate, key and roots, which any program may replace at any time.
//!
//! The agent polls them, instead of subscribing to changes: that works on every file system, through symbolic links
//! that are swapped (as Kubernetes and SPIRE do), and needs no notification. It loads them when they have stopped
//! changing. Files that cannot be used may still be incomplete, so it tries again for some seconds before it reports
//! them; the active credentials stay active.

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
    // The first look finds what changed while the node started.
    let mut watch = Watch::default();
    loop {
        looks.tick().await;
        let files = agent.reloader.credential_files().await;
        let look = move || Ok(Stamps::of(&files));
        let stamps = match offload(&FILES, LOOKING, FILE_TIMEOUT, look).await {
            Ok(stamps) => stamps,
            Err(error) => {
                agent.reloader.refuse(&error);
                // Loaded again when the files answer again: that withdraws the report.
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

/// What was seen of the files, and the result.
#[derive(Debug, Default)]
struct Watch {
    seen: Stamps,
    /// Looks since the files last changed or were last tried without success.
    quiet: u32,
    /// How often the present files could not be used.
    failures: u32,
    settled: bool,
}

impl Watch {
    /// Takes the present stamps; says whether the files must be loaded.
    fn is_to_be_tried(&mut self, stamps: Stamps) -> bool {
        if stamps != self.seen {
            *self = Self { seen: stamps, ..Self::default() };
            return false;
        }
        self.quiet = self.quiet.saturating_add(1);
        let wait = if self.failures < FAILURES { 1 } else { RETRY_LOOKS };
        !self.settled && self.quiet >= wait
    }

    /// The content of the files is active.
    fn settle(&mut self) {
        self.settled = true;
    }

    /// The files cannot be used; says whether to report that.
    fn failed(&mut self) -> bool {
        self.quiet = 0;
        self.failures = self.failures.saturating_add(1);
        self.failures >= FAILURES
    }
}

/// The metadata of the files; nothing for a file that does not exist.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stamps([Option<[i128; 7]>; 3]);

impl Stamps {
    fn of(files: &[PathBuf; 3]) -> Self {
        let mut stamps = [None; 3];
        for (stamp, file) in stamps.iter_mut().zip(files) {
            // Follows links: a file that replaced the target has another inode.
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

/// How messages call this.
const LOOKING: &str = "looking at certificate, key and roots";
/// How often the agent looks at the files.
const LOOK: Duration = Duration::from_secs(1);
/// Files that cannot be used are tried this many times, one look apart, before the agent reports them.
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
        // Other files are tried at once.
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
