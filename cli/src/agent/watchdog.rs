//! systemd's watchdog: it restarts an agent that no longer reports that its node works.

use std::time::Duration;

use gossipmonger::{Error, Gossipmonger};
use sd_notify::NotifyState;

use super::notify;

/// Reports that the node works, three times as often as the watchdog asks for.
pub(super) async fn keep_alive(node: Gossipmonger) {
    let Some(most) = sd_notify::watchdog_enabled() else { return };
    let mut ticks = tokio::time::interval((most / 3).max(PERIOD_MIN));
    loop {
        ticks.tick().await;
        if is_alive(&node, most).await {
            notify(vec![NotifyState::Watchdog]).await;
        }
    }
}

/// Whether an empty write passes through the node's storage and its store in time: it changes nothing, and is not
/// answered if either hangs.
async fn is_alive(node: &Gossipmonger, patience: Duration) -> bool {
    let why = match tokio::time::timeout(patience, node.set_many(Vec::new())).await {
        // A store that is full answers too, and a restart would not help.
        Ok(Ok(_) | Err(Error::NotDurable(_))) => return true,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("its storage has not answered within {patience:?}"),
    };
    tracing::error!("the watchdog is not told that the node is alive: {why}");
    false
}

/// The shortest time between two reports.
const PERIOD_MIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use gossipmonger::{
        Backends, ClusterId, Config, Datacenter, NodeId,
        net::memory::MemoryNetwork,
        store::{Change, Store, StoreError, Stored, memory::MemoryStore},
        tls::PeerName,
    };

    use super::*;

    /// A store on a disk that hangs while it is told to.
    #[derive(Debug, Default)]
    struct Disk {
        kept: MemoryStore,
        hangs: AtomicBool,
        is_full: AtomicBool,
    }

    impl Store for Disk {
        fn load(&self) -> Result<Stored, StoreError> {
            self.kept.load()
        }

        fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
            while self.hangs.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            if self.is_full.load(Ordering::Acquire) {
                let (location, reason) = ("here".to_owned(), "no space left".to_owned());
                return Err(StoreError::Io { location, reason });
            }
            self.kept.commit(changes)
        }
    }

    async fn node(disk: &Arc<Disk>) -> Gossipmonger {
        let (cluster, datacenter) = (ClusterId::new("c").unwrap(), Datacenter::new("d").unwrap());
        let name = PeerName { cluster, datacenter, node: NodeId::new("a").unwrap() };
        let store: Arc<dyn Store> = disk.clone();
        let backends = Backends::new(MemoryNetwork::new().place()).with_store(store);
        Gossipmonger::spawn(Config::new(&name).local(), backends).await.unwrap().0
    }

    /// Longer than any machine that runs this is busy.
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_node_whose_store_hangs_is_not_alive_until_it_answers() {
        let disk = Arc::new(Disk::default());
        let node = node(&disk).await;
        assert!(is_alive(&node, LONG).await);
        disk.hangs.store(true, Ordering::Release);
        let write = tokio::spawn({
            let node = node.clone();
            async move { node.set("color", "green").await }
        });
        while is_alive(&node, Duration::from_millis(50)).await {}
        disk.hangs.store(false, Ordering::Release);
        assert!(is_alive(&node, LONG).await);
        write.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_node_whose_disk_is_full_is_alive() {
        let disk = Arc::new(Disk::default());
        let node = node(&disk).await;
        disk.is_full.store(true, Ordering::Release);
        assert!(node.set("color", "green").await.is_err());
        assert!(is_alive(&node, LONG).await);
    }

    #[tokio::test]
    async fn a_node_that_has_ended_is_not_alive() {
        let node = node(&Arc::default()).await;
        node.shutdown().await;
        assert!(!is_alive(&node, LONG).await);
    }
}
