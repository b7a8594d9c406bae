//! Any text as a token: refused, or one whose text is read as the same one again.
#![no_main]

use gossipmonger::{
    issuer::{Token, TokenId},
    unstable::TOKEN_CHARS_MAX,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(token) = text.parse::<Token>() {
        let again = token.to_text();
        assert!(again.len() <= TOKEN_CHARS_MAX);
        let again: Token = again.parse().expect("it is a token's text");
        assert_eq!(
            (again.id(), again.port(), again.issuer()),
            (token.id(), token.port(), token.issuer())
        );
    }
    if let Ok(id) = text.parse::<TokenId>() {
        assert_eq!(id.to_string(), text.to_lowercase());
    }
});
