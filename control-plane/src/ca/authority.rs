//! The mesh's authority: one signer, its roots, and when they end.

use std::path::Path;
use std::time::{Duration, SystemTime};

use identity::authority::{Issued, Signer, SignerError, Subject};
use identity::key::PublicKey;

use super::store::{self, StoreError};

/// Signs for this mesh.
pub struct Authority {
    signer: Signer,
}

// === impl Authority ===

impl Authority {
    /// The authority in `folder`: its own root, made at the first start, or an operator's set.
    pub fn load_or_create(folder: &Path) -> Result<Self, StoreError> {
        store::load_or_create(folder, SystemTime::now()).map(Self::new)
    }

    /// An operator's set (`cacerts`), which must be complete and belong together.
    pub fn load(folder: &Path) -> Result<Self, StoreError> {
        store::load_plugged(folder, SystemTime::now()).map(Self::new)
    }

    pub fn new(signer: Signer) -> Self {
        Self { signer }
    }

    /// What every proxy of the mesh must trust; PEM.
    pub fn roots(&self) -> &str {
        self.signer.roots()
    }

    /// When it can sign no more.
    pub fn not_after(&self) -> SystemTime {
        self.signer.not_after()
    }

    pub(super) fn issue(
        &self,
        key: &PublicKey,
        subject: &Subject,
        lifetime: Duration,
    ) -> Result<Issued, SignerError> {
        self.signer.issue(key, subject, lifetime, SystemTime::now())
    }
}
