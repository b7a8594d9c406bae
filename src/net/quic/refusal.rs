//! The refused handshake that ended a connection.
//!
//! The refusing side knows the exact reason, from its own verifier ([`Verdict`]). The other side
//! receives one alert code in the frame that closes the connection ([`Refusal::of`]). The dialer's
//! `connect().await` returns `Ok` even if the acceptor then refuses its certificate, so the dialer
//! must also check `Connection::close_reason()`.

use quinn::ConnectionError;

use crate::tls::{Refusal, RefusedBy, Verdict};

impl Refusal {
    /// Reads why a connection ended; `None` if no handshake was refused.
    ///
    /// Suitable for both sides and for [`quinn::Connection::close_reason`].
    #[must_use]
    #[doc(hidden)]
    pub fn of(ended: &ConnectionError) -> Option<Self> {
        let (by, code, text) = match ended {
            ConnectionError::TransportError(e) => (RefusedBy::Us, e.code, e.reason.as_bytes()),
            ConnectionError::ConnectionClosed(close) => {
                (RefusedBy::Peer, close.error_code, &close.reason[..])
            }
            _ => return None,
        };
        Some(Self::of_alert(by, alert(u64::from(code))?, text))
    }
}

impl Verdict {
    /// Reads why the connection of this handshake ended; `None` if no handshake was refused.
    #[must_use]
    pub fn refusal(&self, ended: &ConnectionError) -> Option<Refusal> {
        self.ours().cloned().or_else(|| Refusal::of(ended))
    }
}

/// The TLS alert in a QUIC error code, RFC 9001 section 4.8.
fn alert(code: u64) -> Option<u8> {
    u8::try_from(code.checked_sub(CRYPTO_ERROR_FIRST)?).ok()
}

const CRYPTO_ERROR_FIRST: u64 = 0x100;

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, ConnectionClose, TransportErrorCode};

    use super::*;
    use crate::tls::Rejection;

    #[test]
    fn says_nothing_of_ends_that_are_no_refusal() {
        let closed = ApplicationClose { error_code: 0x131_u32.into(), reason: "".into() };
        for ended in [
            ConnectionError::TimedOut,
            ConnectionError::Reset,
            ConnectionError::ApplicationClosed(closed),
            told(TransportErrorCode::FLOW_CONTROL_ERROR, ""),
        ] {
            assert_eq!(Refusal::of(&ended), None, "{ended}");
        }
    }

    #[test]
    fn repeats_no_word_of_what_a_peer_says() {
        let hostile = format!("\u{1b}[2J\r\n{}", "\u{e4}".repeat(100_000));
        for alert in 0..=255 {
            let refusal = Refusal::of(&told(TransportErrorCode::crypto(alert), &hostile)).unwrap();
            let text = refusal.to_string();
            assert!(text.len() < 400 && text.chars().all(|c| !c.is_control() && c != '\u{e4}'));
            assert_eq!(refusal.detail.is_empty(), refusal.reason != Rejection::Other, "{text}");
        }
    }

    #[test]
    fn reads_every_code_that_a_peer_can_send() {
        for (alert, reason) in [
            (0x74, Rejection::NoCertificate),
            (0x30, Rejection::UnknownAuthority),
            (0x33, Rejection::BadSignature),
            (0x2d, Rejection::Expired),
            (0x2c, Rejection::Revoked),
            (0x31, Rejection::WrongCluster),
            (0x2b, Rejection::WrongPurpose),
            (0x2a, Rejection::WrongName),
            (0x78, Rejection::NoCommonVersion),
            (0x2e, Rejection::Other),
            (0x00, Rejection::Other),
            (0xff, Rejection::Other),
        ] {
            let refusal = Refusal::of(&told(TransportErrorCode::crypto(alert), "")).unwrap();
            assert_eq!((refusal.by, refusal.reason), (RefusedBy::Peer, reason), "{alert:#x}");
        }
    }

    #[test]
    fn keeps_the_first_verdict_of_a_handshake() {
        let verdict = Verdict::default();
        let ended = told(TransportErrorCode::crypto(0x30), "");
        assert_eq!(verdict.refusal(&ended).unwrap().by, RefusedBy::Peer);
        verdict.refuse(Refusal::by_us(Rejection::NoName, String::new()));
        verdict.refuse(Refusal::by_us(Rejection::Other, String::new()));
        assert_eq!(verdict.refusal(&ended).unwrap().reason, Rejection::NoName);
    }

    fn told(error_code: TransportErrorCode, reason: &str) -> ConnectionError {
        ConnectionError::ConnectionClosed(ConnectionClose {
            error_code,
            frame_type: None,
            reason: reason.to_owned().into(),
        })
    }
}
