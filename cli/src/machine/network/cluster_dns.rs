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
use hickory_proto::rr::Record;
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder};
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
        let most = question.max_payload();
        match limit {
            Limit::Datagram if bytes.len() > most.into() => cut(answer, most),
            Limit::Datagram | Limit::Stream => Some(bytes),
        }
    }
}

/// As many records as fit, and the word that there are more: not every client asks again over TCP
/// (musl does from 1.2.4 on).
fn cut(mut answer: Message, limit: u16) -> Option<Vec<u8>> {
    let answers = std::mem::take(&mut answer.answers);
    let mut measured = Vec::new();
    let mut encoder = BinEncoder::new(&mut measured);
    // EDNS takes as much behind the answers as before them.
    answer.emit(&mut encoder).ok()?;
    let fits = |record: &&Record| {
        record.emit(&mut encoder).is_ok() && encoder.offset() <= usize::from(limit)
    };
    answer.answers = answers.iter().take_while(fits).cloned().collect();
    answer.metadata.truncation = true;
    answer.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hickory_proto::op::{Edns, Query};
    use hickory_proto::rr::{Name, RecordType};

    use super::super::service::{Endpoint, InternalTrafficPolicy, Kind, Service};
    use super::*;

    /// The DNS of a headless service with so many endpoints.
    fn dns(endpoints: u8) -> ClusterDns {
        let endpoint = |last| Endpoint {
            ips: vec![[10, 244, 1, last].into()],
            node: 1,
            hostname: None,
            targets: BTreeMap::new(),
        };
        let dns = ClusterDns::default();
        dns.serve(Arc::new(Zone::new(&[Service {
            name: "db".into(),
            namespace: "shop".into(),
            kind: Kind::Headless,
            ports: Vec::new(),
            endpoints: (0..endpoints).map(endpoint).collect(),
            internal_traffic_policy: InternalTrafficPolicy::Cluster,
        }])));
        dns
    }

    fn ask(dns: &ClusterDns, name: &str, edns: Option<u16>, limit: Limit) -> Message {
        let mut question = Message::query();
        let name = Name::from_ascii(name).unwrap();
        question.add_query(Query::query(name, RecordType::A));
        if let Some(most) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(most);
            question.set_edns(edns);
        }
        let answer = dns.answer(&question.to_vec().unwrap(), limit).unwrap();
        if let Limit::Datagram = limit {
            assert!(answer.len() <= question.max_payload().into());
        }
        Message::from_vec(&answer).unwrap()
    }

    #[test]
    fn an_answer_has_as_many_records_as_fit() {
        let dns = dns(100);
        for (edns, limit, records) in [
            // 43 bytes of header and question, 16 of each address, 11 of EDNS.
            (None, Limit::Datagram, 29),
            (Some(512), Limit::Datagram, 28),
            (Some(1232), Limit::Datagram, 73),
            (Some(4096), Limit::Datagram, 100),
            (None, Limit::Stream, 100),
        ] {
            let answer = ask(&dns, "db.shop.svc.cluster.local.", edns, limit);
            assert_eq!(answer.answers.len(), records, "{edns:?}");
            assert_eq!(answer.metadata.truncation, records < 100, "{edns:?}");
            assert_eq!(answer.edns.is_some(), edns.is_some());
        }
        let nothing = ask(&dns, "no.shop.svc.cluster.local.", None, Limit::Datagram);
        assert_eq!(nothing.authorities.len(), 1);
        assert!(!nothing.metadata.truncation);
    }
}
