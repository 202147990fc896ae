//! Signs certificates: leaf profile, validity and chain. No I/O: whoever holds the files and checks the callers is elsewhere.

mod revoking;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use boring::error::ErrorStack;
use boring::x509::X509;
use mesh::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::ParsedExtension;

use crate::certificate::{CertificateError, CertificateSummary, WorkloadCertificate, read_pem};
use crate::key::{KeyError, PrivateKey, PublicKey};

/// How far in the past a leaf starts, for peers whose clocks run behind.
const BACKDATE: Duration = Duration::from_secs(600);
/// How far in the past a new root starts: no leaf may begin before it.
const ROOT_BACKDATE: Duration = Duration::from_secs(3600);

/// A signing certificate with its key: a root of our own, or an intermediate of the operator's.
pub struct Signer {
    issuer: Issuer<'static, PrivateKey>,
    /// Sent after each leaf: the signing certificate and what links it to the root. Empty for a root.
    intermediates: Vec<String>,
    roots: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A workload: its SPIFFE identity is the only name.
    Workload(Identity),
    /// A server of ours, reached by these names and addresses.
    Server {
        names: Vec<String>,
        addresses: Vec<IpAddr>,
    },
}

/// A signed certificate as it is answered: leaf, intermediates, and the roots last; PEM.
#[derive(Debug, Clone)]
pub struct Issued {
    pub chain: Vec<String>,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub serial: String,
}

/// Why nothing was signed, or why a signer can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    #[error("the signing certificate has expired")]
    Expired,
    #[error("the private key does not belong to the signing certificate")]
    KeyMismatch,
    #[error("the signing certificate is no CA certificate")]
    NotCa,
    #[error("{0:?} can't be a name in a certificate")]
    Name(String),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("signing failed: {0}")]
    Sign(String),
}

impl From<rcgen::Error> for SignerError {
    fn from(error: rcgen::Error) -> Self {
        Self::Sign(error.to_string())
    }
}

impl From<ErrorStack> for SignerError {
    fn from(error: ErrorStack) -> Self {
        Self::Sign(error.to_string())
    }
}

// === impl Signer ===

impl Signer {
    /// A new self-signed root with a P-256 key.
    pub fn self_signed(
        organization: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, SignerError> {
        Self::root(PrivateKey::generate()?, organization, lifetime, now)
    }

    fn root(
        key: PrivateKey,
        organization: &str,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, SignerError> {
        let (not_before, not_after) = (now - ROOT_BACKDATE, now + lifetime);
        let mut params = params(not_before, not_after)?;
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.key_identifier_method = KeyIdMethod::PreSpecified(key.public().identifier());
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            roots: certificate.pem(),
            issuer: Issuer::new(params, key),
            intermediates: Vec::new(),
            not_before,
            not_after,
        })
    }

    /// A signer from PEM texts: its certificate and key, the roots, and the chain between (which may repeat both).
    pub fn from_pem(
        certificate: &str,
        key: &[u8],
        roots: &str,
        chain: &str,
        now: SystemTime,
    ) -> Result<Self, SignerError> {
        let key = PrivateKey::from_pem(key)?;
        let certificate = read_pem(certificate)?
            .into_iter()
            .next()
            .ok_or(CertificateError::Incomplete)?;
        let summary = CertificateSummary::read(&certificate)?;
        if now >= summary.not_after {
            return Err(SignerError::Expired);
        }
        let parsed = X509::from_der(&certificate)?;
        if parsed.public_key()?.public_key_to_der()? != key.public().der() {
            return Err(SignerError::KeyMismatch);
        }
        if !is_ca(&certificate) {
            return Err(SignerError::NotCa);
        }
        let root_certificates = read_pem(roots)?;
        let intermediates = read_pem(&chain_between(&certificate, chain)?)?
            .iter()
            .filter(|one| !root_certificates.contains(one))
            .map(|one| CertificateSummary::read(one).map(|summary| summary.pem))
            .collect::<Result<_, _>>()?;
        let signer = Self {
            issuer: Issuer::new(issuer_params(&certificate)?, key),
            intermediates,
            roots: roots.to_owned(),
            not_before: summary.not_before,
            not_after: summary.not_after,
        };
        // One certificate signed and verified end to end proves that key, chain and roots belong together.
        let probe = Identity::new(mesh::identity::DEFAULT_TRUST_DOMAIN, "probe", "probe");
        signer.workload_certificate(&probe, Duration::from_secs(60), now)?;
        Ok(signer)
    }

    /// The one of several roots that a key belongs to. It comes first among them, and each is
    /// there once.
    pub fn one_of(roots: &str, key: &[u8], now: SystemTime) -> Result<Self, SignerError> {
        let own = PrivateKey::from_pem(key)?;
        let (mut first, mut rest) = (None, String::new());
        let mut seen = Vec::new();
        for root in read_pem(roots)? {
            if seen.contains(&root) {
                continue;
            }
            let pem = CertificateSummary::read(&root)?.pem;
            let public = X509::from_der(&root)?.public_key()?.public_key_to_der()?;
            match public == own.public().der() {
                true => first = Some(pem),
                false => rest.push_str(&pem),
            }
            seen.push(root);
        }
        let first = first.ok_or(SignerError::KeyMismatch)?;
        let roots = format!("{first}{rest}");
        Self::from_pem(&first, key, &roots, &first, now)
    }

    /// Signs a certificate for `subject`: it starts ten minutes ago and never outlives the signer.
    pub fn issue(
        &self,
        key: &PublicKey,
        subject: &Subject,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, SignerError> {
        if now >= self.not_after {
            return Err(SignerError::Expired);
        }
        let not_before = (now - BACKDATE).max(self.not_before);
        let not_after = (now + lifetime).min(self.not_after);
        let mut params = params(not_before, not_after)?;
        params.subject_alt_names = subject.names()?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.key_identifier_method = KeyIdMethod::PreSpecified(key.identifier());
        let certificate = params.signed_by(key, &self.issuer)?;
        let serial = CertificateSummary::read(certificate.der())?.serial;
        let chain = std::iter::once(certificate.pem())
            .chain(self.intermediates.iter().cloned())
            .chain([self.roots.clone()])
            .collect();
        Ok(Issued {
            chain,
            not_before,
            not_after,
            serial,
        })
    }

    /// A certificate with a fresh key, without a request in between.
    pub fn workload_certificate(
        &self,
        identity: &Identity,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<WorkloadCertificate, SignerError> {
        let key = PrivateKey::generate()?;
        let subject = Subject::Workload(identity.clone());
        let issued = self.issue(key.public(), &subject, lifetime, now)?;
        Ok(WorkloadCertificate::new(key, &issued.chain)?)
    }

    /// The roots peers must trust; PEM.
    pub fn roots(&self) -> &str {
        &self.roots
    }

    /// How many there are: more than one while one replaces another.
    pub fn root_count(&self) -> usize {
        self.roots.matches("BEGIN CERTIFICATE").count()
    }

    /// The first of the roots; PEM.
    pub fn own_root(&self) -> String {
        let roots = read_pem(&self.roots).unwrap_or_default();
        let first = roots.first().map(CertificateSummary::read);
        first
            .and_then(Result::ok)
            .map(|root| root.pem)
            .unwrap_or_default()
    }

    /// The signing key, to be kept by whoever owns the files.
    pub fn key(&self) -> &PrivateKey {
        self.issuer.key()
    }

    /// When the signer ends, and with it all it signed.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

// === impl Subject ===

impl Subject {
    fn names(&self) -> Result<Vec<SanType>, SignerError> {
        let text = |name: String| name.clone().try_into().map_err(|_| SignerError::Name(name));
        match self {
            Self::Workload(identity) => Ok(vec![SanType::URI(text(identity.to_string())?)]),
            Self::Server { names, addresses } => names
                .iter()
                .map(|name| text(name.clone()).map(SanType::DnsName))
                .chain(addresses.iter().map(|ip| Ok(SanType::IpAddress(*ip))))
                .collect(),
        }
    }
}

fn params(not_before: SystemTime, not_after: SystemTime) -> Result<CertificateParams, SignerError> {
    let mut params = CertificateParams::default();
    // The subject stays empty: identities are in the alternative names, which that makes critical
    // (RFC 5280 §4.2.1.6).
    params.distinguished_name = DistinguishedName::new();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(not_before);
    params.not_after = epoch + since_epoch(not_after);
    let mut serial = [0; 16];
    boring::rand::rand_bytes(&mut serial)?;
    // Positive and of full length whatever the draw (RFC 5280 §4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// What leaves repeat of their signer: its subject, value for value in the same string types, and its key identifier.
fn issuer_params(certificate: &CertificateDer<'_>) -> Result<CertificateParams, SignerError> {
    let unusable = |what: &str| SignerError::Sign(format!("the signing certificate {what}"));
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| CertificateError::Malformed(error.to_string()))?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for relative in parsed.subject().iter() {
        let mut attributes = relative.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(unusable("has a subject of several attributes per part"));
        };
        let kind: Vec<u64> = attribute
            .attr_type()
            .iter()
            .map(|oid| oid.collect())
            .unwrap_or_default();
        let text = || {
            attribute
                .as_str()
                .map(str::to_owned)
                .map_err(|_| unusable("has a subject that is no text"))
        };
        let value = match attribute.attr_value().header.tag() {
            Tag::Utf8String => DnValue::Utf8String(text()?),
            Tag::PrintableString => DnValue::PrintableString(text()?.try_into()?),
            Tag::Ia5String => DnValue::Ia5String(text()?.try_into()?),
            _ => return Err(unusable("has a subject in an outdated string type")),
        };
        params
            .distinguished_name
            .push(DnType::from_oid(&kind), value);
    }
    let identifier = parsed
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
            _ => None,
        })
        .ok_or_else(|| unusable("has no subject key identifier"))?;
    params.key_identifier_method = KeyIdMethod::PreSpecified(identifier);
    Ok(params)
}

fn is_ca(certificate: &CertificateDer<'_>) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| parsed.is_ca())
}

/// The signing certificate followed by the chain's other certificates.
fn chain_between(certificate: &CertificateDer<'_>, chain: &str) -> Result<String, SignerError> {
    let mut all = CertificateSummary::read(certificate)?.pem;
    for one in read_pem(chain)? {
        if one != *certificate {
            all.push_str(&CertificateSummary::read(&one)?.pem);
        }
    }
    Ok(all)
}
