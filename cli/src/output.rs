//! The output: JSON for programs, aligned columns for people.
//!
//! It may contain untrusted text: keys, values, tags, names in certificates, answers of an agent. All text for standard
//! output passes through this file, which escapes it ([`foreign`]).

use std::{
    io::{self, IsTerminal, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use gossipmonger::{Foreign, unstable};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use serde::Serialize;

use super::error::{CliError, Exit};

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let json = serde_json::to_string(value).map_err(CliError::failed)?;
    printed(&unstable::json_escaped(&json))
}

/// Prints one line; a line end in it is escaped.
pub(crate) fn line(line: &str) -> Result<(), CliError> {
    printed(&unstable::escaped(line))
}

/// Prints several lines. Untrusted text in them must be a [`Foreign`], which has no line end.
pub(crate) fn lines(lines: &str) -> Result<(), CliError> {
    printed(&unstable::escaped_lines(lines))
}

fn printed(safe: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{safe}")?;
    Ok(out.flush()?)
}

/// Prints a note or an error on standard error. Untrusted text in it must be a [`Foreign`], which has no line end.
pub(crate) fn note(note: &str) {
    let line = format!("gossipmonger: {}\n", unstable::escaped_lines(note));
    let (written, waits) = mpsc::channel();
    let write = move || {
        // A closed standard error is not a failure.
        let _ = io::stderr().write_all(line.as_bytes());
        let _ = written.send(());
    };
    // The reader of standard error may hang: that must not keep the process from ending.
    if thread::Builder::new().spawn(write).is_ok() {
        let _ = waits.recv_timeout(NOTE_TIMEOUT);
    }
}

/// How long a note may take to be written to standard error.
const NOTE_TIMEOUT: Duration = Duration::from_secs(1);

/// Ends the program when the reader of its output is gone (`watch | head -1`). A write would fail then too, but the
/// next one may be hours away.
pub(crate) fn end_with_the_reader() {
    thread::spawn(|| {
        let out = io::stdout();
        let gone = PollFlags::ERR | PollFlags::HUP;
        loop {
            let mut wanted = [PollFd::new(&out, PollFlags::empty())];
            match poll(&mut wanted, None) {
                Ok(_) if wanted[0].revents().intersects(gone) => {
                    std::process::exit(Exit::Done as i32)
                }
                Err(Errno::INTR) => {}
                // A file always has a reader.
                _ => return,
            }
        }
    });
}

/// Prints rows under a header, columns aligned; only the header if there are no rows. If the terminal is too narrow,
/// each row becomes a block of lines, `COLUMN  value`.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: &[[String; N]],
) -> Result<(), CliError> {
    let mut widths = header.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let all = widths.iter().sum::<usize>() + GAP * N.saturating_sub(1);
    if terminal_width().is_some_and(|width| all > width) {
        return blocks(header, rows);
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let header = header.map(str::to_owned);
    for row in std::iter::once(&header).chain(rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let row = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", unstable::escaped(row.trim_end()))?;
    }
    Ok(out.flush()?)
}

/// Prints each row as lines of `COLUMN  value`, with an empty line between rows. Empty cells and dashes
/// are left out.
fn blocks<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> Result<(), CliError> {
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            line("")?;
        }
        let filled = header.iter().zip(row).filter(|(_, cell)| !matches!(cell.as_str(), "" | "-"));
        pairs(&filled.map(|(name, cell)| (*name, cell.clone())).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The number of columns of the terminal; `None` if the output is not a terminal.
fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let (columns, _) = ratatui::crossterm::terminal::size().ok()?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// Prints names and their values, aligned.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> Result<(), CliError> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut out = io::BufWriter::new(io::stdout().lock());
    for (name, value) in pairs {
        let pair = format!("{name:width$}  {value}");
        writeln!(out, "{}", unstable::escaped(pair.trim_end()))?;
    }
    Ok(out.flush()?)
}

/// Prints a value unchanged, except that control characters are escaped for a terminal. `raw`: without the final
/// newline too.
pub(crate) fn value(bytes: &[u8], raw: bool) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    if raw {
        out.write_all(bytes)?;
    } else {
        match std::str::from_utf8(bytes) {
            Ok(text) if out.is_terminal() => writeln!(out, "{}", unstable::escaped_lines(text))?,
            Err(_) if out.is_terminal() => writeln!(out, "({} bytes, use --raw)", bytes.len())?,
            _ => {
                out.write_all(bytes)?;
                writeln!(out)?;
            }
        }
    }
    Ok(out.flush()?)
}

/// Prints bytes unchanged, and nothing else. To a terminal it prints them as [`value`] does, unless `raw`.
pub(crate) fn bytes(bytes: &[u8], raw: bool) -> Result<(), CliError> {
    value(bytes, raw || !io::stdout().is_terminal())
}

/// Untrusted text for one cell: one line of limited length.
pub(crate) fn cell(text: &str) -> String {
    let mut shown = Foreign::from(text).cut(CELL_CHARS_MAX).to_string();
    if text.chars().nth(CELL_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Untrusted texts, separated by commas.
pub(crate) fn joined(texts: &[Foreign]) -> String {
    texts.iter().map(Foreign::to_string).collect::<Vec<_>>().join(", ")
}

/// Untrusted text, or a dash if there is none.
pub(crate) fn or_dash(text: Option<&Foreign>) -> String {
    text.map_or_else(|| "-".to_owned(), Foreign::to_string)
}

/// Tags as `name=value,...`, or a dash.
pub(crate) fn tags<'a>(tags: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let tags: Vec<_> = tags.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    if tags.is_empty() { "-".to_owned() } else { cell(&tags.join(",")) }
}

/// Spaces between two columns.
const GAP: usize = 2;
/// Tables cut longer texts.
const CELL_CHARS_MAX: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_control_characters_of_others() {
        assert_eq!(cell("a\u{1b}[2Jb\n\u{202e}"), "a\\u{1b}[2Jb\\n\\u{202e}");
    }

    #[test]
    fn cuts_what_is_too_long_for_a_table() {
        assert_eq!(cell(&"x".repeat(100)).chars().count(), CELL_CHARS_MAX + 1);
        assert_eq!(cell(&"x".repeat(CELL_CHARS_MAX)).chars().count(), CELL_CHARS_MAX);
    }
}
