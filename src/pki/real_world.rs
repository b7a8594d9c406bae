//! Files of certificates and keys in the forms that people and their tools create, and chains whose
//! certificates end at different times.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, PublicKeyData, SanType,
    SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;

use crate::{
    clock::Clock,
    protocol::{
        id::{Generation, NodeId},
        seal::Notary,
    },
    tls::{CertificateSummary, Identity, LoadError, Roots, Tls, revoked::seconds},
};

#[test]
fn refuses_files_as_people_make_them_and_says_what_is_wrong_and_what_to_do() {
    let pki = Pki::new();
    let (leaf, root, intermediate, key) = (
        pki.leaf_pem.as_str(),
        pki.root_pem.as_str(),
        pki.intermediate_pem.as_str(),
        pki.key_pem.as_str(),
    );
    let chain = format!("{leaf}{intermediate}");
    let utf16 = |text: &str| {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>()
    };
    let marked = |text: &str| format!("\u{feff}{text}").into_bytes();
    let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let renamed = |text: &str, kind: &str| text.replace("CERTIFICATE", kind);
    let encrypted = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n\
                     -----END EC PRIVATE KEY-----\n";
    let der = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap().to_vec();
    let cases: Vec<(&str, &str, Vec<u8>, &[&str])> = vec![
        (
            "intermediate before the leaf",
            "node.pem",
            format!("{intermediate}{leaf}").into(),
            &["CN=intermediate", "CN=leaf", "number 2", "leaf first"],
        ),
        (
            "root first",
            "node.pem",
            format!("{root}{intermediate}{leaf}").into(),
            &["CN=root", "number 3", "leaf first"],
        ),
        ("byte order mark, chain", "node.pem", marked(&chain), &["byte order mark", "save it as"]),
        (
            "byte order mark in the middle",
            "node.pem",
            format!("{leaf}\u{feff}{intermediate}").into(),
            &["byte order mark"],
        ),
        ("byte order mark, key", "node.key", marked(key), &["byte order mark", "save it as"]),
        ("byte order mark, roots", "roots.pem", marked(root), &["byte order mark"]),
        (
            "indented roots",
            "roots.pem",
            indented(root).into(),
            &["spaces", "remove the indentation"],
        ),
        ("indented key", "node.key", indented(key).into(), &["spaces", "remove the indentation"]),
        (
            "text before",
            "node.pem",
            format!("cert: {leaf}").into(),
            &["other text before a BEGIN line"],
        ),
        (
            "TRUSTED CERTIFICATE",
            "node.pem",
            format!("{}{intermediate}", renamed(leaf, "TRUSTED CERTIFICATE")).into(),
            &["TRUSTED CERTIFICATE", "openssl x509 -in"],
        ),
        (
            "X509 CERTIFICATE",
            "roots.pem",
            renamed(root, "X509 CERTIFICATE").into(),
            &["X509 CERTIFICATE", "openssl x509 -in"],
        ),
        (
            "encrypted SEC1",
            "node.key",
            encrypted.into(),
            &["encrypted with a passphrase", "openssl pkey"],
        ),
        ("UTF-16, chain", "node.pem", utf16(leaf), &["UTF-16", "save it as"]),
        ("UTF-16, key", "node.key", utf16(key), &["UTF-16", "save it as"]),
        ("DER", "node.pem", der, &["DER", "openssl x509 -inform der"]),
        (
            "CA:true",
            "node.pem",
            pki.certificate("spiffe://demo/eu/x", true, &*pki.key, LASTING).pem().into(),
            &["CA:true", "issue one with CA:false"],
        ),
        (
            "P-521",
            "node.pem",
            pki.certificate(
                "spiffe://demo/eu/x",
                false,
                &KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap(),
                LASTING,
            )
            .pem()
            .into(),
            &["ECDSA P-521", "Ed25519, ECDSA P-256 or P-384, or RSA of 2048"],
        ),
        (
            "RSA 1024",
            "node.pem",
            pki.certificate("spiffe://demo/eu/x", false, &Rsa1024, LASTING).pem().into(),
            &["RSA of 1024 bits", "Ed25519, ECDSA P-256 or P-384, or RSA of 2048"],
        ),
        ("SHA-1", "node.pem", signed_with_sha1(), &["SHA-1", "SHA-256 or better"]),
        (
            "cut off",
            "node.pem",
            chain.as_bytes()[..chain.len() - 100].to_vec(),
            &["no END line", "cut off"],
        ),
        (
            "damaged key",
            "node.key",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec(),
            &["private key", "damaged"],
        ),
        (
            "a certificate that is none",
            "node.pem",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec(),
            &["damaged, or no X.509 certificate"],
        ),
    ];
    for (what, name, bytes, says) in cases {
        let files = pki.files();
        files.write(name, &bytes);
        let error = files.load().map(drop).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: ")), "{what}: {error}");
        for part in says {
            assert!(error.contains(part), "{what}: {part:?} is missing in: {error}");
        }
        for word in ["Error", "Context", "peer certificate", "unexpected", "Parsing", "[", "{"] {
            assert!(!error.contains(word), "{what}: a library speaks: {error}");
        }
        if name != "node.key"
            && !["CA:true", "P-521", "RSA 1024", "SHA-1"].contains(&what)
            && !what.contains("first")
            && !what.contains("before the leaf")
        {
            let shown =
                CertificateSummary::from_pem_file(&files.path(name)).unwrap_err().to_string();
            assert!(says.iter().all(|part| shown.contains(part)), "cert show, {what}: {shown}");
        }
    }
    pki.files().load().unwrap();
}

#[test]
fn refuses_a_chain_that_its_own_roots_refuse_and_says_why() {
    let (pki, other) = (Pki::new(), Pki::new());
    let files = pki.files();
    files.write("node.pem", pki.leaf_pem.as_bytes());
    let refused = |files: &Files| {
        let (identity, roots) = files.load().unwrap();
        roots.judge(&identity, Clock::wall()).unwrap_err().to_string()
    };
    assert!(
        refused(&files).contains("missing intermediate behind the leaf"),
        "{}",
        refused(&files)
    );
    let files = pki.files();
    files.write("roots.pem", other.root_pem.as_bytes());
    assert!(
        refused(&files).contains("its own roots refuse the certificate"),
        "{}",
        refused(&files)
    );
}

#[test]
fn a_chain_ends_with_the_first_of_its_certificates() {
    let pki = Pki::new().with_intermediate_until(HOUR);
    let (identity, roots) = pki.files().load().unwrap();
    let standing = roots.judge(&identity, Clock::wall()).unwrap();
    assert_eq!(standing.outlived.as_deref(), Some("CN=intermediate"));
    let end = standing.expires;
    assert!(end < Clock::wall() + HOUR && end > Clock::wall() + HOUR - Duration::from_secs(60));
    assert!(identity.certificate().not_after > end + HOUR);
    roots.judge(&identity, end).unwrap();
    let error = roots.judge(&identity, end + Duration::from_secs(1)).unwrap_err().to_string();
    assert!(error.contains("intermediate certificate of CN=intermediate expired on 20"), "{error}");
    // The node reports about itself what it shows its operator.
    let tls = Tls::new(identity.clone(), roots).unwrap();
    assert_eq!(tls.certificate().expires, end);
    assert_eq!(tls.summary(identity.chain()).unwrap().expires, end);
    assert_eq!(tls.validity().1, seconds(end));
    let shown = CertificateSummary::of_chain(identity.chain()).unwrap();
    assert_eq!((shown[0].expires, shown[1].expires), (end, end));
    assert!(shown[0].to_string().contains("ends first"), "{}", shown[0]);
}

#[test]
fn a_chain_lasts_as_long_as_any_path_to_a_root() {
    let pki = Pki::new().with_intermediate_until(HOUR);
    // The same key with a new certificate: either works.
    let renewed = pki.intermediate_until(3 * HOUR);
    let files = pki.files();
    files
        .write("node.pem", format!("{}{}{renewed}", pki.leaf_pem, pki.intermediate_pem).as_bytes());
    let (identity, roots) = files.load().unwrap();
    let standing = roots.judge(&identity, Clock::wall()).unwrap();
    assert!(
        standing.expires > Clock::wall() + 2 * HOUR && standing.expires < Clock::wall() + 4 * HOUR
    );
    assert_eq!(
        CertificateSummary::of_chain(identity.chain()).unwrap()[0].expires,
        standing.expires
    );
    // If the intermediate itself is a root, its end is not checked.
    files.write("roots.pem", pki.intermediate_pem.as_bytes());
    let (identity, roots) = files.load().unwrap();
    let standing = roots.judge(&identity, Clock::wall()).unwrap();
    assert_eq!(standing.expires, identity.certificate().not_after);
    assert_eq!(standing.outlived, None);
}

#[test]
fn what_a_chain_has_vouched_for_it_has_after_an_intermediate_ended() {
    let pki = Pki::new().with_intermediate_until(Duration::ZERO);
    let (identity, roots) = pki.files().load().unwrap();
    assert!(roots.judge(&identity, Clock::wall()).is_err(), "it has ended");
    let tls = Tls::new(identity, roots).unwrap();
    let (node, generation) = (NodeId::new("x").unwrap(), Generation(1));
    let (_, credential) = tls.begin(&node, generation).unwrap();
    tls.vet(&node, generation, &credential).unwrap();
    // But not for a generation that begins after that, although the leaf is valid for long.
    let certified = tls.certified(&credential).unwrap();
    assert!(certified.not_after < seconds(Clock::wall()));
    let foreign = Pki::new().files().load().unwrap();
    let foreign = Tls::new(foreign.0, foreign.1).unwrap();
    assert!(foreign.vet(&node, generation, &credential).is_err());
}

/// A root, an intermediate, a leaf.
struct Pki {
    root: Issuer<'static, KeyPair>,
    intermediate_key: KeyPair,
    root_pem: String,
    intermediate_pem: String,
    leaf_pem: String,
    key: Box<KeyPair>,
    key_pem: String,
}

impl Pki {
    fn new() -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (root_key, intermediate_key, leaf_key) = (key(), key(), key());
        let params = params("root", true, LASTING);
        let root_pem = params.self_signed(&root_key).unwrap().pem();
        let key_pem = leaf_key.serialize_pem();
        let mut pki = Self {
            root: Issuer::new(params, root_key),
            intermediate_key,
            root_pem,
            intermediate_pem: String::new(),
            leaf_pem: String::new(),
            key: Box::new(leaf_key),
            key_pem,
        };
        pki.leaf_pem = pki.certificate("spiffe://demo/eu/x", false, &*pki.key, LASTING / 2).pem();
        pki.with_intermediate_until(LASTING)
    }

    fn with_intermediate_until(self, left: Duration) -> Self {
        Self { intermediate_pem: self.intermediate_until(left), ..self }
    }

    fn intermediate_until(&self, left: Duration) -> String {
        let params = params("intermediate", true, left);
        params.signed_by(&self.intermediate_key, &self.root).unwrap().pem()
    }

    /// Signed by the intermediate.
    fn certificate(
        &self,
        uri: &str,
        authority: bool,
        key: &impl PublicKeyData,
        left: Duration,
    ) -> rcgen::Certificate {
        let issuer = Issuer::new(params("intermediate", true, left), &self.intermediate_key);
        let mut params = params("leaf", authority, left);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.signed_by(key, &issuer).unwrap()
    }

    /// In a node's form.
    fn files(&self) -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        files.write("node.pem", format!("{}{}", self.leaf_pem, self.intermediate_pem).as_bytes());
        files.write("node.key", self.key_pem.as_bytes());
        files.write("roots.pem", self.root_pem.as_bytes());
        files
    }
}

struct Files(tempfile::TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn load(&self) -> Result<(Identity, Roots), LoadError> {
        let identity = Identity::from_pem_files(self.path("node.pem"), self.path("node.key"))?;
        Ok((identity, Roots::from_pem_file(self.path("roots.pem"))?))
    }
}

/// A public key of 1,024 bits; its private key is unknown, which does not matter.
struct Rsa1024;

impl PublicKeyData for Rsa1024 {
    fn der_bytes(&self) -> &[u8] {
        static DER: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let mut der = vec![0x30, 0x81, 0x89, 0x02, 0x81, 0x81, 0x00];
            der.extend([0xc5; 128]);
            der.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
            der
        });
        &DER
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

/// A leaf with the signature algorithm sha1WithRSAEncryption; it is refused before it is verified.
fn signed_with_sha1() -> Vec<u8> {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let issuer = Issuer::new(params("rsa", true, LASTING), key);
    let mut params = params("leaf", false, LASTING);
    params.subject_alt_names = vec![SanType::URI("spiffe://demo/eu/x".try_into().unwrap())];
    let leaf = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut der = params.signed_by(&leaf, &issuer).unwrap().der().to_vec();
    let sha256 = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    let places: Vec<_> = (0..der.len() - 8).filter(|at| der[*at..*at + 9] == sha256).collect();
    assert_eq!(places.len(), 2);
    places.iter().for_each(|at| der[at + 8] = 0x05);
    let text = base64_of(&der);
    format!("-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n").into_bytes()
}

fn base64_of(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (place, chunk) in bytes.chunks(3).enumerate() {
        let group = chunk.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        let group = group << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let bits = (group >> (18 - 6 * digit)) & 63;
            text.push(if digit > chunk.len() { '=' } else { char::from(DIGITS[bits as usize]) });
        }
        if place % 16 == 15 {
            text.push('\n');
        }
    }
    text.push('\n');
    text
}

/// `left`: its remaining validity; all began a day ago.
fn params(name: &str, authority: bool, left: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.is_ca =
        if authority { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    let calendar = |time: SystemTime| OffsetDateTime::from(time);
    params.not_before = calendar(Clock::wall() - 24 * HOUR);
    params.not_after = calendar(Clock::wall() + left - Duration::from_secs(5));
    params
}

const HOUR: Duration = Duration::from_secs(3_600);
const LASTING: Duration = Duration::from_secs(1_000 * 3_600);
