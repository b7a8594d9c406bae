//! The last lines of the log, for `debug`.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use gossipmonger::Foreign;

/// The last lines, and another writer that gets them too.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Writes to both.
#[derive(Debug)]
pub(super) struct Tee<W>(pub(super) Tail, pub(super) W);

impl Tail {
    /// The lines, oldest first.
    pub(super) fn lines(&self) -> Vec<Foreign> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |line: &Vec<u8>| Foreign::from(String::from_utf8_lossy(line).trim_end());
        kept.lines.iter().map(text).collect()
    }

    fn keep(&self, line: &[u8]) {
        if line.len() > BYTES_MAX {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.bytes + line.len() > BYTES_MAX {
            let oldest = kept.lines.pop_front().map_or(0, |line| line.len());
            kept.bytes -= oldest;
        }
        kept.bytes += line.len();
        kept.lines.push_back(line.to_vec());
    }
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.keep(line);
        self.1.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

/// Bytes of the lines that are kept.
const BYTES_MAX: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_and_no_more_bytes_than_it_may() {
        let tail = Tail::default();
        let mut both = Tee(tail.clone(), Vec::new());
        for n in 0..1_000 {
            both.write_all(format!("{n:>999}\n").as_bytes()).unwrap();
        }
        let lines = tail.lines();
        assert_eq!(lines.len(), BYTES_MAX / 1_000);
        assert!(lines.last().unwrap().to_string().ends_with("999"));
        assert_eq!(both.1.len(), 1_000_000, "the other writer gets all");
        both.write_all(&vec![b'x'; BYTES_MAX + 1]).unwrap();
        assert_eq!(tail.lines().len(), lines.len());
    }
}
