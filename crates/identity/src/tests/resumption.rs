//! Each handshake verifies the peer anew: a client that would resume its session can't.

use rustls::client::Resumption;

use super::*;

/// What had been verified once would go on to count, whatever has been revoked since.
#[tokio::test]
async fn cve_2022_21654_no_session_outlives_what_verified_it() {
    let signer = signer();
    let [web, api, other] =
        ["web", "api", "other"].map(|name| certificate(&signer, &identity(name)));
    let revoking = |revoked: &WorkloadCertificate| {
        let serial = revoked.serial().parse().expect("a number");
        let pem = signer.revocation_list(&[serial], DAY, SystemTime::now());
        RevocationLists::from_pem(&pem.expect("a list")).expect("lists")
    };
    let (of_other, of_web) = (revoking(&other), revoking(&web));
    let mut client = (*web.client_config(&[identity("api")].into())).clone();
    client.resumption = Resumption::in_memory_sessions(8);
    let client = Arc::new(client);

    let api = api.with_revocations(of_other).expect("configurations");
    for _ in 0..2 {
        let seen = handshake(api.server_config(), client.clone()).await;
        assert_eq!(seen.expect("mutual TLS").kind, Some(HandshakeKind::Full));
    }
    let api = api.with_revocations(of_web).expect("configurations");
    let error = handshake(api.server_config(), client)
        .await
        .expect_err("revoked since");
    assert!(error.contains("Revoked"), "{error}");
}
