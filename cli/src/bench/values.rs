//! Values that nothing in this process has written before.
//!
//! A node skips a write that changes nothing: such a write takes no version and sends nothing. A value written twice
//! would measure nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// A value and its number, by which a reader can tell which value it has.
#[derive(Clone, Debug)]
pub(super) struct Fresh {
    pub(super) number: u64,
    pub(super) text: String,
}

/// The next value, of this many bytes: its number, then noise, so that compression gains little.
/// Numbers rise, so among the values of one key a higher number is a later value.
pub(super) fn fresh(bytes: usize) -> Fresh {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut text = format!("{number:0NUMBER_DIGITS$x}");
    let mut noise = vec![0; bytes.saturating_sub(NUMBER_DIGITS)];
    SmallRng::seed_from_u64(number).fill(noise.as_mut_slice());
    text.extend(noise.into_iter().map(|byte| char::from(b'0' + byte % 64)));
    Fresh { number, text }
}

/// The number of a value that [`fresh`] made.
pub(super) fn number_of(text: &str) -> Option<u64> {
    u64::from_str_radix(text.get(..NUMBER_DIGITS)?, 16).ok()
}

/// The shortest value holds its number.
pub(super) const NUMBER_DIGITS: usize = 16;

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use super::*;

    #[test]
    fn values_never_repeat_within_a_process() {
        let writer = || (0..1_000).map(|_| fresh(NUMBER_DIGITS)).collect::<Vec<_>>();
        let writers: Vec<_> = (0..4).map(|_| thread::spawn(writer)).collect();
        let made: Vec<_> = writers.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(made.iter().map(|value| value.number).collect::<HashSet<_>>().len(), 4_000);
        assert_eq!(made.iter().map(|value| &value.text).collect::<HashSet<_>>().len(), 4_000);
    }

    #[test]
    fn a_value_carries_its_number() {
        let value = fresh(100);
        assert_eq!(value.text.len(), 100);
        assert_eq!(number_of(&value.text), Some(value.number));
        assert_eq!(number_of("short"), None);
    }
}
