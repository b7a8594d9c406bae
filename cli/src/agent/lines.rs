//! One event is one line of the log: untrusted text in a message cannot end the line, forge another line or control
//! the terminal.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use gossipmonger::unstable::{self, is_unsafe};
use tracing_subscriber::fmt::MakeWriter;

/// The format of the events that the formatter writes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// Text.
    Plain,
    /// Text with the colors of the formatter.
    Colored,
    /// JSON.
    Json,
}

/// A writer that passes each event on as one line. The formatter writes an event with one call, and ends it with a
/// line end.
#[derive(Clone, Copy, Debug)]
pub(super) struct OneLine<M> {
    form: Form,
    inner: M,
}

impl<M> OneLine<M> {
    pub(super) const fn new(form: Form, inner: M) -> Self {
        Self { form, inner }
    }
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = OneLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine { form: self.form, inner: self.inner.make_writer() }
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Self::Writer {
        OneLine { form: self.form, inner: self.inner.make_writer_for(meta) }
    }
}

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        // With one call as well: other writers may write to the same file.
        self.inner.write_all(format!("{}\n", safe(text, self.form)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn safe(text: &str, form: Form) -> Cow<'_, str> {
    match form {
        Form::Plain => unstable::escaped(text),
        Form::Json => unstable::json_escaped(text),
        Form::Colored if text.contains(is_unsafe) => Cow::Owned(colored(text)),
        Form::Colored => Cow::Borrowed(text),
    }
}

/// Keeps the colors of the formatter and escapes everything else. The formatter escapes an ESC in a message itself.
fn colored(text: &str) -> String {
    let mut safe = String::with_capacity(2 * text.len());
    let mut rest = text;
    while let Some(at) = rest.find(COLOR) {
        safe.push_str(&unstable::escaped(&rest[..at]));
        let code = &rest[at + COLOR.len()..];
        let digits = code.bytes().take_while(|b| b.is_ascii_digit() || *b == b';').count();
        let is_color = digits <= COLOR_BYTES_MAX && code[digits..].starts_with('m');
        let len = COLOR.len() + if is_color { digits + 1 } else { 0 };
        let sequence = &rest[at..at + len];
        safe.push_str(&if is_color {
            Cow::Borrowed(sequence)
        } else {
            unstable::escaped(sequence)
        });
        rest = &rest[at + len..];
    }
    safe.push_str(&unstable::escaped(rest));
    safe
}

/// The beginning of a sequence for a color; digits and an `m` follow.
const COLOR: &str = "\u{1b}[";
/// Longest digits of a color.
const COLOR_BYTES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::{fmt, layer::SubscriberExt};

    use super::*;

    const WORDS: &str =
        "a\u{1b}[2J\u{9b}31m\u{202e}\n2026-01-01T00:00:00.000000Z  INFO issued\r\nx";

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the log contains after these words, as a message, as a field and as an error, and after another event.
    fn logged(form: Form) -> String {
        let written = Written::default();
        let place = written.clone();
        let lines = fmt::layer().with_writer(OneLine::new(form, move || place.clone()));
        let registry = tracing_subscriber::registry();
        let log = || {
            tracing::warn!(words = WORDS, display = %WORDS, debug = ?WORDS, "{WORDS}");
            tracing::info!("the next one");
        };
        match form {
            Form::Plain => {
                tracing::subscriber::with_default(registry.with(lines.with_ansi(false)), log);
            }
            Form::Colored => {
                tracing::subscriber::with_default(registry.with(lines.with_ansi(true)), log);
            }
            Form::Json => {
                let lines = lines.json().flatten_event(true);
                tracing::subscriber::with_default(registry.with(lines), log);
            }
        }
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_message_forges_a_line_of_the_log() {
        for form in [Form::Plain, Form::Colored, Form::Json] {
            let log = logged(form);
            assert_eq!(log.lines().count(), 2, "{log:?}");
            let own = |c: char| matches!(form, Form::Colored) && c == '\u{1b}';
            let unsafe_one = log.chars().find(|c| is_unsafe(*c) && *c != '\n' && !own(*c));
            assert_eq!(unsafe_one, None, "{log:?}");
            assert!(!log.contains("\u{1b}[2J"), "{log:?}");
        }
    }

    #[test]
    fn json_keeps_the_value_that_was_logged() {
        let log = logged(Form::Json);
        let event: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
        assert_eq!(event["words"], WORDS);
        assert_eq!(event["display"], WORDS);
    }

    #[test]
    fn keeps_colors_and_no_other_escape_sequence() {
        assert_eq!(safe("\u{1b}[2mtime\u{1b}[0m", Form::Colored), "\u{1b}[2mtime\u{1b}[0m");
        assert_eq!(safe("\u{1b}[2J\u{1b}]0;x\n", Form::Colored), "\\u{1b}[2J\\u{1b}]0;x\\n");
    }
}
