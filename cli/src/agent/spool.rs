//! Log lines on their way to standard error.
//!
//! The reader of standard error may hang: a container runtime, a pager, a terminal after Ctrl-S. A separate thread
//! writes there, so that no thread of the runtime hangs with it. Lines wait in a queue of bounded size; lines that find
//! no room are dropped and counted, and so are those that cannot be written. The log reports them when standard error
//! accepts lines again.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Most bytes of lines that wait. As many again may be on their way to a reader that hangs.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// The pause after standard error has reported that it would block. Another process that shares the pipe has made it
/// non-blocking.
const FULL_PAUSE: Duration = Duration::from_millis(50);

/// The queue. Writing to it queues one line and never blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Spool(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Lines taken from the queue are being written.
    writing: bool,
    /// Lines dropped for lack of room that the log has not reported yet.
    untold: u64,
}

/// Lines lost since the last report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// There was no room for them.
    pub(super) dropped: u64,
    /// The system refused to write them, at least in part.
    pub(super) failed: u64,
}

impl Spool {
    /// Starts the thread that writes to `out` as long as the process runs. It calls `tell` with the lines lost, once
    /// `out` has accepted the lines that waited.
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub(super) fn start(
        out: impl Write + Send + 'static,
        tell: impl Fn(Lost) + Send + 'static,
    ) -> io::Result<Self> {
        let lines = Self::default();
        let queue = Arc::clone(&lines.0);
        thread::Builder::new().name("gossipmonger-log".to_owned()).spawn(move || {
            queue.write_all(out, tell);
        })?;
        Ok(lines)
    }

    /// Lines dropped so far, because there was no room for them or standard error accepted none.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Bytes of lines that wait.
    pub(super) fn waiting(&self) -> usize {
        self.0.lock().bytes
    }

    /// Waits until all lines are written, at most `patience`. Returns whether they are.
    pub(super) fn flush(&self, patience: Duration) -> bool {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), patience, busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Write for Spool {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes + line.len() > QUEUE_BYTES_MAX {
            waiting.untold += 1;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line.to_vec());
        drop(waiting);
        self.changed.notify_all();
    }

    fn write_all(&self, out: impl Write, tell: impl Fn(Lost)) {
        let (mut out, mut lost) = (Lines { out, half: false }, Lost::default());
        loop {
            let (lines, dropped) = self.take();
            lost.dropped += dropped;
            let mut takes = true;
            for line in lines {
                takes = out.write(&line).is_ok();
                if !takes {
                    lost.failed += 1;
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Not earlier: that report would be lost too.
            if takes && lost != Lost::default() {
                tell(std::mem::take(&mut lost));
            }
            self.lock().writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for lines and takes all of them, with the number of those dropped before.
    fn take(&self) -> (VecDeque<Vec<u8>>, u64) {
        let idle = |waiting: &mut Waiting| waiting.lines.is_empty();
        let waiting = self.changed.wait_while(self.lock(), idle);
        let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        waiting.writing = true;
        waiting.bytes = 0;
        (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.untold))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code under the lock can panic halfway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The destination of lines.
struct Lines<W> {
    out: W,
    /// It has accepted part of a line: the next line must not be appended to it.
    half: bool,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.half {
            self.write_part(b"\n")?;
            self.half = false;
        }
        self.write_part(line)
    }

    fn write_part(&mut self, mut line: &[u8]) -> io::Result<()> {
        while !line.is_empty() {
            match self.out.write(line) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    line = &line[written..];
                    self.half = !line.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
                Err(error) => return Err(error),
            }
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A reader that accepts a write only when the test allows it.
    struct Gate {
        allowed: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a sender the gate accepts everything.
            let _ = self.allowed.recv();
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_for_a_reader_that_stands_still_are_dropped_and_counted() {
        let ((allow, allowed), (written, read)) = (mpsc::channel(), mpsc::channel());
        let (told, tells) = mpsc::channel();
        let mut lines =
            Spool::start(Gate { allowed, written }, move |dropped| told.send(dropped).unwrap())
                .unwrap();
        let line = |n: u64| format!("{n:>1023}\n").into_bytes();
        let most = 3 * (QUEUE_BYTES_MAX as u64 >> 10);
        for n in 0..most {
            assert_eq!(lines.write(&line(n)).unwrap(), 1024);
        }
        let dropped = lines.dropped();
        assert!(dropped >= most / 3, "{dropped} of {most} lines dropped");
        assert!(!lines.flush(Duration::from_millis(1)), "nothing was read");
        drop(allow);
        // The thread that writes may have begun when lines had been dropped already: then it tells of those first.
        let mut told = 0;
        while told < dropped {
            let lost = tells.recv_timeout(PATIENCE).unwrap();
            assert_eq!(lost.failed, 0);
            told += lost.dropped;
        }
        assert_eq!(told, dropped);
        assert!(lines.flush(PATIENCE));
        assert_eq!(lines.dropped(), dropped);
        let read: Vec<_> = read.try_iter().collect();
        assert_eq!(read.len() as u64, most - dropped);
        // The thread may begin when there were gaps already: what follows a gap is in order as well.
        let number = |line: &Vec<u8>| String::from_utf8_lossy(line).trim().parse::<u64>().unwrap();
        let numbers: Vec<_> = read.iter().map(number).collect();
        assert!(read.iter().zip(&numbers).all(|(read, n)| *read == line(*n)), "whole lines");
        assert_eq!(numbers[0], 0);
        assert!(numbers.is_sorted_by(|a, b| a < b), "in order");
    }

    #[test]
    fn half_a_line_is_ended_and_what_was_lost_is_told_when_there_is_room_again() {
        /// A disk that is full for three writes, after half a line.
        #[derive(Clone, Default)]
        struct Disk(Arc<Mutex<(usize, String)>>);
        impl Write for Disk {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let mut disk = self.0.lock().unwrap();
                disk.0 += 1;
                let taken = match disk.0 {
                    1 => bytes.len() / 2,
                    2..=4 => return Err(ErrorKind::StorageFull.into()),
                    _ => bytes.len(),
                };
                disk.1.push_str(std::str::from_utf8(&bytes[..taken]).unwrap());
                Ok(taken)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (disk, (told, tells)) = (Disk::default(), mpsc::channel());
        let tell = move |lost| told.send(lost).unwrap();
        let mut lines = Spool::start(disk.clone(), tell).unwrap();
        for line in ["one!\n", "two\n", "three\n", "four\n"] {
            lines.write_all(line.as_bytes()).unwrap();
            assert!(Spool::flush(&lines, PATIENCE));
        }
        assert_eq!(disk.0.lock().unwrap().1, "on\nfour\n");
        assert_eq!(tells.recv_timeout(PATIENCE), Ok(Lost { dropped: 0, failed: 3 }));
        assert_eq!(lines.dropped(), 3);
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_not_told() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(ErrorKind::BrokenPipe.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut lines = Spool::start(Closed, |_| panic!("told of a line that nobody can read"));
        let lines = lines.as_mut().unwrap();
        for _ in 0..3 {
            lines.write_all(b"line\n").unwrap();
            assert!(Spool::flush(lines, PATIENCE));
        }
        assert_eq!(lines.dropped(), 3);
    }
}
