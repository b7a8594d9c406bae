//! When a certificate is to be renewed.

use std::time::{Duration, SystemTime};

use crate::tls::CertificateSummary;

/// When a certificate is to be renewed: after two thirds of its lifetime.
#[must_use]
pub fn renewal_due(certificate: &CertificateSummary) -> SystemTime {
    certificate.not_before + lifetime(certificate) * 2 / 3
}

/// The whole time that a certificate is valid, with the chain that it stands in.
#[must_use]
pub fn lifetime(certificate: &CertificateSummary) -> Duration {
    certificate.expires.duration_since(certificate.not_before).unwrap_or_default()
}
