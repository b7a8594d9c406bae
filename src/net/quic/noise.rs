//! Stray datagrams: quinn drops them silently, so they are counted here.
//!
//! Only those recognizable without a key. A first packet of the right shape that does not decrypt
//! is counted as a failed handshake.

use std::{io::IoSliceMut, sync::Arc};

use quinn::udp::RecvMeta;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, HashedConnectionIdGenerator};

use crate::{counters::Counters, protocol::counter::Counter};

/// Distinguishes stray datagrams from traffic by their shape and by the connection ids that we have issued.
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

    /// Counts the stray datagrams in the received buffers.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_no_packet_for_us_as_noise() {
        let (noise, _) = noise();
        let foreign = HashedConnectionIdGenerator::from_key(2).generate_cid();
        let cases = [
            vec![],
            vec![0x40],
            short(&[7; 3]),
            short(&foreign),
            vec![0xff; 5],
            long(0xc0, VERSION_1, &[7; 8], 1_199),
            long(0xc0, VERSION_1, &[7; 200], 100),
            long(0xc0, [9; 4], &[7; 8], 1_200),
            long(0xe0, VERSION_1, &foreign, 1_200),
        ];
        for datagram in cases {
            assert!(!noise.is_traffic(&datagram), "{:?}", &datagram[..datagram.len().min(20)]);
        }
    }

    #[test]
    fn knows_first_packets_and_the_ids_it_has_given_out() {
        let (noise, mut ids) = noise();
        let ours = ids.generate_cid();
        assert!(noise.is_traffic(&short(&ours)));
        assert!(noise.is_traffic(&long(0xe0, VERSION_1, &ours, 60)));
        assert!(noise.is_traffic(&long(0xc0, VERSION_1, &[7; 8], 1_200)));
        assert!(noise.is_traffic(&long(0xc0, [0; 4], &ours, 60)), "version negotiation");
    }

    #[test]
    fn counts_every_datagram_of_a_batch() {
        let (noise, mut ids) = noise();
        let ours = short(&ids.generate_cid());
        let mut batch = [&ours[..], &vec![0x41; ours.len()], &ours, &[0x41; 3]].concat();
        let meta = RecvMeta { len: batch.len(), stride: ours.len(), ..RecvMeta::default() };
        noise.count(&[IoSliceMut::new(&mut batch)], &[meta]);
        assert_eq!(noise.counters.get(Counter::DatagramsUnknown), 2);
    }

    fn noise() -> (Noise, HashedConnectionIdGenerator) {
        (Noise::new(1, Arc::default()), HashedConnectionIdGenerator::from_key(1))
    }

    fn short(id: &[u8]) -> Vec<u8> {
        [&[0x40][..], id, &[0; 20]].concat()
    }

    fn long(first: u8, version: [u8; 4], id: &[u8], len: usize) -> Vec<u8> {
        let mut datagram =
            [&[first][..], &version, &[u8::try_from(id.len()).unwrap()], id].concat();
        datagram.resize(len, 0);
        datagram
    }
}
