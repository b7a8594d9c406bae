//! A service that counts what it has sold.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use gossipmonger::{
    Gossipmonger, NodeId,
    service::{Access, CallError},
    testkit::{Kit, Process},
};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
pub(crate) struct Buy {
    pub(crate) count: u32,
    /// What makes a call too long for a lane.
    pub(crate) padding: Vec<u8>,
}

gossipmonger::service! {
    /// A till.
    pub(crate) struct Till = "till", 1.0;
    1: call Buy -> u32;
}

/// How long a call may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(2);
/// How long a state may take to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Each node that starts from now on offers the service. Returns how much all of them have sold.
pub(crate) fn open(kit: &Kit) -> Arc<AtomicU32> {
    let sold = Arc::new(AtomicU32::new(0));
    let counts = Arc::clone(&sold);
    kit.on_start(move |process: Process| {
        let sold = Arc::clone(&counts);
        async move {
            let offer = process.node().offer::<Till>(Access::members()).call(move |buy: Buy, _| {
                let sold = Arc::clone(&sold);
                async move { sold.fetch_add(buy.count, Ordering::Relaxed) + buy.count }
            });
            process.keep(offer.start().await.unwrap());
        }
    });
    sold
}

pub(crate) async fn buy(from: &Gossipmonger, at: &NodeId, count: u32) -> Result<u32, CallError> {
    call(from, at, Buy { count, padding: Vec::new() }).await
}

pub(crate) async fn call(from: &Gossipmonger, at: &NodeId, buy: Buy) -> Result<u32, CallError> {
    let till = from.service::<Till>().at(at).expect("the node offers it");
    till.call(buy).within(DEADLINE).await
}
