//! The calling end.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderName, HeaderValue, Request};
use rustls::pki_types::{IpAddr, Ipv4Addr, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsConnector;

use super::hello::{self, Hello, Recording};
use super::{Credentials, Head, carried, texts};
use crate::lab::{Lab, PATIENCE};

/// It ends when this and its streams are gone.
pub(crate) struct Tunnel {
    requests: SendRequest<Bytes>,
    hello: Hello,
    recording: Recording,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    stream: Option<DuplexStream>,
}

/// Connects from a pod and runs `job` over the connection.
pub(crate) fn from_pod<T>(
    lab: &Lab,
    pod: &str,
    to: SocketAddr,
    job: impl AsyncFnOnce(TcpStream) -> T,
) -> T {
    let connect = || std::net::TcpStream::connect_timeout(&to, PATIENCE);
    let socket = lab.within(pod, connect).expect("connects");
    socket.set_nonblocking(true).expect("socket");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    LocalSet::new().block_on(&runtime, async {
        let job = job(TcpStream::from_std(socket).expect("socket"));
        tokio::time::timeout(PATIENCE, job).await.expect("in time")
    })
}

// === impl Tunnel ===

impl Tunnel {
    pub(crate) async fn open<T>(io: T, credentials: &Credentials) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        // An address, with which no name is sent.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::from([0, 0, 0, 0])));
        let tls = TlsConnector::from(credentials.client_config());
        let tls = tls.connect(nobody, io).await.expect("TLS");
        let hello = Hello::of_session(tls.get_ref().1);
        let (recorded, recording) = hello::record(tls);
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_frame_size(1 << 20)
            .max_header_list_size(16_384)
            .max_send_buffer_size(4 << 20)
            .initial_max_send_streams(100)
            .enable_push(false)
            .handshake::<_, Bytes>(recorded)
            .await
            .expect("HTTP/2");
        spawn_local(connection);
        Self {
            requests,
            hello,
            recording,
        }
    }

    pub(crate) async fn ask(&mut self, head: &Head) -> Answer {
        let mut request = Request::new(());
        *request.method_mut() = head.method.parse().expect("a method");
        *request.uri_mut() = head.target.parse().expect("a target");
        for (name, value) in &head.headers {
            let name: HeaderName = name.parse().expect("a name");
            let value: HeaderValue = value.parse().expect("a value");
            request.headers_mut().append(name, value);
        }
        let mut requests = self.requests.clone().ready().await.expect("open");
        let sent = requests.send_request(request, head.ended);
        let (response, sender) = sent.expect("open");
        let (parts, body) = response.await.expect("an answer").into_parts();
        Answer {
            status: parts.status.as_u16(),
            headers: texts(&parts.headers),
            stream: (!body.is_end_stream()).then(|| carried(body, sender)),
        }
    }

    /// What the server has begun with; whole once it has answered.
    pub(crate) fn hello(&self) -> Hello {
        self.hello.clone().with_frames(&self.recording.server())
    }
}

// === impl Answer ===

impl Answer {
    /// The head says that nothing follows.
    pub(crate) fn is_ended(&self) -> bool {
        self.stream.is_none()
    }

    pub(crate) fn stream(self) -> DuplexStream {
        assert_eq!(self.status, 200);
        self.stream.expect("open")
    }
}
