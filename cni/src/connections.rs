//! Ends the TCP connections of a network namespace without the processes that have them: each peer is
//! told by a reset, and whoever has the socket reads an error. `sock_diag(7)` over netlink.

use std::io::{self, Read};
use std::os::fd::AsFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns;

/// `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// `netlink(7)`.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;

/// `bits/socket.h` and `linux/in.h`.
const FAMILIES: [u8; 2] = [2, 10];
const TCP: u8 = 6;

/// The states, by the kernel's number, in which no peer waits for anything.
const TIME_WAIT: u32 = 6;
const CLOSE: u32 = 7;
const LISTEN: u32 = 10;

/// More than the kernel puts into one answer.
const ANSWER: usize = 1 << 16;

/// Where `struct inet_diag_msg` has its `struct inet_diag_sockid`.
const ID: std::ops::Range<usize> = 4..52;

/// Which socket, as the kernel names it.
type SocketId = [u8; ID.end - ID.start];

/// Ends all of them, and tells how many there were.
pub async fn end(netns: impl AsFd) -> io::Result<usize> {
    netns::run(netns, end_here).await?
}

fn end_here() -> io::Result<usize> {
    let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    let mut ended = 0;
    for family in FAMILIES {
        for id in list(&socket, family)? {
            socket.send(&request(SOCK_DESTROY, NLM_F_ACK, family, id))?;
            match answers(&socket, |_| {}) {
                Ok(()) => ended += 1,
                // It has come to its own end meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(ended)
}

fn list(socket: &Socket, family: u8) -> io::Result<Vec<SocketId>> {
    let any = [0; ID.end - ID.start];
    socket.send(&request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, any))?;
    let mut ids = Vec::new();
    let listed = answers(socket, |message| {
        let id = message.get(ID).and_then(|id| id.try_into().ok());
        ids.extend::<Option<SocketId>>(id);
    });
    match listed {
        // A kernel without this family.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map(|()| ids),
    }
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, id: SocketId) -> Vec<u8> {
    let states = !(1 << TIME_WAIT | 1 << CLOSE | 1 << LISTEN);
    let mut message = vec![0; HEADER];
    message.extend([family, TCP, 0, 0]);
    message.extend(u32::to_ne_bytes(states));
    message.extend(id);
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    message[0..4].copy_from_slice(&length.to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    message
}

/// Reads the answers to one request to their end, which is an error's or the last one's.
fn answers(mut socket: &Socket, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; ANSWER];
    loop {
        let length = socket.read(&mut buffer)?;
        let mut rest = &buffer[..length];
        while let Some((kind, payload, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => return error(payload),
                _ => each(payload),
            }
            rest = next;
        }
    }
}

/// The first message's type and payload, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?);
    let length = usize::try_from(length).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let payload = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, payload, next))
}

/// An acknowledgement is an error of the number zero.
fn error(payload: &[u8]) -> io::Result<()> {
    let number = payload.get(0..4).and_then(|number| number.try_into().ok());
    match number.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    /// In a namespace with only a loopback, both ends of one connection, and the listener.
    fn connected(listen: SocketAddr, dial: SocketAddr) -> [TcpStream; 2] {
        let listener = TcpListener::bind(listen).expect("binds");
        let port = listener.local_addr().expect("an address").port();
        let client = TcpStream::connect((dial.ip(), port)).expect("connects");
        let (server, _) = listener.accept().expect("accepts");
        let ends = [client, server];
        for end in &ends {
            let patience = Some(Duration::from_secs(60));
            end.set_read_timeout(patience).expect("an option");
        }
        ends
    }

    #[tokio::test]
    async fn every_connection_of_a_namespace_ends_and_none_elsewhere() {
        let (v4, v6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let mut elsewhere = connected((v4, 0).into(), (v4, 0).into());
        let netns = netns::create().expect("the right to make namespaces");
        let all = netns::run(&netns, move || {
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status();
            assert!(up.expect("ip is installed").success());
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
            [
                connected((v4, 0).into(), (v4, 0).into()),
                connected((v6, 0).into(), (v6, 0).into()),
                // IPv4 on a socket of both families.
                connected(any, (v4, 0).into()),
            ]
        });
        let all = all.await.expect("entered");
        assert!(end(&netns).await.expect("ended") >= all.len());
        for mut end in all.into_iter().flatten() {
            let error = end.read(&mut [0]).expect_err("ended");
            let kinds = [
                io::ErrorKind::ConnectionReset,
                io::ErrorKind::ConnectionAborted,
            ];
            assert!(kinds.contains(&error.kind()), "{error}");
        }
        assert_eq!(end(&netns).await.expect("nothing to do"), 0);

        let [client, server] = &mut elsewhere;
        io::Write::write_all(client, b"x").expect("open");
        server.read_exact(&mut [0]).expect("open");
    }

    #[tokio::test]
    async fn a_listener_stays() {
        let netns = netns::create().expect("the right to make namespaces");
        let listener = netns::run(&netns, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)));
        let listener = listener.await.expect("entered").expect("binds");
        assert_eq!(end(&netns).await.expect("nothing to do"), 0);
        let local = listener.local_addr().expect("an address");
        let again = netns::run(&netns, move || TcpListener::bind(local));
        again.await.expect("entered").expect_err("taken");
    }

    #[test]
    fn what_is_no_message_ends_the_reading() {
        let whole = request(SOCK_DESTROY, NLM_F_ACK, 2, [7; 48]);
        let (kind, payload, rest) = message(&whole).expect("a message");
        assert_eq!((kind, payload.len(), rest.len()), (SOCK_DESTROY, 56, 0));
        for cut in 0..whole.len() {
            assert!(message(&whole[..cut]).is_none(), "{cut}");
        }
        let mut short = whole;
        short[0..4].copy_from_slice(&3u32.to_ne_bytes());
        assert!(message(&short).is_none());
        assert!(error(&[0; 4]).is_ok());
        assert!(error(&[]).is_err());
    }
}
