//! Untrusted text: it can be displayed without controlling a terminal or forging a line of a log.
//!
//! Text of a peer, an agent, a certificate or a file becomes a [`Foreign`] where it enters. Where text leaves for
//! a terminal or the log, [`escaped`] and [`json_escaped`] filter all of it again.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize};

/// Untrusted text. Both `Display` and `Debug` escape control characters (C0, C1 and DEL), line ends, bidirectional
/// marks and zero-width characters (`\n`, `\u{1b}`), so the text is one line of visible characters.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Foreign(String);

impl Foreign {
    /// The text in these bytes; invalid UTF-8 becomes U+FFFD.
    #[must_use]
    #[doc(hidden)]
    pub fn lossy(bytes: &[u8]) -> Self {
        Self(String::from_utf8_lossy(bytes).into_owned())
    }

    /// Its first characters, at most this many.
    #[must_use]
    #[doc(hidden)]
    pub fn cut(mut self, chars: usize) -> Self {
        if let Some((at, _)) = self.0.char_indices().nth(chars) {
            self.0.truncate(at);
        }
        self
    }

    /// Whether it is empty.
    #[must_use]
    #[doc(hidden)]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The unescaped text, for comparisons. Do not print it.
    #[must_use]
    pub const fn unescaped(&self) -> &str {
        self.0.as_str()
    }
}

impl From<String> for Foreign {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Foreign {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escaped(&self.0))
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", escaped(&self.0))
    }
}

/// One line of visible characters: every other character is escaped.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    replaced(text, is_unsafe, |c| c.escape_default().to_string())
}

/// The same for text of several lines: line ends and tabs stay.
#[must_use]
pub fn escaped_lines(text: &str) -> Cow<'_, str> {
    let is_unsafe = |c| is_unsafe(c) && !matches!(c, '\n' | '\t');
    replaced(text, is_unsafe, |c| c.escape_default().to_string())
}

/// The same for one line of JSON, as `\u` escapes, so the value stays the same: JSON has such characters only
/// within strings.
#[must_use]
pub fn json_escaped(json: &str) -> Cow<'_, str> {
    replaced(json, is_unsafe, |c| {
        c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
    })
}

/// Copies the text only if it contains an unsafe character, which is rare.
fn replaced(
    text: &str,
    is_unsafe: impl Fn(char) -> bool,
    escape: impl Fn(char) -> String,
) -> Cow<'_, str> {
    if !text.chars().any(&is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(2 * text.len());
    for c in text.chars() {
        if is_unsafe(c) { safe.push_str(&escape(c)) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// Whether a character controls a terminal, ends a line or is invisible.
#[must_use]
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Soft hyphen, Arabic letter mark, Mongolian vowel separator.
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            // Zero width spaces and joiners, left-to-right and right-to-left marks.
            | '\u{200b}'..='\u{200f}'
            // Line and paragraph separators, bidirectional embeddings and overrides.
            | '\u{2028}'..='\u{202e}'
            // Word joiner, invisible operators, bidirectional isolates.
            | '\u{2060}'..='\u{206f}'
            // Byte order mark, interlinear annotations.
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags.
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind.
    const UNSAFE: [char; 16] = [
        '\0',
        '\u{1b}',
        '\u{7}',
        '\n',
        '\r',
        '\t',
        '\u{7f}',
        '\u{85}',
        '\u{9b}',
        '\u{200b}',
        '\u{200f}',
        '\u{2028}',
        '\u{202e}',
        '\u{2066}',
        '\u{feff}',
        '\u{e0041}',
    ];

    #[test]
    fn displays_no_unsafe_character_of_untrusted_text() {
        for c in UNSAFE {
            let text = format!("a{c}b");
            let foreign = Foreign::from(text.as_str());
            for shown in [foreign.to_string(), format!("{foreign:?}"), escaped(&text).into_owned()]
            {
                assert!(!shown.contains(is_unsafe), "{shown:?}");
                assert!(shown.contains('\\'), "{shown:?}");
            }
            assert_eq!(foreign.unescaped(), text);
        }
        assert_eq!(Foreign::from("\u{1b}[2J\r\nx").to_string(), "\\u{1b}[2J\\r\\nx");
        assert_eq!(Foreign::from("größer → 日本").to_string(), "größer → 日本");
    }

    #[test]
    fn cuts_by_characters_and_takes_any_bytes() {
        assert_eq!(Foreign::from("äöü").cut(2).unescaped(), "äö");
        assert_eq!(Foreign::from("ä").cut(2).unescaped(), "ä");
        assert_eq!(Foreign::lossy(b"a\xff").to_string(), "a\u{fffd}");
    }

    #[test]
    fn json_keeps_its_value_and_has_no_unsafe_character() {
        for c in UNSAFE {
            let text = format!("\"a{c}\\b");
            let json = serde_json::to_string(&Foreign::from(text.as_str())).unwrap();
            let shown = json_escaped(&json);
            assert!(!shown.contains(is_unsafe), "{shown:?}");
            assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }

    #[test]
    fn text_of_several_lines_keeps_its_lines() {
        assert_eq!(escaped_lines("a\n\tb\u{1b}"), "a\n\tb\\u{1b}");
    }
}
