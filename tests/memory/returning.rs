//! A node that comes back from an older copy of its store: its peers say so, and it hears it.

use std::sync::{Arc, Mutex};

use gossipmonger::{
    Event,
    protocol::{reason::Cause, returning::Returned},
    store::{Change, Store, StoreError, Stored, memory::MemoryStore},
};

use crate::harness::{Lab, all_live, next_event, until};

/// What a store held when it was copied.
#[derive(Debug)]
struct Copied(Mutex<Stored>);

impl Store for Copied {
    fn load(&self) -> Result<Stored, StoreError> {
        Ok(self.0.lock().unwrap().clone())
    }

    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let mut stored = self.0.lock().unwrap();
        changes.iter().for_each(|change| stored.apply(change));
        Ok(())
    }

    fn is_instant(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_restored_from_a_copy_of_its_store_is_reported_by_its_peers_and_hears_it_itself() {
    let lab = Lab::default();
    let a = lab.spawn("a", &[]).await;
    let storage = Arc::new(MemoryStore::new());
    let mut config = lab.config("b");
    config.storage = storage.clone();
    let b = lab.spawn_with(config, &["a"]).await;
    all_live(&[&a, &b]).await;
    b.set("kept", "1").await.unwrap();
    let copied = storage.load().unwrap();
    b.set("lost", "1").await.unwrap();
    b.set("lost too", "1").await.unwrap();
    until("a has it", || a.get(b.node(), "lost too").is_some()).await;
    let (earlier, _) = a.snapshot().version(b.node()).unwrap();
    b.shutdown().await;
    assert_eq!(b.behind(), None);
    let mut events = a.subscribe();
    let mut config = lab.config("b");
    config.storage = Arc::new(Copied(Mutex::new(copied)));
    let b = lab.spawn_with(config, &["a"]).await;
    let returned = |event| match event {
        Event::PeerReturned { how, .. } => Some(how),
        _ => None,
    };
    let how = next_event(&mut events, returned).await;
    assert_eq!(how, Returned::Behind { earlier, versions: 2 });
    let explained = |cause| {
        let snapshot = a.snapshot();
        let history = snapshot.why(b.node());
        history.is_some_and(|history| history.iter().any(|row| row.reason.cause == cause))
    };
    until("a says why", || explained(Cause::Behind) && explained(Cause::Renewed)).await;
    until("b hears it", || b.behind().is_some()).await;
    let behind = b.behind().unwrap();
    assert_eq!((behind.generation, behind.versions), (earlier, 2));
    assert_eq!(&behind.told_by, a.node());
    until("only what the copy had is left", || {
        a.get(b.node(), "kept").is_some() && a.get(b.node(), "lost").is_none()
    })
    .await;
}
