//! How much of what a socket has taken its peer has not acknowledged.
#![expect(unsafe_code, reason = "no safe crate has this request of tcp(7)")]

use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;

use tokio::net::TcpStream;

// `SIOCOUTQ`, by its other name.
nix::ioctl_read_bad!(outgoing_queue, nix::libc::TIOCOUTQ, c_int);

/// Bytes sent and not acknowledged, and those not sent yet.
pub(crate) fn unacknowledged(tcp: &TcpStream) -> io::Result<u64> {
    let mut bytes: c_int = 0;
    // SAFETY: the descriptor is a socket's for as long as `tcp` is borrowed, and the kernel writes
    // one `int` to where the reference points.
    unsafe { outgoing_queue(tcp.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes.try_into().unwrap_or_default())
}
