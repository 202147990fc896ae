//! The transport against a real server: which certificates it takes, what it sends, when it reads again.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Mutex;
use std::time::SystemTime;

use mesh::identity::Identity;
use proto::citadel::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService,
    IstioCertificateServiceServer,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::*;
use crate::authority::{Signer, Subject};
use crate::ca_client::{CaClient, CitadelClient, FetchError, Mode};
use crate::key::PrivateKey;
use crate::serving::ServingCertificate;

const DAY: Duration = Duration::from_secs(86_400);

/// A CA that signs whatever it is asked and remembers how it was asked.
#[derive(Clone)]
struct Service {
    signer: Arc<Signer>,
    answers_for: Option<Identity>,
    asked: Arc<Mutex<Vec<(HeaderMap, IstioCertificateRequest)>>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Service {
    async fn create_certificate(
        &self,
        request: tonic::Request<IstioCertificateRequest>,
    ) -> Result<tonic::Response<IstioCertificateResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        let request = request.into_inner();
        let csr = boring::x509::X509Req::from_pem(request.csr.as_bytes()).expect("a request");
        let key = csr.public_key().expect("a key");
        let key = crate::key::PublicKey::new(&key).expect("P-256");
        let impersonated = request.metadata.as_ref().and_then(|metadata| {
            match metadata.fields.get("ImpersonatedIdentity")?.kind.as_ref()? {
                prost_types::value::Kind::StringValue(text) => text.parse().ok(),
                _ => None,
            }
        });
        let identity = self.answers_for.clone().or(impersonated);
        self.asked
            .lock()
            .expect("no panic")
            .push((headers, request));
        let subject = Subject::Workload(identity.ok_or(tonic::Status::unauthenticated("no"))?);
        let issued = self
            .signer
            .issue(&key, &subject, DAY, SystemTime::now())
            .expect("signed");
        Ok(tonic::Response::new(IstioCertificateResponse {
            cert_chain: issued.chain,
        }))
    }
}

/// tonic wants to be told about a connection's peer; these tests don't.
struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn signer() -> Arc<Signer> {
    Arc::new(Signer::self_signed("cluster.local", DAY * 30, SystemTime::now()).expect("a root"))
}

fn web() -> Identity {
    Identity::new("cluster.local", "shop", "web")
}

/// Serves `service` over TLS with a certificate of its signer for `subject`.
async fn serve(service: Service, subject: Subject) -> SocketAddr {
    let key = PrivateKey::generate().expect("a key");
    let issued = service
        .signer
        .issue(key.public(), &subject, DAY, SystemTime::now())
        .expect("signed");
    let serving = ServingCertificate::new(key, &issued.chain).expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let config = serving.server_config().expect("a configuration");
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(IstioCertificateServiceServer::new(service))
            .serve_with_incoming(futures::stream::unfold(
                (listener, TlsAcceptor::from(config)),
                |(listener, acceptor)| async {
                    loop {
                        let (tcp, _) = listener.accept().await.ok()?;
                        if let Ok(tls) = acceptor.accept(tcp).await {
                            let connection = Ok::<_, io::Error>(Connection(tls));
                            return Some((connection, (listener, acceptor)));
                        }
                    }
                },
            )),
    );
    address
}

fn service(signer: Arc<Signer>) -> Service {
    Service {
        signer,
        answers_for: None,
        asked: Arc::default(),
    }
}

fn loopback() -> Subject {
    Subject::Server {
        names: vec!["istiod.istio-system.svc".to_owned()],
        addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
    }
}

fn config(address: SocketAddr, roots: Roots) -> Config {
    Config {
        address: format!("https://{address}"),
        roots,
        alternate_name: None,
        token: Some(Token::parse("secret")),
        headers: vec![("clusterid".to_owned(), "Kubernetes".to_owned())],
    }
}

async fn fetch(config: &Config, mode: Mode) -> Result<crate::WorkloadCertificate, FetchError> {
    let control_plane = ControlPlane::new(config).expect("well configured");
    CitadelClient::new(control_plane, mode, DAY)
        .fetch(&web())
        .await
}

#[tokio::test]
async fn a_node_tunnel_gets_a_pods_certificate_with_its_token_and_headers() {
    let service = service(signer());
    let address = serve(service.clone(), loopback()).await;
    let config = config(address, Roots::Inline(service.signer.roots().to_owned()));
    let certificate = fetch(&config, Mode::Shared).await.expect("a certificate");
    assert_eq!(certificate.identity(), &web());
    let asked = service.asked.lock().expect("no panic");
    let (headers, request) = &asked[0];
    assert_eq!(headers["authorization"], "Bearer secret");
    assert_eq!(headers["clusterid"], "Kubernetes");
    assert_eq!(request.validity_duration, 86_400);
}

#[tokio::test]
async fn a_dedicated_process_names_no_identity_and_checks_the_one_it_gets() {
    let mut service = service(signer());
    service.answers_for = Some(Identity::new("cluster.local", "shop", "other"));
    let address = serve(service.clone(), loopback()).await;
    let config = config(address, Roots::Inline(service.signer.roots().to_owned()));
    let error = fetch(&config, Mode::Dedicated).await.expect_err("refused");
    assert!(matches!(error, FetchError::OtherIdentity(_)), "{error}");
    assert_eq!(service.asked.lock().expect("no panic")[0].1.metadata, None);
}

#[tokio::test]
async fn a_server_of_another_name_is_refused_unless_it_is_the_alternate() {
    let service = service(signer());
    let named = Subject::Server {
        names: vec!["istiod.istio-system.svc".to_owned()],
        addresses: Vec::new(),
    };
    let address = serve(service.clone(), named).await;
    let mut config = config(address, Roots::Inline(service.signer.roots().to_owned()));
    let error = fetch(&config, Mode::Shared).await.expect_err("refused");
    assert!(error.to_string().contains("not valid for name"), "{error}");
    config.alternate_name = Some("istiod.istio-system.svc".to_owned());
    fetch(&config, Mode::Shared).await.expect("a certificate");
}

/// A wildcard stands for one label, the leftmost.
#[tokio::test]
async fn cve_2020_15104_a_wildcard_is_one_label() {
    let service = service(signer());
    for (name, wanted, accepted) in [
        ("*.istio-system.svc", "istiod.istio-system.svc", true),
        ("*.svc", "istiod.istio-system.svc", false),
        ("*.istio-system.svc", "a.istiod.istio-system.svc", false),
        ("*.istio-system.svc", "istio-system.svc", false),
    ] {
        let named = Subject::Server {
            names: vec![name.to_owned()],
            addresses: Vec::new(),
        };
        let address = serve(service.clone(), named).await;
        let mut config = config(address, Roots::Inline(service.signer.roots().to_owned()));
        config.alternate_name = Some(wanted.to_owned());
        let fetched = fetch(&config, Mode::Shared).await;
        assert_eq!(
            fetched.is_ok(),
            accepted,
            "{name} for {wanted}: {fetched:?}"
        );
    }
}

#[tokio::test]
async fn roots_and_token_are_read_again_when_their_files_change() {
    let service = service(signer());
    let address = serve(service.clone(), loopback()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (roots, token) = (
        folder.path().join("root-cert.pem"),
        folder.path().join("token"),
    );
    let mut config = config(address, Roots::File(roots.clone()));
    config.token = Some(Token::File(token.clone()));
    let control_plane = ControlPlane::new(&config).expect("well configured");
    let client = CitadelClient::new(control_plane, Mode::Shared, DAY);

    let error = client.fetch(&web()).await.expect_err("no token yet");
    assert!(error.to_string().contains("token can't be read"), "{error}");
    fs::write(&token, "first\n").expect("written");
    let error = client.fetch(&web()).await.expect_err("no roots yet");
    assert!(error.to_string().contains("roots can't be read"), "{error}");
    fs::write(&roots, signer().roots()).expect("written");
    let error = client
        .fetch(&web())
        .await
        .expect_err("roots of somebody else");
    assert!(error.to_string().contains("certificate"), "{error}");
    fs::write(&roots, service.signer.roots()).expect("written");
    client.fetch(&web()).await.expect("a certificate");
    fs::write(&token, "second").expect("written");
    client.fetch(&web()).await.expect("a certificate");
    let asked = service.asked.lock().expect("no panic");
    let tokens: Vec<_> = asked
        .iter()
        .map(|(headers, _)| headers["authorization"].clone())
        .collect();
    assert_eq!(tokens, ["Bearer first", "Bearer second"]);
}

/// The server's date is of this machine's clock too.
#[tokio::test]
async fn an_answer_tells_the_control_plane_s_time() {
    let service = service(signer());
    let address = serve(service.clone(), loopback()).await;
    let config = config(address, Roots::Inline(service.signer.roots().to_owned()));
    let clock = Clock::default();
    let control_plane = ControlPlane::new(&config).expect("well configured");
    let control_plane = control_plane.with_clock(clock.clone());
    let client = CitadelClient::new(control_plane, Mode::Shared, DAY);
    assert_eq!(clock.ahead(), None);
    client.fetch(&web()).await.expect("a certificate");
    assert_eq!(clock.ahead(), Some(0.0));
}

#[tokio::test]
async fn nothing_is_sent_in_clear_and_mistakes_are_named() {
    let roots = Roots::Inline(signer().roots().to_owned());
    let good = config(([127, 0, 0, 1], 15012).into(), roots);
    for address in ["http://127.0.0.1:15012", "127.0.0.1:15012", "", "https://"] {
        let address = address.to_owned();
        ControlPlane::new(&Config {
            address,
            ..good.clone()
        })
        .expect_err("no https address");
    }
    let headers = vec![("a b".to_owned(), "c".to_owned())];
    ControlPlane::new(&Config {
        headers,
        ..good.clone()
    })
    .expect_err("no header");
    let roots = Roots::parse("-----BEGIN CERTIFICATE-----\nnonsense");
    ControlPlane::new(&Config {
        roots,
        ..good.clone()
    })
    .expect_err("no roots");
    let address = "https://[fd00:30::fe]:15012".to_owned();
    ControlPlane::new(&Config { address, ..good }).expect("IPv6 in brackets");
    assert_eq!(Roots::parse("SYSTEM"), Roots::System);
    assert_eq!(
        Roots::parse("./a/root.pem"),
        Roots::File("./a/root.pem".into())
    );
    assert!(!format!("{:?}", Token::parse("secret")).contains("secret"));
}
