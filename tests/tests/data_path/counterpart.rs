//! The other end of a tunnel as Istio's ztunnel is, on TLS and HTTP/2 alone: nothing of ours is between
//! it and the wire.
//!
//! - [`credentials`]: its certificate, and TLS as it speaks it.
//! - [`hello`]: what the other end says before anything is asked.
//! - [`client`]: the calling end.
//! - [`proxy_header`]: what it would tell an application of who calls.

mod client;
mod credentials;
mod hello;
mod proxy_header;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Response, StatusCode};
use mesh::destination::HBONE_PORT;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

pub(crate) use self::client::{Answer, Tunnel, from_pod};
pub(crate) use self::credentials::Credentials;
pub(crate) use self::hello::{Hello, Setting};
pub(crate) use self::proxy_header::proxy_header;
use super::lab::{Lab, PATIENCE};

/// The called end.
#[derive(Clone)]
pub(crate) struct Counterpart {
    credentials: Arc<Credentials>,
    answer: StatusCode,
    /// What its 200 says of who serves.
    baggage: Option<String>,
    behind: Behind,
    heard: Sender<Heard>,
}

/// Where it takes what is asked for.
#[derive(Clone)]
pub(crate) enum Behind {
    Application,
    /// Whoever listens there: it is a gateway, and can't read what it passes on.
    Gateway(SocketAddr),
    /// A server of the mesh, in a tunnel of its own: it is a waypoint.
    Waypoint(SocketAddr),
    /// A tunnel in the stream.
    Tunnel(Box<Counterpart>),
}

/// One request, and the tunnel that it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) hello: Hello,
    pub(crate) head: Head,
}

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: String,
    /// All of `:scheme`, `:authority` and `:path` that there is.
    pub(crate) target: String,
    /// In the order in which they came.
    pub(crate) headers: Vec<(String, String)>,
    /// Nothing follows.
    pub(crate) ended: bool,
}

/// Stands for a number that is another one each time, in [`shape`].
pub(crate) const TRACE: &str = "00-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-00";

// === impl Counterpart ===

impl Counterpart {
    pub(crate) fn new(credentials: Credentials, behind: Behind) -> (Self, Receiver<Heard>) {
        let (heard, hearing) = channel();
        let counterpart = Self {
            credentials: Arc::new(credentials),
            answer: StatusCode::OK,
            baggage: None,
            behind,
            heard,
        };
        (counterpart, hearing)
    }

    pub(crate) fn with_baggage(mut self, baggage: &str) -> Self {
        self.baggage = Some(baggage.to_owned());
        self
    }

    pub(crate) fn with_answer(mut self, answer: StatusCode) -> Self {
        self.answer = answer;
        self
    }

    /// Serves in a pod, for as long as the test runs.
    pub(crate) fn run(self, lab: &Lab, pod: &str, port: u16) {
        lab.run_proxy(
            pod,
            port,
            self,
            |this: Rc<Self>, tcp: TcpStream| async move {
                // Whoever it is may break it off.
                let _ = this.serve(tcp).await;
            },
        );
    }

    async fn serve<T>(&self, tcp: T) -> std::io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let tls = TlsAcceptor::from(self.credentials.server_config());
        let tls = tls.accept(tcp).await?;
        let (_, session) = tls.get_ref();
        let mut hello = Hello::of_session(session);
        hello.server_name = session.server_name().map(str::to_owned);
        let (recorded, recording) = hello::record(tls);
        let mut http2 = h2::server::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(1 << 20)
            .max_header_list_size(65_536)
            .max_send_buffer_size(400 << 10)
            .max_concurrent_streams(200)
            .handshake::<_, Bytes>(recorded)
            .await
            .map_err(std::io::Error::other)?;
        while let Some(Ok((request, respond))) = http2.accept().await {
            let heard = Heard {
                hello: hello.clone().with_frames(&recording.client()),
                head: Head::of(&request),
            };
            // The test may be over.
            let _ = self.heard.send(heard);
            spawn_local(self.clone().take(request.into_body(), respond));
        }
        Ok(())
    }

    /// Boxed, because there may be a tunnel in it.
    fn take(
        self,
        body: RecvStream,
        mut respond: SendResponse<Bytes>,
    ) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let mut response = Response::new(());
            *response.status_mut() = self.answer;
            if let Some(baggage) = &self.baggage {
                let baggage = baggage.parse().expect("a header");
                response.headers_mut().insert("baggage", baggage);
            }
            let ends = self.answer != StatusCode::OK;
            let Ok(sender) = respond.send_response(response, ends) else {
                return;
            };
            if ends {
                return;
            }
            let mut stream = carried(body, sender);
            match self.behind {
                Behind::Application => application(stream).await,
                Behind::Gateway(to) => {
                    let mut onward = TcpStream::connect(to).await.expect("the far network");
                    // Either end may break it off.
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
                }
                Behind::Waypoint(server) => {
                    let address = SocketAddr::new(server.ip(), HBONE_PORT);
                    let tcp = TcpStream::connect(address).await.expect("the server");
                    let mut tunnel = Tunnel::open(tcp, &self.credentials).await;
                    // Envoy's has no headers.
                    let answer = tunnel.ask(&Head::connect(&server.to_string(), &[])).await;
                    let mut onward = answer.stream();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
                }
                Behind::Tunnel(inner) => {
                    let _ = inner.serve(stream).await;
                }
            }
        })
    }
}

/// Tells who is calling, as far as it knows, and echoes.
async fn application(mut stream: DuplexStream) {
    if stream.write_all(b"\x09127.0.0.1").await.is_ok() {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
        let _ = writer.shutdown().await;
    }
}

// === impl Heard ===

impl Heard {
    pub(crate) fn next(hearing: &Receiver<Self>) -> Self {
        hearing.recv_timeout(PATIENCE).expect("asked, in time")
    }
}

// === impl Head ===

impl Head {
    pub(crate) fn connect(target: &str, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter();
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            method: "CONNECT".to_owned(),
            target: target.to_owned(),
            headers: headers.map(owned).collect(),
            ended: false,
        }
    }

    fn of(request: &http::Request<RecvStream>) -> Self {
        Self {
            method: request.method().to_string(),
            target: request.uri().to_string(),
            headers: texts(request.headers()),
            ended: request.body().is_end_stream(),
        }
    }
}

/// Headers as text, with [`shape`]s for what is another one each time.
fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = value.to_str().expect("visible").to_owned();
        match name.as_str() {
            "traceparent" => (name.to_string(), shape(&value)),
            _ => (name.to_string(), value),
        }
    };
    headers.iter().map(text).collect()
}

/// A `traceparent` with its trace and span crossed out.
fn shape(traceparent: &str) -> String {
    let is_number = |part: &&str| part.len() > 2;
    let cross_out =
        |part: &str| part.replace(|one: char| matches!(one, '0'..='9' | 'a'..='f'), "x");
    let parts = traceparent.split('-').map(|part| match is_number(&part) {
        true => cross_out(part),
        false => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("-")
}

/// A stream's bytes as those of a socket.
fn carried(mut body: RecvStream, mut sender: SendStream<Bytes>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (mut reader, mut writer) = tokio::io::split(far);
    spawn_local(async move {
        while let Some(Ok(bytes)) = body.data().await {
            let released = body.flow_control().release_capacity(bytes.len());
            if released.is_err() || writer.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = writer.shutdown().await;
    });
    spawn_local(async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(amount @ 1..) = reader.read(&mut buffer).await {
            let bytes = Bytes::copy_from_slice(&buffer[..amount]);
            if sender.send_data(bytes, false).is_err() {
                return;
            }
        }
        let _ = sender.send_data(Bytes::new(), true);
    });
    near
}

/// Uses an application of [`Lab::serve`]'s kind to the end, and answers who it says is calling.
pub(crate) async fn converse(mut stream: DuplexStream) -> IpAddr {
    let mut caller = vec![0; stream.read_u8().await.expect("a greeting").into()];
    stream.read_exact(&mut caller).await.expect("a greeting");
    stream.write_all(b"hello").await.expect("written");
    stream.shutdown().await.expect("half closed");
    let mut echo = Vec::new();
    stream.read_to_end(&mut echo).await.expect("the end");
    assert_eq!(echo, b"hello");
    let caller = String::from_utf8(caller).expect("ascii");
    caller.parse().expect("an address")
}
