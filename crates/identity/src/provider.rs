//! The one crypto provider of the mesh: BoringSSL behind rustls, AES-GCM suites only, post-quantum key exchange first.

use std::sync::{Arc, OnceLock};

use rustls::NamedGroup;
use rustls::crypto::CryptoProvider;

/// The groups we offer, most wanted first.
const GROUPS: [NamedGroup; 4] = [
    NamedGroup::X25519MLKEM768,
    NamedGroup::X25519,
    NamedGroup::secp256r1,
    NamedGroup::secp384r1,
];

static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();

/// What the key exchange must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyExchange {
    /// Post-quantum where the peer can.
    Preferred,
    /// Post-quantum or no connection (Istio's compliance policy `pqc`).
    PostQuantumOnly,
}

/// The provider was in use already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key exchange can't be changed any more")]
pub struct InUse;

/// The provider every TLS configuration of the mesh is built with.
pub fn provider() -> Arc<CryptoProvider> {
    let provider = PROVIDER.get_or_init(|| build(KeyExchange::Preferred));
    provider.clone()
}

/// Chooses the key exchange of the whole process, before anything has used the provider.
pub fn choose_key_exchange(wanted: KeyExchange) -> Result<(), InUse> {
    PROVIDER.set(build(wanted)).map_err(|_| InUse)
}

fn build(wanted: KeyExchange) -> Arc<CryptoProvider> {
    use boring_rustls_provider::tls13::{AES_128_GCM_SHA256, AES_256_GCM_SHA384};

    let groups = match wanted {
        KeyExchange::Preferred => &GROUPS[..],
        KeyExchange::PostQuantumOnly => &GROUPS[..1],
    };
    // ChaCha20 is left out: it is several times slower than AES-GCM on every processor we run on,
    // and a server that follows its client's order would pick it.
    let mut provider = boring_rustls_provider::provider_with_ciphers(vec![
        rustls::SupportedCipherSuite::Tls13(&AES_256_GCM_SHA384),
        rustls::SupportedCipherSuite::Tls13(&AES_128_GCM_SHA256),
    ]);
    provider
        .kx_groups
        .retain(|group| groups.contains(&group.name()));
    provider
        .kx_groups
        .sort_by_key(|group| groups.iter().position(|wanted| *wanted == group.name()));
    Arc::new(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(provider: &CryptoProvider) -> Vec<NamedGroup> {
        let groups = provider.kx_groups.iter();
        groups.map(|group| group.name()).collect()
    }

    #[test]
    fn post_quantum_only_is_one_group() {
        let provider = build(KeyExchange::PostQuantumOnly);
        assert_eq!(groups(&provider), [NamedGroup::X25519MLKEM768]);
        PROVIDER.get_or_init(|| build(KeyExchange::Preferred));
        assert_eq!(
            choose_key_exchange(KeyExchange::PostQuantumOnly),
            Err(InUse)
        );
    }

    #[test]
    fn the_post_quantum_group_comes_first_and_no_other_suite_than_aes_gcm() {
        let provider = provider();
        assert_eq!(groups(&provider), GROUPS);
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
