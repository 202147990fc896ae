//! What both ends make of a certificate that a peer shows, and what revocation lists do.
//!
//! The root and its lists in `trust/` are fixed, so that a corpus holds certificates that they are
//! about; nobody has their keys any more.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use futures::FutureExt;
use identity::WorkloadCertificate;
use identity::authority::{Signer, Subject};
use identity::key::PrivateKey;
use identity::revocation::RevocationLists;
use mesh::identity::Identity;
use rustls_pki_types::{CertificateDer, UnixTime};

const ROOT: &str = include_str!("trust/root.pem");
/// Of the root, and of the intermediate.
const LISTS: &[u8] = include_bytes!("trust/lists.pem");
/// Signed with the root's key.
const INTERMEDIATE: &[u8] = include_bytes!("trust/intermediate.der");
/// Signed with the intermediate's, for `web`.
const LEAF: &[u8] = include_bytes!("trust/leaf.der");

/// Within the life of all of them.
const NOW: Duration = Duration::from_secs(1_800_000_000);

/// What is said of one chain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) accepted_as_client: bool,
    pub(crate) accepted_as_server: bool,
    pub(crate) revoked: bool,
}

/// Where an input is in the chain that is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    EndEntity,
    AboveLeaf,
    BelowIntermediate,
}

/// An end of connections that trusts the root, with the lists and without: who of its peers is revoked
/// is refused by the former only.
struct Ours {
    listing: WorkloadCertificate,
    trusting: WorkloadCertificate,
    web: Arc<[Identity]>,
}

static OURS: LazyLock<Ours> = LazyLock::new(|| Ours {
    listing: certificate()
        .with_revocations(RevocationLists::read(LISTS).expect("lists"))
        .expect("configurations"),
    trusting: certificate(),
    web: [Identity::new("cluster.local", "shop", "web")].into(),
});

/// One that another root has signed, which is trusted beside the fixed one.
fn certificate() -> WorkloadCertificate {
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let signer = Signer::self_signed("own", day, now).expect("a root");
    let key = PrivateKey::generate().expect("a key");
    let own = Subject::Workload(Identity::new("cluster.local", "shop", "own"));
    let issued = signer.issue(key.public(), &own, day, now).expect("signed");
    let roots = format!("{}{ROOT}", signer.roots());
    WorkloadCertificate::new(key, &[&issued.chain[0], &roots]).expect("a certificate")
}

/// Shows an input; what must hold of any is checked.
pub(crate) fn shown(input: &[u8], place: Place) -> Verdict {
    let input = CertificateDer::from(input);
    let chain = match place {
        Place::EndEntity => vec![input],
        Place::AboveLeaf => vec![CertificateDer::from(LEAF), input],
        Place::BelowIntermediate => vec![input, CertificateDer::from(INTERMEDIATE)],
    };
    let (now, ours) = (UnixTime::since_unix_epoch(NOW), &*OURS);
    let as_client = |end: &WorkloadCertificate| end.verify_client(&chain, now).is_ok();
    let as_server = |end: &WorkloadCertificate| end.verify_server(&ours.web, &chain, now).is_ok();
    let owned = chain.iter().map(|one| one.clone().into_owned()).collect();
    let tracked = ours.listing.revocation_of(owned);
    let is_tracked = tracked.is_ok();
    let revoked = tracked.ok().flatten();
    let verdict = Verdict {
        accepted_as_client: as_client(&ours.listing),
        accepted_as_server: as_server(&ours.listing),
        revoked: revoked.is_some_and(|revoked| revoked.now_or_never().is_some()),
    };
    let identities = identity::identities(&chain[0]);
    if verdict.accepted_as_client {
        let first = identities.first().expect("an identity");
        assert_eq!(&*first.trust_domain, "cluster.local");
        assert!(is_tracked && as_client(&ours.trusting));
    }
    if verdict.accepted_as_server {
        assert!(identities.contains(&ours.web[0]));
        assert!(is_tracked && as_server(&ours.trusting));
    }
    if verdict.revoked {
        assert!(!verdict.accepted_as_client && !verdict.accepted_as_server);
    }
    verdict
}
