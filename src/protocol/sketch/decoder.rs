//! Computes from a peer's cells the lines that only the peer has, and the lines that only we have.
//!
//! Any cells may come: the work for each is bounded, and it ends.

use super::{
    cell::{CELLS_FIRST, CELLS_MAX, CELLS_MORE, CELLS_PER_MESSAGE_MAX, Cell, Cells},
    indices::Indices,
    sums::Sketch,
    symbol::Symbol,
};

/// Takes a peer's cells as they arrive.
#[derive(Clone, Debug)]
pub struct Decoder {
    local: Sketch,
    /// The peer's cells as they came, to begin again with if ours change.
    remote: Vec<Cell>,
    /// How many symbols the peer says it has.
    symbols: u64,
    /// The peer's cells less ours and less the symbols found.
    rest: Vec<Cell>,
    found: Vec<Found>,
    given_up: Option<GiveUp>,
}

/// How far the decoder has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The difference is complete.
    Done(Differences),
    /// The peer has to send this many more cells.
    More(usize),
    /// The peer has sent more cells than our sketch has: [`Decoder::deepen`] with at least this many.
    Deeper(usize),
    /// It will not succeed, or would cost more than to send the full digest.
    GiveUp(GiveUp),
}

/// The difference between two nodes. A line that differs is in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// The symbols that only the peer has.
    pub theirs: Vec<Symbol>,
    /// The symbols that only we have.
    pub ours: Vec<Symbol>,
}

/// Why decoding failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GiveUp {
    /// More than about a quarter of the lines differ, or more than [`CELLS_MAX`] cells can show.
    #[error("the two differ so much that the full digest costs less")]
    TooDifferent,
    /// The cells are not those of a set, or not of one that is hashed with our key.
    #[error("the peer's cells contradict each other")]
    Inconsistent,
    /// Cells that do not follow the ones before, none at all, or of another set.
    #[error("the peer's cells are not the ones asked for")]
    NotAskedFor,
}

/// A symbol that was found, and the cells from which it has still to be taken out.
#[derive(Clone, Copy, Debug)]
struct Found {
    symbol: Symbol,
    check: u64,
    /// 1 if it is the peer's, -1 if it is ours.
    count: i64,
    cells: Indices,
}

impl Decoder {
    /// Compares with our present state.
    #[must_use]
    pub const fn new(local: Sketch) -> Self {
        Self {
            local,
            remote: Vec::new(),
            symbols: 0,
            rest: Vec::new(),
            found: Vec::new(),
            given_up: None,
        }
    }

    /// The sketch that is compared with the peer's cells.
    #[must_use]
    pub const fn local(&self) -> &Sketch {
        &self.local
    }

    /// How many of the peer's cells it has.
    #[must_use]
    pub const fn received(&self) -> usize {
        self.remote.len()
    }

    /// Takes the peer's next cells.
    #[must_use]
    pub fn take(&mut self, cells: &Cells) -> Progress {
        if self.given_up.is_none() && !self.is_next(cells) {
            self.given_up = Some(GiveUp::NotAskedFor);
        }
        if self.given_up.is_none() {
            self.symbols = cells.symbols;
            self.remote.extend_from_slice(&cells.cells);
        }
        self.advance()
    }

    /// Goes on with a sketch of more cells, of our present state. If that has changed meanwhile, it begins
    /// again with the cells that the peer sent.
    #[must_use]
    pub fn deepen(&mut self, local: Sketch) -> Progress {
        if !local.is_of_the_same(&self.local) {
            self.rest.clear();
            self.found.clear();
        }
        self.local = local;
        self.advance()
    }

    fn is_next(&self, cells: &Cells) -> bool {
        let received = self.remote.len();
        let end = received + cells.cells.len();
        usize::try_from(cells.first) == Ok(received)
            && (received == 0 || cells.symbols == self.symbols)
            && (received + 1..=CELLS_MAX).contains(&end)
    }

    fn advance(&mut self) -> Progress {
        if let Some(reason) = self.given_up {
            return Progress::GiveUp(reason);
        }
        if self.remote.len() > self.local.cells().len() {
            return Progress::Deeper(self.remote.len());
        }
        let progress = self.subtract().and_then(|()| self.progress());
        progress.unwrap_or_else(|reason| {
            self.given_up = Some(reason);
            Progress::GiveUp(reason)
        })
    }

    /// Takes our symbols and the ones found out of the new cells, and finds those that these show.
    fn subtract(&mut self) -> Result<(), GiveUp> {
        let new = self.rest.len()..self.remote.len();
        let pairs = self.remote.iter().zip(self.local.cells()).skip(new.start);
        self.rest.extend(pairs.map(|(remote, local)| remote.difference(local)));
        for found in &mut self.found {
            found.take_out(&mut self.rest, |_| {});
        }
        self.peel(new.collect())
    }

    /// Finds the symbols that are alone in one of these cells, takes them out of all, and goes on with the
    /// cells they were in. A cell out of which its only symbol was taken is empty and stays so; hence more
    /// symbols than cells prove the cells false, and the loop ends.
    fn peel(&mut self, mut pending: Vec<usize>) -> Result<(), GiveUp> {
        let key = self.local.key();
        while let Some(at) = pending.pop() {
            let cell = self.rest[at];
            let Some((symbol, check)) = cell.only(|symbol| key.check(symbol)) else { continue };
            let cells = Indices::new(check);
            if !cells.contains(at) || self.found.len() >= self.rest.len() {
                return Err(GiveUp::Inconsistent);
            }
            let mut found = Found { symbol, check, count: cell.count, cells };
            found.take_out(&mut self.rest, |at| pending.push(at));
            self.found.push(found);
        }
        Ok(())
    }

    /// All symbols are in cell 0, so it is empty exactly when all are found.
    fn progress(&self) -> Result<Progress, GiveUp> {
        match self.rest.first() {
            Some(first) if !first.is_zero() => self.wanted().map(Progress::More),
            Some(_) if self.rest.iter().all(Cell::is_zero) => {
                Ok(Progress::Done(self.differences()))
            }
            _ => Err(GiveUp::Inconsistent),
        }
    }

    fn differences(&self) -> Differences {
        let of = |count| self.found.iter().filter(move |f| f.count == count).map(|f| f.symbol);
        Differences { theirs: of(1).collect(), ours: of(-1).collect() }
    }

    /// How many more cells to ask for: half of those that seem to be missing, so that few are too many.
    fn wanted(&self) -> Result<usize, GiveUp> {
        let (received, worth) = (self.rest.len(), self.worth());
        let missing = self.goal().saturating_sub(received);
        if received >= worth || received + missing > worth {
            return Err(GiveUp::TooDifferent);
        }
        let wanted = (missing / 2 / CELLS_MORE * CELLS_MORE).max(CELLS_MORE);
        Ok(wanted.min(CELLS_MAX - received).min(CELLS_PER_MESSAGE_MAX))
    }

    /// How many cells it is worth: if a quarter of `n` lines differ there are `n / 2` symbols, which take
    /// `0.7 n` cells, or half the bytes of the full digest.
    fn worth(&self) -> usize {
        let lines = self.symbols.max(self.local.symbols());
        let worth = usize::try_from(lines / 4).unwrap_or(usize::MAX).saturating_mul(3);
        worth.clamp(CELLS_FIRST + CELLS_MORE, CELLS_MAX)
    }

    /// How many cells it seems to take: 1.4 for each symbol (the paper's section 4.3: 1.35 of many).
    fn goal(&self) -> usize {
        let symbols = self.unfound().saturating_add(self.found.len());
        symbols.saturating_mul(7) / 5
    }

    /// An estimate of how many symbols are still in the cells.
    ///
    /// With `d` symbols of which `s` more are the peer's than ours, cell `i` counts `s p` in the mean,
    /// with a variance of `d p (1 - p)`, where `p = 2 / (i + 2)`. So each cell estimates `d` as
    /// `(count (i + 2) - 2 s)^2 / 2i`, and the mean over 32 of them is right within a quarter.
    fn unfound(&self) -> usize {
        let counts =
            || self.rest.iter().map(|cell| i128::from(cell.count.clamp(-COUNT_MAX, COUNT_MAX)));
        let surplus = counts().next().unwrap_or(0);
        let squares = (0..).zip(counts()).skip(1).map(|(i, count): (i128, i128)| {
            let off = count * (i + 2) - 2 * surplus;
            off * off / (2 * i)
        });
        let cells = i128::try_from(self.rest.len().saturating_sub(1).max(1)).unwrap_or(1);
        let estimate = (squares.sum::<i128>() / cells).max(surplus.abs());
        usize::try_from(estimate).unwrap_or(usize::MAX)
    }
}

impl Found {
    /// Takes the symbol out of the cells that still contain it.
    fn take_out(&mut self, rest: &mut [Cell], mut touched: impl FnMut(usize)) {
        while self.cells.peek() < rest.len() {
            let Some(at) = self.cells.next() else { break };
            rest[at].add(self.symbol, self.check, -self.count);
            touched(at);
        }
    }
}

/// Beyond any plausible count, and far below the overflow of squares.
const COUNT_MAX: i64 = 1 << 32;
