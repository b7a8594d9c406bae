//! The demo as a live view of the whole terminal.

use std::{fmt, io, time::Duration};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event, KeyEvent},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Borders, LineGauge, Padding, Paragraph, Row, Table},
};

use super::{
    End,
    account::{Account, Change, shown},
    log::{self, Kind, Log},
    play::{self, Play},
};
use crate::{
    stopwatch::Stopwatch,
    terminal::{self, Way},
};

/// The terminal; it is restored when this is dropped, also after a panic.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    log: Log,
    drawn: Option<Stopwatch>,
}

impl Screen {
    /// Takes over the terminal.
    pub(super) fn open() -> io::Result<Self> {
        // It sets a panic hook that restores the terminal, as the drop below does.
        let terminal = ratatui::try_init()?;
        Ok(Self { terminal, log: Log::default(), drawn: None })
    }

    /// Takes the news, and draws if it is time to.
    pub(super) fn show(&mut self, play: &mut Play) -> io::Result<()> {
        let running = play.running();
        play.take_news().into_iter().for_each(|news| self.log.add(news, &running));
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < REDRAW) {
            return Ok(());
        }
        self.drawn = Some(Stopwatch::start());
        let log = &self.log;
        self.terminal.draw(|frame| draw(frame, play, log))?;
        Ok(())
    }

    /// Whether the user has pressed a key that ends the demo. It does not block.
    pub(super) fn wants_to_end(&self) -> io::Result<Option<End>> {
        while event::poll(Duration::ZERO)? {
            if let Event::Key(key) = event::read()?
                && let Some(end) = ends(key)
            {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").field("log", &self.log).finish_non_exhaustive()
    }
}

fn ends(key: KeyEvent) -> Option<End> {
    terminal::asks_to_end(key).map(|way| match way {
        Way::Quit => End::Quit,
        Way::Interrupt => End::Signal,
    })
}

fn draw(frame: &mut Frame<'_>, play: &Play, log: &Log) {
    let rows = play.rows();
    let datacenters = play.datacenters();
    let wanted = saturating(rows.len() + datacenters + NODES_FRAME);
    // The nodes come first: events get the remaining lines, and at least one.
    let room = frame.area().height.saturating_sub(HEAD + EVENTS_MIN);
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(wanted.min(room)),
        Constraint::Min(EVENTS_MIN),
    ])
    .split(frame.area());
    frame.render_widget(title(play), areas[0]);
    frame.render_widget(gauge(play), areas[1]);
    frame.render_widget(Paragraph::new(steps(play.account())), areas[2]);
    nodes(frame, areas[3], &rows);
    events(frame, areas[4], log);
}

fn title(play: &Play) -> Line<'static> {
    let (nodes, datacenters) = (play.nodes(), play.datacenters());
    let many = if datacenters == 1 { "" } else { "s" };
    Line::from(vec![
        " gossipmonger ".bold().reversed(),
        format!(" {nodes} nodes in {datacenters} datacenter{many}").bold(),
        ", QUIC with mutual TLS 1.3 on loopback".into(),
    ])
}

fn gauge(play: &Play) -> LineGauge<'static> {
    let (elapsed, length) = (play.elapsed().as_secs_f64(), play.length().as_secs_f64());
    let left = (length - elapsed).max(0.0);
    LineGauge::default()
        .ratio((elapsed / length).clamp(0.0, 1.0))
        .label(format!(" {elapsed:5.1} s, {left:.0} s left "))
        .filled_symbol("━")
        .unfilled_symbol("─")
        .filled_style(Style::new().fg(Color::Cyan))
        .unfilled_style(Style::new().fg(Color::DarkGray))
}

/// The progress of the demo, step by step.
fn steps(account: &Account) -> Line<'static> {
    let mut spans = vec![Span::raw(" ")];
    let joined = account.joined.map(shown);
    spans.extend(step("join", joined.as_deref().unwrap_or(""), joined.is_some()));
    spans.extend(seen_step("death", account.death.as_ref()));
    spans.extend(seen_step("return", account.back.as_ref()));
    let keys = account.converged.map(|keys| format!("{keys} keys"));
    spans.extend(step("converged", keys.as_deref().unwrap_or(""), keys.is_some()));
    Line::from(spans)
}

fn seen_step(name: &str, change: Option<&Change>) -> Vec<Span<'static>> {
    let Some(change) = change else { return step(name, "", false) };
    let after = change.delays().map_or_else(String::new, |(_, last)| format!(", {}", shown(last)));
    let detail = format!("{} {}/{}{after}", change.node, change.seen_by(), change.seen.len());
    step(name, &detail, change.is_seen_by_all())
}

fn step(name: &str, detail: &str, done: bool) -> Vec<Span<'static>> {
    let (mark, color) = match (done, detail.is_empty()) {
        (true, _) => ("✔", Color::Green),
        (false, false) => ("…", Color::Yellow),
        (false, true) => ("○", Color::DarkGray),
    };
    let detail = if detail.is_empty() { String::new() } else { format!(" {detail}") };
    vec![
        Span::styled(format!("{mark} {name}"), Style::new().fg(color)),
        Span::styled(format!("{detail}  "), Style::new().add_modifier(Modifier::DIM)),
    ]
}

fn nodes(frame: &mut Frame<'_>, area: Rect, rows: &[play::Row]) {
    let room = usize::from(area.height).saturating_sub(NODES_FRAME);
    let (shown, hidden) = fitting(rows, room);
    let shown_columns = terminal::columns(&WIDTHS, area.width);
    let mut lines = Vec::new();
    let mut datacenter = None;
    for row in shown {
        if datacenter != Some(&row.datacenter) {
            datacenter = Some(&row.datacenter);
            lines.push(Row::new([row.datacenter.clone()]).style(Style::new().bold().cyan()));
        }
        let mut cells = node(row);
        cells.truncate(shown_columns);
        lines.push(Row::new(cells));
    }
    let header =
        Row::new(NAMES[..shown_columns].to_vec()).style(Style::new().add_modifier(Modifier::DIM));
    let hidden =
        if hidden > 0 { format!(", {hidden} more have no room here") } else { String::new() };
    let block = Block::new().borders(Borders::TOP).title(format!(" nodes{hidden} "));
    let table = Table::new(lines, COLUMNS[..shown_columns].to_vec())
        .header(header)
        .block(block.padding(Padding::horizontal(1)));
    frame.render_widget(table, area);
}

/// The rows that fit, by datacenter, preferring nodes in trouble; and how many do not fit.
fn fitting(rows: &[play::Row], room: usize) -> (Vec<&play::Row>, usize) {
    let mut chosen: Vec<&play::Row> = rows.iter().collect();
    chosen.sort_by_key(|row| row.runs && row.live == row.others);
    let lines = |rows: &[&play::Row]| {
        let mut names: Vec<_> = rows.iter().map(|row| &row.datacenter).collect();
        names.sort();
        names.dedup();
        rows.len() + names.len()
    };
    while !chosen.is_empty() && lines(&chosen) > room {
        chosen.pop();
    }
    chosen.sort_by(|a, b| (&a.datacenter, ordinal(a)).cmp(&(&b.datacenter, ordinal(b))));
    let hidden = rows.len() - chosen.len();
    (chosen, hidden)
}

/// `eu-10` comes after `eu-9`.
fn ordinal(row: &play::Row) -> (usize, &str) {
    (row.node.as_str().len(), row.node.as_str())
}

fn node(row: &play::Row) -> Vec<Line<'static>> {
    let (state, color) = state(row);
    let of = |count: usize| format!("{count} of {}", row.others);
    let phi = if row.others == 0 { Line::from("") } else { terminal::bar(row.phi, DEAD_PEER_PHI) };
    vec![
        Line::from(format!("  {}", row.node)),
        Line::styled(state, color),
        Line::from(of(row.live)),
        phi,
        Line::from(format!("{:>7}", row.version.0)),
        Line::from(format!("{:>4}", row.keys)),
        Line::styled(
            of(row.copies),
            if row.copies < row.others { Color::Yellow } else { Color::Reset },
        ),
        Line::styled(row.last_write.clone().unwrap_or_default(), Modifier::DIM),
    ]
}

fn state(row: &play::Row) -> (&'static str, Color) {
    match row {
        row if row.live == row.others => ("● live", Color::Green),
        row if row.dead == row.others => ("✖ dead", Color::Red),
        row if row.dead > 0 => ("✖ dying", Color::Red),
        row if row.suspect > 0 => ("◐ suspect", Color::Yellow),
        row if !row.runs => ("◌ silent", Color::Yellow),
        _ => ("○ joining", Color::Blue),
    }
}

fn events(frame: &mut Frame<'_>, area: Rect, log: &Log) {
    let room = usize::from(area.height).saturating_sub(EVENTS_FRAME);
    let lines: Vec<_> = log.last(room).map(event_line).collect();
    let quit = Line::from(" q quits ").right_aligned();
    let block = Block::new().borders(Borders::TOP | Borders::BOTTOM).title(" events ");
    let block = block.title_bottom(quit).padding(Padding::horizontal(1));
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn event_line(line: &log::Line) -> Line<'static> {
    let color = match line.kind {
        Kind::Act => Color::Cyan,
        Kind::Live => Color::Green,
        Kind::Suspect => Color::Yellow,
        Kind::Dead | Kind::Trouble => Color::Red,
        Kind::Key => Color::Reset,
    };
    let who = line.node.as_ref().map_or("demo", |node| node.as_str());
    let mut spans = vec![
        Span::styled(format!("{:6.1} s  ", line.at.as_secs_f64()), Modifier::DIM),
        Span::styled(format!("{who:NAME_WIDTH$} "), Modifier::BOLD),
    ];
    if line.of == 0 {
        spans.push(Span::styled(line.what.clone(), color));
        return Line::from(spans);
    }
    let verb = if line.kind == Kind::Key { "at" } else { "to" };
    let complete = line.seen.len() >= line.of;
    let by = match line.seen.first() {
        Some(one) if line.seen.len() == 1 => one.to_string(),
        _ => format!("{} of {}", line.seen.len(), line.of),
    };
    let took = match line.last.saturating_sub(line.at) {
        took if line.whole && !line.seen.is_empty() => format!(" in {}", shown(took)),
        _ => String::new(),
    };
    let phi = line.phi.map_or_else(String::new, |(least, most)| {
        let most = if most - least < 0.05 { String::new() } else { format!(" to {most:.1}") };
        format!(", phi {least:.1}{most}")
    });
    spans.push(Span::styled(format!("{:WHAT_WIDTH$} ", line.what), color));
    let style = if complete || !line.whole { Style::new() } else { Style::new().fg(Color::Yellow) };
    spans.push(Span::styled(format!("{verb} {by}{took}{phi}"), style));
    Line::from(spans)
}

fn saturating(lines: usize) -> u16 {
    u16::try_from(lines).unwrap_or(u16::MAX)
}

const NAMES: [&str; 8] =
    ["node", "state", "live at", "phi", "version", "keys", "copies", "last change"];
const WIDTHS: [u16; 8] = [9, 9, 8, 12, 7, 4, 8, 10];
const COLUMNS: [Constraint; 8] = [
    Constraint::Length(WIDTHS[0]),
    Constraint::Length(WIDTHS[1]),
    Constraint::Length(WIDTHS[2]),
    Constraint::Length(WIDTHS[3]),
    Constraint::Length(WIDTHS[4]),
    Constraint::Length(WIDTHS[5]),
    Constraint::Length(WIDTHS[6]),
    Constraint::Min(WIDTHS[7]),
];
/// A rule with the title, and the columns' names.
const NODES_FRAME: usize = 2;
/// A rule above and one below.
const EVENTS_FRAME: usize = 2;
/// Title, progress and steps.
const HEAD: u16 = 3;
/// The last event and its frame.
const EVENTS_MIN: u16 = 3;
const NAME_WIDTH: usize = 7;
const WHAT_WIDTH: usize = 28;
/// The default of the configuration.
const DEAD_PEER_PHI: f64 = 8.0;
const REDRAW: Duration = Duration::from_millis(90);

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::{KeyCode, KeyModifiers};

    use super::*;

    #[test]
    fn a_column_is_shown_whole_or_not_at_all() {
        let columns = |width| terminal::columns(&WIDTHS, width);
        assert_eq!(columns(60), 6, "a terminal of 60 columns has no room for the copies");
        assert_eq!(columns(80), 8);
        assert_eq!(columns(1), 1);
    }

    #[test]
    fn q_is_a_way_out_and_ctrl_c_an_interruption() {
        let key = |code, modifiers| ends(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(End::Quit));
        assert_eq!(key(KeyCode::Esc, KeyModifiers::NONE), Some(End::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(End::Signal));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
    }
}
