//! The demo as lines: time, node, event. For logs, pipes, and terminals without more abilities.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::play::{News, Play, sentence};

/// Prints a line per event since the last call.
pub(super) fn show(play: &mut Play) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for news in play.take_news() {
        let (at, who, what) = line(news);
        writeln!(out, "{:8.3} s  {who:WHO_WIDTH$}  {what}", at.as_secs_f64())?;
    }
    out.flush()
}

fn line(news: News) -> (Duration, String, String) {
    match news {
        News::Done { at, node, what } => {
            (at, node.map_or_else(|| "demo".to_owned(), |node| node.to_string()), what)
        }
        News::Seen(seen) => {
            let what = match &seen.event {
                Ok(event) => sentence(&seen.observer, event),
                Err(missed) => format!("has missed {missed} events"),
            };
            (seen.at, seen.observer.to_string(), what)
        }
    }
}

const WHO_WIDTH: usize = 6;
