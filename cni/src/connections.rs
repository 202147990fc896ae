//! Ends the TCP connections of a network namespace without the processes that have them: each peer is
//! told by a reset, and whoever has the socket reads an error. `sock_diag(7)` over netlink.

use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::{self, Instant};

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

/// Where `struct inet_diag_msg` has its `struct inet_diag_sockid`, and how many bytes wait to be read
/// and to be acknowledged.
const ID: Range<usize> = 4..52;
const UNREAD: Range<usize> = 56..60;
const UNACKNOWLEDGED: Range<usize> = 60..64;

/// Between two looks at what is on its way.
const LOOK: Duration = Duration::from_millis(5);

/// Which socket, as the kernel names it.
type SocketId = [u8; ID.end - ID.start];

struct Connection {
    family: u8,
    id: SocketId,
    /// Whether bytes of it are on their way.
    moves: bool,
}

/// Ends all of them, and tells how many there were. What is on its way now has so long to arrive.
pub async fn end(netns: impl AsFd, patience: Duration) -> io::Result<usize> {
    let netns = netns.as_fd();
    let until = Instant::now() + patience;
    while netns::run(netns, anything_moves).await?? && Instant::now() < until {
        time::sleep(LOOK).await;
    }
    netns::run(netns, end_here).await?
}

fn anything_moves() -> io::Result<bool> {
    let connections = list(&diagnostics()?)?;
    Ok(connections.iter().any(|connection| connection.moves))
}

fn end_here() -> io::Result<usize> {
    let socket = diagnostics()?;
    let mut ended = 0;
    for Connection { family, id, .. } in list(&socket)? {
        socket.send(&request(SOCK_DESTROY, NLM_F_ACK, family, id))?;
        match answers(&socket, |_| {}) {
            Ok(()) => ended += 1,
            // It has come to its own end meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ended)
}

/// Of the calling thread's namespace.
fn diagnostics() -> io::Result<Socket> {
    let protocol = Protocol::from(libc::NETLINK_SOCK_DIAG);
    Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))
}

fn list(socket: &Socket) -> io::Result<Vec<Connection>> {
    let any = [0; ID.end - ID.start];
    let mut connections = Vec::new();
    for family in FAMILIES {
        socket.send(&request(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, family, any))?;
        let listed = answers(socket, |message| {
            connections.extend(Connection::read(family, message));
        });
        match listed {
            // A kernel without this family.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(connections)
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

// === impl Connection ===

impl Connection {
    /// From `struct inet_diag_msg`.
    fn read(family: u8, message: &[u8]) -> Option<Self> {
        let waits = |range| message.get(range).is_some_and(|bytes| bytes != [0; 4]);
        Some(Self {
            family,
            id: message.get(ID)?.try_into().ok()?,
            moves: waits(UNREAD) || waits(UNACKNOWLEDGED),
        })
    }
}

#[cfg(test)]
mod tests;
