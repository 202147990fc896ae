//! SOCKS version 5 (RFC 1928) on a pod's loopback: an application names its destination itself, by
//! address or by name. From there on the connection is like any other that the pod opens.
//!
//! Success is answered when the destination has been reached, not before, so that an application
//! sees its connection fail as it would without a proxy.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use mesh::dns::{self, Answer, RecordType};
use mesh::workload::Workload;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{self, Instant};

use super::caller::Caller;
use super::outbound;
use super::telemetry::{Failure, Unreached};
use super::worker::{Accepted, Worker};
use crate::metrics::ResponseFlags;

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHODS: u8 = 0xFF;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const DOMAIN: u8 = 3;
const IPV6: u8 = 4;

/// Where an application wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Address(SocketAddr),
    Name(Arc<str>, u16),
}

/// The reply field of RFC 1928 §6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("{0}")]
    Socket(#[from] io::Error),
    #[error("not version 5 of SOCKS")]
    Version,
    #[error("the application insists on authentication")]
    Authentication,
    #[error("only CONNECT is supported")]
    Command,
    #[error("the address is of an unknown type")]
    AddressType,
    #[error("the name is not one")]
    Name,
}

pub(crate) async fn serve(worker: Rc<Worker>, mut accepted: Accepted) {
    let started = Instant::now();
    let patience = worker.shared.config.connect_timeout;
    let shaking = Box::pin(time::timeout(patience, handshake(&mut accepted.tcp)));
    let target = match shaking.await {
        Ok(Ok(target)) => target,
        Ok(Err(error)) => return tracing::debug!(%error, "no SOCKS request"),
        Err(_) => return tracing::debug!("no SOCKS request in time"),
    };
    let Some(workload) = worker.workload(&accepted.pod).await else {
        tracing::debug!("the pod of a SOCKS request is not known to the mesh");
        return reply(&mut accepted.tcp, Reply::GeneralFailure).await;
    };
    let destination = match target {
        Target::Address(address) => Some(address),
        Target::Name(name, port) => resolve(&worker, &workload, &name, port).await,
    };
    let Some(destination) = destination else {
        return reply(&mut accepted.tcp, Reply::HostUnreachable).await;
    };
    // Policies and peers know the pod by its own address, not by its loopback.
    let own = workload.addresses.iter();
    if let Some(own) = own.min_by_key(|own| own.is_ipv4() != destination.is_ipv4()) {
        accepted.peer.set_ip(*own);
    }
    Box::pin(outbound::serve_to(
        worker,
        Caller::with_request(accepted),
        Some(destination),
        started,
    ))
    .await;
}

/// Tells an application that its destination has been reached.
pub(crate) async fn succeeded(tcp: &mut (impl AsyncWrite + Unpin)) {
    reply(tcp, Reply::Succeeded).await;
}

/// Tells an application why its destination has not been reached.
pub(crate) async fn failed(tcp: &mut (impl AsyncWrite + Unpin), failure: &Failure) {
    reply(tcp, Reply::of(failure)).await;
}

async fn handshake(
    tcp: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Target, HandshakeError> {
    let refused = match negotiate(tcp).await {
        Ok(target) => return Ok(target),
        Err(error) => error,
    };
    match &refused {
        HandshakeError::Authentication => {
            let _ = tcp.write_all(&[VERSION, NO_ACCEPTABLE_METHODS]).await;
        }
        HandshakeError::Command => reply(tcp, Reply::CommandNotSupported).await,
        HandshakeError::AddressType => reply(tcp, Reply::AddressTypeNotSupported).await,
        HandshakeError::Name => reply(tcp, Reply::HostUnreachable).await,
        HandshakeError::Socket(_) | HandshakeError::Version => {}
    }
    Err(refused)
}

async fn negotiate(
    tcp: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Target, HandshakeError> {
    let [version, methods] = read(tcp).await?;
    if version != VERSION {
        return Err(HandshakeError::Version);
    }
    let mut offered = vec![0; methods.into()];
    tcp.read_exact(&mut offered).await?;
    if !offered.contains(&NO_AUTHENTICATION) {
        return Err(HandshakeError::Authentication);
    }
    tcp.write_all(&[VERSION, NO_AUTHENTICATION]).await?;

    let [version, command, _reserved, address_type] = read(tcp).await?;
    if version != VERSION {
        return Err(HandshakeError::Version);
    }
    // The request is read to its end before it is refused: a socket that is closed with bytes
    // unread takes the answer with it.
    let host = match address_type {
        IPV4 => Ok(IpAddr::from(read::<4>(tcp).await?)),
        IPV6 => Ok(IpAddr::from(read::<16>(tcp).await?)),
        DOMAIN => {
            let [length] = read(tcp).await?;
            let mut name = vec![0; length.into()];
            tcp.read_exact(&mut name).await?;
            Err(name)
        }
        _ => return Err(HandshakeError::AddressType),
    };
    let port = u16::from_be_bytes(read(tcp).await?);
    if command != CONNECT {
        return Err(HandshakeError::Command);
    }
    match host {
        Ok(address) => Ok(address_of(address, port)),
        Err(name) => name_of(&name, port),
    }
}

fn address_of(address: IpAddr, port: u16) -> Target {
    Target::Address(SocketAddr::new(address.to_canonical(), port))
}

/// Some applications write an address where a name belongs.
fn name_of(name: &[u8], port: u16) -> Result<Target, HandshakeError> {
    let name = std::str::from_utf8(name).map_err(|_| HandshakeError::Name)?;
    if let Ok(address) = name.parse() {
        return Ok(address_of(address, port));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    match !name.is_empty() && name.bytes().all(is_name) {
        true => Ok(Target::Name(name.into(), port)),
        false => Err(HandshakeError::Name),
    }
}

async fn read<const N: usize>(tcp: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    tcp.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn reply(tcp: &mut (impl AsyncWrite + Unpin), reply: Reply) {
    // The bound address is of no use to a client and may be zero, as most proxies have it.
    let bytes = [VERSION, reply as u8, 0, IPV4, 0, 0, 0, 0, 0, 0];
    // It fails only where the application has gone.
    let _ = tcp.write_all(&bytes).await;
}

/// The address of a name: the mesh's services as the DNS proxy has them, others as the system's
/// resolver does.
async fn resolve(
    worker: &Worker,
    workload: &Workload,
    name: &Arc<str>,
    port: u16,
) -> Option<SocketAddr> {
    let config = &worker.shared.config;
    let answer = {
        let snapshot = worker.shared.state.load();
        let client = dns::Client {
            namespace: &workload.namespace,
            network: &workload.network,
            search: &[],
            cluster_domain: &config.cluster_domain,
            ipv6: config.ipv6,
        };
        let ask = |record| dns::resolve(&snapshot, &client, name, record, &mut rand::rng());
        match ask(RecordType::A) {
            Answer::NoData => ask(RecordType::Aaaa),
            answer => answer,
        }
    };
    let address = match answer {
        Answer::Records { addresses, .. } => addresses.first().copied(),
        Answer::NoData => None,
        Answer::NotOurs => {
            let found = worker.names.resolve(name, true, config.connect_timeout);
            found.await.ok()?.first().copied()
        }
    };
    address.map(|address| SocketAddr::new(address, port))
}

// === impl Reply ===

impl Reply {
    fn of(failure: &Failure) -> Self {
        match failure.flags {
            ResponseFlags::Deny => Self::NotAllowed,
            ResponseFlags::Connect | ResponseFlags::NetworkPolicy => match failure.unreached {
                Some(Unreached::Refused) => Self::ConnectionRefused,
                Some(Unreached::Network) => Self::NetworkUnreachable,
                Some(Unreached::Host | Unreached::Untracked) | None => Self::HostUnreachable,
            },
            ResponseFlags::None
            | ResponseFlags::TlsFailure
            | ResponseFlags::H2HandshakeFailure
            | ResponseFlags::IdentityError
            | ResponseFlags::CertRevoked => Self::GeneralFailure,
        }
    }
}

#[cfg(test)]
mod tests;
