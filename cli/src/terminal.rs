//! What the views of a whole terminal share: the keys that end them, columns that fit, and the bar of suspicion.

use std::io::{self, IsTerminal};

use ratatui::{
    crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    style::Color,
    text::{Line, Span},
};

/// How the user ends a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// `q`, Esc or Ctrl-D.
    Quit,
    /// Ctrl-C.
    Interrupt,
}

/// Whether the program has a whole terminal, for its output and for keys.
pub(crate) fn is_interactive() -> bool {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    io::stdout().is_terminal() && io::stdin().is_terminal() && !dumb
}

/// Whether a key ends the view.
pub(crate) fn asks_to_end(key: KeyEvent) -> Option<Way> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        _ if key.kind == KeyEventKind::Release => None,
        KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Way::Quit),
        // The terminal is in raw mode: Ctrl-C arrives as a key.
        KeyCode::Char('c') if control => Some(Way::Interrupt),
        KeyCode::Char('d') if control => Some(Way::Quit),
        _ => None,
    }
}

/// How many columns of these widths fit: a column is shown whole or not at all.
pub(crate) fn columns(widths: &[u16], width: u16) -> usize {
    let mut left = width.saturating_sub(PADDING);
    let mut shown = 0;
    for width in widths {
        if left < *width {
            break;
        }
        left = left.saturating_sub(width + 1);
        shown += 1;
    }
    shown.max(1)
}

/// The level of suspicion, and a bar that is full where a node is called dead.
pub(crate) fn bar(phi: f64, dead: f64) -> Line<'static> {
    let part = (phi / dead).clamp(0.0, 1.0);
    let full = (part * BAR_WIDTH as f64).round() as usize;
    let color = match part {
        part if part >= 1.0 => Color::Red,
        part if part >= 0.5 => Color::Yellow,
        _ => Color::Green,
    };
    Line::from(vec![
        Span::styled("█".repeat(full), color),
        Span::styled("░".repeat(BAR_WIDTH - full), Color::DarkGray),
        Span::raw(format!(" {phi:>5.1}")),
    ])
}

/// A space at each side of a table.
const PADDING: u16 = 2;
const BAR_WIDTH: usize = 6;
