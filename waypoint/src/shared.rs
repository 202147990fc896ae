//! What all workers share.

use std::sync::Arc;

use identity::WorkloadCertificate;
use identity::manager::CertificateManager;
use mesh::identity::Identity;
use xds::state::State;

use crate::config::Config;

/// What a worker is made with.
pub struct Shared {
    pub config: Config,
    /// The mesh as it is now.
    pub state: Arc<State>,
    pub certificates: OwnCertificate,
}

/// The certificate of the waypoint's one identity.
#[derive(Clone)]
pub struct OwnCertificate {
    identity: Identity,
    manager: CertificateManager,
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

    /// The valid certificate already at hand.
    pub fn cached(&self) -> Option<Arc<WorkloadCertificate>> {
        self.manager.cached(&self.identity)
    }

    /// A valid certificate, requested where there is none; or why there is none.
    pub async fn certificate(&self) -> Result<Arc<WorkloadCertificate>, String> {
        let certificate = self.manager.certificate(&self.identity).await;
        certificate.map_err(|unavailable| unavailable.to_string())
    }
}
