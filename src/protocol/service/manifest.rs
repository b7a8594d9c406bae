//! The manifest: what a node offers, as one value in its own map, so a reader never sees only some of its offers.

use bincode::{config, error::DecodeError};

use super::{
    ServiceId, ServiceName, ServiceVersion,
    clients::{CLIENT_NAMES_MAX, Clients, Rank},
    exposed::EXPOSED,
};
use crate::protocol::id::InvalidLabel;

/// The key of a node's manifest in its own map.
pub const MANIFEST_KEY: &str = "~services";
/// Most offers of one node.
pub const OFFERS_MAX: usize = 256;
/// Most names of clients in all offers of one node.
pub const NAMES_MAX: usize = 1_024;
/// Longest manifest, in bytes. A valid one is never longer: [`OFFERS_MAX`] offers of [`OFFER_BYTES_MAX`] are 19.5 KiB,
/// and [`NAMES_MAX`] names are 4 KiB.
pub const MANIFEST_BYTES_MAX: usize = 24 << 10;
/// Longest encoded offer without names of clients, in bytes: a name of 63 and its length, two numbers of up to 3, two
/// bytes, one number of up to 5, and a count of names.
pub const OFFER_BYTES_MAX: usize = 64 + 2 * 3 + 2 + 5 + 1;

/// What one node offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Whether the node takes no new calls, to any of its offers.
    pub draining: bool,
    /// By name and major version, each of these at most once; at most [`OFFERS_MAX`].
    pub offers: Vec<Offered>,
}

/// One offer of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// The name of the service.
    pub name: ServiceName,
    /// Its version.
    pub version: ServiceVersion,
    /// How many calls the node wants, relative to the weights of other providers; at least 1.
    pub weight: u8,
    /// The clients that may call it.
    pub clients: Clients,
    /// Counts the registrations of this service by the node in one generation: a service that was withdrawn and is
    /// offered again has another epoch.
    pub epoch: u32,
}

/// A manifest breaks a rule of the format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadManifest {
    /// It has a format that this version does not know.
    #[error("unknown manifest format {0}, only {FORMAT} and {FORMAT_OF_NAMES} are known")]
    UnknownFormat(u8),
    /// It is longer than allowed.
    #[error("manifest of {bytes} bytes, at most {MANIFEST_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length, in bytes.
        bytes: usize,
    },
    /// It has more offers than allowed.
    #[error("manifest with {offers} offers, at most {OFFERS_MAX} are allowed")]
    TooMany {
        /// The number of offers that it claims to have.
        offers: u64,
    },
    /// The name of an offer is not the name of a service.
    #[error("bad name of an offer: {0}")]
    BadName(#[from] InvalidLabel),
    /// A number is malformed or too large for its field.
    #[error("malformed or too large number in the manifest")]
    BadNumber,
    /// The weight of an offer is 0.
    #[error("the offer {name} {version} has weight 0, at least 1 is required")]
    NoWeight {
        /// The name of the service.
        name: ServiceName,
        /// Its version.
        version: ServiceVersion,
    },
    /// The name of an offer is reserved.
    #[error("{name} is a reserved name")]
    Reserved {
        /// The name.
        name: ServiceName,
    },
    /// The offers are not sorted by name and major version, or two of them are equal in both.
    #[error("the offer {name} {version} is out of order, or there twice")]
    NotSorted {
        /// The name of the service.
        name: ServiceName,
        /// Its version.
        version: ServiceVersion,
    },
    /// The bytes end within the manifest.
    #[error("the manifest is truncated")]
    Truncated,
    /// An offer names more clients than allowed, or all offers together do.
    #[error(
        "the offers name too many clients: at most {CLIENT_NAMES_MAX} each, {NAMES_MAX} together, are allowed"
    )]
    TooManyNames,
    /// The names of an offer's clients are not sorted.
    #[error("the names of clients of the offer {name} {version} are out of order, or there twice")]
    NamesNotSorted {
        /// The name of the service.
        name: ServiceName,
        /// Its version.
        version: ServiceVersion,
    },
    /// Bytes follow the last offer.
    #[error("{bytes} bytes after the end of the manifest")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
}

impl Manifest {
    /// The value for [`MANIFEST_KEY`]. A reader refuses it unless [`Self::check`] accepts the manifest.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // The older format wherever it suffices: earlier versions read it.
        let has_names = self.offers.iter().any(|offer| !offer.clients.names().is_empty());
        let format = if has_names { FORMAT_OF_NAMES } else { FORMAT };
        let mut bytes = vec![format, flag(self.draining, DRAINING)];
        put_number(&mut bytes, self.offers.len() as u64);
        for offer in &self.offers {
            let name = offer.name.as_str().as_bytes();
            bytes.push(u8::try_from(name.len()).expect("a name has at most 63 bytes"));
            bytes.extend(name);
            put_number(&mut bytes, offer.version.major.into());
            put_number(&mut bytes, offer.version.minor.into());
            bytes.extend([offer.weight, admission(&offer.clients)]);
            put_number(&mut bytes, offer.epoch.into());
            if has_names {
                let names = offer.clients.names();
                bytes.push(u8::try_from(names.len()).expect("an offer has at most 64 names"));
                names.iter().for_each(|name| bytes.extend(name.to_le_bytes()));
            }
        }
        bytes
    }

    /// The manifest in a value of [`MANIFEST_KEY`]. Flags that this version does not know are ignored.
    ///
    /// # Errors
    /// [`BadManifest`] names the first rule that the bytes break. It never panics, and allocates for at most
    /// [`OFFERS_MAX`] offers.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, BadManifest> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(BadManifest::TooLong { bytes: bytes.len() });
        }
        let rest = &mut bytes;
        let has_names = match byte(rest)? {
            FORMAT => false,
            FORMAT_OF_NAMES => true,
            unknown => return Err(BadManifest::UnknownFormat(unknown)),
        };
        let draining = byte(rest)? & DRAINING != 0;
        let count = number(rest)?;
        if count > OFFERS_MAX as u64 {
            return Err(BadManifest::TooMany { offers: count });
        }
        let offers =
            (0..count).map(|_| Offered::decode(rest, has_names)).collect::<Result<_, _>>()?;
        if !rest.is_empty() {
            return Err(BadManifest::TrailingBytes { bytes: rest.len() });
        }
        let manifest = Self { draining, offers };
        manifest.check()?;
        Ok(manifest)
    }

    /// Whether readers accept it.
    ///
    /// # Errors
    /// [`BadManifest`] if there are more than [`OFFERS_MAX`] offers, an offer has no weight or the name of the exposed
    /// actors, they name too many clients, or the offers are not sorted.
    pub fn check(&self) -> Result<(), BadManifest> {
        if self.offers.len() > OFFERS_MAX {
            return Err(BadManifest::TooMany { offers: self.offers.len() as u64 });
        }
        if let Some(offer) = self.offers.iter().find(|offer| offer.weight == 0) {
            return Err(BadManifest::NoWeight { name: offer.name.clone(), version: offer.version });
        }
        let names = |offer: &Offered| offer.clients.names().len();
        if self.offers.iter().any(|offer| names(offer) > CLIENT_NAMES_MAX)
            || self.offers.iter().map(names).sum::<usize>() > NAMES_MAX
        {
            return Err(BadManifest::TooManyNames);
        }
        if let Some(offer) = self.offers.iter().find(|offer| offer.name.as_str() == EXPOSED) {
            return Err(BadManifest::Reserved { name: offer.name.clone() });
        }
        match self.offers.windows(2).find(|pair| pair[0].key() >= pair[1].key()) {
            Some([_, late]) => {
                Err(BadManifest::NotSorted { name: late.name.clone(), version: late.version })
            }
            _ => Ok(()),
        }
    }
}

impl Offered {
    /// The service that callers ask for.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        ServiceId { name: self.name.clone(), major: self.version.major }
    }

    /// What offers are sorted by.
    #[must_use]
    pub const fn key(&self) -> (&ServiceName, u16) {
        (&self.name, self.version.major)
    }

    fn decode(rest: &mut &[u8], has_names: bool) -> Result<Self, BadManifest> {
        let len = byte(rest)?;
        let name = rest.split_off(..len.into()).ok_or(BadManifest::Truncated)?;
        let name = ServiceName::new(&String::from_utf8_lossy(name))?;
        let version = ServiceVersion { major: fitting(rest)?, minor: fitting(rest)? };
        let (weight, flags) = (byte(rest)?, byte(rest)?);
        let epoch = fitting(rest)?;
        let names = if has_names { names(rest)? } else { Vec::new() };
        if !names.is_sorted_by(|one, next| one < next) {
            return Err(BadManifest::NamesNotSorted { name, version });
        }
        let clients = Clients::new(rank(flags), names);
        Ok(Self { name, version, weight, clients, epoch })
    }
}

/// The format of manifests without names of clients.
const FORMAT: u8 = 1;
/// The same, with a count and the names of clients behind each offer.
const FORMAT_OF_NAMES: u8 = 2;
/// A flag of the manifest.
const DRAINING: u8 = 1;
/// A flag of an offer: it admits clients.
const CLIENTS: u8 = 1;
/// Beside it: of the second rank or a higher one. Earlier versions ignore it.
const WATCH: u8 = 2;
/// Beside it: of the highest rank. With both, no rank suffices.
const ADMIN: u8 = 4;

/// The flags of an offer.
const fn admission(clients: &Clients) -> u8 {
    match clients.rank() {
        _ if clients.is_none() => 0,
        Some(Rank::Read) => CLIENTS,
        Some(Rank::Watch) => CLIENTS | WATCH,
        Some(Rank::Admin) => CLIENTS | ADMIN,
        None => CLIENTS | WATCH | ADMIN,
    }
}

/// The rank in the flags of an offer.
const fn rank(flags: u8) -> Option<Rank> {
    match (flags & CLIENTS != 0, flags & WATCH != 0, flags & ADMIN != 0) {
        (true, false, false) => Some(Rank::Read),
        (true, true, false) => Some(Rank::Watch),
        (true, false, true) => Some(Rank::Admin),
        (false, ..) | (_, true, true) => None,
    }
}

/// A count, and so many names of clients.
fn names(rest: &mut &[u8]) -> Result<Vec<u32>, BadManifest> {
    let count = usize::from(byte(rest)?);
    if count > CLIENT_NAMES_MAX {
        return Err(BadManifest::TooManyNames);
    }
    let one = |rest: &mut &[u8]| {
        let bytes = rest.split_off(..size_of::<u32>()).ok_or(BadManifest::Truncated)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    };
    (0..count).map(|_| one(rest)).collect()
}

const fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn byte(rest: &mut &[u8]) -> Result<u8, BadManifest> {
    rest.split_off_first().copied().ok_or(BadManifest::Truncated)
}

fn fitting<T: TryFrom<u64>>(rest: &mut &[u8]) -> Result<T, BadManifest> {
    T::try_from(number(rest)?).map_err(|_| BadManifest::BadNumber)
}

/// A number of variable length: one byte if it is less than 251.
fn number(rest: &mut &[u8]) -> Result<u64, BadManifest> {
    match bincode::decode_from_slice(rest, config::standard()) {
        Ok((number, used)) => {
            *rest = &rest[used..];
            Ok(number)
        }
        Err(DecodeError::UnexpectedEnd { .. }) => Err(BadManifest::Truncated),
        Err(_) => Err(BadManifest::BadNumber),
    }
}

fn put_number(bytes: &mut Vec<u8>, number: u64) {
    bincode::encode_into_std_write(number, bytes, config::standard())
        .expect("a vector takes all bytes");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_an_unknown_format() {
        assert_eq!(Manifest::decode(&[0, 0, 0]), Err(BadManifest::UnknownFormat(0)));
        assert_eq!(Manifest::decode(&[3]), Err(BadManifest::UnknownFormat(3)));
    }

    #[test]
    fn refuses_more_bytes_or_offers_than_allowed() {
        let bytes = MANIFEST_BYTES_MAX + 1;
        assert_eq!(Manifest::decode(&vec![1; bytes]), Err(BadManifest::TooLong { bytes }));
        let offers = OFFERS_MAX as u64 + 1;
        let mut head = vec![1, 0];
        put_number(&mut head, offers);
        assert_eq!(Manifest::decode(&head), Err(BadManifest::TooMany { offers }));
        let claims = [1, 0, 253, 255, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(Manifest::decode(&claims), Err(BadManifest::TooMany { offers: u64::MAX }));
        let many = Manifest { draining: false, offers: largest(257) };
        assert_eq!(many.check(), Err(BadManifest::TooMany { offers }));
    }

    #[test]
    fn refuses_what_is_not_sorted_or_there_twice() {
        let one = offered("a", 1);
        for offers in [
            vec![offered("b", 1), one.clone()],
            vec![offered("a", 2), one.clone()],
            vec![one.clone(), Offered { version: ServiceVersion::new(1, 7), ..one }],
        ] {
            let late = offers[1].clone();
            let error = BadManifest::NotSorted { name: late.name, version: late.version };
            let bytes = Manifest { draining: false, offers }.encode();
            assert_eq!(Manifest::decode(&bytes), Err(error));
        }
    }

    #[test]
    fn refuses_bad_names() {
        let bad: [&[u8]; 5] = [b"", b"A", b"a/b", b"..", &[0xff]];
        for name in bad.into_iter().chain([[b'x'; 64].as_slice()]) {
            let len = u8::try_from(name.len()).unwrap();
            let bytes = [&[1, 0, 1, len], name, &[1, 0, 1, 0, 0]].concat();
            let error = Manifest::decode(&bytes).unwrap_err();
            assert!(matches!(error, BadManifest::BadName(_)), "{name:?}: {error}");
        }
    }

    #[test]
    fn refuses_more_names_of_clients_than_allowed_and_names_out_of_order() {
        let named = |names: usize| Offered {
            clients: Clients::new(None, 0..names as u32),
            ..offered("a", 1)
        };
        let one = |names| Manifest { draining: false, offers: vec![named(names)] };
        assert_eq!(one(CLIENT_NAMES_MAX).check(), Ok(()));
        assert_eq!(one(CLIENT_NAMES_MAX + 1).check(), Err(BadManifest::TooManyNames));
        let many =
            (0..17).map(|major| Offered { version: ServiceVersion::new(major, 0), ..named(64) });
        let many = Manifest { draining: false, offers: many.collect() };
        assert_eq!(many.check(), Err(BadManifest::TooManyNames));
        assert_eq!(Manifest::decode(&many.encode()), Err(BadManifest::TooManyNames));
        let mut bytes = one(2).encode();
        let count = bytes.len() - 9;
        assert_eq!(bytes[count], 2);
        bytes[count + 1] = 1;
        let error =
            BadManifest::NamesNotSorted { name: name("a"), version: ServiceVersion::new(1, 0) };
        assert_eq!(Manifest::decode(&bytes), Err(error));
        bytes[count] = 65;
        assert_eq!(Manifest::decode(&bytes), Err(BadManifest::TooManyNames));
    }

    #[test]
    fn says_which_clients_an_offer_admits() {
        for rank in [None, Some(Rank::Read), Some(Rank::Watch), Some(Rank::Admin)] {
            for names in [vec![], vec![7, u32::MAX]] {
                let clients = Clients::new(rank, names);
                let offers = vec![Offered { clients, ..offered("a", 1) }];
                let manifest = Manifest { draining: false, offers };
                assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
            }
        }
        let offer = Offered { clients: Clients::new(None, [0x0403_0201]), ..offered("a", 1) };
        let manifest = Manifest { draining: false, offers: vec![offer] };
        assert_eq!(manifest.encode(), [2, 0, 1, 1, b'a', 1, 0, 1, 7, 0, 1, 1, 2, 3, 4]);
    }

    #[test]
    fn refuses_numbers_that_are_malformed_or_too_large() {
        let offer = |numbers: &[u8]| [&[1, 0, 1, 1, b'a'], numbers].concat();
        let large = 65_536_u32.to_le_bytes();
        for numbers in [
            // A major and a minor version above 65,535, an epoch above 4,294,967,295, an invalid length.
            [&[252], &large[..], &[0, 1, 0, 0]].concat(),
            [&[1, 252], &large[..], &[1, 0, 0]].concat(),
            [&[1, 0, 1, 0, 253], &(1_u64 << 32).to_le_bytes()[..]].concat(),
            vec![255, 0, 1, 0, 0],
        ] {
            assert_eq!(Manifest::decode(&offer(&numbers)), Err(BadManifest::BadNumber));
        }
    }

    #[test]
    fn refuses_a_weight_of_zero() {
        let offers = vec![Offered { weight: 0, ..offered("a", 1) }];
        let error = BadManifest::NoWeight { name: name("a"), version: ServiceVersion::new(1, 0) };
        let bytes = Manifest { draining: false, offers }.encode();
        assert_eq!(Manifest::decode(&bytes), Err(error.clone()));
        assert_eq!(error.to_string(), "the offer a 1.0 has weight 0, at least 1 is required");
    }

    #[test]
    fn refuses_every_truncation_and_trailing_bytes() {
        let mut bytes = example().encode();
        for len in 0..bytes.len() {
            assert_eq!(Manifest::decode(&bytes[..len]), Err(BadManifest::Truncated), "{len}");
        }
        bytes.extend([0, 0]);
        assert_eq!(Manifest::decode(&bytes), Err(BadManifest::TrailingBytes { bytes: 2 }));
    }

    #[test]
    fn no_change_of_one_byte_makes_it_panic_or_break_a_rule() {
        let bytes = example().encode();
        for at in 0..bytes.len() {
            for byte in 0..=u8::MAX {
                let mut changed = bytes.clone();
                changed[at] = byte;
                if let Ok(manifest) = Manifest::decode(&changed) {
                    assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest), "{at}: {byte}");
                }
            }
        }
    }

    #[test]
    fn ignores_flags_that_it_does_not_know() {
        let manifest = Manifest { draining: false, offers: vec![offered("a", 1)] };
        let mut bytes = manifest.encode();
        bytes[1] |= 0xfe;
        let flags = bytes.len() - 2;
        bytes[flags] |= 0xf8;
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
    }

    #[test]
    fn its_bytes_stay_the_same() {
        #[rustfmt::skip]
        let golden = [
            1, 1, 3,
            5, b's', b't', b'o', b'c', b'k', 2, 1, 10, 1, 3,
            5, b's', b't', b'o', b'c', b'k', 251, 0x2c, 0x01, 0, 255, 0, 251, 0xfb, 0x00,
            4, b't', b'i', b'l', b'l', 0, 251, 0xff, 0xff, 1, 0, 252, 0xff, 0xff, 0xff, 0xff,
        ];
        assert_eq!(example().encode(), golden);
        assert_eq!(Manifest::decode(&golden), Ok(example()));
        assert_eq!(Manifest::default().encode(), [1, 0, 0]);
    }

    #[test]
    fn comes_back_as_it_was_also_at_its_largest() {
        let full = Manifest { draining: true, offers: largest(OFFERS_MAX) };
        for manifest in [Manifest::default(), example(), full] {
            let bytes = manifest.encode();
            assert!(bytes.len() <= MANIFEST_BYTES_MAX, "{} bytes", bytes.len());
            assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        }
        let longest = Manifest { draining: true, offers: largest(1) };
        assert_eq!(longest.encode().len(), 3 + OFFER_BYTES_MAX + 4 * size_of::<u32>());
    }

    fn example() -> Manifest {
        let stock = Offered {
            name: name("stock"),
            version: ServiceVersion::new(2, 1),
            weight: 10,
            clients: Clients::all(),
            epoch: 3,
        };
        let next = Offered {
            version: ServiceVersion::new(300, 0),
            weight: 255,
            clients: Clients::default(),
            epoch: 251,
            ..stock.clone()
        };
        let till = Offered {
            name: name("till"),
            version: ServiceVersion::new(0, u16::MAX),
            weight: 1,
            clients: Clients::default(),
            epoch: u32::MAX,
        };
        Manifest { draining: true, offers: vec![stock, next, till] }
    }

    /// Offers whose encoding is as long as possible.
    fn largest(count: usize) -> Vec<Offered> {
        let offered = |n| Offered {
            name: name(&format!("{n:0>63}")),
            version: ServiceVersion::new(u16::MAX, u16::MAX),
            weight: 255,
            clients: Clients::new(None, 0..NAMES_MAX as u32 / OFFERS_MAX as u32),
            epoch: u32::MAX,
        };
        (0..count).map(offered).collect()
    }

    fn offered(service: &str, major: u16) -> Offered {
        Offered {
            name: name(service),
            version: ServiceVersion::new(major, 0),
            weight: 1,
            clients: Clients::default(),
            epoch: 0,
        }
    }

    fn name(name: &str) -> ServiceName {
        ServiceName::new(name).unwrap()
    }
}
