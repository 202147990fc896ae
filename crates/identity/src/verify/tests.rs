//! Certificates that our own root has signed and that nobody may be let in with.

use std::time::{Duration, SystemTime};

use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, OtherNameValue, SanType,
    string,
};

use super::*;
use crate::key::PrivateKey;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// A root that signs what it is told to.
struct Root {
    issuer: Issuer<'static, PrivateKey>,
    store: Arc<RootCertStore>,
}

/// What servers and clients say of a certificate that a peer shows.
struct Judged {
    by_server: Result<(), Error>,
    by_client: Result<(), Error>,
}

impl Root {
    fn new() -> Self {
        let key = PrivateKey::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.serial_number = Some(1.into());
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![1]);
        let certificate = params.self_signed(&key).expect("signed");
        let mut store = RootCertStore::empty();
        store.add(certificate.der().clone()).expect("a root");
        Self {
            issuer: Issuer::new(params, key),
            store: Arc::new(store),
        }
    }

    /// Signs a certificate with these names, good for both ends but for what `change` does, and
    /// shows it to a server of the trust domain and to a client that expects `web`.
    fn judge(&self, names: &[SanType], change: impl FnOnce(&mut CertificateParams)) -> Judged {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.serial_number = Some(2.into());
        params.key_identifier_method = KeyIdMethod::PreSpecified(vec![2]);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        change(&mut params);
        let key = PrivateKey::generate().expect("a key");
        let leaf = params.signed_by(&key, &self.issuer).expect("signed");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = UnixTime::since_unix_epoch(now.unwrap_or(Duration::ZERO));
        let server = TrustDomainVerifier::new(self.store.clone(), "cluster.local".into(), None);
        let web = WEB.parse().expect("an identity");
        let client = IdentityVerifier::new(self.store.clone(), [web].into(), None);
        let name = crate::no_server_name();
        Judged {
            by_server: server
                .expect("a verifier")
                .verify_client_cert(leaf.der(), &[], now)
                .map(drop),
            by_client: client
                .verify_server_cert(leaf.der(), &[], &name, &[], now)
                .map(drop),
        }
    }
}

fn text(text: &str) -> string::Ia5String {
    text.try_into().expect("ASCII")
}

#[track_caller]
fn has_no_identity(judged: Result<(), Error>, why: &str) {
    let error = judged.expect_err(why).to_string();
    assert!(
        error.contains("holds no workload identity"),
        "{why}: {error}"
    );
}

#[test]
fn a_certificate_for_both_ends_with_an_identity_is_accepted() {
    let judged = Root::new().judge(&[SanType::URI(text(WEB))], |_| ());
    judged.by_server.expect("accepted by servers");
    judged.by_client.expect("accepted by clients");
}

#[test]
fn cve_2022_21657_a_certificate_is_good_for_its_purpose_only() {
    let root = Root::new();
    let names = [SanType::URI(text(WEB))];
    let usable = |purpose: ExtendedKeyUsagePurpose| {
        let judged = root.judge(&names, |params| params.extended_key_usages = vec![purpose]);
        (judged.by_server.is_ok(), judged.by_client.is_ok())
    };
    let (client, server) = (
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    assert_eq!(usable(client), (true, false));
    assert_eq!(usable(server), (false, true));
    assert_eq!(usable(ExtendedKeyUsagePurpose::CodeSigning), (false, false));
    let judged = root.judge(&names, |params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    judged.by_server.expect_err("an authority is no client");
    judged.by_client.expect_err("an authority is no server");
}

/// A name of another type is another name, whatever its text.
#[test]
fn cve_2022_21656_only_uris_are_identities() {
    let root = Root::new();
    let upn = vec![1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
    for name in [
        SanType::DnsName(text(WEB)),
        SanType::Rfc822Name(text(WEB)),
        SanType::OtherName((upn, OtherNameValue::Utf8String(WEB.to_owned()))),
    ] {
        let judged = root.judge(std::slice::from_ref(&name), |_| ());
        has_no_identity(judged.by_server, "a server");
        has_no_identity(judged.by_client, "a client");
    }
}

/// Read as a C string, each of these ends where `web` does.
#[test]
fn cve_2025_66220_and_cve_2026_47778_a_nul_ends_no_name() {
    let root = Root::new();
    for behind in ["\0", "\0.example", "\0/ns/other/sa/other"] {
        let cut = SanType::URI(text(&format!("{WEB}{behind}")));
        let whole = SanType::URI(text(WEB));
        for names in [
            vec![cut.clone()],
            vec![whole.clone(), cut.clone()],
            vec![cut, whole],
        ] {
            let judged = root.judge(&names, |_| ());
            has_no_identity(judged.by_server, "a server");
            has_no_identity(judged.by_client, "a client");
        }
    }
    // Clients of the control plane go by DNS names, which the verifier reads.
    let names = [
        SanType::URI(text(WEB)),
        SanType::DnsName(text("web\0.example")),
    ];
    let judged = root.judge(&names, |_| ());
    has_no_identity(judged.by_server, "a server");
    has_no_identity(judged.by_client, "a client");
}
