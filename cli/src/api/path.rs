//! Paths of routes: `{name}` stands for one segment, `{*name}` at the end for all that are left.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

use crate::error::CliError;

/// Whether a path is that of a template.
#[derive(Debug)]
pub(super) enum Found {
    No,
    /// It is, with these fields.
    Fields(Map<String, Value>),
}

/// Compares a path, as it was sent, with a template.
pub(super) fn matched(template: &str, path: &str) -> Found {
    let mut fields = Map::new();
    let mut rest = path;
    for part in template.split('/').skip(1) {
        let Some(after) = rest.strip_prefix('/') else { return Found::No };
        let (segment, left) = match part.strip_prefix("{*") {
            Some(_) => (after, ""),
            None => after.split_at(after.find('/').unwrap_or(after.len())),
        };
        rest = left;
        let Some(name) = part.strip_prefix('{') else {
            if segment == part {
                continue;
            }
            return Found::No;
        };
        let name = name.trim_start_matches('*').trim_end_matches('}');
        match decoded(segment, false) {
            Ok(value) if !value.is_empty() || part.starts_with("{*") => {
                fields.insert(name.to_owned(), value.into())
            }
            _ => return Found::No,
        };
    }
    if rest.is_empty() { Found::Fields(fields) } else { Found::No }
}

/// The path of a template with these fields, which are taken out.
pub(super) fn filled(template: &str, fields: &mut Map<String, Value>) -> String {
    let mut path = String::new();
    for part in template.split('/').skip(1) {
        path.push('/');
        let Some(name) = part.strip_prefix('{') else {
            path.push_str(part);
            continue;
        };
        let name = name.trim_start_matches('*').trim_end_matches('}');
        let value = fields.remove(name).unwrap_or_default();
        path.push_str(&encoded(value.as_str().unwrap_or_default()));
    }
    path
}

/// A text as a part of a path or query.
pub(crate) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// A part of a path or query as a text. `form`: a plus is a space.
pub(crate) fn decoded(text: &str, form: bool) -> Result<String, CliError> {
    let spaced = if form { text.replace('+', " ") } else { text.to_owned() };
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| CliError::usage("a part of the URL is not UTF-8"))
}

/// All but what RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
