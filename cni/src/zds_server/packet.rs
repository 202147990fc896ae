//! A Unix packet socket: one message per packet, a descriptor beside it where asked.

#![expect(
    unsafe_code,
    reason = "Tokio has no packet sockets, and registering a descriptor with its reactor is unsafe"
)]

use std::fs::Permissions;
use std::io::{self, IoSlice, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt};
use proto::zds::MAX_PACKET;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::unix::AsyncFd;

fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns one descriptor, always returns that one, and keeps it open until it
    // is dropped; nothing here takes it out of the `AsyncFd`.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}

#[derive(Debug)]
pub(super) struct Listener(AsyncFd<Socket>);

#[derive(Debug)]
pub(super) struct PacketSocket(AsyncFd<Socket>);

// === impl Listener ===

impl Listener {
    pub(super) fn bind(path: &Path) -> io::Result<Listener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Whoever connects is handed the network namespaces of every pod.
        std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
        socket.listen(16)?;
        Ok(Listener(register(socket)?))
    }

    pub(super) async fn accept(&self) -> io::Result<PacketSocket> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(accepted) = ready.try_io(|listener| listener.get_ref().accept()) {
                let (socket, _) = accepted?;
                socket.set_nonblocking(true)?;
                return Ok(PacketSocket(register(socket)?));
            }
        }
    }
}

// === impl PacketSocket ===

impl PacketSocket {
    /// One packet; end of file is an error.
    pub(super) async fn receive(&self) -> io::Result<Vec<u8>> {
        // One byte more than allowed tells a packet that is too long from one that just fits.
        let mut buffer = [0; MAX_PACKET + 1];
        loop {
            let mut ready = self.0.readable().await?;
            let Ok(read) = ready.try_io(|socket| socket.get_ref().read(&mut buffer)) else {
                continue;
            };
            return match read? {
                0 => Err(io::ErrorKind::UnexpectedEof.into()),
                length if length > MAX_PACKET => Err(io::Error::other("a packet is too long")),
                length => Ok(buffer[..length].to_vec()),
            };
        }
    }

    pub(super) async fn send(&self, packet: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        loop {
            let mut ready = self.0.writable().await?;
            let sent = ready.try_io(|socket| {
                let flags = MsgFlags::MSG_NOSIGNAL;
                let data = [IoSlice::new(packet)];
                Ok(sendmsg::<()>(
                    socket.as_raw_fd(),
                    &data,
                    control,
                    flags,
                    None,
                )?)
            });
            if let Ok(sent) = sent {
                return sent.map(drop);
            }
        }
    }

    pub(super) fn peer_pid(&self) -> Option<i32> {
        let credentials = getsockopt(self.0.get_ref(), sockopt::PeerCredentials).ok()?;
        Some(credentials.pid()).filter(|pid| *pid > 0)
    }
}
