//! Getting a key document: from a service of the mesh as its clients do, from elsewhere by DNS and
//! TLS. Redirects are not followed, and addresses where only this host's own things are are not dialled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Origin;
use crate::config;
use crate::jwt::KeySet;
use crate::message::{Body, Endpoint, Interim, Upstream};

/// Of a document, whatever the one who waits for it allows.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why a document was not had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("{0:?} is no http or https address")]
    Address(String),
    #[error("{0} is not resolved: {1}")]
    Name(String, String),
    #[error("{0} is at {1}, which is never dialled for keys")]
    Blocked(String, IpAddr),
    #[error("{0}: {1}")]
    Connection(String, String),
    #[error("{0} answered {1}")]
    Status(String, StatusCode),
    #[error("{0}: larger than {1} bytes")]
    TooLarge(String, usize),
    #[error("{0}: {1}")]
    Document(String, String),
    #[error("{0}: took longer than {1:?}")]
    Timeout(String, Duration),
}

/// Gets documents for one worker.
pub(crate) struct Fetcher<'a, U, F> {
    pub(crate) config: &'a config::Jwks,
    pub(crate) upstream: &'a U,
    /// The endpoint for a service of the mesh, by name and port; none for other names.
    pub(crate) in_mesh: F,
}

#[derive(serde::Deserialize)]
struct Discovery {
    jwks_uri: String,
}

// === impl Fetcher ===

impl<U: Upstream, F: Fn(&str, u16) -> Option<Result<Endpoint, String>>> Fetcher<'_, U, F> {
    /// The keys of an origin.
    pub(crate) async fn fetch(&self, origin: &Origin) -> Result<KeySet, FetchError> {
        let uri = match origin {
            Origin::Inline(document) => {
                let keys = KeySet::parse(document.as_bytes());
                return keys.map_err(|error| document_error("inline keys", &error));
            }
            Origin::Uri(uri) => uri.to_string(),
            Origin::Discovery(issuer) => {
                let issuer = issuer.trim_end_matches('/');
                let uri = format!("{issuer}/.well-known/openid-configuration");
                let document = self.limited(&uri).await?;
                let discovery: Discovery = serde_json::from_slice(&document)
                    .map_err(|error| document_error(&uri, &error))?;
                discovery.jwks_uri
            }
        };
        let document = self.limited(&uri).await?;
        KeySet::parse(&document).map_err(|error| document_error(&uri, &error))
    }

    async fn limited(&self, uri: &str) -> Result<Bytes, FetchError> {
        tokio::time::timeout(TIMEOUT, self.document(uri))
            .await
            .unwrap_or_else(|_| Err(FetchError::Timeout(uri.to_owned(), TIMEOUT)))
    }

    async fn document(&self, text: &str) -> Result<Bytes, FetchError> {
        let address = || FetchError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| address())?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(address());
        };
        let (is_https, default_port) = match scheme {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return Err(address()),
        };
        let port = uri.port_u16().unwrap_or(default_port);
        let host = host.trim_matches(['[', ']']);
        let mut request = Request::get(&uri)
            .body(Body::Empty)
            .map_err(|_| address())?;
        let headers = request.headers_mut();
        headers.insert(
            header::ACCEPT,
            header::HeaderValue::from_static("application/json"),
        );
        let failed = |error: &dyn std::fmt::Display| {
            FetchError::Connection(text.to_owned(), error.to_string())
        };
        if !is_https && let Some(endpoint) = (self.in_mesh)(host, port) {
            let endpoint = endpoint.map_err(|error| failed(&error))?;
            self.check(host, endpoint.hop.target.ip())?;
            let interim = Interim(std::rc::Rc::new(|_| {}));
            let response = self.upstream.send(&endpoint, request, &interim).await;
            let response = response.map_err(|error| failed(&error))?;
            return self.read(text, response).await;
        }
        let tcp = self.connect(host, port).await?;
        if let Some(authority) = uri.authority()
            && let Ok(value) = header::HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(header::HOST, value);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = target.parse().map_err(|_| address())?;
        if is_https {
            let name = ServerName::try_from(host.to_owned()).map_err(|_| address())?;
            let tls = TlsConnector::from(Arc::new(self.tls().map_err(|error| failed(&error))?));
            let stream = tls
                .connect(name, tcp)
                .await
                .map_err(|error| failed(&error))?;
            self.exchange(text, stream, request).await
        } else {
            self.exchange(text, tcp, request).await
        }
    }

    /// The addresses that were looked at are those that are dialled.
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, FetchError> {
        let unresolved =
            |error: &dyn std::fmt::Display| FetchError::Name(host.to_owned(), error.to_string());
        let resolved: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => tokio::net::lookup_host((host, port))
                .await
                .map_err(|error| unresolved(&error))?
                .collect(),
        };
        for address in &resolved {
            self.check(host, address.ip())?;
        }
        let mut last = unresolved(&"no address");
        for address in resolved {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    last = FetchError::Connection(host.to_owned(), error.to_string());
                }
            }
        }
        Err(last)
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), FetchError> {
        match is_blocked(&self.config.blocked_cidrs, address) {
            true => Err(FetchError::Blocked(host.to_owned(), address)),
            false => Ok(()),
        }
    }

    fn tls(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        let file = &*self.config.roots;
        let certificates = CertificateDer::pem_file_iter(file)
            .map_err(|error| format!("{file}: {error}"))?
            .filter_map(Result::ok);
        roots.add_parsable_certificates(certificates);
        let config = ClientConfig::builder_with_provider(identity::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }

    async fn exchange(
        &self,
        uri: &str,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        request: Request<Body>,
    ) -> Result<Bytes, FetchError> {
        let failed = |error: &dyn std::fmt::Display| {
            FetchError::Connection(uri.to_owned(), error.to_string())
        };
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| failed(&error))?;
        let exchange = async {
            let response = sender.send_request(request).await;
            let response = response.map_err(|error| failed(&error))?;
            self.read(uri, response).await
        };
        tokio::pin!(exchange, connection);
        tokio::select! {
            biased;
            result = &mut exchange => result,
            // What it has read is still in the response.
            _ = &mut connection => exchange.await,
        }
    }

    async fn read<B>(&self, uri: &str, response: http::Response<B>) -> Result<Bytes, FetchError>
    where
        B: http_body::Body<Data = Bytes, Error: std::fmt::Display>,
    {
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK {
            return Err(FetchError::Status(uri.to_owned(), parts.status));
        }
        let limit = self.config.maximum_size;
        let too_large = || FetchError::TooLarge(uri.to_owned(), limit);
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let mut document = Vec::new();
        tokio::pin!(body);
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let frame =
                frame.map_err(|error| FetchError::Connection(uri.to_owned(), error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                if document.len() + data.len() > limit {
                    return Err(too_large());
                }
                document.extend_from_slice(&data);
            }
        }
        Ok(document.into())
    }
}

fn document_error(uri: &str, error: &dyn std::fmt::Display) -> FetchError {
    FetchError::Document(uri.to_owned(), error.to_string())
}

/// An address that only looks like another family is what it is.
pub(crate) fn is_blocked(blocked: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    blocked.iter().any(|range| range.contains(&address))
}

#[cfg(test)]
mod tests;
