//! Certificates that their issuers have revoked, as a file lists them (`CRL_PATH`); the file is followed.
//!
//! A certificate no list speaks of is accepted, as in Istio's ztunnel: lists are distributed late, and
//! the mesh must not stand still for it. What a list does say holds for the whole chain.

use std::fmt;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::{CertificateError, Error, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use tokio::sync::watch;
use tokio::time;
use webpki::{
    Cert, CertRevocationList, EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter,
    OwnedCertRevocationList, RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder,
    UnknownStatusPolicy, VerifiedPath,
};
use x509_parser::time::ASN1Time;

use crate::provider::provider;

/// How often the file is looked at. A change counts once it has been the same for two looks, so
/// that a file is not read while it is being written.
const LOOK: Duration = Duration::from_millis(500);
const NOTHING_YET: &str =
    "there is no revocation list yet, and nothing is revoked; the file is followed";

/// One issuer's.
type List = Arc<CertRevocationList<'static>>;

/// The lists in force. Verifiers share it; what it says changes with the file.
pub struct RevocationLists {
    lists: ArcSwap<Vec<List>>,
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

/// No list can be asked about a peer: what it showed can't be read.
#[derive(Debug, thiserror::Error)]
#[error("the peer's certificate can't be read, no revocation list can be asked about it")]
pub struct Untracked;

/// The chain was verified for its use already.
struct AnyUsage;

// === impl RevocationFile ===

impl RevocationFile {
    /// Reads the file. It may be empty, or come later, as a ConfigMap does that is mounted optionally;
    /// whatever else can't be read is an error.
    pub fn open(path: &Path) -> Result<Self, RevocationError> {
        let stamp = std::fs::metadata(path).map(|metadata| Stamp::of(&metadata));
        let (lists, read) = match std::fs::read(path) {
            Ok(content) => (parse(path, &content)?, stamp.ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => (Vec::new(), None),
            Err(error) => {
                let path = path.to_owned();
                return Err(RevocationError::Read { path, error });
            }
        };
        if lists.is_empty() {
            tracing::warn!(path = %path.display(), "{NOTHING_YET}");
        }
        Ok(Self {
            lists: Arc::new(RevocationLists::new(lists)),
            path: path.to_owned(),
            read,
        })
    }

    pub fn lists(&self) -> Arc<RevocationLists> {
        self.lists.clone()
    }

    /// Reads the file whenever it has changed, until dropped. A list once in force stays so until another
    /// one of its issuer replaces it: a file that is gone, emptied or cut off takes nothing back, whoever
    /// has done that.
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
                Ok(lists) if !lists.is_empty() => {
                    let read = lists.len();
                    let kept = self.lists.replace(lists);
                    tracing::info!(path = %self.path.display(), lists = read, "revocation lists read");
                    if kept > 0 {
                        tracing::warn!(path = %self.path.display(), lists = kept, "the file has no list any more of issuers that it had one of; going on with theirs");
                    }
                }
                Ok(_) if self.lists.lists.load().is_empty() => {
                    tracing::warn!(path = %self.path.display(), "{NOTHING_YET}");
                }
                Ok(_) => {
                    tracing::error!(path = %self.path.display(), "the file of revocation lists is empty; going on with those before");
                }
                Err(error) => {
                    tracing::error!(%error, "revocation lists can't be read; going on with those before");
                }
            }
        }
    }

    async fn read(&self) -> Result<Vec<List>, RevocationError> {
        let content = tokio::fs::read(&self.path)
            .await
            .map_err(|error| RevocationError::Read {
                path: self.path.clone(),
                error,
            })?;
        parse(&self.path, &content)
    }
}

/// Any number of lists in PEM, or one in DER; none in an empty file only.
fn parse(path: &Path, content: &[u8]) -> Result<Vec<List>, RevocationError> {
    let malformed = |reason: String| RevocationError::Malformed {
        path: path.to_owned(),
        reason,
    };
    let read = |der: &[u8], number: usize| {
        OwnedCertRevocationList::from_der(der)
            .map(|list| Arc::new(CertRevocationList::from(list)))
            .map_err(|error| malformed(format!("list {number}: {error}")))
    };
    // A SEQUENCE, whose length takes more than one byte in any list: no text begins so.
    if let [0x30, 0x81..=0x84, ..] = content {
        return Ok(vec![read(content, 1)?]);
    }
    let mut lists = Vec::new();
    for der in CertificateRevocationListDer::pem_slice_iter(content) {
        let der = der.map_err(|error| malformed(error.to_string()))?;
        lists.push(read(&der, lists.len() + 1)?);
    }
    match lists.is_empty() && !content.trim_ascii().is_empty() {
        true => Err(malformed("holds no revocation list".to_owned())),
        false => Ok(lists),
    }
}

// === impl RevocationLists ===

impl RevocationLists {
    fn new(lists: Vec<List>) -> Self {
        Self {
            lists: ArcSwap::from_pointee(lists),
            version: watch::channel(0).0,
        }
    }

    /// Lists as a file would hold them.
    pub fn read(content: &[u8]) -> Result<Arc<Self>, RevocationError> {
        let lists = parse(Path::new("revocation lists"), content)?;
        Ok(Arc::new(Self::new(lists)))
    }

    pub fn from_pem(pem: &str) -> Result<Arc<Self>, RevocationError> {
        Self::read(pem.as_bytes())
    }

    /// Puts these in force, and keeps those of issuers of whom none is here: tells how many.
    fn replace(&self, mut lists: Vec<List>) -> usize {
        let read = lists.len();
        let before = self.lists.load();
        let spoken_of = |list: &&List| {
            lists[..read]
                .iter()
                .any(|one| one.issuer() == list.issuer())
        };
        let kept: Vec<_> = before
            .iter()
            .filter(|list| !spoken_of(list))
            .cloned()
            .collect();
        let count = kept.len();
        lists.extend(kept);
        self.lists.store(Arc::new(lists));
        self.version.send_modify(|version| *version += 1);
        count
    }

    /// Refuses a chain, verified already, of which a list that its issuer signed names a part.
    pub(crate) fn check(
        &self,
        roots: &RootCertStore,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let lists = self.lists.load();
        // Most name no part of it, and it takes no signature to see that.
        let named: Vec<_> = lists
            .iter()
            .map(Arc::as_ref)
            .filter(|list| {
                names(list, end_entity) || intermediates.iter().any(|one| names(list, one))
            })
            .collect();
        match !named.is_empty() && is_on(&named, roots, end_entity, intermediates, now) {
            true => Err(CertificateError::Revoked.into()),
            false => Ok(()),
        }
    }

    /// Whether a chain that was good when it was `shown`, a moment before by whatever clock, has been
    /// revoked since. It is judged as of then: connections outlive certificates, and one that has expired
    /// is no less revoked.
    pub(crate) fn have_revoked(
        &self,
        roots: &RootCertStore,
        chain: &[CertificateDer<'_>],
        shown: UnixTime,
    ) -> bool {
        chain.split_first().is_some_and(|(end_entity, rest)| {
            let shown = within_life(end_entity, shown).unwrap_or(shown);
            self.check(roots, end_entity, rest, shown).is_err()
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

/// Whether lists can be asked about a certificate.
pub(crate) fn is_readable(certificate: &CertificateDer<'_>) -> bool {
    EndEntityCert::try_from(certificate).is_ok()
        && within_life(certificate, UnixTime::now()).is_some()
}

/// Whether a list has the number of a certificate, whoever has issued it.
fn names(list: &CertRevocationList<'_>, certificate: &CertificateDer<'_>) -> bool {
    EndEntityCert::try_from(certificate)
        .is_ok_and(|certificate| !matches!(list.find_serial(certificate.serial()), Ok(None)))
}

/// Whether one of `lists` speaks of a chain. One that leads to none of the roots is not theirs to judge.
fn is_on(
    lists: &[&CertRevocationList<'_>],
    roots: &RootCertStore,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
) -> bool {
    let Ok(certificate) = EndEntityCert::try_from(end_entity) else {
        return false;
    };
    let Ok(path) = verify(&certificate, &roots.roots, intermediates, now, None) else {
        return false;
    };
    // Nothing but the path that holds: of several that don't, the library tells the worst error only,
    // and what a peer adds to its chain would hide that the list has a part of it.
    let anchor = std::slice::from_ref(path.anchor());
    let intermediates = path.intermediate_certificates();
    let intermediates: Vec<_> = intermediates.map(Cert::der).collect();
    // One at a time: of two signers with one name, as a renewed root has, each vouches for its own list.
    lists.iter().any(|list| {
        let Ok(options) = RevocationOptionsBuilder::new(std::slice::from_ref(list)) else {
            return false;
        };
        let options = options
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Allow)
            .build();
        let verified = verify(&certificate, anchor, &intermediates, now, Some(options));
        matches!(verified, Err(webpki::Error::CertRevoked))
    })
}

fn verify<'a>(
    certificate: &'a EndEntityCert<'a>,
    anchors: &'a [TrustAnchor<'_>],
    intermediates: &'a [CertificateDer<'a>],
    now: UnixTime,
    revocation: Option<RevocationOptions<'_>>,
) -> Result<VerifiedPath<'a>, webpki::Error> {
    certificate.verify_for_usage(
        provider().signature_verification_algorithms.all,
        anchors,
        intermediates,
        now,
        AnyUsage,
        revocation,
        None,
    )
}

/// `now`, or the moment of the certificate's life that is next to it.
fn within_life(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = |time: ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity = parsed.validity();
    let (begin, end) = (seconds(validity.not_before), seconds(validity.not_after));
    let now = now.as_secs().min(end).max(begin);
    Some(UnixTime::since_unix_epoch(Duration::from_secs(now)))
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
