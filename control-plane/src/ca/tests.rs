//! The whole authority over real sockets: the tunnel's own client asks, and what it gets carries mutual TLS.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use boring::ec::{EcGroup, EcKey};
use boring::nid::Nid;
use boring::pkey::{PKey, Private};
use identity::ca_client::{CaClient, CitadelClient, FetchError, Mode};
use identity::grpc::{Config, ControlPlane, Roots, Token};
use identity::manager::CertificateManager;
use mesh::identity::Identity;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// Signs tokens as the machine does.
pub(super) struct TokenIssuer {
    folder: tempfile::TempDir,
    key: PKey<Private>,
}

impl TokenIssuer {
    pub(super) fn new() -> Self {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
        let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        let issuer = Self { folder, key };
        std::fs::write(issuer.path(), issuer.public_pem()).expect("written");
        issuer
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("token-issuer.pub.pem")
    }

    pub(super) fn public_pem(&self) -> Vec<u8> {
        self.key.public_key_to_pem().expect("PEM")
    }

    pub(super) fn authenticator(&self) -> Authenticator {
        Authenticator::new(self.path())
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        let der = self.key.private_key_to_der_pkcs8().expect("DER");
        jsonwebtoken::encode(
            &jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256),
            claims,
            &jsonwebtoken::EncodingKey::from_ec_der(&der),
        )
        .expect("signed")
    }

    fn token(&self, namespace: &str, account: &str, pod: &str) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("after 1970");
        self.sign(&json!({
            "iss": "weft",
            "aud": ["istio-ca"],
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "exp": now.as_secs() + 3600,
            "kubernetes.io": {
                "namespace": namespace,
                "serviceaccount": {"name": account, "uid": "a"},
                "pod": {"name": pod, "uid": format!("uid-{pod}")},
            },
        }))
    }
}

/// What is known of pods: each has the uid `uid-NAME`.
#[derive(Default)]
pub(super) struct TestPods(Mutex<HashMap<(String, String), PodRecord>>);

impl TestPods {
    pub(super) fn with(
        self,
        namespace: &str,
        name: &str,
        account: &str,
        node: &str,
        finished: bool,
    ) -> Self {
        let record = PodRecord {
            uid: format!("uid-{name}"),
            service_account: account.to_owned(),
            node: Some(node.to_owned()),
            finished,
            native_tunnel: false,
            waypoint: false,
        };
        let key = (namespace.to_owned(), name.to_owned());
        self.0.lock().expect("no panic").insert(key, record);
        self
    }

    fn remove(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.lock().expect("no panic").remove(&key);
    }
}

impl Pods for TestPods {
    fn pod(&self, namespace: &str, name: &str) -> Option<PodRecord> {
        let key = (namespace.to_owned(), name.to_owned());
        self.0.lock().expect("no panic").get(&key).cloned()
    }

    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        self.0
            .lock()
            .expect("no panic")
            .iter()
            .any(|((of, _), pod)| {
                of == namespace
                    && pod.service_account == service_account
                    && pod.node.as_deref() == Some(node)
                    && !pod.finished
            })
    }
}

/// A running authority with two nodes and a shop.
struct Mesh {
    issuer: TokenIssuer,
    pods: Arc<TestPods>,
    authority: Arc<Authority>,
    address: SocketAddr,
    _state: tempfile::TempDir,
}

impl Mesh {
    async fn start() -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let authority = Authority::load_or_create(&state.path().join("ca")).expect("an authority");
        let authority = Arc::new(authority);
        let issuer = TokenIssuer::new();
        let pods = Arc::new(
            TestPods::default()
                .with("weft-system", "ztunnel-node-1", "ztunnel", "node-1", false)
                .with("weft-system", "ztunnel-node-2", "ztunnel", "node-2", false)
                .with("shop", "web-1", "web", "node-1", false)
                .with("shop", "api-1", "api", "node-2", false),
        );
        let policy = Policy::new(
            "cluster.local",
            vec!["weft-system/ztunnel".parse().expect("an account")],
        );
        let service = service(
            authority.clone(),
            Arc::new(issuer.authenticator()),
            pods.clone(),
            policy,
        );
        let serving = Serving::new(authority.clone(), &["127.0.0.1".to_owned()]).expect("signed");
        let acceptor = TlsAcceptor::from(serving.server_config());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let incoming =
            futures::stream::unfold((listener, acceptor), |(listener, acceptor)| async {
                loop {
                    let (tcp, _) = listener.accept().await.ok()?;
                    if let Ok(mut tls) = acceptor.accept(tcp).await {
                        let (mut near, far) = tokio::io::duplex(64 * 1024);
                        tokio::spawn(async move {
                            let _ = tokio::io::copy_bidirectional(&mut tls, &mut near).await;
                        });
                        return Some((Ok::<_, std::io::Error>(far), (listener, acceptor)));
                    }
                }
            });
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        Self {
            issuer,
            pods,
            authority,
            address,
            _state: state,
        }
    }

    fn client(&self, token: String, mode: Mode, lifetime: Duration) -> CitadelClient {
        let control_plane = ControlPlane::new(&Config {
            address: format!("https://{}", self.address),
            roots: Roots::Inline(self.authority.roots()),
            alternate_name: None,
            token: Some(Token::parse(&token)),
            headers: Vec::new(),
        });
        CitadelClient::new(control_plane.expect("well configured"), mode, lifetime)
    }

    fn tunnel(&self, node: &str, lifetime: Duration) -> CitadelClient {
        let token = self
            .issuer
            .token("weft-system", "ztunnel", &format!("ztunnel-{node}"));
        self.client(token, Mode::Shared, lifetime)
    }
}

fn shop(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account)
}

fn code(result: Result<identity::WorkloadCertificate, FetchError>) -> tonic::Code {
    match result.expect_err("must be refused") {
        FetchError::Refused { code, message } => {
            assert!(
                !message.contains("node-"),
                "nothing is given away: {message}"
            );
            code
        }
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn two_nodes_get_their_pods_certificates_and_talk_over_them() {
    let mesh = Mesh::start().await;
    let [web, api] =
        ["node-1", "node-2"].map(|node| CertificateManager::new(Arc::new(mesh.tunnel(node, DAY))));
    let web = web.certificate(&shop("web")).await.expect("a certificate");
    let api = api.certificate(&shop("api")).await.expect("a certificate");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let server = async {
        let (tcp, _) = listener.accept().await.expect("accepted");
        let acceptor = TlsAcceptor::from(api.server_config());
        let mut tls = acceptor.accept(tcp).await.expect("mutual TLS");
        tls.write_all(b"hello").await.expect("written");
        identity::peer_identity(tls.get_ref().1)
    };
    let client = async {
        let tcp = TcpStream::connect(address).await.expect("connected");
        let connector = TlsConnector::from(web.client_config(&[shop("api")].into()));
        let mut tls = connector
            .connect(identity::no_server_name(), tcp)
            .await
            .expect("mutual TLS");
        tls.read_exact(&mut [0; 5]).await.expect("read");
        let connection = tls.get_ref().1;
        (
            identity::peer_identity(connection),
            identity::key_exchange_group(connection),
        )
    };
    let (client_is, (server_is, group)) = tokio::join!(server, client);
    assert_eq!(client_is, Some(shop("web")));
    assert_eq!(server_is, Some(shop("api")));
    assert_eq!(group, Some("X25519MLKEM768"));
}

#[tokio::test]
async fn an_identity_without_a_pod_on_the_asking_node_is_refused() {
    let mesh = Mesh::start().await;
    let node = mesh.tunnel("node-1", DAY);
    for identity in [
        shop("api"),
        shop("nobody"),
        Identity::new("elsewhere", "shop", "web"),
        Identity::new("cluster.local", "weft-system", "other"),
    ] {
        let refused = code(node.fetch(&identity).await);
        assert_eq!(refused, tonic::Code::PermissionDenied, "{identity}");
    }
    node.fetch(&shop("web")).await.expect("its own pod's");
    mesh.pods.remove("shop", "web-1");
    assert_eq!(
        code(node.fetch(&shop("web")).await),
        tonic::Code::PermissionDenied
    );
}

#[tokio::test]
async fn only_tokens_of_the_issuer_count() {
    let mesh = Mesh::start().await;
    let forged = TokenIssuer::new().token("weft-system", "ztunnel", "ztunnel-node-1");
    for token in [forged, "rubbish".to_owned()] {
        let client = mesh.client(token, Mode::Shared, DAY);
        assert_eq!(
            code(client.fetch(&shop("web")).await),
            tonic::Code::Unauthenticated
        );
    }
}

#[tokio::test]
async fn a_pod_with_its_own_token_gets_its_own_identity_and_no_other() {
    let mesh = Mesh::start().await;
    let token = mesh.issuer.token("shop", "web", "web-1");
    let own = mesh.client(token.clone(), Mode::Dedicated, DAY);
    let certificate = own.fetch(&shop("web")).await.expect("its own");
    assert_eq!(certificate.identity(), &shop("web"));
    let other = own
        .fetch(&shop("api"))
        .await
        .expect_err("not the one expected");
    assert!(matches!(other, FetchError::OtherIdentity(_)), "{other}");
    let impersonating = mesh.client(token, Mode::Shared, DAY);
    let refused = code(impersonating.fetch(&shop("web")).await);
    assert_eq!(refused, tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn lifetimes_from_a_minute_to_ninety_days_are_given() {
    let mesh = Mesh::start().await;
    for (asked, given) in [
        (Duration::ZERO, Duration::from_secs(3600)),
        (Duration::from_secs(60), Duration::from_secs(60)),
        (DAY * 90, DAY * 90),
    ] {
        let certificate = mesh
            .tunnel("node-1", asked)
            .fetch(&shop("web"))
            .await
            .expect("a certificate");
        let left = certificate.remaining();
        assert!(
            left <= given && left + Duration::from_secs(10) > given,
            "{asked:?}: {left:?}"
        );
    }
    for asked in [
        Duration::from_secs(59),
        DAY * 90 + Duration::from_secs(1),
        Duration::MAX,
    ] {
        let refused = code(mesh.tunnel("node-1", asked).fetch(&shop("web")).await);
        assert_eq!(refused, tonic::Code::InvalidArgument, "{asked:?}");
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_or_no_request_is_refused() {
    use proto::citadel::{IstioCertificateRequest, IstioCertificateService};
    let issuer = TokenIssuer::new();
    let pods = TestPods::default().with("shop", "web-1", "web", "node-1", false);
    let signer = identity::authority::Signer::self_signed("weft", DAY, SystemTime::now());
    let service = Service::new(
        Arc::new(Authority::new(signer.expect("a root"))),
        Arc::new(issuer.authenticator()),
        Arc::new(pods),
        Policy::new("cluster.local", Vec::new()),
    );
    for csr in [String::new(), "rubbish".to_owned(), "x".repeat(100_000)] {
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr,
            ..Default::default()
        });
        let token = issuer.token("shop", "web", "web-1");
        let bearer = format!("Bearer {token}").parse().expect("a value");
        request.metadata_mut().insert("authorization", bearer);
        let status = service
            .create_certificate(request)
            .await
            .expect_err("refused");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn the_serving_certificate_is_renewed_while_it_serves() {
    let signer = identity::authority::Signer::self_signed("weft", DAY * 30, SystemTime::now());
    let authority = Arc::new(Authority::new(signer.expect("a root")));
    let now = SystemTime::now();
    let (night, ahead) = (now - DAY..now - DAY / 3, now + DAY..now + DAY * 2);
    // Half a day by the wall's clock, which stands still here; after a night's sleep; set back.
    for (fresh, renewed) in [(None, false), (Some(night), true), (Some(ahead), true)] {
        let mut serving = Serving::new(authority.clone(), &[]).expect("signed");
        if let Some(fresh) = fresh {
            serving.fresh_within(fresh);
        }
        let config = serving.server_config();
        let shown = serving.shown();
        let before = shown.current();
        let renewing = tokio::spawn(serving.renew());
        tokio::time::sleep(DAY / 200).await;
        assert_eq!(!Arc::ptr_eq(&before, &shown.current()), renewed);
        renewing.abort();
        drop(config);
    }
}
