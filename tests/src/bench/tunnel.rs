//! Ends of a tunnel that are the benchmark's own, so that each connection costs the ztunnel at the
//! other end a handshake: nobody's pool has a tunnel ready.

use std::cell::Cell;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::RecvStream;
use http::{Method, Request, Response};
use identity::WorkloadCertificate;
use identity::authority::Signer;
use mesh::identity::{DEFAULT_TRUST_DOMAIN, Identity};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::pace::Pace;
use super::tally::Tally;
use super::{COUNT_PORT, ECHO_PORT, NAMESPACES};

const HBONE_PORT: u16 = 15008;
const HOUR: Duration = Duration::from_secs(3600);

/// Makes tunnels to the ztunnel of a pod.
pub(super) struct Client {
    tls: Arc<ClientConfig>,
}

/// Takes tunnels as a pod that speaks HBONE itself; each is closed to more connections by its first.
struct Server {
    tls: Arc<ServerConfig>,
    handshakes: Cell<u64>,
}

// === impl Client ===

impl Client {
    pub(super) fn new(authority: &Path) -> Result<Self> {
        let certificate = certificate(authority, "bench")?;
        let expected: Arc<[Identity]> = NAMESPACES.map(identity).into();
        Ok(Self {
            tls: certificate.client_config(&expected),
        })
    }

    pub(super) async fn connects(
        &self,
        server: SocketAddr,
        size: usize,
        mut pace: Pace,
    ) -> Result<Tally> {
        let request = Bytes::from(vec![1; size]);
        let mut tally = Tally::default();
        while let Some(due) = pace.next().await? {
            self.exchange(server, &request).await?;
            tally.exchange(due, pace.window.start);
        }
        Ok(tally)
    }

    async fn exchange(&self, server: SocketAddr, request: &Bytes) -> Result<()> {
        let tcp = TcpStream::connect((server.ip(), HBONE_PORT)).await?;
        tcp.set_nodelay(true)?;
        // As above: no port waits in TIME_WAIT.
        tcp.set_zero_linger()?;
        let stream = TlsConnector::from(self.tls.clone())
            .connect(identity::no_server_name(), tcp)
            .await?;
        let (sender, connection) = h2::client::handshake(stream).await?;
        let connection = tokio::task::spawn_local(connection);
        let mut sender = sender.ready().await?;
        let connect = Request::builder()
            .method(Method::CONNECT)
            .uri(SocketAddr::new(server.ip(), ECHO_PORT).to_string())
            .body(())?;
        let (response, mut body) = sender.send_request(connect, false)?;
        let response = response.await?;
        ensure!(response.status() == 200, "answered {}", response.status());
        body.send_data(request.clone(), true)?;
        let echoed = drain(response.into_body(), |_| Ok(())).await?;
        ensure!(echoed == request.len(), "{echoed} bytes came back");
        connection.abort();
        Ok(())
    }
}

/// Serves tunnels until killed, and tells how many there were to whoever connects to
/// [`COUNT_PORT`].
pub async fn serve(authority: &Path, namespace: &str) -> Result<()> {
    let server = Rc::new(Server {
        tls: certificate(authority, namespace)?.server_config(),
        handshakes: Cell::new(0),
    });
    let tunnels = TcpListener::bind((Ipv6Addr::UNSPECIFIED, HBONE_PORT)).await?;
    let counts = TcpListener::bind((Ipv6Addr::UNSPECIFIED, COUNT_PORT)).await?;
    loop {
        tokio::select! {
            Ok((tcp, _)) = tunnels.accept() => {
                drop(tokio::task::spawn_local(server.clone().tunnel(tcp)));
            }
            Ok((mut tcp, _)) = counts.accept() => {
                let count = server.handshakes.get().to_string();
                tcp.write_all(count.as_bytes()).await?;
            }
        }
    }
}

// === impl Server ===

impl Server {
    async fn tunnel(self: Rc<Self>, tcp: TcpStream) -> Result<()> {
        tcp.set_nodelay(true)?;
        let stream = TlsAcceptor::from(self.tls.clone()).accept(tcp).await?;
        self.handshakes.set(self.handshakes.get() + 1);
        let mut tunnel = h2::server::handshake(stream).await?;
        while let Some(request) = tunnel.accept().await {
            let (request, mut answer) = request?;
            tunnel.graceful_shutdown();
            let mut body = answer.send_response(Response::new(()), false)?;
            tokio::task::spawn_local(async move {
                let echo = |data| Ok(body.send_data(data, false)?);
                drain(request.into_body(), echo).await?;
                anyhow::Ok(body.send_data(Bytes::new(), true)?)
            });
        }
        Ok(())
    }
}

/// What a server of tunnels says on [`COUNT_PORT`].
pub async fn count(host: &str, port: u16) -> Result<String> {
    let mut text = String::new();
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.read_to_string(&mut text).await?;
    Ok(text)
}

/// Gives what comes to `take` until the stream ends; its length.
async fn drain(mut body: RecvStream, mut take: impl FnMut(Bytes) -> Result<()>) -> Result<usize> {
    let mut length = 0;
    while let Some(data) = body.data().await {
        let data = data?;
        length += data.len();
        body.flow_control().release_capacity(data.len())?;
        take(data)?;
    }
    Ok(length)
}

/// A certificate of the mesh's own authority, for a workload that the benchmark plays.
fn certificate(authority: &Path, namespace: &str) -> Result<WorkloadCertificate> {
    let read = |name: &str| {
        let path = authority.join(name);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    let (root, key) = (read("root-cert.pem")?, read("ca-key.pem")?);
    let now = SystemTime::now();
    let signer = Signer::from_pem(&root, key.as_bytes(), &root, "", now)?;
    Ok(signer.workload_certificate(&identity(namespace), HOUR, now)?)
}

fn identity(namespace: &str) -> Identity {
    Identity::new(DEFAULT_TRUST_DOMAIN, namespace, "default")
}
