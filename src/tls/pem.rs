//! Certificates and keys in PEM text, and the faults of text that is not PEM.
//!
//! The parser skips everything that does not look like a section, so a leaf behind a byte order mark
//! would be dropped silently. So the damage that people and tools usually cause is looked for first.

use std::path::Path;

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::{
    certificate::CertificateSummary,
    files::{Audience, LoadError, read},
};

/// Reads all certificates of a text.
pub(crate) fn chain_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    check(pem)?;
    for (begin, why) in
        [(&b"-----BEGIN TRUSTED CERTIFICATE"[..], TRUSTED), (b"-----BEGIN X509 CERTIFICATE", X509)]
    {
        if contains(pem, begin) {
            return Err(LoadError::Form(why));
        }
    }
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| damaged(&e))?;
    if chain.is_empty() {
        return Err(LoadError::NoCertificate);
    }
    Ok(chain)
}

/// Reads the first private key of a text.
pub(super) fn key_from_pem(pem: &[u8]) -> Result<PrivateKeyDer<'static>, LoadError> {
    check(pem)?;
    if contains(pem, b"-----BEGIN ENCRYPTED PRIVATE KEY")
        || contains(pem, b"Proc-Type: 4,ENCRYPTED")
    {
        return Err(LoadError::EncryptedKey);
    }
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(LoadError::NoKey),
        Err(e) => Err(damaged(&e)),
    }
}

impl CertificateSummary {
    /// Reads all certificates of a PEM file, in their order. The end of each is limited by those of the file
    /// that have signed it; only their names determine which one has signed which.
    ///
    /// # Errors
    /// [`LoadError`] if the file cannot be read or contains no certificate.
    pub fn from_pem_file(path: &Path) -> Result<Vec<Self>, LoadError> {
        let summaries = || {
            let chain = chain_from_pem(&read(path, Audience::Anyone)?)?;
            Ok(Self::of_chain(&chain)?)
        };
        summaries().map_err(|error: LoadError| error.in_file(path))
    }
}

/// Refuses text in which a section would be overlooked.
fn check(pem: &[u8]) -> Result<(), LoadError> {
    if pem.starts_with(b"\xff\xfe")
        || pem.starts_with(b"\xfe\xff")
        || contains(pem, b"-\0-\0-\0-\0-")
    {
        return Err(LoadError::Form(UTF16));
    }
    // A DER SEQUENCE with a length of two bytes or more.
    if let [0x30, 0x81..=0x84, ..] = pem {
        return Err(LoadError::Form(DER));
    }
    for line in pem.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let Some(at) = line.windows(BEGIN.len()).position(|window| window == BEGIN) else {
            continue;
        };
        match &line[..at] {
            [] => {}
            before if before.starts_with(b"\xef\xbb\xbf") => return Err(LoadError::Form(MARK)),
            before if before.iter().all(u8::is_ascii_whitespace) => {
                return Err(LoadError::Form(INDENTED));
            }
            _ => return Err(LoadError::Form(PRECEDED)),
        }
    }
    Ok(())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Describes the fault without quoting the file: it may be a key.
fn damaged(error: &pem::Error) -> LoadError {
    LoadError::Pem(match error {
        pem::Error::MissingSectionEnd { .. } => {
            "a section has no END line; the file is cut off, or still being written"
        }
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is damaged",
        pem::Error::Base64Decode(_) => "the base64 of a section is damaged",
        _ => "a section cannot be read",
    })
}

const BEGIN: &[u8] = b"-----BEGIN ";
const UTF16: &str =
    "is UTF-16 text; save it as UTF-8 or ASCII (in PowerShell: Set-Content -Encoding ascii)";
const DER: &str = "is binary (DER or PKCS#12) and not PEM; convert it with: openssl x509 -inform der -in \
                   FILE -out NEW, openssl pkey -inform der ..., or openssl pkcs12 -in FILE -out NEW -nodes";
const MARK: &str =
    "has a byte order mark before a BEGIN line; save it as UTF-8 without a byte order mark";
const INDENTED: &str =
    "has spaces before a BEGIN line, as an indented template leaves them; remove the indentation";
const PRECEDED: &str = "has other text before a BEGIN line; each BEGIN line has to begin its line";
const TRUSTED: &str = "has a section BEGIN TRUSTED CERTIFICATE, which is OpenSSL's own format; convert it \
                       with: openssl x509 -in FILE -out NEW";
const X509: &str = "has a section BEGIN X509 CERTIFICATE, an old name; convert it with: openssl x509 -in \
                    FILE -out NEW";
