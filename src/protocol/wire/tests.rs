//! The bytes are those that bincode gives the same types; what bincode refuses is refused, for the same memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use bincode::config::{Config, standard};
use proptest::{collection::vec, prelude::*};

use super::{decode::NotOneValue, *};

fn hex(value: &impl Encode) -> String {
    to_vec(value).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read<'a, T: Decode<'a>>(bytes: &'a [u8]) -> Option<T> {
    from_slice(bytes, usize::MAX).ok()
}

fn exceeds_the_limit<'a, T: Decode<'a> + Debug>(bytes: &'a [u8], memory: usize) -> bool {
    let error = from_slice::<T>(bytes, memory).unwrap_err();
    matches!(error, NotOneValue::Malformed(DecodeError::LimitExceeded))
}

/// Both decoders let the value take so much memory, and neither lets it take a byte less.
fn takes<const MEMORY: usize, const LESS: usize, T>(value: &T)
where
    T: Encode + bincode::Encode + PartialEq + Debug,
    T: for<'a> Decode<'a> + bincode::Decode<()>,
{
    fn theirs<T: bincode::Decode<()>>(bytes: &[u8], config: impl Config) -> Option<T> {
        bincode::decode_from_slice(bytes, config).ok().map(|(value, _)| value)
    }
    assert_eq!(LESS + 1, MEMORY);
    let bytes = to_vec(value);
    assert_eq!(theirs(&bytes, standard().with_limit::<MEMORY>()).as_ref(), Some(value));
    assert_eq!(&from_slice::<T>(&bytes, MEMORY).unwrap(), value);
    assert_eq!(theirs::<T>(&bytes, standard().with_limit::<LESS>()), None);
    assert!(exceeds_the_limit::<T>(&bytes, LESS));
}

/// Numbers of all lengths.
fn wide() -> impl Strategy<Value = u128> {
    (any::<u128>(), 0..128_u32).prop_map(|(number, shift)| number >> shift)
}

#[test]
fn the_bytes_are_pinned() {
    for (number, bytes) in [
        (0_u64, "00"),
        (250, "fa"),
        (251, "fbfb00"),
        (0xffff, "fbffff"),
        (0x1_0000, "fc00000100"),
        (0xffff_ffff, "fcffffffff"),
        (0x1_0000_0000, "fd0000000001000000"),
        (u64::MAX, "fdffffffffffffffff"),
    ] {
        assert_eq!(hex(&number), bytes);
        assert_eq!(hex(&u128::from(number)), bytes);
    }
    assert_eq!(hex(&(u128::from(u64::MAX) + 1)), "fe00000000000000000100000000000000");
    let signed = [0, -1, 1, -126, 126, i64::MIN, i64::MAX].map(|number: i64| hex(&number));
    let zigzag = ["00", "01", "02", "fbfb00", "fbfc00", "fdffffffffffffffff", "fdfeffffffffffffff"];
    assert_eq!(signed, zigzag);
    assert_eq!(hex(&Box::new(5_u8)), "05");
    assert_eq!(hex(&[1_u8, 2, 3]), "010203");
    assert_eq!(hex(&vec![1_u8, 2, 3]), "03010203");
    assert_eq!(hex(&(7_u8, "ab")), "07026162");
    assert_eq!(hex(&()), "");
    assert_eq!(hex(&[Some(1_u16), None]), "010100");
    assert_eq!(hex(&BTreeMap::from([("k", true)])), "01016b01");
}

#[test]
fn what_is_cut_or_has_a_rest_is_refused() {
    type Value = (Vec<String>, Option<u64>);
    let bytes = to_vec(&(vec!["a".to_owned(), "bc".to_owned()], Some(7_u64)));
    for len in 0..bytes.len() {
        assert_eq!(read::<Value>(&bytes[..len]), None, "{len}");
    }
    let error = from_slice::<Value>(&[&bytes[..], &[0, 0]].concat(), 1 << 10).unwrap_err();
    assert_eq!(error.to_string(), "2 bytes left over");
    assert_eq!(read::<bool>(&[2]), None);
    assert_eq!(read::<Option<u8>>(&[2, 0]), None);
    assert_eq!(read::<String>(&[1, 0xff]), None);
}

#[test]
fn a_length_allocates_no_memory_that_is_not_allowed() {
    let huge = to_vec(&u64::MAX);
    assert!(exceeds_the_limit::<Vec<u64>>(&huge, 1 << 20));
    assert!(exceeds_the_limit::<Vec<u64>>(&huge, usize::MAX));
    for huge in [u64::MAX, u64::MAX >> 1, u64::MAX >> 5, 1 << 40].map(|len| to_vec(&len)) {
        assert_eq!(read::<Vec<u64>>(&huge), None);
        assert_eq!(read::<Vec<u8>>(&huge), None);
        assert_eq!(read::<String>(&huge), None);
        assert_eq!(read::<BTreeSet<u64>>(&huge), None);
        assert_eq!(read::<BTreeMap<u64, u64>>(&huge), None);
    }
}

#[test]
fn a_value_takes_the_memory_that_bincode_counts() {
    takes::<1, 0, _>(&true);
    takes::<8, 7, _>(&1_u64);
    takes::<808, 807, _>(&vec![1_u64; 100]);
    takes::<108, 107, _>(&vec![1_u8; 100]);
    takes::<108, 107, _>(&"x".repeat(100));
    takes::<9, 8, _>(&Some(1_i64));
    takes::<4, 3, _>(&[1_u8; 4]);
    takes::<8, 7, _>(&[1_u16; 4]);
    takes::<32, 31, _>(&vec!["x".to_owned()]);
    takes::<16, 15, _>(&BTreeSet::from([1_u64]));
    takes::<24, 23, _>(&BTreeMap::from([(1_u64, 1_u64)]));
}

proptest! {
    #[test]
    fn the_bytes_are_those_of_bincode_and_are_decoded(
        numbers in (wide(), wide(), wide(), wide(), any::<i64>()),
        bytes in any::<Vec<u8>>(),
        texts in any::<BTreeSet<String>>(),
        map in any::<BTreeMap<u32, Option<String>>>(),
        truth: bool,
    ) {
        let (a, b, c, d, e) = numbers;
        let numbers = (a as u16, b as u32, c as u64, d, e);
        let value = (numbers, (bytes, (texts, (map, ([truth; 2], Box::new(truth))))));
        let encoded = to_vec(&value);
        prop_assert_eq!(&encoded, &bincode::encode_to_vec(&value, standard()).unwrap());
        prop_assert_eq!(read(&encoded), Some(value));
    }

    #[test]
    fn what_bincode_refuses_is_refused(bytes in vec(prop_oneof![0..4_u8, 249..=255_u8], 0..40)) {
        type Value = (Vec<(String, Option<Vec<i64>>)>, (BTreeMap<u16, [u32; 2]>, u128));
        const MEMORY: usize = 600;
        let limited = standard().with_limit::<MEMORY>();
        let ours = from_slice::<Value>(&bytes, MEMORY).ok();
        let theirs = bincode::decode_from_slice::<Value, _>(&bytes, limited);
        let theirs = theirs.ok().filter(|(_, used)| *used == bytes.len()).map(|(value, _)| value);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in any::<Vec<u8>>()) {
        let _ = from_slice::<Vec<(String, Option<Vec<i64>>)>>(&bytes, 1 << 16);
        let _ = from_slice::<BTreeMap<u128, [u16; 3]>>(&bytes, usize::MAX);
    }
}
