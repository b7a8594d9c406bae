//! Any cells from anybody, against a decoder that knows a few lines: it ends within its cap, and what
//! it says differs can be asked of a replica.
#![no_main]

use gossipmonger::protocol::sketch::{
    CELLS_MAX, Cell, Cells, Decoder, Progress, Sketch, SketchKey, Symbol,
};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, arbitrary::Arbitrary)]
struct Input {
    /// What both know, what the peer alone knows, what we alone know.
    lines: [Vec<u8>; 3],
    symbols: Option<u64>,
    /// Lies: which cell, and what is added to it.
    lies: Vec<(u8, u32, u64, u32, i64)>,
    /// How the peer cuts its cells into messages.
    messages: Vec<u8>,
    /// Our lines change between two messages.
    changes: bool,
}

fuzz_target!(|input: Input| {
    let [both, theirs, ours] = &input.lines;
    let symbol = |line: &u8| Symbol { id: u32::from(*line), state: u64::from(*line) << 8 };
    let sketch = |lines: &[&[u8]], cells| {
        Sketch::collect(KEY, cells, lines.iter().copied().flatten().map(symbol))
    };
    let mut cells = sketch(&[both, theirs], 256).cells().to_vec();
    for (at, ids, states, checks, count) in input.lies {
        let cell = &mut cells[usize::from(at)];
        let (ids, states) = (cell.ids ^ ids, cell.states ^ states >> 16);
        let (checks, count) = (cell.checks ^ checks, cell.count.wrapping_add(count));
        *cell = Cell { ids, states, checks, count };
    }
    let symbols = input.symbols.unwrap_or((both.len() + theirs.len()) as u64);
    let mut decoder = Decoder::new(sketch(&[both, ours], 64));
    for count in input.messages {
        let first = decoder.received();
        let end = cells.len().min(first + usize::from(count));
        let batch = Cells { first: first as u32, symbols, cells: cells[first..end].to_vec() };
        let mut progress = decoder.take(&batch);
        if let Progress::Deeper(least) = progress {
            let lines: &[&[u8]] = if input.changes { &[both] } else { &[both, ours] };
            progress = decoder.deepen(sketch(lines, least * 2));
        }
        assert!(decoder.received() <= CELLS_MAX);
        match progress {
            Progress::More(more) => assert!((1..=CELLS_MAX).contains(&more)),
            Progress::Deeper(_) => panic!("it has as many cells as it asked for"),
            Progress::Done(found) => {
                assert!(found.theirs.len() + found.ours.len() <= decoder.received());
                return;
            }
            Progress::GiveUp(reason) => {
                assert_eq!(decoder.take(&batch), Progress::GiveUp(reason));
                return;
            }
        }
    }
});

const KEY: SketchKey = SketchKey(*b"a key of fuzzing");
