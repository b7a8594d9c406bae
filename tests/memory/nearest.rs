//! Which datacenter the calls of a node go to, by the round trips that its connections measure.

use std::time::Duration;

use gossipmonger::{
    Gossipmonger,
    protocol::service::{ServiceId, ServiceName},
    service::{Access, Offer},
};
use serde::{Deserialize, Serialize};

use crate::harness::{Lab, all_live, id, until};

#[derive(Debug, Serialize, Deserialize)]
struct Where;

gossipmonger::service! {
    struct Atlas = "atlas", 1.0;

    1: call Where -> String, idempotent;
}

const LONG: Duration = Duration::from_secs(600);
const MS: Duration = Duration::from_millis(1);

async fn offers(node: &Gossipmonger, place: &str) -> Offer {
    let place = place.to_owned();
    let offer = node.offer::<Atlas>(Access::members()).call(move |_: Where, _| {
        let place = place.clone();
        async move { place }
    });
    offer.start().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn calls_go_to_the_datacenter_that_is_measured_to_be_the_nearest() {
    let atlas = ServiceId { name: ServiceName::new("atlas").unwrap(), major: 1 };
    // By the hash of its name, one of the two would be the first whatever is measured.
    for (near, far) in [("eu", "us"), ("us", "eu")] {
        let lab = Lab::default();
        let a = lab.spawn_with(lab.config_in("home", "a"), &[]).await;
        let (mut nodes, mut offered) = (vec![a.clone()], Vec::new());
        for (place, delay) in [(near, 2 * MS), (far, 40 * MS)] {
            for number in 1..=2 {
                let name = format!("{place}{number}");
                lab.network.set_delay_between(&id("a"), &id(&name), delay);
                let node = lab.spawn_with(lab.config_in(place, &name), &["a"]).await;
                offered.push(offers(&node, place).await);
                nodes.push(node);
            }
        }
        all_live(&nodes.iter().collect::<Vec<_>>()).await;
        let stub = a.service::<Atlas>();
        stub.ready(4, LONG).await.unwrap();
        until("the nearest one is known", || {
            let first = a.explain(&atlas).into_iter().next();
            first.is_some_and(|first| first.offer.node.as_str().starts_with(near))
        })
        .await;
        for _ in 0..20 {
            assert_eq!(stub.call(Where).await.unwrap(), near);
        }
    }
}
