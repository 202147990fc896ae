//! A workload's certificate with everything a handshake needs, parsed and built once: rustls configurations come from here.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use boring::x509::X509;
use mesh::identity::Identity;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, IpAddr, Ipv4Addr, ServerName, UnixTime};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::key::{HandshakeKey, KeyError, PrivateKey};
use crate::peer::identities;
use crate::provider::provider;
use crate::revocation::{self, RevocationLists, Untracked};
use crate::verify::{IdentityVerifier, TrustDomainVerifier};

/// Client configurations kept per certificate; beyond it any makes room.
const CLIENT_CONFIGS: usize = 1024;

/// The protocol of HBONE.
pub(crate) const ALPN_H2: &[u8] = b"h2";

/// A certificate for one workload identity, with its key and the roots it trusts.
pub struct WorkloadCertificate {
    identity: Identity,
    certified: Arc<CertifiedKey>,
    /// In all client configurations.
    shown: Arc<SingleCertAndKey>,
    roots: Vec<CertificateDer<'static>>,
    root_store: Arc<RootCertStore>,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
    received: (SystemTime, Instant),
    revocations: Option<Arc<RevocationLists>>,
    server: Arc<ServerConfig>,
    clients: Mutex<HashMap<Arc<[Identity]>, Arc<ClientConfig>>>,
}

/// One certificate as dumps show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    pub pem: String,
    pub serial: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// Why an answer of the CA is no usable certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("the answer holds no certificate chain with a root")]
    Incomplete,
    #[error("a certificate of the answer can't be read: {0}")]
    Malformed(String),
    #[error("the certificate holds no workload identity")]
    NoIdentity,
    #[error("the certificate does not verify: {0}")]
    Chain(rustls::Error),
    #[error("the key can't be used: {0}")]
    Key(#[from] KeyError),
    #[error("no TLS configuration can be made: {0}")]
    Configuration(String),
}

/// The name given to a client connection: an address, so that no SNI is sent. It is never looked at.
pub fn no_server_name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])))
}

/// Whether two configurations are of one [`WorkloadCertificate`]: they show the same certificate, and
/// trust the same roots. Whom they expect may differ.
pub fn is_same_certificate(one: &ClientConfig, other: &ClientConfig) -> bool {
    let (one, other) = (
        &one.client_auth_cert_resolver,
        &other.client_auth_cert_resolver,
    );
    Arc::ptr_eq(one, other)
}

// === impl WorkloadCertificate ===

impl WorkloadCertificate {
    /// Joins a key with the CA's answer: leaf first, then intermediates, the roots in the last element.
    pub fn new(key: PrivateKey, answer: &[impl AsRef<str>]) -> Result<Self, CertificateError> {
        let (roots, chain) = answer.split_last().ok_or(CertificateError::Incomplete)?;
        let roots = read_pem(roots.as_ref())?;
        let mut certificates = Vec::new();
        for pem in chain {
            certificates.extend(read_pem(pem.as_ref())?);
        }
        let leaf = certificates.first().ok_or(CertificateError::Incomplete)?;
        if roots.is_empty() {
            return Err(CertificateError::Incomplete);
        }
        let identity = identities(leaf)
            .into_iter()
            .next()
            .ok_or(CertificateError::NoIdentity)?;
        let summary = CertificateSummary::read(leaf)?;

        let (roots, root_store) = trusted(roots)?;
        let root_store = Arc::new(root_store);
        check_chain(&certificates, &root_store)?;

        let certified = CertifiedKey::new(certificates, Arc::new(HandshakeKey::new(key)?));
        certified.keys_match().map_err(CertificateError::Chain)?;
        let certified = Arc::new(certified);
        let server = Arc::new(server_config(&certified, &root_store, &identity, None)?);
        Ok(Self {
            identity,
            shown: Arc::new(SingleCertAndKey::from(certified.clone())),
            certified,
            roots,
            root_store,
            serial: summary.serial,
            not_before: summary.not_before,
            not_after: summary.not_after,
            received: (SystemTime::now(), Instant::now()),
            revocations: None,
            server,
            clients: Mutex::default(),
        })
    }

    /// The same certificate, whose peers are looked up in revocation lists too.
    pub fn with_revocations(
        mut self,
        lists: Arc<RevocationLists>,
    ) -> Result<Self, CertificateError> {
        self.revocations = Some(lists);
        self.server = Arc::new(server_config(
            &self.certified,
            &self.root_store,
            &self.identity,
            self.revocations.clone(),
        )?);
        self.clients = Mutex::default();
        Ok(self)
    }

    /// Resolves once `chain`, which a peer has just shown, has been revoked; none where no lists are kept.
    pub fn revocation_of(
        &self,
        chain: Arc<[CertificateDer<'static>]>,
    ) -> Result<Option<impl Future<Output = ()> + use<>>, Untracked> {
        let Some(lists) = self.revocations.clone() else {
            return Ok(None);
        };
        if !chain.first().is_some_and(revocation::is_readable) {
            return Err(Untracked);
        }
        let (roots, shown) = (self.root_store.clone(), UnixTime::now());
        let changes = lists.changes();
        let is_revoked = move || lists.have_revoked(&roots, &chain, shown);
        Ok(Some(once(changes, is_revoked)))
    }

    /// The same of this one and of a peer: where both are here, neither needs to show the other anything.
    pub fn revocation_of_either(&self, peer: &Self) -> Option<impl Future<Output = ()> + use<>> {
        let lists = self.revocations.clone()?;
        let shown = UnixTime::now();
        let ends = [(self, peer), (peer, self)];
        let ends = ends.map(|(one, other)| (one.root_store.clone(), other.certified.clone()));
        let changes = lists.changes();
        let is_revoked = move || {
            let mut ends = ends.iter();
            ends.any(|(roots, shows)| lists.have_revoked(roots, &shows.cert, shown))
        };
        Some(once(changes, is_revoked))
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The serial number in decimal, as Istio's dumps show it.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Now, as this certificate counts it: a clock set back after it came in can't prolong its life.
    pub fn now(&self) -> SystemTime {
        SystemTime::now().max(self.now_by_age())
    }

    pub fn is_expired(&self) -> bool {
        self.now() >= self.not_after
    }

    /// Whether it has expired by how long we have had it, whatever a wall's clock says for the moment.
    pub(crate) fn has_lived(&self) -> bool {
        self.now_by_age() >= self.not_after
    }

    /// When it came in, and what has passed since.
    fn now_by_age(&self) -> SystemTime {
        let (wall, monotonic) = self.received;
        wall + monotonic.elapsed()
    }

    /// The same one, as if it had come in then.
    #[cfg(test)]
    pub(crate) fn received_at(mut self, wall: SystemTime) -> Self {
        self.received.0 = wall;
        self
    }

    /// What is left of its life; zero when it is over.
    pub fn remaining(&self) -> Duration {
        self.not_after
            .duration_since(self.now())
            .unwrap_or_default()
    }

    /// Which share of the life it had when it came in is left.
    pub fn life_left(&self) -> f64 {
        let whole = self.not_after.duration_since(self.received.0);
        match whole.unwrap_or_default() {
            Duration::ZERO => 0.0,
            whole => self.remaining().as_secs_f64() / whole.as_secs_f64(),
        }
    }

    /// The configuration for accepting: clients must show a certificate of our trust domain.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server.clone()
    }

    /// The configuration for connecting to a server that must hold one of `expected`. None expected refuses all.
    ///
    /// It may be another one each time; [`is_same_certificate`] tells whether two show the same.
    pub fn client_config(&self, expected: &Arc<[Identity]>) -> Arc<ClientConfig> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(expected) {
            return config.clone();
        }
        if clients.len() >= CLIENT_CONFIGS
            && let Some(any) = clients.keys().next().cloned()
        {
            clients.remove(&any);
        }
        let verifier = self.server_verifier(expected);
        let config = Arc::new(client_config(&self.shown, verifier));
        clients.insert(expected.clone(), config.clone());
        config
    }

    fn server_verifier(&self, expected: &Arc<[Identity]>) -> IdentityVerifier {
        IdentityVerifier::new(
            self.root_store.clone(),
            expected.clone(),
            self.revocations.clone(),
        )
    }

    /// What [`Self::server_config`] makes of a client's chain, for who has no handshake to see it in.
    pub fn verify_client(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (end_entity, intermediates) = end_entity(chain)?;
        client_verifier(&self.root_store, &self.identity, self.revocations.clone())
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_client_cert(end_entity, intermediates, now)
            .map(drop)
    }

    /// What [`Self::client_config`] makes of a server's chain.
    pub fn verify_server(
        &self,
        expected: &Arc<[Identity]>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let (end_entity, intermediates) = end_entity(chain)?;
        self.server_verifier(expected)
            .verify_server_cert(end_entity, intermediates, &no_server_name(), &[], now)
            .map(drop)
    }

    #[cfg(test)]
    pub(crate) fn sent_chain(&self) -> Vec<CertificateDer<'static>> {
        self.certified.cert.clone()
    }

    #[cfg(test)]
    pub(crate) fn root_store(&self) -> Arc<RootCertStore> {
        self.root_store.clone()
    }

    /// The chain we send, leaf first.
    pub fn chain(&self) -> impl Iterator<Item = CertificateSummary> + '_ {
        self.certified
            .cert
            .iter()
            .filter_map(|certificate| CertificateSummary::read(certificate).ok())
    }

    /// The roots we trust.
    pub fn roots(&self) -> impl Iterator<Item = CertificateSummary> + '_ {
        self.roots
            .iter()
            .filter_map(|certificate| CertificateSummary::read(certificate).ok())
    }
}

impl fmt::Debug for WorkloadCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkloadCertificate({}, {})", self.identity, self.serial)
    }
}

// === impl CertificateSummary ===

impl CertificateSummary {
    /// Reads all certificates of a PEM text.
    pub fn read_all(pem: &str) -> Result<Vec<Self>, CertificateError> {
        read_pem(pem)?.iter().map(Self::read).collect()
    }

    /// Reads one certificate.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, CertificateError> {
        let malformed = |error: &dyn fmt::Display| CertificateError::Malformed(error.to_string());
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|error| malformed(&error))?;
        let pem = X509::from_der(certificate)
            .and_then(|certificate| certificate.to_pem())
            .map_err(|error| malformed(&error))?;
        let validity = parsed.validity();
        Ok(Self {
            pem: String::from_utf8(pem).map_err(|error| malformed(&error))?,
            serial: parsed.tbs_certificate.serial.to_string(),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }
}

/// Resolves once something is so that only changes with the lists; it may be so already.
async fn once(mut changes: watch::Receiver<u64>, is_so: impl Fn() -> bool) {
    while !is_so() {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn end_entity<'a, 'der>(
    chain: &'a [CertificateDer<'der>],
) -> Result<(&'a CertificateDer<'der>, &'a [CertificateDer<'der>]), rustls::Error> {
    chain
        .split_first()
        .ok_or(rustls::Error::NoCertificatesPresented)
}

/// Whether `certificate` was signed with the key of `issuer`; both PEM.
pub fn is_signed_by(certificate: &str, issuer: &str) -> bool {
    let parsed = |pem: &str| X509::from_pem(pem.as_bytes());
    let verified = parsed(certificate).and_then(|certificate| {
        let key = parsed(issuer)?.public_key()?;
        certificate.verify(&key)
    });
    verified.unwrap_or(false)
}

/// All certificates of a PEM text.
pub(crate) fn read_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| CertificateError::Malformed(error.to_string()))
}

/// Times before 1970 don't occur in certificates we can use; they read as 1970, which is expired.
fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// Those of the roots that can be trusted, and what trusts them: one that can't be must not take the
/// certificates of all workloads away.
fn trusted(
    mut roots: Vec<CertificateDer<'static>>,
) -> Result<(Vec<CertificateDer<'static>>, RootCertStore), CertificateError> {
    let mut store = RootCertStore::empty();
    let mut unusable = None;
    roots.retain(|root| match store.add(root.clone()) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "a root of the CA's can't be trusted, and is left out");
            unusable = Some(error);
            false
        }
    });
    match unusable {
        Some(error) if store.is_empty() => Err(CertificateError::Malformed(error.to_string())),
        Some(_) | None => Ok((roots, store)),
    }
}

/// A chain that doesn't verify would fail every handshake: better one clear error here.
/// It is checked at the moment all of it has begun, so that a clock running behind the CA's is no error.
fn check_chain(
    chain: &[CertificateDer<'_>],
    roots: &RootCertStore,
) -> Result<(), CertificateError> {
    let (leaf, intermediates) = chain.split_first().ok_or(CertificateError::Incomplete)?;
    let mut begun = SystemTime::UNIX_EPOCH;
    for certificate in chain {
        begun = begun.max(CertificateSummary::read(certificate)?.not_before);
    }
    let begun = begun
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf).map_err(CertificateError::Chain)?,
        roots,
        intermediates,
        UnixTime::since_unix_epoch(begun),
        provider().signature_verification_algorithms.all,
    )
    .map_err(CertificateError::Chain)
}

fn server_config(
    certified: &Arc<CertifiedKey>,
    roots: &Arc<RootCertStore>,
    identity: &Identity,
    revocations: Option<Arc<RevocationLists>>,
) -> Result<ServerConfig, CertificateError> {
    let verifier = client_verifier(roots, identity, revocations)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| CertificateError::Configuration(error.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified.clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // A resumed session would carry an identity nobody has verified against today's roots.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn client_verifier(
    roots: &Arc<RootCertStore>,
    identity: &Identity,
    revocations: Option<Arc<RevocationLists>>,
) -> Result<TrustDomainVerifier, CertificateError> {
    TrustDomainVerifier::new(roots.clone(), identity.trust_domain.clone(), revocations)
        .map_err(|error| CertificateError::Configuration(error.to_string()))
}

fn client_config(shown: &Arc<SingleCertAndKey>, verifier: IdentityVerifier) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(shown.clone());
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config
}
