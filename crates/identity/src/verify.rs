//! What a peer's certificate must show: a path to our roots, the right usage, and an acceptable SPIFFE identity.

use std::fmt;
use std::sync::Arc;

use mesh::identity::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::peer::identities;
use crate::provider::provider;
use crate::revocation::RevocationLists;

/// Why a certificate that chains to our roots is still refused.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    #[error("the peer's certificate holds no workload identity")]
    NoIdentity,
    #[error("the peer is {peer}, not of our trust domain {ours}")]
    TrustDomain { peer: Identity, ours: Arc<str> },
    #[error("the peer is {}, expected {}", list(.peer), list(.expected))]
    Identity {
        peer: Vec<Identity>,
        expected: Arc<[Identity]>,
    },
}

/// Accepts clients of our own trust domain.
#[derive(Debug)]
pub(crate) struct TrustDomainVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    trust_domain: Arc<str>,
    revocations: Option<Arc<RevocationLists>>,
}

/// Accepts servers that hold one of the expected identities; DNS names don't matter.
#[derive(Debug)]
pub(crate) struct IdentityVerifier {
    roots: Arc<RootCertStore>,
    expected: Arc<[Identity]>,
    revocations: Option<Arc<RevocationLists>>,
    algorithms: WebPkiSupportedAlgorithms,
}

fn list(identities: &[Identity]) -> String {
    match identities {
        [] => "nobody".to_owned(),
        [one] => one.to_string(),
        [first, rest @ ..] => rest
            .iter()
            .fold(first.to_string(), |all, next| format!("{all} or {next}")),
    }
}

/// rustls shows what it wraps by `Debug` only, so that is where the reason must be readable.
impl fmt::Debug for PeerRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PeerRefused> for Error {
    fn from(refused: PeerRefused) -> Self {
        CertificateError::Other(OtherError(Arc::new(refused))).into()
    }
}

// === impl TrustDomainVerifier ===

impl TrustDomainVerifier {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        trust_domain: Arc<str>,
        revocations: Option<Arc<RevocationLists>>,
    ) -> Result<Self, VerifierBuilderError> {
        // No hints: every workload has exactly one certificate to answer with.
        let chain = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
            .clear_root_hint_subjects()
            .build()?;
        Ok(Self {
            chain,
            roots,
            trust_domain,
            revocations,
        })
    }
}

impl ClientCertVerifier for TrustDomainVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        if let Some(revocations) = &self.revocations {
            revocations.check(&self.roots, end_entity, intermediates, now)?;
        }
        // Only the identity that policies will see may vouch for the peer: were any other name
        // accepted, a certificate with two could enter by one and be judged by the other.
        match identities(end_entity).into_iter().next() {
            None => Err(PeerRefused::NoIdentity.into()),
            Some(peer) if peer.trust_domain != self.trust_domain => Err(PeerRefused::TrustDomain {
                peer,
                ours: self.trust_domain.clone(),
            }
            .into()),
            Some(_) => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

// === impl IdentityVerifier ===

impl IdentityVerifier {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        expected: Arc<[Identity]>,
        revocations: Option<Arc<RevocationLists>>,
    ) -> Self {
        Self {
            roots,
            expected,
            revocations,
            algorithms: provider().signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for IdentityVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if let Some(revocations) = &self.revocations {
            revocations.check(&self.roots, end_entity, intermediates, now)?;
        }
        let peer = identities(end_entity);
        if peer.iter().any(|one| self.expected.contains(one)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(match peer.is_empty() {
            true => PeerRefused::NoIdentity,
            false => PeerRefused::Identity {
                peer,
                expected: self.expected.clone(),
            },
        }
        .into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
