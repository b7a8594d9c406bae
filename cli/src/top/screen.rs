//! The screen of `top`: the nodes first, then the last events.

use std::{collections::BTreeMap, fmt, io, time::Duration};

use ratatui::{
    DefaultTerminal, Frame,
    crossterm::event::{self, Event},
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Borders, Padding, Paragraph, Row, Table},
};

use super::{Cluster, feed::Feed};
use crate::{
    admin::{MemberView, State},
    output,
    terminal::{self, Way},
};

/// The terminal; it is restored when this is dropped, also after a panic.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes over the terminal.
    pub(super) fn open() -> io::Result<Self> {
        ratatui::try_init().map(Self)
    }

    pub(super) fn draw(&mut self, feed: &Feed) -> io::Result<()> {
        self.0.draw(|frame| draw(frame, feed)).map(drop)
    }

    /// Waits for a key at most this long; whether it ends the view.
    pub(super) fn key(&self, patience: Duration) -> io::Result<Option<Way>> {
        if !event::poll(patience)? {
            return Ok(None);
        }
        Ok(match event::read()? {
            Event::Key(key) => terminal::asks_to_end(key),
            _ => None,
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

impl fmt::Debug for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Screen").finish_non_exhaustive()
    }
}

fn draw(frame: &mut Frame<'_>, feed: &Feed) {
    let members = &feed.cluster.members;
    let wanted = lines(members.iter()).saturating_add(FRAME);
    // The nodes come first: events get the remaining lines, on a small terminal none.
    let [title, nodes, events] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(u16::try_from(wanted).unwrap_or(u16::MAX)),
        Constraint::Min(0),
    ])
    .areas(frame.area());
    frame.render_widget(head(feed), title);
    show_nodes(frame, nodes, &feed.cluster);
    if usize::from(events.height) > FRAME {
        show_events(frame, events, feed);
    }
}

fn head(feed: &Feed) -> Line<'static> {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    feed.cluster.members.iter().for_each(|member| *counts.entry(member.state).or_default() += 1);
    let counts = counts.iter().map(|(state, count)| format!("{count} {}", state.as_str()));
    let local = feed.cluster.members.iter().find(|member| member.local);
    let local = local.map_or_else(String::new, |member| format!(" as {} sees it", member.node));
    let mut spans = vec![
        " gossipmonger ".bold().reversed(),
        format!(" {}{local} ", counts.collect::<Vec<_>>().join(", ")).into(),
    ];
    if let Some(problem) = &feed.problem {
        spans.push(Span::styled(
            format!("(trying again: {})", output::cell(problem)),
            Style::new().fg(Color::Red),
        ));
    }
    Line::from(spans)
}

fn show_nodes(frame: &mut Frame<'_>, area: Rect, cluster: &Cluster) {
    let (shown, hidden) = fitting(&cluster.members, usize::from(area.height).saturating_sub(FRAME));
    let columns = terminal::columns(&WIDTHS, area.width);
    let mut rows = Vec::new();
    let mut datacenter = None;
    for member in shown {
        if datacenter != Some(&member.datacenter) {
            datacenter = Some(&member.datacenter);
            let name = Line::from(member.datacenter.to_string());
            rows.push(Row::new([name]).style(Style::new().bold().cyan()));
        }
        let mut cells = cells(cluster, member);
        cells.truncate(columns);
        rows.push(Row::new(cells));
    }
    let hidden = if hidden > 0 { format!(", {hidden} more have no room") } else { String::new() };
    let block = Block::new().borders(Borders::TOP).title(format!(" nodes{hidden} (q quits) "));
    let table = Table::new(rows, WIDTHS[..columns].iter().map(|width| Constraint::Min(*width)))
        .header(Row::new(NAMES[..columns].to_vec()).style(Style::new().add_modifier(Modifier::DIM)))
        .block(block.padding(Padding::horizontal(1)));
    frame.render_widget(table, area);
}

fn cells(cluster: &Cluster, member: &MemberView) -> Vec<Line<'static>> {
    let (mark, color) = match member.state {
        State::Live => ("●", Color::Green),
        State::Joining => ("○", Color::Blue),
        State::Suspect => ("◐", Color::Yellow),
        State::Unreachable => ("◌", Color::Yellow),
        State::Left => ("·", Color::DarkGray),
        State::Dead | State::Revoked | State::Removed => ("✖", Color::Red),
    };
    let expires = member.not_after.as_ref().map_or_else(String::new, ToString::to_string);
    let soon = if member.expires_soon { Color::Yellow } else { Color::Reset };
    vec![
        Line::from(format!("  {}{}", member.node, if member.local { "*" } else { "" })),
        Line::styled(format!("{mark} {}", state(member)), color),
        member.phi.map_or_else(|| Line::from("-"), |phi| terminal::bar(phi, cluster.dead_peer_phi)),
        Line::from(cluster.rtt(member)),
        Line::from(format!("{:>7}", member.version.0)),
        Line::from(format!("{:>5}", member.keys)),
        Line::styled(expires.chars().take(EXPIRES_CHARS).collect::<String>(), soon),
        Line::from(output::or_dash(member.address.as_ref())),
    ]
}

fn state(member: &MemberView) -> &'static str {
    match member.state {
        State::Live if member.draining => "draining",
        state => state.as_str(),
    }
}

/// The members that fit, by datacenter and name, preferring those in trouble; and how many do not fit.
fn fitting(members: &[MemberView], room: usize) -> (Vec<&MemberView>, usize) {
    let mut chosen: Vec<_> = members.iter().collect();
    chosen.sort_by_key(|member| (rank(member.state), &member.datacenter, &member.node));
    while !chosen.is_empty() && lines(chosen.iter().copied()) > room {
        // In one step as many as are too many at least.
        let over = lines(chosen.iter().copied()) - room;
        chosen.truncate(chosen.len().saturating_sub(over.div_ceil(2)));
    }
    chosen.sort_by_key(|member| (&member.datacenter, &member.node));
    let hidden = members.len() - chosen.len();
    (chosen, hidden)
}

/// What an operator should see first.
const fn rank(state: State) -> u8 {
    match state {
        State::Suspect => 0,
        State::Dead | State::Unreachable => 1,
        State::Joining => 2,
        _ => 3,
    }
}

/// A line for each member, and one for each datacenter.
fn lines<'a>(members: impl Iterator<Item = &'a MemberView>) -> usize {
    let mut count = 0;
    let datacenters: std::collections::BTreeSet<_> =
        members.inspect(|_| count += 1).map(|member| &member.datacenter).collect();
    count + datacenters.len()
}

fn show_events(frame: &mut Frame<'_>, area: Rect, feed: &Feed) {
    let room = usize::from(area.height).saturating_sub(FRAME - 1);
    let skipped = feed.events.len().saturating_sub(room);
    let line = |(at, event): &(f64, String)| {
        let at = Span::styled(format!("{at:7.1} s  "), Modifier::DIM);
        Line::from(vec![at, Span::raw(output::cell(event))])
    };
    let lines: Vec<_> = feed.events.iter().skip(skipped).map(line).collect();
    let block = Block::new().borders(Borders::TOP).title(" events ");
    frame.render_widget(Paragraph::new(lines).block(block.padding(Padding::horizontal(1))), area);
}

const NAMES: [&str; 8] =
    ["node", "state", "phi", "rtt", "version", "keys", "certificate until", "address"];
const WIDTHS: [u16; 8] = [14, 13, 12, 9, 7, 5, 17, 21];
/// `2027-01-01T00:00`.
const EXPIRES_CHARS: usize = 16;
/// A rule with the title, and the names of the columns.
const FRAME: usize = 2;

#[cfg(test)]
mod tests {
    use gossipmonger::{Datacenter, Generation, NodeId, Version};
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn member(node: &str, datacenter: &str, state: State) -> MemberView {
        MemberView {
            node: NodeId::new(node).unwrap(),
            datacenter: Datacenter::new(datacenter).unwrap(),
            address: Some("127.0.0.1:7101".into()),
            state,
            phi: Some(0.5),
            version: Version(7),
            generation: Generation(1),
            keys: 3,
            addresses: Vec::new(),
            tags: BTreeMap::new(),
            local: node == "a",
            not_after: Some("2027-01-01T00:00:00Z".into()),
            expires_soon: false,
            draining: false,
        }
    }

    fn shown(feed: &Feed, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, feed)).unwrap();
        terminal.backend().to_string()
    }

    fn many(nodes: usize) -> Cluster {
        let mut members: Vec<_> = (0..nodes)
            .map(|n| member(&format!("n{n}"), ["eu", "us"][n % 2], State::Live))
            .collect();
        members.push(member("a", "eu", State::Live));
        members.push(member("z", "us", State::Suspect));
        Cluster { members, paths: Vec::new(), dead_peer_phi: 8.0 }
    }

    #[test]
    fn shows_nodes_and_events_and_what_is_wrong() {
        let feed = Feed::of(many(2), &["z is suspect"], Some("no agent runs in a"));
        let screen = shown(&feed, 110, 20);
        for part in [
            "3 live, 1 suspect as a sees it",
            "trying again: no agent runs",
            "◐ suspect",
            "events",
            "z is suspect",
            "2027-01-01T00:00",
            "127.0.0.1:7101",
        ] {
            assert!(screen.contains(part), "{part} is missing:\n{screen}");
        }
    }

    #[test]
    fn a_small_terminal_has_nodes_first_and_of_them_those_in_trouble() {
        let feed = Feed::of(many(40), &["something"], None);
        let screen = shown(&feed, 40, 7);
        assert!(screen.contains("◐ suspect") && screen.contains(" more have no room"), "{screen}");
        assert!(!screen.contains("something"), "{screen}");
        for (width, height) in [(1, 1), (5, 3), (200, 2), (20, 60)] {
            let _ = shown(&feed, width, height);
        }
    }

    #[test]
    fn no_text_of_others_controls_the_terminal() {
        let feed = Feed::of(many(1), &["\u{1b}[2Jx"], Some("\u{1b}]0;y"));
        assert!(!shown(&feed, 110, 20).contains('\u{1b}'));
    }
}
