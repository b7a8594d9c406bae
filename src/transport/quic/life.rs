//! Signs of life: what the connections themselves notice, asked for a few times in a round.
//!
//! The end that dialed a connection sends a datagram in each round, when the detector says so; QUIC
//! acknowledges it. So each end hears the other once in a round, at the price of two packets and of no
//! task that wakes for an acknowledgement. What counts is that frames of any kind were received,
//! since those are authentic.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quinn::ConnectionStats;
use tokio::time::MissedTickBehavior;

use super::Shared;
use crate::{
    protocol::{
        liveness::TICKS_PER_INTERVAL,
        message::{Call, Heartbeat},
        route::Counter,
    },
    transport::NodeLink,
};

/// Every so many looks all connections are asked what they have received, so that traffic of other
/// kinds counts as life as well.
const FULL_LOOKS: u64 = 5;
/// How often the loss on a connection is looked at, in looks.
const LOSS_LOOKS: u64 = 100;
/// They are not asked more often than this.
const LOOK_MIN: Duration = Duration::from_millis(5);
/// So many datagrams tell a peer of a later life of ours, one a look, since some may be lost.
pub(super) const RENEWALS: u32 = 8;

/// Tells the detector of all who were heard, for as long as the actor lives.
pub(super) async fn watch(shared: Arc<Shared>, node: NodeLink) {
    let interval = node.config().gossip_interval;
    let mut looks = tokio::time::interval((interval / TICKS_PER_INTERVAL).max(LOOK_MIN));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sequence = 0;
    for look in 1_u64.. {
        looks.tick().await;
        let own = node.generation();
        let (mut heard, mut losses, mut renewal) = (Vec::new(), Vec::new(), None);
        let (now, all) = (node.now(), look.is_multiple_of(FULL_LOOKS));
        shared.table.for_each(|link| {
            if let Some((sign, at)) = link.progress(now, interval, all) {
                let met = link.met();
                heard.push((met.node, met.generation, sign, at));
            }
            if look.is_multiple_of(LOSS_LOOKS)
                && let Some(loss) = link.measure_loss()
            {
                losses.push((link.node().clone(), loss));
            }
            if link.is_to_be_told(own) {
                let datagram = renewal.get_or_insert_with(|| {
                    sequence += 1;
                    let (call, health) = (Call::Beat, 0);
                    let beat = Heartbeat { generation: own, sequence, call, health };
                    Bytes::from(beat.encode())
                });
                let sent = link.connection.send_datagram(datagram.clone()).is_ok();
                node.count(if sent { Counter::HeartbeatsSent } else { Counter::HeartbeatsUnsent });
            }
        });
        losses.iter().for_each(|(peer, loss)| node.measured_loss(peer, *loss));
        node.heard_all(heard);
    }
}

/// Frames received in authentic packets.
pub(super) fn frames_received(stats: &ConnectionStats) -> u64 {
    let rx = &stats.frame_rx;
    let rare = rx.ack_frequency
        + rx.connection_close
        + u64::from(rx.handshake_done)
        + rx.immediate_ack
        + rx.new_connection_id
        + rx.new_token
        + rx.path_challenge
        + rx.path_response
        + rx.retire_connection_id;
    let flow = rx.data_blocked
        + rx.max_data
        + rx.max_stream_data
        + rx.max_streams_bidi
        + rx.max_streams_uni
        + rx.stream_data_blocked
        + rx.streams_blocked_bidi
        + rx.streams_blocked_uni;
    let data = rx.crypto + rx.datagram + rx.reset_stream + rx.stop_sending + rx.stream;
    rx.acks + rx.ping + data + flow + rare
}
