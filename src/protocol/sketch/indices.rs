//! The cells of a symbol, computed with integers alone, so that all machines agree.

use super::cell::CELLS_MAX;

/// The numbers of a symbol's cells, rising from 0, below [`CELLS_MAX`].
///
/// Cell `j` takes a symbol with probability `2 / (j + 2)`, so after cell `i` none up to `j` takes it
/// with probability `(i + 1)(i + 2) / (j + 1)(j + 2)`. The next cell is therefore the smallest `j`
/// for which that is below a random number between 0 and 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indices {
    random: u64,
    next: usize,
}

impl Indices {
    /// Those of the symbol with this check.
    pub(super) const fn new(check: u64) -> Self {
        Self { random: check, next: 0 }
    }

    /// The next one, which is still to come; [`CELLS_MAX`] or more after the last.
    pub(super) const fn peek(&self) -> usize {
        self.next
    }

    /// Whether this symbol goes into cell `index`.
    pub(super) fn contains(mut self, index: usize) -> bool {
        self.find(|at| *at >= index) == Some(index)
    }

    /// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
    const fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Iterator for Indices {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let index = self.next;
        if index >= CELLS_MAX {
            return None;
        }
        // (j + 1)(j + 2) > bound, that is (2j + 3)^2 > 4 bound + 1. As CELLS_MAX is at most 2^14,
        // bound is below 2^61.
        let i = index as u64;
        let bound = (((i + 1) * (i + 2)) << 32) / ((self.random() >> 32) + 1);
        self.next = ((4 * bound + 1).isqrt() as usize - 1) / 2;
        Some(index)
    }
}

const _: () = assert!(CELLS_MAX <= 1 << 14);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_from_zero_and_ends_below_the_cap() {
        for check in 0..2_000_u64 {
            let cells: Vec<_> = Indices::new(check << 20).collect();
            assert_eq!(cells[0], 0);
            assert!(cells.is_sorted_by(|a, b| a < b) && *cells.last().unwrap() < CELLS_MAX);
            assert!(cells.iter().all(|at| Indices::new(check << 20).contains(*at)));
        }
    }

    /// Counts of a binomial distribution, within five standard deviations.
    #[test]
    fn hits_each_cell_as_often_as_the_paper_says() {
        const SYMBOLS: u64 = 100_000;
        let mut hits = vec![0_u64; 512];
        for check in 0..SYMBOLS {
            let cells = Indices::new(check.wrapping_mul(0xd134_2543_de82_ef95));
            cells.take_while(|at| *at < 512).for_each(|at| hits[at] += 1);
        }
        for (at, hits) in hits.iter().enumerate().skip(1) {
            let expected = 2.0 / (at as f64 + 2.0);
            let (mean, n) = (expected * SYMBOLS as f64, SYMBOLS as f64);
            let deviation = (n * expected * (1.0 - expected)).sqrt();
            assert!((*hits as f64 - mean).abs() < 5.0 * deviation, "cell {at}: {hits}, not {mean}");
        }
    }
}
