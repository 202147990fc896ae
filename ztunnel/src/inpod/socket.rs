//! Packets, with descriptors, over a Unix SOCK_SEQPACKET socket: one message per packet.
#![expect(
    unsafe_code,
    reason = "descriptors received in control messages are taken over"
)]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use prost::Message;
use socket2::{Domain, SockAddr, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::request::Packet;

/// The largest packet, either way.
const PACKET: usize = 1024;

/// Descriptors looked for in one packet: one is right, and more must be noticed.
const DESCRIPTORS: usize = 4;

#[derive(Debug)]
pub(super) struct Socket {
    fd: AsyncFd<socket2::Socket>,
}

// === impl Socket ===

impl Socket {
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Self::new(socket)
    }

    fn new(socket: socket2::Socket) -> io::Result<Self> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: a socket owns its descriptor, always answers with the same one, and closes
        // it only when dropped.
        let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
        Ok(Self { fd: registered? })
    }

    pub(super) async fn send(&self, message: &impl Message) -> io::Result<()> {
        let bytes = message.encode_to_vec();
        if bytes.len() > PACKET {
            return Err(io::Error::other("the message is too long for a packet"));
        }
        // A packet goes whole or not at all.
        self.fd
            .async_io(Interest::WRITABLE, |socket| {
                socket.send_with_flags(&bytes, libc::MSG_NOSIGNAL)
            })
            .await
            .map(|_| ())
    }

    /// The next packet; none when the other side has closed.
    pub(super) async fn receive(&self) -> io::Result<Option<Packet>> {
        self.fd.async_io(Interest::READABLE, receive).await
    }

    #[cfg(test)]
    pub(super) fn from_owned(fd: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(fd);
        socket.set_nonblocking(true)?;
        Self::new(socket)
    }
}

#[cfg(test)]
impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

/// Takes over a descriptor just received from the kernel.
pub(super) fn take(fd: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: callers have just been given this descriptor by the kernel, and nothing else
    // in the process knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn receive(socket: &socket2::Socket) -> io::Result<Option<Packet>> {
    let mut bytes = [0; PACKET];
    let mut control = nix::cmsg_space!([libc::c_int; DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let (length, flags) = (received.bytes, received.flags);
    let mut fds = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = message {
            fds.extend(received.into_iter().map(take));
        }
    }
    if length == 0 {
        return Ok(None);
    }
    if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a packet of the agent is longer than {PACKET} bytes"),
        ));
    }
    Ok(Some(Packet {
        bytes: bytes[..length].to_vec(),
        fds,
    }))
}

/// As much of a text as an acknowledgement holds.
pub(super) fn fitting(text: &str) -> &str {
    let mut end = text.len().min(PACKET - 64);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
