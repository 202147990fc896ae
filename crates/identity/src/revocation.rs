//! Certificates that their issuers have revoked, as a file lists them (`CRL_PATH`); the file is followed.
//!
//! A certificate no list speaks of is accepted, as in Istio's ztunnel: lists are distributed late, and
//! the mesh must not stand still for it. What a list does say holds for the whole chain.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use tokio::sync::watch;
use tokio::time;
use webpki::{
    CertRevocationList, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::provider::provider;

/// How often the file is looked at. A change counts once it has been the same for two looks, so
/// that a file is not read while it is being written.
const LOOK: Duration = Duration::from_millis(500);

/// The lists in force. Verifiers share it; what it says changes with the file.
pub struct RevocationLists {
    lists: ArcSwap<Vec<CertRevocationList<'static>>>,
    version: watch::Sender<u64>,
}

/// A file of revocation lists and what was last read of it.
pub struct RevocationFile {
    path: PathBuf,
    lists: Arc<RevocationLists>,
    read: Option<Stamp>,
}

/// Why a file of revocation lists can't be used.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    #[error("{}: {error}", path.display())]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{}: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
}

/// What distinguishes two contents of a path; symbolic links are followed, as Kubernetes swaps them.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    length: u64,
}

/// The chain was verified for its use already.
struct AnyUsage;

// === impl RevocationFile ===

impl RevocationFile {
    /// Reads the file; one that can't be read or holds no list is an error, as nothing would be revoked by it.
    pub fn open(path: &Path) -> Result<Self, RevocationError> {
        let stamp = std::fs::metadata(path).map(|metadata| Stamp::of(&metadata));
        let content = std::fs::read(path).map_err(|error| RevocationError::Read {
            path: path.to_owned(),
            error,
        })?;
        Ok(Self {
            lists: Arc::new(RevocationLists::new(parse(path, &content)?)),
            path: path.to_owned(),
            read: stamp.ok(),
        })
    }

    pub fn lists(&self) -> Arc<RevocationLists> {
        self.lists.clone()
    }

    /// Reads the file whenever it has changed, until dropped. A content that can't be used leaves
    /// the one before in force.
    pub async fn follow(mut self) {
        let mut ticks = time::interval(LOOK);
        let mut seen = self.read;
        loop {
            ticks.tick().await;
            let stamp = tokio::fs::metadata(&self.path).await;
            let stamp = stamp.ok().map(|metadata| Stamp::of(&metadata));
            let settled = stamp == seen;
            seen = stamp;
            if !settled || stamp == self.read {
                continue;
            }
            self.read = stamp;
            match self.read().await {
                Ok(lists) => {
                    tracing::info!(path = %self.path.display(), lists = lists.len(), "revocation lists read");
                    self.lists.replace(lists);
                }
                Err(error) => {
                    tracing::error!(%error, "revocation lists can't be read; going on with those before");
                }
            }
        }
    }

    async fn read(&self) -> Result<Vec<CertRevocationList<'static>>, RevocationError> {
        let content = tokio::fs::read(&self.path)
            .await
            .map_err(|error| RevocationError::Read {
                path: self.path.clone(),
                error,
            })?;
        parse(&self.path, &content)
    }
}

fn parse(path: &Path, content: &[u8]) -> Result<Vec<CertRevocationList<'static>>, RevocationError> {
    let malformed = |reason: String| RevocationError::Malformed {
        path: path.to_owned(),
        reason,
    };
    let mut lists = Vec::new();
    for der in CertificateRevocationListDer::pem_slice_iter(content) {
        let der = der.map_err(|error| malformed(error.to_string()))?;
        let list = OwnedCertRevocationList::from_der(&der)
            .map_err(|error| malformed(format!("list {}: {error}", lists.len() + 1)))?;
        lists.push(list.into());
    }
    match lists.is_empty() {
        true => Err(malformed("holds no revocation list in PEM".to_owned())),
        false => Ok(lists),
    }
}

/// Anything else that is wrong with the chain is not this list's to say.
fn is_on(
    list: &CertRevocationList<'_>,
    roots: &RootCertStore,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> bool {
    let lists = [list];
    let Ok(options) = RevocationOptionsBuilder::new(&lists) else {
        return false;
    };
    let options = options
        .with_depth(RevocationCheckDepth::Chain)
        .with_status_policy(UnknownStatusPolicy::Allow)
        .build();
    let Ok(certificate) = EndEntityCert::try_from(end_entity) else {
        return false;
    };
    let verified = certificate.verify_for_usage(
        provider().signature_verification_algorithms.all,
        &roots.roots,
        intermediates,
        now,
        AnyUsage,
        Some(options),
        None,
    );
    matches!(verified, Err(webpki::Error::CertRevoked))
}

// === impl RevocationLists ===

impl RevocationLists {
    fn new(lists: Vec<CertRevocationList<'static>>) -> Self {
        Self {
            lists: ArcSwap::from_pointee(lists),
            version: watch::channel(0).0,
        }
    }

    /// Lists as a file would hold them.
    pub fn from_pem(pem: &str) -> Result<Arc<Self>, RevocationError> {
        Ok(Arc::new(Self::new(parse(
            Path::new("revocation lists"),
            pem.as_bytes(),
        )?)))
    }

    fn replace(&self, lists: Vec<CertRevocationList<'static>>) {
        self.lists.store(Arc::new(lists));
        self.version.send_modify(|version| *version += 1);
    }

    /// Refuses a chain, verified already, of which a list that its issuer signed names a part.
    pub(crate) fn check(
        &self,
        roots: &RootCertStore,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        // One at a time: of two signers with one name, as a renewed root has, each vouches for its own list.
        let lists = self.lists.load();
        let revoked = lists
            .iter()
            .any(|list| is_on(list, roots, end_entity, intermediates, now));
        match revoked {
            true => Err(CertificateError::Revoked.into()),
            false => Ok(()),
        }
    }

    /// Whether a chain that was good when it was shown has been revoked since.
    pub(crate) fn has_revoked(&self, roots: &RootCertStore, chain: &[CertificateDer<'_>]) -> bool {
        chain.split_first().is_some_and(|(end_entity, rest)| {
            self.check(roots, end_entity, rest, UnixTime::now())
                .is_err()
        })
    }

    /// Changes with every new content of the file.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}

impl fmt::Debug for RevocationLists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationLists({})", self.lists.load().len())
    }
}

// === impl Stamp ===

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            length: metadata.len(),
        }
    }
}

// === impl AnyUsage ===

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
