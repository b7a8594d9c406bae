//! The web view: files that are part of the program. They contain no data, so everybody may have them.

use http::{HeaderValue, Response, StatusCode, header};

use super::answer::{Body, text};

/// The file at a path.
pub(super) fn file(path: &str) -> Option<Response<Body>> {
    let (_, kind, body) = FILES.iter().find(|(name, ..)| *name == path)?;
    let mut response = text(StatusCode::OK, kind, *body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    Some(response)
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, type and content.
const FILES: [(&str, &str, &str); 11] = [
    ("/", HTML, include_str!("../../web/index.html")),
    ("/view.css", CSS, include_str!("../../web/view.css")),
    ("/view.js", SCRIPT, include_str!("../../web/view.js")),
    ("/api.js", SCRIPT, include_str!("../../web/api.js")),
    ("/dom.js", SCRIPT, include_str!("../../web/dom.js")),
    ("/events.js", SCRIPT, include_str!("../../web/events.js")),
    ("/links.js", SCRIPT, include_str!("../../web/links.js")),
    ("/members.js", SCRIPT, include_str!("../../web/members.js")),
    ("/node.js", SCRIPT, include_str!("../../web/node.js")),
    ("/services.js", SCRIPT, include_str!("../../web/services.js")),
    ("/theme.js", SCRIPT, include_str!("../../web/theme.js")),
];

/// Nothing but these files and this agent.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'";
