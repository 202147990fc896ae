//! Handshakes with revoked certificates, and a file of lists that changes.

use std::time::SystemTime;

use mesh::identity::Identity;

use super::*;
use crate::WorkloadCertificate;
use crate::authority::Signer;

const DAY: Duration = Duration::from_secs(86_400);

fn signer() -> Signer {
    Signer::self_signed("cluster.local", DAY * 365, SystemTime::now()).expect("a root")
}

fn certificate(signer: &Signer, account: &str) -> WorkloadCertificate {
    let identity = Identity::new("cluster.local", "shop", account);
    signer
        .workload_certificate(&identity, DAY, SystemTime::now())
        .expect("a certificate")
}

fn list(signer: &Signer, revoked: &[&WorkloadCertificate]) -> String {
    let serials = revoked.iter().map(|one| one.serial().parse());
    let serials: Vec<_> = serials.map(|serial| serial.expect("a number")).collect();
    signer
        .revocation_list(&serials, DAY, SystemTime::now())
        .expect("a list")
}

fn accepts(lists: &RevocationLists, certificate: &WorkloadCertificate) -> bool {
    let chain = certificate.sent_chain();
    !lists.have_revoked(&certificate.root_store(), &chain, UnixTime::now())
}

#[test]
fn only_what_a_list_of_its_own_issuer_names_is_revoked() {
    let (ours, theirs) = (signer(), signer());
    let (good, bad) = (certificate(&ours, "good"), certificate(&ours, "bad"));
    let of_ours = list(&ours, &[&bad]);
    let of_theirs = list(&theirs, &[&good, &bad]);
    let check = |pem: &str, expected: (bool, bool)| {
        let lists = RevocationLists::from_pem(pem).expect("lists");
        assert_eq!((accepts(&lists, &good), accepts(&lists, &bad)), expected);
    };
    check(&of_ours, (true, false));
    // Of the same name, and signed with another key: it says nothing of ours and hides nothing.
    check(&of_theirs, (true, true));
    check(&format!("{of_theirs}{of_ours}"), (true, false));
}

#[test]
fn what_a_list_says_holds_for_a_certificate_that_has_expired_since() {
    let hours_ago = SystemTime::now() - Duration::from_secs(4 * 3600);
    let signer = Signer::self_signed("cluster.local", DAY, hours_ago).expect("a root");
    let short = |account: &str| {
        let identity = Identity::new("cluster.local", "shop", account);
        let issued = signer.workload_certificate(&identity, Duration::from_secs(1), hours_ago);
        issued.expect("a certificate")
    };
    let (good, bad) = (short("good"), short("bad"));
    assert!(good.is_expired() && bad.is_expired());
    let lists = RevocationLists::from_pem(&list(&signer, &[&bad])).expect("lists");
    assert_eq!(
        (accepts(&lists, &good), accepts(&lists, &bad)),
        (true, false)
    );
}

#[test]
fn nothing_that_a_peer_adds_to_its_chain_hides_that_it_is_revoked() {
    let now = SystemTime::now();
    let ours = signer();
    // Of the issuer's name, and of another key: an expired one makes the worst of all errors, and a
    // hundred use up what a verification may cost.
    let forged = |lifetime: Duration, begun: SystemTime| {
        let signer = Signer::self_signed("cluster.local", lifetime, begun).expect("a root");
        CertificateDer::from_pem_slice(signer.roots().as_bytes()).expect("a certificate")
    };
    let expired = vec![forged(DAY, now - DAY * 3)];
    let many: Vec<_> = (0..110).map(|_| forged(DAY * 365, now)).collect();
    let (good, bad) = (certificate(&ours, "good"), certificate(&ours, "bad"));
    let lists = RevocationLists::from_pem(&list(&ours, &[&bad])).expect("lists");
    for (added, name) in [(expired, "expired"), (many, "many")] {
        let refused = |certificate: &WorkloadCertificate| {
            let (roots, chain) = (certificate.root_store(), certificate.sent_chain());
            let checked = lists.check(&roots, &chain[0], &added, UnixTime::now());
            checked.is_err()
        };
        assert_eq!((refused(&good), refused(&bad)), (false, true), "{name}");
    }
}

#[test]
fn a_peer_whose_certificate_can_not_be_read_is_not_tracked() {
    let ours = signer();
    let lists = RevocationLists::from_pem(&list(&ours, &[])).expect("lists");
    let own = certificate(&ours, "own");
    let chain = own.sent_chain();
    let own = own.with_revocations(lists).expect("configurations");
    assert!(
        own.revocation_of(chain.into())
            .is_ok_and(|tracked| tracked.is_some())
    );
    for shown in [vec![], vec![CertificateDer::from(vec![0x30, 0])]] {
        assert!(own.revocation_of(shown.into()).is_err());
    }
}

#[test]
fn a_file_without_a_list_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("crl.pem");
    assert!(RevocationFile::open(&path).is_err(), "there is none");
    let certificate = certificate(&signer(), "web");
    let other = certificate
        .chain()
        .map(|summary| summary.pem)
        .collect::<String>();
    for content in ["", "nonsense", &other] {
        std::fs::write(&path, content).expect("written");
        assert!(RevocationFile::open(&path).is_err(), "{content:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_file_reaches_connections_that_are_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("crl.pem");
    let signer = signer();
    let (other, web) = (certificate(&signer, "other"), certificate(&signer, "web"));
    std::fs::write(&path, list(&signer, &[&other])).expect("written");
    let file = RevocationFile::open(&path).expect("a list");
    let lists = file.lists();
    tokio::spawn(file.follow());

    let api = certificate(&signer, "api")
        .with_revocations(lists.clone())
        .expect("configurations");
    let chain = web.sent_chain();
    let revoked = api.revocation_of(chain.into()).expect("readable");
    let revoked = revoked.expect("lists are kept");
    let mut revoked = tokio::spawn(revoked);
    // What can't be read changes nothing.
    std::fs::write(&path, "half a fi").expect("written");
    let waited = time::timeout(LOOK * 10, &mut revoked).await;
    assert!(waited.is_err(), "nothing was revoked");
    assert!(!accepts(&lists, &other));
    // As Kubernetes does it: another file under the name.
    let next = folder.path().join("next");
    std::fs::write(&next, list(&signer, &[&other, &web])).expect("written");
    std::fs::rename(&next, &path).expect("renamed");
    let waited = time::timeout(LOOK * 10, revoked).await;
    waited.expect("told").expect("no panic");
    assert!(!accepts(&lists, &web));
}
