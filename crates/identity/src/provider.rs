//! The one crypto provider of the mesh: BoringSSL behind rustls, AES-GCM suites only, post-quantum key exchange first.

use std::sync::{Arc, LazyLock};

use rustls::NamedGroup;
use rustls::crypto::CryptoProvider;

/// The groups we offer, most wanted first.
const GROUPS: [NamedGroup; 4] = [
    NamedGroup::X25519MLKEM768,
    NamedGroup::X25519,
    NamedGroup::secp256r1,
    NamedGroup::secp384r1,
];

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    use boring_rustls_provider::tls13::{AES_128_GCM_SHA256, AES_256_GCM_SHA384};

    // ChaCha20 is left out: it is several times slower than AES-GCM on every processor we run on,
    // and a server that follows its client's order would pick it.
    let mut provider = boring_rustls_provider::provider_with_ciphers(vec![
        rustls::SupportedCipherSuite::Tls13(&AES_256_GCM_SHA384),
        rustls::SupportedCipherSuite::Tls13(&AES_128_GCM_SHA256),
    ]);
    provider
        .kx_groups
        .retain(|group| GROUPS.contains(&group.name()));
    provider
        .kx_groups
        .sort_by_key(|group| GROUPS.iter().position(|wanted| *wanted == group.name()));
    Arc::new(provider)
});

/// The provider every TLS configuration of the mesh is built with.
pub fn provider() -> Arc<CryptoProvider> {
    PROVIDER.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_post_quantum_group_comes_first_and_no_other_suite_than_aes_gcm() {
        let provider = provider();
        let groups: Vec<_> = provider
            .kx_groups
            .iter()
            .map(|group| group.name())
            .collect();
        assert_eq!(groups, GROUPS);
        let suites: Vec<_> = provider
            .cipher_suites
            .iter()
            .map(|suite| format!("{:?}", suite.suite()))
            .collect();
        assert_eq!(
            suites,
            ["TLS13_AES_256_GCM_SHA384", "TLS13_AES_128_GCM_SHA256"]
        );
    }
}
