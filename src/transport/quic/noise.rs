//! Datagrams that are nothing to us: quinn drops them without a word, so they are counted here.
//!
//! Only what can be told without a key. A first packet of the right shape that does not decrypt is
//! counted as a handshake that failed.

use std::{io::IoSliceMut, sync::Arc};

use quinn::udp::RecvMeta;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator};

use crate::{counters::Counters, protocol::route::Counter};

/// Tells noise from traffic by the shape of datagrams and by the connection ids we have given out.
pub(super) struct Noise {
    ids: HashedConnectionIdGenerator,
    id_bytes: usize,
    counters: Arc<Counters>,
}

impl Noise {
    /// `key`: of the connection ids.
    pub(super) fn new(key: u64, counters: Arc<Counters>) -> Self {
        let ids = HashedConnectionIdGenerator::from_key(key);
        let id_bytes = ids.cid_len();
        Self { ids, id_bytes, counters }
    }

    /// Counts the noise in what the socket has received.
    pub(super) fn count(&self, buffers: &[IoSliceMut<'_>], meta: &[RecvMeta]) {
        let received = buffers.iter().zip(meta);
        let datagrams = received.flat_map(|(buffer, meta)| {
            buffer[..meta.len.min(buffer.len())].chunks(meta.stride.max(1))
        });
        let noise = datagrams.filter(|datagram| !self.is_traffic(datagram)).count();
        if noise > 0 {
            self.counters.add(Counter::DatagramsUnknown, u64::try_from(noise).unwrap_or(u64::MAX));
        }
    }

    fn is_traffic(&self, datagram: &[u8]) -> bool {
        let Some((first, rest)) = datagram.split_first() else { return false };
        if first & LONG_HEADER == 0 {
            return rest.get(..self.id_bytes).is_some_and(|id| self.is_ours(id));
        }
        let Some((version, rest)) = rest.split_first_chunk::<4>() else { return false };
        let Some((id_bytes, rest)) = rest.split_first() else { return false };
        let Some(id) = rest.get(..usize::from(*id_bytes)) else { return false };
        self.is_ours(id)
            || (*version == VERSION_1
                && first & LONG_TYPE == INITIAL
                && datagram.len() >= INITIAL_BYTES_MIN)
    }

    fn is_ours(&self, id: &[u8]) -> bool {
        id.len() == self.id_bytes && self.ids.validate(&ConnectionId::new(id)).is_ok()
    }
}

impl std::fmt::Debug for Noise {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Noise").finish_non_exhaustive()
    }
}

// RFC 9000, section 17.2.
const LONG_HEADER: u8 = 0x80;
const LONG_TYPE: u8 = 0x30;
const INITIAL: u8 = 0x00;
const VERSION_1: [u8; 4] = [0, 0, 0, 1];
/// RFC 9000, section 14.1: a client pads its first datagram to at least this.
const INITIAL_BYTES_MIN: usize = 1_200;
