//! Sockets in pods' network namespaces: listeners, connections, their options, and the
//! destination a redirected connection had.

use std::io;
use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use mesh::workload::Workload;
use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use runtime::descriptors;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{self, TcpSocket, TcpStream};
use tokio::time;

use super::config::{Config, HBONE_PORT, OriginalSource};
use super::conntrack;
use super::netns;

/// Connections that wait to be accepted: as many as the kernel admits unless told otherwise. Where
/// more arrive while a thread is held up, theirs are dropped and come again after a second.
const BACKLOG: u16 = 4096;

/// What a listener is for; inbound ones can answer for the addresses they intercept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Outbound,
    Inbound,
}

/// Whose connection a socket makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// To an application, or for one; as the client, where its address is given.
    Application(Option<IpAddr>),
    /// A tunnel's.
    Tunnel,
}

/// Listens on every address of the namespace.
pub(crate) fn listen(
    netns: Option<&OwnedFd>,
    port: u16,
    kind: Kind,
    config: &Config,
) -> io::Result<TcpListener> {
    netns::within(netns, || {
        let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        if !config.ipv6 {
            return bind(v4, kind, config);
        }
        match bind(
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            kind,
            config,
        ) {
            // A kernel or a namespace without IPv6.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
                ) =>
            {
                bind(v4, kind, config)
            }
            other => other,
        }
    })
}

/// Listens where only the namespace's own processes connect to.
pub(crate) fn listen_on_loopback(
    netns: Option<&OwnedFd>,
    port: u16,
    config: &Config,
) -> io::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    netns::within(netns, || bind(address, Kind::Outbound, config))
}

fn bind(address: SocketAddr, kind: Kind, config: &Config) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Every worker listens, and so does the next process while it takes over.
    socket.set_reuse_port(config.port_reuse)?;
    mark(&socket, config)?;
    if kind == Kind::Inbound {
        spoofing(config, set_transparent(&socket, address.is_ipv6()))?;
    }
    if address.port() == HBONE_PORT {
        clamp(&socket, config)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG.into())?;
    Ok(socket.into())
}

fn mark(socket: &Socket, config: &Config) -> io::Result<()> {
    match config.packet_mark {
        Some(packet_mark) => socket.set_mark(packet_mark),
        None => Ok(()),
    }
}

fn set_transparent(socket: &Socket, v6: bool) -> io::Result<()> {
    if v6 {
        socket.set_ip_transparent_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    // A dual-stack socket carries IPv4 too, and the options are separate.
    match (socket.set_ip_transparent_v4(true), v6) {
        (Ok(()), _) | (Err(_), true) => {}
        (Err(error), false) => return Err(error),
    }
    match (socket.set_freebind_v4(true), v6) {
        (Ok(()), _) | (Err(_), true) => Ok(()),
        (Err(error), false) => Err(error),
    }
}

fn spoofing(config: &Config, result: io::Result<()>) -> io::Result<()> {
    match config.original_source {
        OriginalSource::Required => result,
        OriginalSource::BestEffort | OriginalSource::Never => Ok(()),
    }
}

/// Who waits in a listener's queue now, whether or not the runtime has heard of them: no more than a
/// queue holds, for others may come without end.
pub(crate) fn waiting(
    listener: &net::TcpListener,
) -> impl Iterator<Item = (TcpStream, SocketAddr)> {
    let accept = move || -> io::Result<_> {
        let (socket, peer) = SockRef::from(listener).accept()?;
        socket.set_nonblocking(true)?;
        let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidData)?;
        Ok((TcpStream::from_std(socket.into())?, peer))
    };
    let waiting = iter::repeat_with(accept).map_while(Result::ok);
    waiting.take(BACKLOG.into())
}

/// Sets what every accepted connection has.
pub(crate) fn accepted(tcp: &TcpStream, config: &Config) {
    // They fail only on a connection that is already gone.
    let _ = tcp.set_nodelay(true);
    let _ = keep_alive(SockRef::from(tcp), config);
}

/// Sets what an accepted tunnel has besides.
pub(crate) fn accepted_tunnel(tcp: &TcpStream, config: &Config) {
    let _ = give_up_silent(SockRef::from(tcp), config);
}

/// A probe of the tunnel is data as well: a peer that is gone without a word is given up when
/// it has acknowledged nothing for as long as it has to answer a probe.
fn give_up_silent(socket: SockRef<'_>, config: &Config) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(config.tunnel.ping_timeout))
}

fn clamp(socket: &Socket, config: &Config) -> io::Result<()> {
    match config.max_segment {
        Some(max_segment) => socket.set_tcp_mss(max_segment),
        None => Ok(()),
    }
}

fn keep_alive(socket: SockRef<'_>, config: &Config) -> io::Result<()> {
    let Some(keepalive) = config.keepalive else {
        return Ok(());
    };
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(keepalive.time)
            .with_interval(keepalive.interval)
            .with_retries(keepalive.retries),
    )?;
    if config.user_timeout {
        socket.set_tcp_user_timeout(Some(keepalive.patience()))?;
    }
    Ok(())
}

/// Connects from a pod's namespace.
pub(crate) async fn connect(
    netns: Option<&OwnedFd>,
    target: SocketAddr,
    role: Role,
    within: Duration,
    config: &Config,
) -> io::Result<TcpStream> {
    let socket = netns::within(netns, || open(target, role, config))?;
    let connected = match time::timeout(within, socket.connect(target)).await {
        Ok(connected) => connected,
        Err(_) => Err(timed_out(within)),
    };
    connected.map_err(|error| explained(error, netns))
}

/// Whether an address is one of the namespace's own.
pub(crate) fn holds_address(netns: Option<&OwnedFd>, address: IpAddr) -> bool {
    let bound = netns::within(netns, || {
        std::net::UdpSocket::bind(SocketAddr::new(address, 0))
    });
    bound.is_ok()
}

/// What the kernel calls an address that can't be had is a port. And it tells nobody that it has
/// dropped what it has no place left to track: then nobody was asked.
fn explained(error: io::Error, netns: Option<&OwnedFd>) -> io::Error {
    match error.kind() {
        kind @ io::ErrorKind::AddrNotAvailable => io::Error::new(kind, "no local port is free"),
        io::ErrorKind::TimedOut => match conntrack::full(netns) {
            Some(full) => io::Error::new(io::ErrorKind::QuotaExceeded, format!("{error}: {full}")),
            None => error,
        },
        _ => error,
    }
}

fn timed_out(after: Duration) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("no answer within {after:?}"),
    )
}

fn open(target: SocketAddr, role: Role, config: &Config) -> io::Result<TcpSocket> {
    let socket = descriptors::unreserved(Socket::new(
        Domain::for_address(target),
        Type::STREAM.nonblocking(),
        None,
    )?)?;
    socket.set_tcp_nodelay(true)?;
    mark(&socket, config)?;
    keep_alive(SockRef::from(&socket), config)?;
    let source = match role {
        Role::Application(source) => source,
        Role::Tunnel => {
            give_up_silent(SockRef::from(&socket), config)?;
            clamp(&socket, config)?;
            None
        }
    };
    // An address of the target itself would meet the target's own sockets.
    let source = source.filter(|source| {
        config.original_source != OriginalSource::Never
            && *source != target.ip()
            && source.is_ipv4() == target.is_ipv4()
            && !source.is_loopback()
    });
    if let Some(source) = source {
        // The port is chosen with the target known: one client may have as many connections to
        // each target as there are ports, not to all of them together.
        let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
        let bound = set_transparent(&socket, target.is_ipv6())
            .and_then(|()| socket.bind(&SocketAddr::new(source, 0).into()));
        spoofing(config, bound)?;
    }
    let socket: std::net::TcpStream = socket.into();
    Ok(TcpSocket::from_std_stream(socket))
}

/// The destination of a redirected connection before it was redirected; where none is
/// recorded, the address it came to.
pub(crate) fn original_destination(tcp: &TcpStream) -> io::Result<SocketAddr> {
    let local = canonical(tcp.local_addr()?);
    let original = match local {
        SocketAddr::V4(_) => getsockopt(tcp, sockopt::OriginalDst).ok().map(|found| {
            let address = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
            SocketAddr::from((address, u16::from_be(found.sin_port)))
        }),
        SocketAddr::V6(_) => getsockopt(tcp, sockopt::Ip6tOriginalDst).ok().map(|found| {
            let address = Ipv6Addr::from(found.sin6_addr.s6_addr);
            SocketAddr::from((address, u16::from_be(found.sin6_port)))
        }),
    };
    Ok(canonical(original.unwrap_or(local)))
}

/// IPv4 as IPv4 where a dual-stack socket shows it mapped.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether an address means a port of ours in the pod's namespace. One that `tcp` itself came
/// to does, also where the mesh does not know it as the pod's: we would call ourselves forever.
pub(crate) fn is_own_port(
    address: SocketAddr,
    tcp: &TcpStream,
    workload: Option<&Workload>,
    config: &Config,
) -> bool {
    let local = || tcp.local_addr().map(|local| canonical(local).ip());
    config.is_own_port(address.port())
        && (address.ip().is_loopback()
            || address.ip().is_unspecified()
            || local().is_ok_and(|local| local == address.ip())
            || workload.is_some_and(|workload| workload.addresses.contains(&address.ip())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::config::SOCKS5_PORT;

    #[tokio::test]
    async fn a_port_of_ours_is_known_by_the_address_a_connection_came_to() {
        // An address of the pod's that the mesh has not heard of.
        let listener = net::TcpListener::bind("[::]:0").await.expect("bind");
        let port = listener.local_addr().expect("address").port();
        let target = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port));
        let (client, accepted) = tokio::join!(TcpStream::connect(target), listener.accept());
        let (_client, (tcp, _)) = (client.expect("connected"), accepted.expect("accepted"));
        let strange = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 15006));
        let mut config = Config::default();
        assert!(!is_own_port(strange, &tcp, None, &config));
        let own = SocketAddr::new(target.ip(), 15006);
        assert!(is_own_port(own, &tcp, None, &config));
        assert!(!is_own_port(target, &tcp, None, &config));
        // An application may have this one where we don't.
        let socks = SocketAddr::new(target.ip(), SOCKS5_PORT);
        assert!(!is_own_port(socks, &tcp, None, &config));
        config.socks5 = true;
        assert!(is_own_port(socks, &tcp, None, &config));
    }

    #[test]
    fn a_namespace_holds_its_own_addresses_only() {
        assert!(holds_address(None, Ipv4Addr::LOCALHOST.into()));
        assert!(!holds_address(None, Ipv4Addr::new(192, 0, 2, 1).into()));
    }
}
