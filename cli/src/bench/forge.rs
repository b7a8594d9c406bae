//! Thousands of first packets of QUIC handshakes: one recorded flight, encrypted again for each.
//!
//! Making such packets is not what limits an attacker: their keys follow from a connection id that is public (RFC 9001
//! section 5.2). Only the connection id differs each time, so the content of the packets is that of a real client.

use std::ops::Range;

use rustls::{
    Side,
    crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{Suite, Version},
};

/// A flight that can be sent any number of times.
pub(crate) struct Forge {
    suite: Suite,
    initials: Vec<Initial>,
    /// Length of the connection id.
    len: usize,
}

/// One datagram, unprotected.
#[derive(Debug)]
struct Initial {
    header: Vec<u8>,
    number: Range<usize>,
    payload: Vec<u8>,
}

impl Forge {
    /// Takes what a client sent before it got an answer; `None` if that is not a first flight.
    pub(crate) fn new(flight: &[Vec<u8>]) -> Option<Self> {
        let suite = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
        let len = destination(flight.first()?)?.len();
        let opened = flight.iter().map(|datagram| open(suite, datagram));
        Some(Self { suite, initials: opened.collect::<Option<_>>()?, len })
    }

    /// The flight with a connection id derived from a number.
    pub(crate) fn flight(&self, number: u64) -> Option<Vec<Vec<u8>>> {
        let id: Vec<u8> = number.to_be_bytes().into_iter().cycle().take(self.len).collect();
        self.initials.iter().map(|initial| initial.seal(self.suite, &id)).collect()
    }
}

impl Initial {
    fn seal(&self, suite: Suite, id: &[u8]) -> Option<Vec<u8>> {
        let keys = suite.keys(id, Side::Client, Version::V1).local;
        let mut header = self.header.clone();
        header.get_mut(ID_AT..ID_AT + id.len())?.copy_from_slice(id);
        let mut payload = self.payload.clone();
        let number = packet_number(&header[self.number.clone()]);
        let tag = keys.packet.encrypt_in_place(number, &header, &mut payload).ok()?;
        payload.extend_from_slice(tag.as_ref());
        // The sample is taken as if the number had four bytes (RFC 9001 section 5.4.2).
        let skip = 4 - self.number.len();
        let sample = payload.get(skip..skip + keys.header.sample_len())?.to_vec();
        let (first, rest) = header.split_first_mut()?;
        let number = &mut rest[self.number.start - 1..self.number.end - 1];
        keys.header.encrypt_in_place(&sample, first, number).ok()?;
        header.extend_from_slice(&payload);
        Some(header)
    }
}

/// Removes the protection of a client's first packet, which must fill its datagram.
fn open(suite: Suite, datagram: &[u8]) -> Option<Initial> {
    let id = destination(datagram)?;
    let keys = suite.keys(id, Side::Server, Version::V1).remote;
    // Flags and version, both ids with their lengths, an empty token, the length of the rest.
    let source = ID_AT + id.len();
    let token = source + 1 + usize::from(*datagram.get(source)?);
    let (token_len, at) = varint(datagram, token)?;
    let (rest, at) = varint(datagram, at + usize::try_from(token_len).ok()?)?;
    if at + usize::try_from(rest).ok()? != datagram.len() {
        return None;
    }
    let mut packet = datagram.to_vec();
    let sample = packet.get(at + 4..at + 4 + keys.header.sample_len())?.to_vec();
    let (first, others) = packet.split_first_mut()?;
    keys.header.decrypt_in_place(&sample, first, others.get_mut(at - 1..at + 3)?).ok()?;
    let end = at + usize::from(packet[0] & 3) + 1;
    // The bytes read beyond the number are not part of it, and this step must not change them.
    packet[end..].copy_from_slice(&datagram[end..]);
    let (header, payload) = packet.split_at_mut(end);
    let number = packet_number(&header[at..end]);
    let payload = keys.packet.decrypt_in_place(number, header, payload).ok()?.to_vec();
    Some(Initial { header: header.to_vec(), number: at..end, payload })
}

/// The destination connection id of a first packet.
fn destination(datagram: &[u8]) -> Option<&[u8]> {
    datagram.get(ID_AT..ID_AT + usize::from(*datagram.get(ID_AT - 1)?))
}

fn packet_number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A number of one to eight bytes (RFC 9000 section 16), and where the next field begins.
fn varint(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = *bytes.get(at)?;
    let len = 1_usize << (first >> 6);
    let rest = bytes.get(at + 1..at + len)?;
    let number = rest.iter().fold(u64::from(first & 0x3f), |n, byte| n << 8 | u64::from(*byte));
    Some((number, at + len))
}

/// After the flags, the version and the length of the connection id.
const ID_AT: usize = 6;
