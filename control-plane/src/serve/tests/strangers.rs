//! What those who have no business here get out of the control plane, and what they do to it: nothing.

use std::os::unix::fs::PermissionsExt;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// What no proxy is ever to see.
const CONFIDENTIAL: &str = "bm9ib2R5cy1idXNpbmVzcw==";

/// A TLS connection to the gRPC port, by whoever.
async fn dial(stage: &Stage) -> TlsStream<TcpStream> {
    let root = fs::read(stage.path("state/ca/root-cert.pem")).expect("a root");
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(&root).expect("PEM");
    roots.add(root).expect("a root");
    let mut config = rustls::ClientConfig::builder_with_provider(identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let address = stage.running.as_ref().expect("runs").address;
    let tcp = TcpStream::connect(address).await.expect("connects");
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::from(address.ip()), tcp)
        .await
        .expect("TLS")
}

/// Sends and waits for the end, whatever is said until then.
async fn end_of(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    // The other end may hang up at any byte.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
    let _ = ended.await.expect("ends in time");
}

/// Any bytes, and any behind what a client of HTTP/2 begins with.
fn nonsense() -> impl Strategy<Value = Vec<u8>> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let start = prop_oneof![Just(Vec::new()), Just(preface)];
    (start, prop::collection::vec(any::<u8>(), 1..200)).prop_map(|(mut start, rest)| {
        start.extend(rest);
        start
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn cve_2022_24726_nonsense_ends_nothing_but_its_connection() {
    let mut stage = Stage::new();
    stage.write("user/web.yaml", &service("web", 80));
    stage.start().await;
    let address = stage.running.as_ref().expect("runs").address;
    let mut runner = TestRunner::deterministic();
    for _ in 0..32 {
        let bytes = nonsense().new_tree(&mut runner).expect("bytes").current();
        let tcp = TcpStream::connect(address).await.expect("connects");
        end_of(tcp, &bytes).await;
        end_of(dial(&stage).await, &bytes).await;
    }
    let token = stage.token("ztunnel", "uid-1");
    let synced = stage.ztunnel("weft-system", &token).sync().await;
    assert!(synced.contains_key("shop/web.shop.svc.cluster.local"));
    stage.stop().await;
}

/// There is no cache of keys to be asked: keys never leave whoever made them, and the user's secrets
/// are not even kept.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2021_34824_no_proxy_gets_a_secret() {
    let mut stage = Stage::new();
    stage.write("user/web.yaml", &service("web", 80));
    stage.write(
        "user/secret.yaml",
        &format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: tls, namespace: shop}}\n\
             type: kubernetes.io/tls\ndata: {{tls.key: {CONFIDENTIAL}}}\n"
        ),
    );
    write_pods(&stage, &[("waypoint", waypoint_labels())]);
    stage.start().await;
    let token = stage.token("ztunnel", "uid-1");
    let own = stage.token_of("shop", "waypoint", ("waypoint", "waypoint"));
    let key = fs::read_to_string(stage.path("state/ca/ca-key.pem")).expect("a key");
    let key = key.lines().nth(1).expect("PEM").to_owned();
    for mut proxy in [
        stage.ztunnel("weft-system", &token),
        stage.waypoint("shop", &own),
    ] {
        let received = format!("{:?}", proxy.sync().await);
        assert!(
            received.contains("web.shop.svc.cluster.local"),
            "{received}"
        );
        assert!(!received.contains(CONFIDENTIAL), "{received}");
        assert!(!received.contains(&key), "{received}");
    }
    for path in ["/api/v1/debug/snapshot", "/api/v1/status", "/api/v1/trust"] {
        let shown = stage.api(path).await.to_string();
        assert!(!shown.contains(CONFIDENTIAL), "{path}: {shown}");
        assert!(!shown.contains(&key), "{path}: {shown}");
    }
    stage.stop().await;
}

/// What is known is told over a socket of the owner's; the port that all reach tells whether it is ready.
#[tokio::test(flavor = "multi_thread")]
async fn cve_2026_31838_the_public_port_tells_nothing_of_the_mesh() {
    let mut stage = Stage::new();
    stage.write("user/web.yaml", &service("web", 80));
    stage.start().await;
    stage
        .status_until(|status| status["resources"]["services"] == 1)
        .await;
    let public = stage.running.as_ref().expect("runs").public;
    for (path, expected) in [
        ("/ready", "200"),
        ("/api/v1/status", "404"),
        ("/api/v1/objects/services", "404"),
        ("/api/v1/debug/snapshot", "404"),
        ("/api/v1/trust", "404"),
        ("/debug/config_dump", "404"),
        ("/debug/syncz", "404"),
        ("/ready/../api/v1/status", "404"),
        ("//api/v1/status", "404"),
    ] {
        let stream = TcpStream::connect(public).await.expect("connects");
        let answer = get(stream, path).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {expected} ")),
            "{path}: {answer}"
        );
        assert!(!answer.contains("web"), "{path}: {answer}");
    }
    let mode = |name: &str| {
        let metadata = fs::metadata(stage.path(name)).expect("is there");
        metadata.permissions().mode() & 0o777
    };
    assert_eq!((mode("run"), mode("run/api.sock")), (0o700, 0o600));
    stage.stop().await;
}
