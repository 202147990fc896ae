//! Handshakes over real sockets between certificates of one authority, and those that must fail.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::identity::Identity;
use rustls::version::TLS13;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::authority::{Signer, Subject};
use crate::certificate::{CertificateError, CertificateSummary, is_same_certificate};
use crate::key::PrivateKey;
use crate::revocation::RevocationLists;
use crate::{WorkloadCertificate, key_exchange_group, no_server_name, peer_identity, provider};

mod alerts;
mod resumption;

const DAY: Duration = Duration::from_secs(86_400);

/// What both ends saw of a handshake.
#[derive(Debug)]
struct Handshake {
    client_sees: Option<Identity>,
    server_sees: Option<Identity>,
    group: Option<&'static str>,
    alpn: Option<Vec<u8>>,
    kind: Option<HandshakeKind>,
}

fn signer() -> Signer {
    Signer::self_signed("cluster.local", DAY * 3650, SystemTime::now()).expect("a root")
}

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

fn certificate(signer: &Signer, identity: &Identity) -> WorkloadCertificate {
    signer
        .workload_certificate(identity, DAY, SystemTime::now())
        .expect("a certificate")
}

/// One handshake and a byte each way, so that a refusal by either end is seen.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
) -> Result<Handshake, String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let accept = async {
        let (tcp, _) = listener.accept().await?;
        let mut tls = TlsAcceptor::from(server).accept(tcp).await?;
        tls.write_all(b"s").await?;
        tls.read_exact(&mut [0]).await?;
        Ok::<_, std::io::Error>(peer_identity(tls.get_ref().1))
    };
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        let mut tls = TlsConnector::from(client)
            .connect(no_server_name(), tcp)
            .await?;
        tls.write_all(b"c").await?;
        tls.read_exact(&mut [0]).await?;
        let connection = tls.get_ref().1;
        Ok::<_, std::io::Error>((
            peer_identity(connection),
            key_exchange_group(connection),
            connection.alpn_protocol().map(<[u8]>::to_vec),
            connection.handshake_kind(),
        ))
    };
    let (server, client) = tokio::join!(accept, connect);
    match (server, client) {
        (Ok(server_sees), Ok((client_sees, group, alpn, kind))) => Ok(Handshake {
            client_sees,
            server_sees,
            group,
            alpn,
            kind,
        }),
        (server, client) => {
            let told = [server.err(), client.err()];
            Err(told
                .iter()
                .flatten()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "))
        }
    }
}

#[tokio::test]
async fn two_workloads_of_one_mesh_see_each_other_over_the_post_quantum_group() {
    let signer = signer();
    let (web, api) = (identity("web"), identity("api"));
    let (client, server) = (certificate(&signer, &web), certificate(&signer, &api));
    let seen = handshake(
        server.server_config(),
        client.client_config(&[identity("other"), api.clone()].into()),
    )
    .await
    .expect("mutual TLS");
    assert_eq!(seen.client_sees, Some(api));
    assert_eq!(seen.server_sees, Some(web));
    assert_eq!(seen.group, Some("X25519MLKEM768"));
    assert_eq!(seen.alpn.as_deref(), Some(&b"h2"[..]));
}

#[tokio::test]
async fn a_peer_without_post_quantum_groups_connects_over_what_it_has() {
    let signer = signer();
    let (client, server) = (
        certificate(&signer, &identity("web")),
        certificate(&signer, &identity("api")),
    );
    let ours = client.client_config(&[identity("api")].into());
    for (group, name) in [
        (NamedGroup::X25519, "X25519"),
        (NamedGroup::secp256r1, "P-256"),
        (NamedGroup::secp384r1, "P-384"),
    ] {
        let mut limited = (*provider()).clone();
        limited.kx_groups.retain(|offered| offered.name() == group);
        let mut config = ClientConfig::builder_with_provider(Arc::new(limited))
            .with_protocol_versions(&[&TLS13])
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(crate::verify::IdentityVerifier::new(
                client.root_store(),
                [identity("api")].into(),
                None,
            )))
            .with_client_cert_resolver(ours.client_auth_cert_resolver.clone());
        config.enable_sni = false;
        let seen = handshake(server.server_config(), Arc::new(config))
            .await
            .expect("mutual TLS");
        assert_eq!(seen.group, Some(name));
    }
}

#[tokio::test]
async fn a_server_of_another_identity_is_refused_by_name() {
    let signer = signer();
    let (client, server) = (
        certificate(&signer, &identity("web")),
        certificate(&signer, &identity("thief")),
    );
    let error = handshake(
        server.server_config(),
        client.client_config(&[identity("api")].into()),
    )
    .await
    .expect_err("must be refused");
    assert!(
        error.contains("the peer is spiffe://cluster.local/ns/shop/sa/thief, expected spiffe://cluster.local/ns/shop/sa/api"),
        "{error}"
    );
    let nobody = client.client_config(&[].into());
    handshake(server.server_config(), nobody)
        .await
        .expect_err("an empty list of identities accepts nobody");
}

#[tokio::test]
async fn a_client_of_another_trust_domain_is_refused_even_under_the_same_root() {
    let signer = signer();
    let server = certificate(&signer, &identity("api"));
    let client = certificate(&signer, &Identity::new("elsewhere.example", "shop", "web"));
    let error = handshake(
        server.server_config(),
        client.client_config(&[identity("api")].into()),
    )
    .await
    .expect_err("must be refused");
    assert!(
        error.contains("not of our trust domain cluster.local"),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_or_server_of_another_root_is_refused() {
    let (ours, theirs) = (signer(), signer());
    let api = certificate(&ours, &identity("api"));
    let forged = certificate(&theirs, &identity("web"));
    let error = handshake(
        api.server_config(),
        forged.client_config(&[identity("api")].into()),
    )
    .await
    .expect_err("must be refused");
    assert!(
        error.contains("UnknownIssuer") || error.contains("BadSignature"),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let signer = signer();
    let server = certificate(&signer, &identity("api"));
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(crate::verify::IdentityVerifier::new(
            server.root_store(),
            [identity("api")].into(),
            None,
        )))
        .with_no_client_auth();
    let error = handshake(server.server_config(), Arc::new(config))
        .await
        .expect_err("must be refused");
    assert!(error.contains("peer sent no certificates"), "{error}");
}

#[tokio::test]
async fn a_certificate_with_no_workload_identity_is_refused_on_both_sides() {
    let signer = signer();
    let key = PrivateKey::generate().expect("a key");
    let subject = Subject::Server {
        names: vec!["api.shop.svc".to_owned()],
        addresses: Vec::new(),
    };
    let issued = signer
        .issue(key.public(), &subject, DAY, SystemTime::now())
        .expect("signed");
    let error = WorkloadCertificate::new(key, &issued.chain).expect_err("no identity");
    assert_eq!(
        error.to_string(),
        "the certificate holds no workload identity"
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_knows_it() {
    let signer = signer();
    let past = SystemTime::now() - Duration::from_secs(600);
    let expired = signer
        .workload_certificate(&identity("web"), Duration::from_secs(60), past)
        .expect("a certificate");
    assert!(expired.is_expired());
    assert_eq!(expired.remaining(), Duration::ZERO);
    let server = certificate(&signer, &identity("api"));
    let error = handshake(
        server.server_config(),
        expired.client_config(&[identity("api")].into()),
    )
    .await
    .expect_err("must be refused");
    assert!(
        error.contains("Expired") || error.contains("expired"),
        "{error}"
    );
}

#[test]
fn a_leaf_has_istios_profile() {
    let signer = signer();
    let now = SystemTime::now();
    let web = certificate(&signer, &identity("web"));
    let leaf = web.chain().next().expect("a leaf");
    let pem = x509_parser::pem::parse_x509_pem(leaf.pem.as_bytes())
        .expect("PEM")
        .1;
    let parsed = pem.parse_x509().expect("X.509");
    assert_eq!(parsed.subject().iter().count(), 0);
    let names = parsed
        .subject_alternative_name()
        .expect("readable")
        .expect("present");
    assert!(names.critical);
    assert_eq!(names.value.general_names.len(), 1);
    let usage = parsed
        .key_usage()
        .expect("readable")
        .expect("present")
        .value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let extended = parsed
        .extended_key_usage()
        .expect("readable")
        .expect("present")
        .value;
    assert!(extended.server_auth && extended.client_auth && !extended.any);
    assert!(!parsed.is_ca());
    let backdated = now.duration_since(web.not_before()).expect("in the past");
    assert!((595..=605).contains(&backdated.as_secs()), "{backdated:?}");
    let left = web.not_after().duration_since(now).expect("in the future");
    assert!((86_395..=86_405).contains(&left.as_secs()), "{left:?}");
}

#[test]
fn a_leaf_never_outlives_its_signer() {
    let now = SystemTime::now();
    let signer = Signer::self_signed("cluster.local", DAY, now).expect("a root");
    let key = PrivateKey::generate().expect("a key");
    let subject = Subject::Workload(identity("web"));
    let issued = signer
        .issue(key.public(), &subject, DAY * 30, now)
        .expect("signed");
    assert_eq!(issued.not_after, signer.not_after());
    signer
        .issue(key.public(), &subject, DAY, now + DAY)
        .expect_err("an expired signer signs nothing");
}

#[test]
fn an_answer_for_another_key_is_no_certificate() {
    let signer = signer();
    let (asked, other) = (
        PrivateKey::generate().expect("a key"),
        PrivateKey::generate().expect("a key"),
    );
    let subject = Subject::Workload(identity("web"));
    let issued = signer
        .issue(other.public(), &subject, DAY, SystemTime::now())
        .expect("signed");
    WorkloadCertificate::new(asked, &issued.chain).expect_err("the keys differ");
    for broken in [&issued.chain[..0], &issued.chain[..1], &issued.chain[1..]] {
        let key = PrivateKey::generate().expect("a key");
        WorkloadCertificate::new(key, broken).expect_err("incomplete");
    }
    let garbage = ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"; 2];
    WorkloadCertificate::new(other, &garbage).expect_err("malformed");
}

/// A self-signed certificate that can be read, but has an extension twice.
fn no_trust_anchor() -> String {
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.serial_number = Some(1.into());
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1]);
    let constraints = rcgen::CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0]);
    params.custom_extensions = vec![constraints];
    let key = PrivateKey::generate().expect("a key");
    params.self_signed(&key).expect("signed").pem()
}

#[tokio::test]
async fn a_root_that_can_not_be_trusted_leaves_the_others() {
    let signer = signer();
    let unreadable = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    let readable = no_trust_anchor();
    CertificateSummary::read_all(&readable).expect("it can be shown");
    let unusable = format!("{unreadable}{readable}");
    let with_roots = |roots: &str| {
        let key = PrivateKey::generate().expect("a key");
        let subject = Subject::Workload(identity("web"));
        let issued = signer.issue(key.public(), &subject, DAY, SystemTime::now());
        let mut chain = issued.expect("signed").chain;
        *chain.last_mut().expect("the roots") = roots.to_owned();
        WorkloadCertificate::new(key, &chain)
    };
    for roots in [
        format!("{unusable}{}", signer.roots()),
        format!("{}{unusable}", signer.roots()),
    ] {
        let web = with_roots(&roots).expect("one of them is good");
        // Only what is trusted is shown as such.
        let shown: Vec<_> = web.roots().map(|root| root.pem).collect();
        assert_eq!(shown, [signer.own_root()]);
        assert_eq!(web.sent_chain().len(), 1);
        let api = certificate(&signer, &identity("api"));
        let (client, server) = (
            api.client_config(&[identity("web")].into()),
            web.server_config(),
        );
        handshake(server, client).await.expect("mutual TLS");
    }
    let refused = with_roots(&unusable).expect_err("no root is left");
    assert!(
        matches!(refused, CertificateError::Malformed(_)),
        "{refused}"
    );
}

#[test]
fn one_identity_too_many_costs_no_more_than_one_configuration() {
    let web = certificate(&signer(), &identity("web"));
    let expected: Vec<Arc<[Identity]>> = (0..1024)
        .map(|number| [identity(&format!("server-{number}"))].into())
        .collect();
    let configs = || expected.iter().map(|one| web.client_config(one));
    let first: Vec<_> = configs().collect();
    let other = web.client_config(&[identity("other")].into());
    let kept = |(one, config)| Arc::ptr_eq(one, &web.client_config(config));
    let kept = first.iter().zip(&expected).filter(|one| kept(*one)).count();
    assert!(kept > 1000, "{kept}");
    assert!(is_same_certificate(&first[0], &other));
    let renewed = certificate(&signer(), &identity("web"));
    assert!(!is_same_certificate(
        &other,
        &renewed.client_config(&expected[0])
    ));
}

#[test]
fn client_configurations_are_shared() {
    let web = certificate(&signer(), &identity("web"));
    let expected: Arc<[Identity]> = [identity("api")].into();
    let first = web.client_config(&expected);
    let same_list_elsewhere = web.client_config(&[identity("api")].into());
    assert!(Arc::ptr_eq(&first, &same_list_elsewhere));
    assert!(Arc::ptr_eq(&web.server_config(), &web.server_config()));
}

#[test]
fn a_mangled_certificate_shows_no_identity_and_never_panics() {
    let web = certificate(&signer(), &identity("web"));
    let leaf = web.chain().next().expect("a leaf");
    let der = crate::certificate::read_pem(&leaf.pem)
        .expect("PEM")
        .remove(0);
    assert_eq!(crate::peer::identities(&der), [identity("web")]);
    for end in 0..der.len() {
        assert!(crate::peer::identities(&der[..end].to_vec().into()).is_empty());
    }
    for at in 0..der.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut mangled = der.to_vec();
            mangled[at] ^= flip;
            // What is read may differ; that it is read without a panic is the point.
            let _ = crate::peer::identities(&mangled.into());
        }
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_by_either_end() {
    let signer = signer();
    let [web, api, other] =
        ["web", "api", "other"].map(|name| certificate(&signer, &identity(name)));
    let listing = |revoked: &WorkloadCertificate| {
        let serial = revoked.serial().parse().expect("a number");
        let pem = signer.revocation_list(&[serial], DAY, SystemTime::now());
        RevocationLists::from_pem(&pem.expect("a list")).expect("lists")
    };
    let lists = [listing(&web), listing(&api), listing(&other)];
    let by = |certificate: WorkloadCertificate, lists: &Arc<RevocationLists>| {
        certificate
            .with_revocations(lists.clone())
            .expect("configurations")
    };
    let expected: Arc<[Identity]> = [identity("api")].into();
    let [of_web, of_api, of_other] = &lists;

    let api = by(api, of_web);
    let error = handshake(api.server_config(), web.client_config(&expected))
        .await
        .expect_err("the client is revoked");
    assert!(error.contains("Revoked"), "{error}");

    let api = by(api, of_other);
    let web = by(web, of_api);
    let error = handshake(api.server_config(), web.client_config(&expected))
        .await
        .expect_err("the server is revoked");
    assert!(error.contains("Revoked"), "{error}");

    let web = by(web, of_other);
    handshake(api.server_config(), web.client_config(&expected))
        .await
        .expect("neither is revoked");
}
