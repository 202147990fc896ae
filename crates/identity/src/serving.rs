//! A server's own certificate, exchanged while connections are being accepted.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;

use crate::certificate::{ALPN_H2, CertificateError, read_pem};
use crate::key::{HandshakeKey, PrivateKey};
use crate::provider::provider;

/// The certificate a server of ours shows; clones of the configuration follow its replacement.
pub struct ServingCertificate(ArcSwap<CertifiedKey>);

// === impl ServingCertificate ===

impl ServingCertificate {
    /// Joins a key with a signed chain: leaf first, roots last.
    pub fn new(key: PrivateKey, chain: &[impl AsRef<str>]) -> Result<Arc<Self>, CertificateError> {
        Ok(Arc::new(Self(ArcSwap::from_pointee(certified(
            key, chain,
        )?))))
    }

    /// Handshakes from here on use the new one.
    pub fn replace(
        &self,
        key: PrivateKey,
        chain: &[impl AsRef<str>],
    ) -> Result<(), CertificateError> {
        self.0.store(Arc::new(certified(key, chain)?));
        Ok(())
    }

    /// What handshakes use now.
    pub fn current(&self) -> Arc<CertifiedKey> {
        self.0.load_full()
    }

    /// A configuration for HTTP/2 that asks clients for no certificate: they prove themselves by token.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, CertificateError> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| CertificateError::Configuration(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServingCertificate")
    }
}

fn certified(key: PrivateKey, chain: &[impl AsRef<str>]) -> Result<CertifiedKey, CertificateError> {
    let (_, sent) = chain.split_last().ok_or(CertificateError::Incomplete)?;
    let mut certificates = Vec::new();
    for pem in sent {
        certificates.extend(read_pem(pem.as_ref())?);
    }
    let certified = CertifiedKey::new(certificates, Arc::new(HandshakeKey::new(key)?));
    certified.keys_match().map_err(CertificateError::Chain)?;
    Ok(certified)
}
