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

/// One that holds no list yet is not held against it, as in Istio's; what is there and is none is.
#[test]
fn a_file_may_be_empty_or_come_later_but_must_hold_lists_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("crl.pem");
    let signer = signer();
    let web = certificate(&signer, "web");
    let pem = list(&signer, &[&web]);
    let der = CertificateRevocationListDer::from_pem_slice(pem.as_bytes()).expect("a list");
    let other: String = web.chain().map(|summary| summary.pem).collect();
    let listed = || {
        let file = RevocationFile::open(&path).map_err(|error| error.to_string());
        file.map(|file| file.lists().lists.load().len())
    };
    assert_eq!(listed(), Ok(0), "there is none");
    let twice = [pem.as_bytes(), b"a comment\n", pem.as_bytes()].concat();
    let torn = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    for (content, expected) in [
        (&b""[..], Ok(0)),
        (b"\n", Ok(0)),
        (pem.as_bytes(), Ok(1)),
        (&twice, Ok(2)),
        (&der, Ok(1)),
        (b"nonsense", Err("holds no revocation list")),
        (other.as_bytes(), Err("holds no revocation list")),
        (torn.as_bytes(), Err("list 1: ")),
        (&der[..der.len() - 1], Err("list 1: ")),
        (&[&der[..], &der[..]].concat(), Err("list 1: ")),
    ] {
        std::fs::write(&path, content).expect("written");
        match (listed(), expected) {
            (Err(error), Err(reason)) => {
                assert!(
                    error.contains("crl.pem: ") && error.contains(reason),
                    "{error}"
                );
            }
            (listed, expected) => assert_eq!(listed, expected.map_err(str::to_owned)),
        }
    }
    // Not a file that could still come.
    assert!(RevocationFile::open(folder.path()).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_list_that_comes_later_cuts_and_goes_on_when_its_file_does_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("crl.pem");
    let signer = signer();
    let web = certificate(&signer, "web");
    let file = RevocationFile::open(&path).expect("it may come later");
    let lists = file.lists();
    tokio::spawn(file.follow());

    let api = certificate(&signer, "api");
    let api = api.with_revocations(lists.clone()).expect("configurations");
    let revoked = api
        .revocation_of(web.sent_chain().into())
        .expect("readable");
    let mut revoked = tokio::spawn(revoked.expect("lists are kept"));
    std::fs::write(&path, "").expect("written");
    let waited = time::timeout(LOOK * 10, &mut revoked).await;
    assert!(waited.is_err(), "nothing was revoked");
    std::fs::write(&path, list(&signer, &[&web])).expect("written");
    let waited = time::timeout(LOOK * 10, revoked).await;
    waited.expect("told").expect("no panic");
    assert!(!accepts(&lists, &web));

    std::fs::write(&path, "").expect("written");
    time::sleep(LOOK * 10).await;
    assert!(!accepts(&lists, &web), "emptied");
    std::fs::remove_file(&path).expect("removed");
    time::sleep(LOOK * 10).await;
    assert!(!accepts(&lists, &web), "gone");
    // To take nothing back any more takes a list that says so.
    std::fs::write(&path, list(&signer, &[])).expect("written");
    time::sleep(LOOK * 10).await;
    assert!(accepts(&lists, &web));
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

/// As a write that is cut off between two lists leaves it.
#[tokio::test(start_paused = true)]
async fn a_list_that_its_file_no_longer_has_stays_in_force() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("crl.pem");
    let named = |name| Signer::self_signed(name, DAY * 365, SystemTime::now()).expect("a root");
    let (one, other) = (named("one"), named("other"));
    let (web, db) = (certificate(&one, "web"), certificate(&other, "db"));
    let (first, second) = (list(&one, &[&web]), list(&other, &[&db]));
    std::fs::write(&path, format!("{first}{second}")).expect("written");
    let file = RevocationFile::open(&path).expect("lists");
    let lists = file.lists();
    tokio::spawn(file.follow());
    assert!(!accepts(&lists, &web) && !accepts(&lists, &db));
    std::fs::write(&path, list(&one, &[])).expect("written");
    time::sleep(LOOK * 10).await;
    assert!(accepts(&lists, &web), "its issuer has taken it back");
    assert!(!accepts(&lists, &db), "nobody has");
}
