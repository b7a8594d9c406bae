//! The opening of an exchange by a sketch: both sides, until the lines that differ are known.

use super::step::{Ask, Breach, Step};
use crate::protocol::{
    digest::Digest,
    message::Message,
    sketch::{
        CELLS_FIRST, CELLS_MAX, CELLS_PER_MESSAGE_MAX, Cells, Decoder, Differences, GiveUp,
        Progress, Sketch, Symbol,
    },
};

/// The opening side: sends cells of one sketch as long as the other side asks for more.
#[derive(Debug)]
pub(super) struct Teller {
    sketch: Sketch,
    sent: usize,
    /// This many cells are to be sent once there is a sketch that has them.
    owed: usize,
}

impl Teller {
    pub(super) fn open(sketch: Sketch) -> (Self, Step) {
        let mut this = Self { sketch, sent: 0, owed: 0 };
        let step = this.tell(CELLS_FIRST);
        (this, step)
    }

    /// The peer asks for more.
    pub(super) fn further(&mut self, wanted: u32) -> Step {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX).min(CELLS_PER_MESSAGE_MAX);
        if wanted == 0 || self.sent + wanted > CELLS_MAX {
            return Step::Broken(Breach::Order);
        }
        if self.sent + wanted <= self.sketch.cells().len() {
            return self.tell(wanted);
        }
        self.owed = wanted;
        Step::Ask(Ask::Digest)
    }

    /// Makes more cells of the present state. If the state has changed since the first ones, it begins again
    /// from the start, which happens seldom: each sketch has four times the cells of the last.
    pub(super) fn deepen(&mut self, digest: &Digest) -> Step {
        let owed = std::mem::take(&mut self.owed);
        if owed == 0 {
            return Step::Broken(Breach::Order);
        }
        let deeper = deeper(&self.sketch, digest, self.sent + owed);
        let same = deeper.is_of_the_same(&self.sketch);
        self.sketch = deeper;
        if same {
            return self.tell(owed);
        }
        let again = self.sent + owed;
        self.sent = 0;
        self.tell(again.min(CELLS_PER_MESSAGE_MAX))
    }

    fn tell(&mut self, count: usize) -> Step {
        let cells = self.sketch.batch(self.sent, count);
        self.sent += cells.cells.len();
        Step::Send(Message::Cells(cells))
    }
}

/// The answering side: takes the cells apart.
#[derive(Debug, Default)]
pub(super) struct Finder {
    decoder: Option<Decoder>,
    /// Cells that came before our sketch.
    waiting: Option<Cells>,
    received: usize,
}

/// The result of some cells.
#[derive(Debug)]
pub(super) enum Found {
    /// This step comes first.
    Step(Step),
    /// The lines of these ids differ, and some of them only the peer has: also if we know a node with the
    /// same id, since that may be another node.
    Ids { ids: Vec<u32>, theirs: Vec<u32> },
    /// The difference cannot be found this way.
    Nothing(GiveUp),
}

impl Finder {
    /// Cells arrived.
    pub(super) fn take(&mut self, cells: Cells) -> Found {
        self.received = self.received.saturating_add(cells.cells.len());
        // The peer begins again at most three times, each time with four times the cells.
        if self.received > 2 * CELLS_MAX {
            return Found::Step(Step::Broken(Breach::Endless));
        }
        match &mut self.decoder {
            Some(decoder) if cells.first != 0 => {
                let progress = decoder.take(&cells);
                found(progress)
            }
            None if cells.first != 0 => Found::Step(Step::Broken(Breach::Order)),
            _ => {
                self.waiting = Some(cells);
                Found::Step(Step::Ask(Ask::Sketch))
            }
        }
    }

    /// Our sketch is here.
    pub(super) fn compare(&mut self, sketch: Sketch) -> Found {
        let Some(cells) = self.waiting.take() else {
            return Found::Step(Step::Broken(Breach::Order));
        };
        let decoder = self.decoder.insert(Decoder::new(sketch));
        found(decoder.take(&cells))
    }

    /// Our lines are here, to make more cells of.
    pub(super) fn deepen(&mut self, digest: &Digest) -> Found {
        let Some(decoder) = &mut self.decoder else {
            return Found::Step(Step::Broken(Breach::Order));
        };
        let sketch = deeper(decoder.local(), digest, decoder.received());
        found(decoder.deepen(sketch))
    }
}

fn found(progress: Progress) -> Found {
    match progress {
        Progress::Done(Differences { theirs, ours }) => {
            let (mut theirs, mut ids) = (ids(&theirs), ids(&ours));
            theirs.retain(|id| ids.binary_search(id).is_err());
            ids.extend(&theirs);
            Found::Ids { ids, theirs }
        }
        Progress::More(cells) => {
            let cells = u32::try_from(cells).unwrap_or(u32::MAX);
            Found::Step(Step::Send(Message::Further { cells }))
        }
        Progress::Deeper(_) => Found::Step(Step::Ask(Ask::Digest)),
        // A stream keeps its order: this peer's count is wrong.
        Progress::GiveUp(GiveUp::NotAskedFor) => Found::Step(Step::Broken(Breach::Order)),
        Progress::GiveUp(reason) => Found::Nothing(reason),
    }
}

fn ids(symbols: &[Symbol]) -> Vec<u32> {
    let mut ids: Vec<_> = symbols.iter().map(|symbol| symbol.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// A sketch with four times the cells, and at least this many.
fn deeper(sketch: &Sketch, digest: &Digest, least: usize) -> Sketch {
    let (key, cells) = (sketch.key(), least.max(4 * sketch.cells().len()));
    let whole = digest.entries.iter().filter(|line| !line.is_part());
    Sketch::collect(key, cells, whole.map(|line| key.symbol(line)))
}
