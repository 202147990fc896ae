//! The mesh's authority: one signer, its roots, and when they end.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use identity::authority::{Issued, Signer, SignerError, Subject};
use identity::key::PublicKey;
use identity::serial::Serial;
use tokio::sync::watch;

use super::revocations;
use super::rotation::{self, Phase, Step};
use super::store::{self, StoreError};

/// Signs for this mesh.
pub struct Authority {
    current: ArcSwap<Current>,
    /// Where its own root is kept; none for an operator's, which is not ours to rotate.
    own: Option<PathBuf>,
    changes: watch::Sender<()>,
    /// Held while a step is taken, or something taken back.
    step: Mutex<()>,
}

struct Current {
    signer: Signer,
    phase: Phase,
}

/// What is trusted now.
#[derive(Clone, Debug)]
pub struct Trust {
    pub phase: Phase,
    /// The signing root first; PEM.
    pub roots: String,
}

// === impl Authority ===

impl Authority {
    /// The authority in `folder`: its own root, made at the first start, or an operator's set.
    pub fn load_or_create(folder: &Path) -> Result<Self, StoreError> {
        let now = SystemTime::now();
        let mut authority = Self::new(store::load_or_create(folder, now)?);
        if !store::is_plugged(folder) {
            let (signer, phase) = rotation::load(folder, now)?;
            revocations::create_if_missing(folder, &signer, now)?;
            authority.current = ArcSwap::from_pointee(Current { signer, phase });
            authority.own = Some(folder.to_owned());
        }
        Ok(authority)
    }

    /// An operator's set (`cacerts`), which must be complete and belong together.
    pub fn load(folder: &Path) -> Result<Self, StoreError> {
        store::load_plugged(folder, SystemTime::now()).map(Self::new)
    }

    pub fn new(signer: Signer) -> Self {
        let phase = Phase::Steady;
        Self {
            current: ArcSwap::from_pointee(Current { signer, phase }),
            own: None,
            changes: watch::Sender::new(()),
            step: Mutex::default(),
        }
    }

    /// What every proxy of the mesh must trust; PEM.
    pub fn roots(&self) -> String {
        self.current.load().signer.roots().to_owned()
    }

    /// When it can sign no more.
    pub fn not_after(&self) -> SystemTime {
        self.current.load().signer.not_after()
    }

    pub fn trust(&self) -> Trust {
        let current = self.current.load();
        Trust {
            phase: current.phase,
            roots: current.signer.roots().to_owned(),
        }
    }

    /// Takes the next step of a rotation; what is signed from here on follows it.
    pub fn rotate(&self, step: Step) -> Result<Trust, StoreError> {
        let folder = self.own.as_deref().ok_or(StoreError::NotOurs)?;
        let _one = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        rotation::take(folder, step, now)?;
        let (signer, phase) = rotation::load(folder, now)?;
        tracing::info!(?step, ?phase, "the root's rotation has gone on");
        self.current.store(Arc::new(Current { signer, phase }));
        self.changes.send_replace(());
        Ok(self.trust())
    }

    /// Takes certificates back, for all time.
    pub fn revoke(&self, revoked: &[Serial]) -> Result<(), StoreError> {
        let folder = self.own.as_deref().ok_or(StoreError::NotOurs)?;
        let _one = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        let current = self.current.load();
        revocations::add(folder, &current.signer, revoked, SystemTime::now())?;
        for serial in revoked {
            tracing::warn!(%serial, "certificate revoked");
        }
        Ok(())
    }

    /// Changes with every step of a rotation.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(super) fn issue(
        &self,
        key: &PublicKey,
        subject: &Subject,
        lifetime: Duration,
    ) -> Result<Issued, SignerError> {
        let current = self.current.load();
        current
            .signer
            .issue(key, subject, lifetime, SystemTime::now())
    }
}
