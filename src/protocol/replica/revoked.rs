//! The revocations of certificates, and the authorities that sign them.

use std::{sync::Arc, time::Duration};

use crate::protocol::{
    bucket::Bucket,
    revocation::{Authorities, Revocation, RevocationError, Revocations},
    time::Time,
};

/// The accepted statements, and the view of the trusted authorities.
#[derive(Debug)]
pub(super) struct Revoked {
    pub(super) union: Arc<Revocations>,
    pub(super) authorities: Option<Arc<dyn Authorities>>,
    /// How often all of them may be sent.
    answers: Bucket,
    /// When the whole set is looked at next.
    due: Time,
}

impl Revoked {
    /// These were taken before.
    pub(super) fn new(now: Time, statements: impl IntoIterator<Item = Revocation>) -> Self {
        Self {
            union: Arc::new(Revocations::restored(statements)),
            authorities: None,
            answers: Bucket::full(now, ANSWERS_PER_SECOND),
            due: now,
        }
    }

    /// Whether the whole set is to be examined now.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        let due = now >= self.due;
        if due {
            self.due = now + LOOK_INTERVAL;
        }
        due
    }

    /// Whether all may be sent once more.
    pub(super) fn may_tell(&mut self, now: Time) -> bool {
        self.answers.pays(now, ANSWERS_PER_SECOND)
    }

    /// Whether a statement is valid. `wall`: the time of the wall clock, in seconds since 1970.
    pub(super) fn verify(&self, wall: u64, statement: &Revocation) -> Result<(), RevocationError> {
        if statement.expires < wall {
            return Err(RevocationError::Expired);
        }
        match &self.authorities {
            Some(authorities) => authorities.verify(statement)?,
            None => return Err(RevocationError::UnknownIssuer(statement.issuer)),
        }
        // After the signature, so that a forged statement is reported as forged.
        statement.check_cutoff(wall)
    }
}

/// How many times in a second all statements are sent to peers with another sum: they may take 640 kB. A peer
/// that is not answered comes again with its next sum.
const ANSWERS_PER_SECOND: f64 = 20.0;

/// How often the whole set is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
