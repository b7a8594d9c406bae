//! The connection between an issuer and its client.

use std::{sync::Arc, time::Duration};

use quinn::{TransportConfig, VarInt};

use super::request::ANSWER_BYTES_MAX;

/// From the first packet to the answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One stream in each direction, and low limits.
pub(super) fn transport() -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .receive_window(VarInt::from_u32(2 * ANSWER_BYTES_MAX as u32))
        .stream_receive_window(VarInt::from_u32(ANSWER_BYTES_MAX as u32))
        .send_window(2 * ANSWER_BYTES_MAX as u64)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(None)
        .max_idle_timeout(Some(VarInt::from_u32(REQUEST_TIMEOUT.as_millis() as u32).into()));
    Arc::new(transport)
}

/// The application error code of a close because another client gets the slot.
pub(super) const GIVE_WAY: VarInt = VarInt::from_u32(1);
