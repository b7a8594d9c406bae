//! When a certificate is to be renewed.

use std::time::{Duration, SystemTime};

use crate::tls::CertificateSummary;

/// The time to renew a certificate: after two thirds of its lifetime.
#[must_use]
pub fn renewal_due(certificate: &CertificateSummary) -> SystemTime {
    certificate.not_before + lifetime(certificate) * 2 / 3
}

/// The total validity of a certificate, limited by its chain.
#[must_use]
pub fn lifetime(certificate: &CertificateSummary) -> Duration {
    certificate.expires.duration_since(certificate.not_before).unwrap_or_default()
}
