//! The server. What it does besides answering 200 is asked for in the query:
//! `status=503`, `delay=MILLISECONDS` before the answer, `bytes=N` of content instead of JSON,
//! `slow=MILLISECONDS` between its chunks, `reset` closes without an answer, `grpc-status=14`.
//! `fail=N` answers 503 to the first N requests of the same `key`; `late=N` delays only those.

use std::collections::HashMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Seen, values};
use crate::peer;

/// What one server remembers.
#[derive(Default)]
struct Server {
    name: String,
    /// Requests so far that failed or were late, by `key`.
    failed: Mutex<HashMap<String, u32>>,
}

type Sent = mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>;

/// Content that arrives over a channel.
struct Content(Sent);

/// Serves HTTP/1.1 and HTTP/2 with prior knowledge on each port, until killed.
pub async fn run(name: &str, ports: &[u16]) -> Result<()> {
    let server = Arc::new(Server {
        name: name.to_owned(),
        ..Server::default()
    });
    let mut listeners = tokio::task::JoinSet::new();
    for port in ports {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
        let listener = TcpListener::bind(address).await?;
        listeners.spawn(listen(listener, server.clone()));
    }
    while let Some(ended) = listeners.join_next().await {
        ended??;
    }
    Ok(())
}

async fn listen(listener: TcpListener, server: Arc<Server>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, server.clone()));
    }
}

async fn serve(stream: TcpStream, server: Arc<Server>) {
    let service = hyper::service::service_fn(move |request| {
        let server = server.clone();
        async move { server.answer(request).await }
    });
    // What breaks a connection is the client's to see.
    let _ = Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

// === impl Server ===

impl Server {
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Content>, std::io::Error> {
        let query = Query::of(&request);
        if query.is_set("reset") {
            return Err(std::io::Error::other("asked to reset"));
        }
        if let Some(protocol) = request.headers().get(header::UPGRADE).cloned() {
            return Ok(switch(request, protocol));
        }
        let grpc = is_grpc(request.headers());
        let (parts, body) = request.into_parts();
        let collected = body.collect().await.map_err(std::io::Error::other)?;
        let trailers = collected.trailers().map(values).unwrap_or_default();
        let content = collected.to_bytes();
        let late = query.number("late");
        if let Some(delay) = query.number("delay")
            && late.is_none_or(|late| self.is_among(late, &query))
        {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let host = parts.uri.authority().map(ToString::to_string).or_else(|| {
            let host = parts.headers.get(header::HOST)?;
            Some(String::from_utf8_lossy(host.as_bytes()).into_owned())
        });
        let seen = Seen {
            pod: self.name.clone(),
            protocol: format!("{:?}", parts.version),
            method: parts.method.to_string(),
            path: parts
                .uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            host: host.unwrap_or_default(),
            headers: values(&parts.headers),
            length: content.len(),
            checksum: peer::checksum(peer::FNV_OFFSET, &content),
            trailers,
        };
        let json = serde_json::to_vec(&seen).unwrap_or_default();
        let (sender, receiver) = mpsc::channel(4);
        let mut response = Response::new(Content(receiver));
        *response.status_mut() = self.status(&query);
        let kind = if grpc {
            "application/grpc"
        } else {
            "application/json"
        };
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let is_short = query.number("bytes").is_none();
        let sending = send(sender, query, json, grpc);
        // What is short is there at once and leaves with the head: one that is killed has either
        // answered or not.
        match is_short {
            true => sending.await,
            false => drop(tokio::spawn(sending)),
        }
        Ok(response)
    }

    /// Whether it is one of the first requests of its key; counts those.
    fn is_among(&self, first: u64, query: &Query) -> bool {
        let (Some(key), Ok(mut seen)) = (query.text("key"), self.failed.lock()) else {
            return false;
        };
        let count = seen.entry(key.to_owned()).or_default();
        let among = u64::from(*count) < first;
        *count += u32::from(among);
        among
    }

    fn status(&self, query: &Query) -> StatusCode {
        let fails = query.number("fail");
        if fails.is_some_and(|first| self.is_among(first, query)) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        let status = query
            .number("status")
            .and_then(|one| u16::try_from(one).ok());
        status
            .and_then(|status| StatusCode::from_u16(status).ok())
            .unwrap_or(StatusCode::OK)
    }
}

async fn send(
    sender: mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>,
    query: Query,
    json: Vec<u8>,
    grpc: bool,
) {
    let mut left = match query.number("bytes") {
        Some(bytes) => bytes as usize,
        None => {
            let data = if grpc { message(&json) } else { json.into() };
            if sender.send(Ok(Frame::data(data))).await.is_err() {
                return;
            }
            0
        }
    };
    let chunk = Bytes::from(vec![b'x'; 16 * 1024]);
    while left > 0 {
        let part = chunk.slice(..left.min(chunk.len()));
        left -= part.len();
        if sender.send(Ok(Frame::data(part))).await.is_err() {
            return;
        }
        if let Some(pause) = query.number("slow") {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }
    if grpc {
        let mut trailers = HeaderMap::new();
        let status = query.number("grpc-status").unwrap_or(0);
        trailers.insert("grpc-status", HeaderValue::from(status));
        let _ = sender.send(Ok(Frame::trailers(trailers))).await;
    }
}

/// Switches to a protocol that echoes bytes.
fn switch(request: Request<Incoming>, protocol: HeaderValue) -> Response<Content> {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let mut stream = TokioIo::new(upgraded);
        let mut buffer = vec![0; 4096];
        while let Ok(length) = stream.read(&mut buffer).await {
            if length == 0 || stream.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Content(mpsc::channel(1).1));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
    response
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// A gRPC message: not compressed, its length, its bytes.
pub(super) fn message(content: &[u8]) -> Bytes {
    let mut message = vec![0];
    message.extend((content.len() as u32).to_be_bytes());
    message.extend(content);
    message.into()
}

struct Query(HashMap<String, String>);

// === impl Query ===

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let pairs = request.uri().query().unwrap_or_default().split('&');
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

// === impl Content ===

impl hyper::body::Body for Content {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.0.poll_recv(cx)
    }
}
