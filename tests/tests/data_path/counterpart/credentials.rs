//! A workload's certificate in TLS as Istio's ztunnel speaks it: 1.3 only, two suites, the classical
//! groups before the post-quantum one, no name of a server, no resumption.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use identity::authority::{Signer, Subject};
use identity::key::PrivateKey;
use mesh::identity::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, NamedGroup, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// In the order in which Istio's offers them: a key share is sent for the first.
const GROUPS: [NamedGroup; 4] = [
    NamedGroup::X25519,
    NamedGroup::secp256r1,
    NamedGroup::secp384r1,
    NamedGroup::X25519MLKEM768,
];

pub(crate) struct Credentials {
    shown: Arc<SingleCertAndKey>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

/// Verifies the chain: who it is of is for the test to say.
#[derive(Debug)]
struct Chain {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

// === impl Credentials ===

impl Credentials {
    pub(crate) fn issue(signer: &Signer, identity: &Identity) -> Self {
        let key = PrivateKey::generate().expect("a key");
        let subject = Subject::Workload(identity.clone());
        let hour = Duration::from_secs(3600);
        let issued = signer.issue(key.public(), &subject, hour, SystemTime::now());
        let issued = issued.expect("a certificate");
        let (roots, chain) = issued.chain.split_last().expect("a chain");
        let mut root_store = RootCertStore::empty();
        for root in certificates(roots) {
            root_store.add(root).expect("a root");
        }
        let mut provider = CryptoProvider::clone(&identity::provider());
        let rank = |group: NamedGroup| GROUPS.iter().position(|one| *one == group);
        provider.kx_groups.sort_by_key(|group| rank(group.name()));
        let key = PrivateKeyDer::from_pem_slice(&key.to_pem().expect("PEM")).expect("PKCS #8");
        let key = provider.key_provider.load_private_key(key);
        let chain = chain.iter().flat_map(|pem| certificates(pem)).collect();
        let certified = CertifiedKey::new(chain, key.expect("a key"));
        Self {
            shown: Arc::new(SingleCertAndKey::from(certified)),
            roots: Arc::new(root_store),
            provider: Arc::new(provider),
        }
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        let (roots, provider) = (self.roots.clone(), self.provider.clone());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("suites of TLS 1.3")
            .with_client_cert_verifier(verifier.build().expect("roots"))
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Arc::new(config)
    }

    pub(super) fn client_config(&self) -> Arc<ClientConfig> {
        let verifier = Chain {
            roots: self.roots.clone(),
            provider: self.provider.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes());
    all.collect::<Result<_, _>>().expect("PEM")
}

// === impl Chain ===

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let (roots, chain) = (&self.roots, intermediates);
        verify_server_cert_signed_by_trust_anchor(&certificate, roots, chain, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
