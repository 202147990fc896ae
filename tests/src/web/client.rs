//! One request, and all of its answer.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::{Answer, Seen, server, values};

/// How long an answer may take, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What to ask. `curl`'s names where it has them.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    pub url: String,
    #[arg(short = 'X', long, default_value = "GET")]
    pub request: Method,
    /// `Name: value`; `Host` as well.
    #[arg(short = 'H', long)]
    pub header: Vec<String>,
    /// Content.
    #[arg(short, long)]
    pub data: Option<String>,
    /// HTTP/2 with prior knowledge.
    #[arg(long)]
    pub http2: bool,
    /// A gRPC call: POST of one message over HTTP/2.
    #[arg(long)]
    pub grpc: bool,
    /// Where to connect to, instead of the URL's host and port.
    #[arg(long)]
    pub connect: Option<String>,
}

/// A connection that requests are sent on.
pub(super) enum Connection {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

/// Asks once.
pub async fn ask(arguments: &Arguments) -> Result<Answer> {
    let (request, address) = arguments.request()?;
    let all = async {
        let mut connection = Connection::open(&address, arguments.speaks_http2()).await?;
        read(connection.send(request).await?).await
    };
    tokio::time::timeout(TIMEOUT, all)
        .await
        .context("no answer in time")?
}

// === impl Arguments ===

impl Arguments {
    pub(super) fn speaks_http2(&self) -> bool {
        self.http2 || self.grpc
    }

    /// The request, and where it goes.
    pub(super) fn request(&self) -> Result<(Request<Full<Bytes>>, String)> {
        let uri: Uri = self.url.parse().context("URL")?;
        let authority = uri.authority().context("the URL has no host")?.clone();
        let address = match &self.connect {
            Some(connect) => connect.clone(),
            None => match authority.port_u16() {
                Some(_) => authority.to_string(),
                None => format!("{authority}:80"),
            },
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Full::new(self.content()));
        *request.method_mut() = if self.grpc {
            Method::POST
        } else {
            self.request.clone()
        };
        let headers = request.headers_mut();
        if self.grpc {
            headers.insert(header::CONTENT_TYPE, "application/grpc".parse()?);
            headers.insert(header::TE, "trailers".parse()?);
        }
        headers.insert(header::HOST, authority.as_str().parse()?);
        let mut own_host = None;
        for line in &self.header {
            let Some((name, value)) = line.split_once(':') else {
                bail!("{line:?} is no header");
            };
            let name: HeaderName = name.trim().parse()?;
            let value = HeaderValue::from_bytes(value.trim().as_bytes())?;
            if name == header::HOST {
                own_host = Some(value.to_str()?.to_owned());
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
        *request.uri_mut() = if self.speaks_http2() {
            request.headers_mut().remove(header::HOST);
            let host = own_host.unwrap_or_else(|| authority.to_string());
            format!("http://{host}{path}").parse()?
        } else {
            path.parse()?
        };
        Ok((request, address))
    }

    fn content(&self) -> Bytes {
        let data = self.data.clone().unwrap_or_default();
        if self.grpc {
            server::message(data.as_bytes())
        } else {
            data.into()
        }
    }
}

// === impl Connection ===

impl Connection {
    pub(super) async fn open(address: &str, http2: bool) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let io = TokioIo::new(stream);
        Ok(if http2 {
            let (sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            tokio::spawn(connection.with_upgrades());
            Self::Http1(sender)
        })
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>> {
        Ok(match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        })
    }
}

pub(super) async fn read(response: Response<Incoming>) -> Result<Answer> {
    let (parts, body) = response.into_parts();
    let collected = body.collect().await.context("reading the content")?;
    let trailers = collected.trailers().map(values).unwrap_or_default();
    let bytes = collected.to_bytes();
    // Behind the five bytes of a gRPC message.
    let json = match parts.headers.get(header::CONTENT_TYPE) {
        Some(kind) if kind.as_bytes().starts_with(b"application/grpc") => {
            bytes.get(5..).unwrap_or_default()
        }
        Some(_) | None => &bytes[..],
    };
    let seen: Option<Seen> = serde_json::from_slice(json).ok();
    Ok(Answer {
        status: parts.status.as_u16(),
        headers: values(&parts.headers),
        body: String::from_utf8_lossy(&bytes).into_owned(),
        trailers,
        seen,
    })
}
