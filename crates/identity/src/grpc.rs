//! The client transport to a control plane: gRPC over TLS with a bearer token, for certificates and for xDS.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::version::TLS13;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tower::{BoxError, Service};

use crate::certificate::ALPN_H2;
use crate::provider::provider;

mod clock;
mod roots;
mod server_name;
mod settings;
mod token;

pub use clock::{Clock, HARMLESS_SKEW};
pub use roots::{Roots, RootsError};
pub use token::Token;

use clock::Moment;
use server_name::ServerNameVerifier;

/// Covers name resolution, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TCP_KEEPALIVE: Duration = Duration::from_secs(300);
const TCP_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
const TCP_KEEPALIVE_PROBES: u32 = 9;
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// A full snapshot is megabytes: the default windows of 64 KiB would make it crawl.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Where a control plane is and how to talk to it.
#[derive(Debug, Clone)]
pub struct Config {
    /// `https://host:port`.
    pub address: String,
    pub roots: Roots,
    /// A further name its certificate may carry (`ALT_CA_HOSTNAME`, `ALT_XDS_HOSTNAME`).
    pub alternate_name: Option<String>,
    pub token: Option<Token>,
    /// Sent with every request: `clusterid` and the configured headers.
    pub headers: Vec<(String, String)>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0:?} is no address of the form https://host:port")]
    Address(String),
    #[error("{0:?} is no server name")]
    ServerName(String),
    #[error("header {0:?} can't be sent")]
    Header(String),
    #[error(transparent)]
    Roots(#[from] RootsError),
}

/// A connection to the control plane, made when first used and again whenever it was lost; clones share it.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    channel: Channel,
    token: Option<Token>,
    headers: Arc<HeaderMap>,
    clock: Clock,
}

/// Makes one TLS connection; roots are read anew for each.
struct Dialer {
    tcp: HttpConnector,
    roots: Roots,
    server_name: ServerName<'static>,
    accepted: Arc<[ServerName<'static>]>,
}

// === impl ControlPlane ===

impl ControlPlane {
    /// Prepares the transport; must be called within a tokio runtime. Nothing is dialled yet.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        let address = || ConfigError::Address(config.address.clone());
        let uri: Uri = config.address.parse().map_err(|_| address())?;
        // Tokens are sent, so never in clear.
        let host = match (uri.scheme_str(), uri.host()) {
            (Some("https"), Some(host)) => host.trim_matches(['[', ']']),
            _ => return Err(address()),
        };
        let server_name = name(host)?;
        let mut accepted = vec![server_name.clone()];
        if let Some(alternate) = &config.alternate_name {
            accepted.push(name(alternate)?);
        }
        config.roots.check()?;
        let dialer = Arc::new(Dialer {
            tcp: tcp_connector(),
            roots: config.roots.clone(),
            server_name,
            accepted: accepted.into(),
        });
        let channel = Endpoint::from(uri)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_with_connector_lazy(tower::service_fn(move |uri: Uri| {
                let dialer = dialer.clone();
                async move {
                    tokio::time::timeout(CONNECT_TIMEOUT, dialer.dial(uri))
                        .await
                        .map_err(|_| BoxError::from("connecting took longer than 5 s"))?
                }
            }));
        Ok(Self {
            channel,
            token: config.token.clone(),
            headers: Arc::new(headers(&config.headers)?),
            clock: Clock::default(),
        })
    }

    /// The same, whose answers tell `clock` the time.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }
}

impl Service<Request<Body>> for ControlPlane {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = futures::future::BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.channel.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let authorization = self.token.as_ref().map(Token::authorization).transpose();
        for (name, value) in self.headers.iter() {
            request.headers_mut().insert(name, value.clone());
        }
        match authorization {
            Ok(Some(value)) => {
                request.headers_mut().insert(AUTHORIZATION, value);
            }
            Ok(None) => {}
            Err(error) => {
                // A status, so that callers see the reason and not a broken transport.
                let status = tonic::Status::unauthenticated(error.to_string());
                return Box::pin(async move { Err(status.into()) });
            }
        }
        let (clock, asked) = (self.clock.clone(), Moment::now());
        let response = self.channel.call(request);
        Box::pin(async move {
            let response = response.await?;
            clock.read(response.headers(), asked);
            Ok(response)
        })
    }
}

// === impl Dialer ===

impl Dialer {
    async fn dial(
        &self,
        uri: Uri,
    ) -> Result<TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>, BoxError> {
        let tls = TlsConnector::from(Arc::new(self.tls_config()?));
        let tcp = tower::ServiceExt::oneshot(self.tcp.clone(), uri).await?;
        let stream = tls
            .connect(self.server_name.clone(), tcp.into_inner())
            .await?;
        Ok(TokioIo::new(stream))
    }

    fn tls_config(&self) -> Result<ClientConfig, BoxError> {
        let verifier = ServerNameVerifier::new(self.roots.load()?, self.accepted.clone());
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

fn tcp_connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_keepalive(Some(TCP_KEEPALIVE));
    connector.set_keepalive_interval(Some(TCP_KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(TCP_KEEPALIVE_PROBES));
    connector
}

fn name(text: &str) -> Result<ServerName<'static>, ConfigError> {
    ServerName::try_from(text.to_owned()).map_err(|_| ConfigError::ServerName(text.to_owned()))
}

fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, ConfigError> {
    pairs
        .iter()
        .map(|(name, value)| {
            match (
                HeaderName::try_from(name.as_str()),
                HeaderValue::try_from(value.as_str()),
            ) {
                (Ok(name), Ok(value)) => Ok((name, value)),
                _ => Err(ConfigError::Header(name.clone())),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
