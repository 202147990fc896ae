//! What all workers share.

use std::sync::Arc;

use identity::WorkloadCertificate;
use identity::manager::CertificateManager;
use mesh::identity::Identity;
use xds::state::State;

use crate::config::Config;
use crate::jwks::Jwks;
use crate::telemetry::registry::Registry;
use crate::worker::Certificates;

/// What pipelines are made with.
pub struct Shared {
    pub config: Config,
    /// The mesh as it is now.
    pub state: Arc<State>,
    pub(crate) jwks: Jwks,
    pub(crate) registry: Arc<Registry>,
}

/// The certificate of the waypoint's one identity.
#[derive(Clone)]
pub struct OwnCertificate {
    identity: Identity,
    manager: CertificateManager,
}

// === impl Shared ===

impl Shared {
    pub fn new(config: Config, state: Arc<State>) -> Self {
        Self {
            jwks: Jwks::new(config.jwks.refresh),
            registry: Arc::default(),
            config,
            state,
        }
    }
}

// === impl OwnCertificate ===

impl OwnCertificate {
    pub fn new(identity: Identity, manager: CertificateManager) -> Self {
        Self { identity, manager }
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn manager(&self) -> &CertificateManager {
        &self.manager
    }

    /// A valid certificate, requested where there is none; or why there is none.
    pub async fn certificate(&self) -> Result<Arc<WorkloadCertificate>, String> {
        let certificate = self.manager.certificate(&self.identity).await;
        certificate.map_err(|unavailable| unavailable.to_string())
    }
}

impl Certificates for OwnCertificate {
    fn current(&self) -> Result<Arc<WorkloadCertificate>, String> {
        let cached = self.manager.cached(&self.identity);
        cached.ok_or_else(|| format!("no valid certificate for {}", self.identity))
    }
}
