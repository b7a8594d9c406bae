//! The text that lets one machine join: created by an issuer, carried by a person, typed once.
//!
//! A token contains the port of the issuer (the host is given beside it), the pin of the authority,
//! its own id and its secret. It does not contain its terms: the issuer keeps those. A checksum
//! distinguishes a typo from a refusal. Nothing here does IO.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    protocol::{id::NodeId, wire::fields},
    tls::Pin,
};

/// Maximum length of a token's text, in characters.
pub const TOKEN_CHARS_MAX: usize = 200;

/// A token.
#[derive(Clone, Debug)]
pub struct Token {
    id: TokenId,
    port: u16,
    pin: Pin,
    issuer: NodeId,
    secret: Secret,
}

impl Token {
    /// A new token of this issuer, which listens at `port`. `None`: the system provides no randomness.
    pub(crate) fn generate(issuer: NodeId, port: u16, pin: Pin) -> Option<Self> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        let random = SystemRandom::new();
        random.fill(&mut id).ok()?;
        random.fill(&mut secret).ok()?;
        let token = Self { id: TokenId(id), port, pin, issuer, secret: Secret(secret) };
        secret.zeroize();
        Some(token)
    }

    /// Its id, which is not secret.
    #[must_use]
    pub const fn id(&self) -> TokenId {
        self.id
    }

    /// The UDP port of the issuer.
    #[must_use]
    #[doc(hidden)]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The node that created it.
    #[must_use]
    #[doc(hidden)]
    pub const fn issuer(&self) -> &NodeId {
        &self.issuer
    }

    /// A token that claims to be another one.
    #[cfg(test)]
    pub(crate) fn from_parts(id: TokenId, other: &Self) -> Self {
        Self { id, ..other.clone() }
    }

    /// The same token for another issuer's port.
    #[cfg(test)]
    pub(crate) fn at(token: &Self, port: u16) -> Self {
        Self { port, ..token.clone() }
    }

    pub(crate) const fn pin(&self) -> Pin {
        self.pin
    }

    /// The key for proofs.
    pub(crate) fn key(&self) -> ProofKey {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret.0);
        let mut derived = [0; PROOF_BYTES];
        derived.copy_from_slice(hmac::sign(&key, KEY_LABEL).as_ref());
        ProofKey(derived)
    }

    /// The token as its one line. Anybody who reads it can join.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let name = self.issuer.as_str().as_bytes();
        // Allocate all of it at once: a vector that grows leaves copies behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(FIXED_BYTES + name.len()));
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes.extend_from_slice(&self.pin.0);
        bytes.extend_from_slice(&self.id.0);
        bytes.extend_from_slice(&self.secret.0);
        bytes.extend_from_slice(name);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let mut text = Zeroizing::new(String::with_capacity(TOKEN_CHARS_MAX));
        text.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(&*bytes, &mut text);
        text
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Reads a token; spaces and line ends around it are ignored.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let Some(body) = text.strip_prefix(PREFIX) else {
            let known = text.strip_prefix(FAMILY).is_some_and(|rest| {
                rest.split_once('_').is_some_and(|(version, _)| version.parse::<u16>().is_ok())
            });
            return Err(if known { TokenError::Version } else { TokenError::Foreign });
        };
        if text.len() > TOKEN_CHARS_MAX {
            return Err(TokenError::Damaged);
        }
        let decoded = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Damaged)?;
        let bytes = Zeroizing::new(decoded);
        let (bytes, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(TokenError::Damaged)?;
        if checksum(bytes) != *sum {
            return Err(TokenError::Damaged);
        }
        Self::from_bytes(bytes).ok_or(TokenError::Damaged)
    }
}

impl Token {
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (port, bytes) = bytes.split_first_chunk()?;
        let (pin, bytes) = bytes.split_first_chunk()?;
        let (id, bytes) = bytes.split_first_chunk()?;
        let (secret, name) = bytes.split_first_chunk()?;
        let issuer = NodeId::new(std::str::from_utf8(name).ok()?).ok()?;
        let port = u16::from_be_bytes(*port);
        let (id, pin, secret) = (TokenId(*id), Pin(*pin), Secret(*secret));
        (port != 0).then_some(Self { id, port, pin, issuer, secret })
    }
}

/// The id of a token: in lists, in logs, and for `token revoke`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub(crate) [u8; ID_BYTES]);

fields!(TokenId { 0 });

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&to_hex(&self.0))
    }
}

impl fmt::Debug for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenId({self})")
    }
}

impl FromStr for TokenId {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        from_hex(text).map(Self).ok_or(TokenError::Id)
    }
}

/// A text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// It does not begin like a token.
    #[error("this is no token: one begins with {PREFIX}")]
    Foreign,
    /// It is of another version.
    #[error(
        "this token is of another version than {PREFIX}: use the version of gossipmonger that its issuer runs"
    )]
    Version,
    /// Its checksum does not match.
    #[error(
        "this token is damaged (its checksum does not fit): copy all of it again, or make a new one with `gossipmonger token create`"
    )]
    Damaged,
    /// A text is not a token's id.
    #[error("a token's id is {} hexadecimal digits, see `gossipmonger token list`", 2 * ID_BYTES)]
    Id,
}

/// The issuer keeps this in place of the secret, and proofs are made with it. Its holder can prove
/// as much as with the token: an HMAC is verified by making it again.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ProofKey(pub(crate) [u8; PROOF_BYTES]);

impl ProofKey {
    pub(crate) fn prove(&self, words: &[u8]) -> [u8; PROOF_BYTES] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut proof = [0; PROOF_BYTES];
        proof.copy_from_slice(hmac::sign(&key, words).as_ref());
        proof
    }

    /// Whether the proof is of these bytes; the time does not depend on the difference.
    pub(crate) fn bears_out(&self, words: &[u8], proof: &[u8; PROOF_BYTES]) -> bool {
        verify_slices_are_equal(&self.prove(words), proof).is_ok()
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey")
    }
}

impl Drop for ProofKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

#[derive(Clone)]
struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

fn checksum(bytes: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = crc32fast::Hasher::new();
    sum.update(PREFIX.as_bytes());
    sum.update(bytes);
    sum.finalize().to_be_bytes()
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(16 * high + low).ok()?;
    }
    Some(bytes)
}

/// "gossipmonger join", and the version of the rest.
const PREFIX: &str = "gmj1_";
const FAMILY: &str = "gmj";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
const SUM_BYTES: usize = 4;
pub(crate) const PROOF_BYTES: usize = 32;
/// Port, pin, id, secret and checksum; the issuer's name adds up to 63: 193 characters at most.
const FIXED_BYTES: usize = 2 + 32 + ID_BYTES + SECRET_BYTES + SUM_BYTES;
const KEY_LABEL: &[u8] = b"gossipmonger 1 join proof key";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_every_typo_as_a_typo() {
        let text = token("a").to_text();
        for place in 0..text.len() {
            let mut typo: Vec<char> = text.chars().collect();
            typo[place] = if typo[place] == 'x' { 'y' } else { 'x' };
            let typo: String = typo.into_iter().collect();
            let expected =
                if place < PREFIX.len() { TokenError::Foreign } else { TokenError::Damaged };
            assert_eq!(Token::from_str(&typo).unwrap_err(), expected, "{typo}");
        }
        for cut in PREFIX.len()..text.len() {
            assert_eq!(Token::from_str(&text[..cut]).unwrap_err(), TokenError::Damaged);
        }
    }

    #[test]
    fn refuses_another_version_and_what_is_no_token() {
        for (text, expected) in [
            ("", TokenError::Foreign),
            ("gmj", TokenError::Foreign),
            ("gmj_x", TokenError::Foreign),
            ("gmj2_AAAA", TokenError::Version),
            ("gmj1_", TokenError::Damaged),
            ("gmj1_%%%", TokenError::Damaged),
        ] {
            assert_eq!(Token::from_str(text).unwrap_err(), expected, "{text}");
        }
        let long = format!("gmj1_{}", "A".repeat(100_000));
        assert_eq!(Token::from_str(&long).unwrap_err(), TokenError::Damaged);
    }

    #[test]
    fn refuses_a_port_of_nobody() {
        let token = Token { port: 0, ..token("a") };
        assert_eq!(Token::from_str(&token.to_text()).unwrap_err(), TokenError::Damaged);
    }

    #[test]
    fn comes_back_from_its_text_whatever_surrounds_it() {
        let name = "n".repeat(63);
        for name in ["a", &name] {
            let token = token(name);
            let text = token.to_text();
            assert!(text.len() <= TOKEN_CHARS_MAX, "{}", text.len());
            assert!(!text.contains(|c: char| !c.is_ascii_alphanumeric() && !"_-".contains(c)));
            let read = Token::from_str(&format!("  {}\r\n", *text)).unwrap();
            assert_eq!((read.id(), read.port(), read.pin()), (token.id(), 7102, Pin([7; 32])));
            assert_eq!((read.issuer(), read.key().0), (token.issuer(), token.key().0));
        }
    }

    #[test]
    fn shows_no_secret_unless_asked_for_the_text() {
        let token = token("a");
        let shown = format!("{token:?} {:?} {}", token.key(), token.id());
        assert!(!shown.contains(&to_hex(&token.secret.0)), "{shown}");
        assert!(shown.contains("Secret") && shown.contains(&token.id().to_string()), "{shown}");
    }

    #[test]
    fn reads_an_id_only_whole() {
        let id = token("a").id();
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "12", "0123456789abcdeg", "0123456789abcdef0", "+123456789abcdef"] {
            assert_eq!(TokenId::from_str(bad), Err(TokenError::Id), "{bad}");
        }
    }

    proptest! {
        // C90
        #[test]
        fn never_panics_on_arbitrary_text(text in "(gmj1_)?\\PC{0,220}") {
            prop_assert!(Token::from_str(&text).is_err());
            let _ = TokenId::from_str(&text);
        }
    }

    fn token(issuer: &str) -> Token {
        Token::generate(NodeId::new(issuer).unwrap(), 7102, Pin([7; 32])).unwrap()
    }
}
