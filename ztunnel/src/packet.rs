//! Packets, with descriptors, over Unix SOCK_SEQPACKET sockets: one message per packet.
#![expect(
    unsafe_code,
    reason = "descriptors received in control messages are taken over"
)]

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, UnixCredentials, getsockopt, recvmsg, sendmsg,
    sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use prost::Message;
use proto::handover::MAX_DESCRIPTORS;
use proto::zds::MAX_PACKET as PACKET;
use socket2::{Domain, SockAddr, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One packet as it was received.
#[derive(Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: AsyncFd<socket2::Socket>,
}

/// Where connections arrive.
#[derive(Debug)]
pub(crate) struct Listener {
    fd: AsyncFd<socket2::Socket>,
}

fn register(socket: socket2::Socket) -> io::Result<AsyncFd<socket2::Socket>> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    // SAFETY: a socket owns its descriptor, always answers with the same one, and closes
    // it only when dropped.
    let registered = unsafe { AsyncFd::register_with_interest(socket, interest) };
    Ok(registered?)
}

fn new_socket() -> io::Result<socket2::Socket> {
    socket2::Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking(), None)
}

/// Whether somebody listens at a path.
pub(crate) fn is_answered(path: &Path) -> bool {
    let connected = || new_socket()?.connect(&SockAddr::unix(path)?);
    connected().is_ok()
}

// === impl Socket ===

impl Socket {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let socket = new_socket()?;
        socket.connect(&SockAddr::unix(path)?)?;
        Ok(Self {
            fd: register(socket)?,
        })
    }

    pub(crate) async fn send(&self, message: &impl Message) -> io::Result<()> {
        self.send_with(message, &[]).await
    }

    /// At most as many descriptors as a packet may have.
    pub(crate) async fn send_with(
        &self,
        message: &impl Message,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let bytes = message.encode_to_vec();
        if bytes.len() > PACKET {
            return Err(io::Error::other("the message is too long for a packet"));
        }
        let fds: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
        // A packet goes whole or not at all.
        self.fd
            .async_io(Interest::WRITABLE, |socket| {
                let data = [IoSlice::new(&bytes)];
                let flags = MsgFlags::MSG_NOSIGNAL;
                Ok(sendmsg::<()>(
                    socket.as_raw_fd(),
                    &data,
                    control,
                    flags,
                    None,
                )?)
            })
            .await
            .map(|_| ())
    }

    /// The next packet; none when the other side has closed.
    pub(crate) async fn receive(&self) -> io::Result<Option<Packet>> {
        self.fd.async_io(Interest::READABLE, receive).await
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> io::Result<UnixCredentials> {
        Ok(getsockopt(self.fd.get_ref(), sockopt::PeerCredentials)?)
    }

    #[cfg(test)]
    pub(crate) fn from_owned(fd: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Self {
            fd: register(socket)?,
        })
    }
}

#[cfg(test)]
impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

// === impl Listener ===

impl Listener {
    /// Listens at `path`, for our own user only, in the place of whoever listened there. Nobody
    /// who connects meets a moment without a listener: it is made beside the path and renamed.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let beside = path.with_extension("new");
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = new_socket()?;
        // The file gets what the socket has.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        socket.bind(&SockAddr::unix(&beside)?)?;
        socket.listen(16)?;
        std::fs::rename(&beside, path)?;
        Ok(Self {
            fd: register(socket)?,
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        let accept = |listener: &socket2::Socket| listener.accept();
        let (socket, _) = self.fd.async_io(Interest::READABLE, accept).await?;
        socket.set_nonblocking(true)?;
        Ok(Socket {
            fd: register(socket)?,
        })
    }
}

/// Takes over a descriptor just received from the kernel.
pub(crate) fn take(fd: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: callers have just been given this descriptor by the kernel, and nothing else
    // in the process knows it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn receive(socket: &socket2::Socket) -> io::Result<Option<Packet>> {
    let mut bytes = [0; PACKET];
    let mut control = nix::cmsg_space!([libc::c_int; MAX_DESCRIPTORS]);
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
            format!("a packet is longer than {PACKET} bytes"),
        ));
    }
    Ok(Some(Packet {
        bytes: bytes[..length].to_vec(),
        fds,
    }))
}

/// As much of a text as a message with nothing else in it holds.
pub(crate) fn fitting(text: &str) -> &str {
    let mut end = text.len().min(PACKET - 64);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
