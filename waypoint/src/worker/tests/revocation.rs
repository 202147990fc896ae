//! A certificate is taken back while a tunnel is open, at either side of the waypoint.

use std::path::Path;

use identity::revocation::RevocationFile;

use super::*;

/// A list that takes these back, put in the file's place at once.
fn revoke(path: &Path, signer: &Signer, revoked: &[&WorkloadCertificate]) {
    let serials = revoked.iter().map(|one| one.serial().parse().unwrap());
    let serials: Vec<_> = serials.collect();
    let list = signer.revocation_list(&serials, DAY, SystemTime::now());
    let next = path.with_extension("next");
    std::fs::write(&next, list.unwrap()).unwrap();
    std::fs::rename(next, path).unwrap();
}

#[test]
fn what_is_open_with_a_revoked_peer_is_cut_and_nothing_more_is_opened() {
    run(async {
        for of_client in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("crl.pem");
            let mut fixture = Fixture::new();
            revoke(&path, &fixture.signer, &[]);
            let file = RevocationFile::open(&path).unwrap();
            let own = issued(&fixture.signer, "waypoint");
            fixture.waypoint = Arc::new(own.with_revocations(file.lists()).unwrap());
            spawn_local(file.follow());
            let node = fixture.node(hello).await;
            let workers = fixture.start(node, Protocol::Http1, AppProtocol::Tcp, 1);
            let tunnel = fixture.tunnel(workers.address()).await;
            let mut client = open(&tunnel).await;
            client.write_all(GET).await.unwrap();
            read_until(&mut client, "hello").await;

            let revoked = match of_client {
                true => fixture.client.clone(),
                false => fixture.server.clone(),
            };
            revoke(&path, &fixture.signer, &[&revoked]);
            // A reset is an end, too.
            let _ = client.read_to_end(&mut Vec::new()).await;
            let again = async {
                let tunnel = fixture.try_tunnel(workers.address()).await.ok()?;
                let target = "10.1.0.1:80".parse().unwrap();
                let request = ConnectRequest::to(target, HeaderMap::new());
                let mut client = Stream::new(tunnel.open(request).await.ok()?, Default::default());
                client.write_all(GET).await.ok()?;
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.ok()?;
                (!answer.is_empty()).then_some(answer)
            };
            assert_eq!(again.await, None, "of the client: {of_client}");
            workers.drain(Duration::ZERO).await;
        }
    });
}

#[test]
fn nothing_is_opened_any_more_when_a_certificate_has_ended() {
    run(async {
        let mut fixture = Fixture::new();
        let life = Duration::from_secs(2);
        let client = identity_of("client");
        let issued = fixture
            .signer
            .workload_certificate(&client, life, SystemTime::now());
        fixture.client = Arc::new(issued.unwrap());
        let node = fixture.node(hello).await;
        let workers = fixture.start(node, Protocol::Http1, AppProtocol::Http11, 1);
        let tunnel = fixture.tunnel(workers.address()).await;
        let mut client = open(&tunnel).await;
        client.write_all(GET).await.unwrap();
        read_until(&mut client, "hello").await;
        let target = "10.1.0.1:80".parse().unwrap();
        let refused = loop {
            let request = ConnectRequest::to(target, HeaderMap::new());
            if let Err(error) = tunnel.open(request).await {
                break error;
            }
            time::sleep(Duration::from_millis(50)).await;
        };
        let OpenError::Tunnel(error) = refused else {
            panic!("{refused}");
        };
        assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM), "{error}");
        client.write_all(GET).await.unwrap();
        read_until(&mut client, "hello").await;
        workers.drain(Duration::ZERO).await;
    });
}
