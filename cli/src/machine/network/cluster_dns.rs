//! Cluster DNS of a node: answers from a [`Zone`] on the DNS service's addresses, UDP and TCP.
mod zone;

pub(crate) use zone::Zone;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result};
use cni::netns;
use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

const PORT: u16 = 53;
/// A client over TCP that asks nothing for so long is left.
const IDLE: Duration = Duration::from_secs(10);
const MAX_STREAMS: usize = 256;

/// The zone that is served now.
#[derive(Clone, Debug, Default)]
pub(super) struct ClusterDns(Arc<RwLock<Arc<Zone>>>);

/// Serves on `addresses`, which `netns` has, until the tasks are dropped.
pub(super) async fn listen(
    netns: impl AsFd,
    addresses: &[IpAddr],
    dns: &ClusterDns,
) -> Result<JoinSet<()>> {
    let mut servers = JoinSet::new();
    for address in addresses {
        let address = SocketAddr::new(*address, PORT);
        let (udp, tcp) = netns::run(&netns, move || bind(address))
            .await?
            .with_context(|| format!("cannot serve DNS on {address}"))?;
        servers.spawn(serve_udp(UdpSocket::from_std(udp)?, dns.clone()));
        servers.spawn(serve_tcp(TcpListener::from_std(tcp)?, dns.clone()));
    }
    Ok(servers)
}

fn bind(address: SocketAddr) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
    let udp = std::net::UdpSocket::bind(address)?;
    let tcp = std::net::TcpListener::bind(address)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((udp, tcp))
}

async fn serve_udp(socket: UdpSocket, dns: ClusterDns) {
    let mut buffer = [0; 4096];
    loop {
        // An error here is the echo of an answer that did not arrive.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(answer) = dns.answer(&buffer[..length], Limit::Datagram) {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, dns: ClusterDns) {
    let permits = Arc::new(Semaphore::new(MAX_STREAMS));
    let mut streams = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let dns = dns.clone();
                streams.spawn(async move {
                    let _permit = permit;
                    let _ = serve_stream(stream, dns).await;
                });
            }
            // Out of descriptors, most likely: give others time to close some.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        while streams.try_join_next().is_some() {}
    }
}

async fn serve_stream(mut stream: TcpStream, dns: ClusterDns) -> io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut question = vec![0; length.into()];
        timeout(IDLE, stream.read_exact(&mut question)).await??;
        let Some(answer) = dns.answer(&question, Limit::Stream) else {
            return Ok(());
        };
        let Ok(length) = u16::try_from(answer.len()) else {
            return Ok(());
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend(answer);
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

#[derive(Clone, Copy)]
enum Limit {
    Datagram,
    Stream,
}

// === impl ClusterDns ===

impl ClusterDns {
    pub(super) fn serve(&self, zone: Arc<Zone>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = zone;
    }

    /// The answer to a packet, or nothing for what is no question.
    fn answer(&self, packet: &[u8], limit: Limit) -> Option<Vec<u8>> {
        let question = Message::from_vec(packet).ok()?;
        let zone = self
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let answer = zone.answer(&question, &mut rand::rng())?;
        let bytes = answer.to_vec().ok()?;
        match limit {
            // The client asks again over TCP.
            Limit::Datagram if bytes.len() > question.max_payload().into() => {
                answer.truncate().to_vec().ok()
            }
            Limit::Datagram | Limit::Stream => Some(bytes),
        }
    }
}
