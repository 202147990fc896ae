//! Forged HBONE requests and certificate requests, each wrong in one respect.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use clap::Args;
use identity::authority::Signer;
use identity::ca_client::{CaClient, CitadelClient, Mode};
use identity::grpc::{Config, ControlPlane, Roots, Token};
use mesh::identity::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub mod flood;

pub mod held;

/// How long any answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Request {
    pub to: SocketAddr,
    pub ca: PathBuf,
    pub identity: Option<String>,
    pub server: String,
    pub authority: String,
    pub method: String,
    pub headers: Vec<String>,
}

/// A tunnel to be spoken by hand, as somebody.
#[derive(Debug, Args)]
pub struct Tunnel {
    to: SocketAddr,
    /// The CA's folder.
    #[arg(long)]
    ca: PathBuf,
    /// Whose certificate to show.
    #[arg(long)]
    identity: String,
    /// The identity the server is expected to hold.
    #[arg(long)]
    server: String,
    #[arg(long)]
    authority: String,
}

/// A tunnel to be opened by hand.
struct Connection<'a> {
    to: SocketAddr,
    ca: &'a Path,
    /// Whose certificate to show; none shows none.
    identity: Option<&'a str>,
    /// Who is expected there, where a certificate is shown.
    server: &'a str,
}

// === impl Tunnel ===

impl Tunnel {
    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let connection = Connection {
            to: self.to,
            ca: &self.ca,
            identity: Some(&self.identity),
            server: &self.server,
        };
        connect(connection).await
    }
}

/// Connects and shakes hands.
async fn connect(connection: Connection<'_>) -> Result<TlsStream<TcpStream>> {
    let config = match connection.identity {
        Some(identity) => {
            let certificate = signer(connection.ca)?.workload_certificate(
                &identity.parse()?,
                Duration::from_secs(3600),
                SystemTime::now(),
            )?;
            let expected: Arc<[Identity]> = [connection.server.parse()?].into();
            certificate.client_config(&expected)
        }
        None => anonymous()?,
    };
    let tcp = TcpStream::connect(connection.to)
        .await
        .context("connecting")?;
    TlsConnector::from(config)
        .connect(identity::certificate::no_server_name(), tcp)
        .await
        .context("TLS")
}

/// Sends the request over a new connection and answers `status N`.
pub async fn request(request: Request) -> Result<String> {
    tokio::time::timeout(TIMEOUT, exchange(request))
        .await
        .context("no answer")?
}

async fn exchange(request: Request) -> Result<String> {
    let tls = connect(Connection {
        to: request.to,
        ca: &request.ca,
        identity: request.identity.as_deref(),
        server: &request.server,
    })
    .await?;
    let (client, connection) = h2::client::Builder::new()
        .handshake::<_, Bytes>(tls)
        .await
        .context("HTTP/2")?;
    let driver = tokio::spawn(connection);
    let mut parts = http::Request::builder().method(request.method.as_str());
    parts = if request.method == "CONNECT" {
        parts.uri(
            http::Uri::builder()
                .authority(request.authority.as_str())
                .build()?,
        )
    } else {
        parts.uri(format!("http://{}/", request.authority))
    };
    for header in &request.headers {
        let (name, value) = header.split_once('=').context("name=value")?;
        parts = parts.header(name, value);
    }
    let mut client = client.ready().await.context("HTTP/2")?;
    let (response, _stream) = client.send_request(parts.body(())?, false)?;
    let answer = response.await;
    if answer.is_err() && driver.is_finished() {
        // The connection's own end says more than the stream's.
        driver.await?.context("the connection ended")?;
    }
    Ok(format!("status {}", answer?.status().as_u16()))
}

/// Asks the CA to sign for `identity` on the strength of a node's token.
pub async fn certificate(
    to: SocketAddr,
    root: &Path,
    token: &Path,
    wanted: &str,
) -> Result<String> {
    let wanted: Identity = wanted.parse()?;
    let control_plane = ControlPlane::new(&Config {
        address: format!("https://{to}"),
        roots: Roots::File(root.to_owned()),
        alternate_name: None,
        token: Some(Token::File(token.to_owned())),
        headers: Vec::new(),
    })?;
    let client = CitadelClient::new(control_plane, Mode::Shared, Duration::from_secs(3600));
    match tokio::time::timeout(TIMEOUT, client.fetch(&wanted))
        .await
        .context("no answer")?
    {
        Ok(certificate) => Ok(format!("issued {}", certificate.identity())),
        Err(error) => Err(anyhow!("{error}")),
    }
}

fn signer(ca: &Path) -> Result<Signer> {
    let roots = std::fs::read_to_string(ca.join("root-cert.pem"))?;
    let key = std::fs::read(ca.join("ca-key.pem"))?;
    Ok(Signer::from_pem(
        &roots,
        &key,
        &roots,
        "",
        SystemTime::now(),
    )?)
}

/// Trusts any server and shows no certificate.
fn anonymous() -> Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::builder_with_provider(identity::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// An attacker does not mind whom it talks to.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        identity::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
