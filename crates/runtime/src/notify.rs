//! What a service manager is told (`sd_notify(3)`): that the process is ready, what it does,
//! that it is about to end. Nothing, where nobody has said where to (`NOTIFY_SOCKET`).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// This process serves, with `status` for people and `more` for managers that know it. It is
/// named as the service's main one, for it may be a child of the one that was.
pub fn ready(status: &str, more: &str) {
    let pid = std::process::id();
    tell(&format!("READY=1\nMAINPID={pid}\nSTATUS={status}\n{more}"));
}

/// What the process does now, for people.
pub fn status(status: &str) {
    tell(&format!("STATUS={status}"));
}

/// The service is about to end.
pub fn stopping() {
    tell("STOPPING=1");
}

/// What another process said, passed on.
pub fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    if let Err(error) = address.and_then(|address| send(&address, state)) {
        tracing::warn!(socket = %path.display(), %error, "cannot tell the service manager");
    }
}

fn send(address: &SocketAddr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_arrives_at_a_path_and_at_a_name() {
        let named = format!("weft-notify-{}", std::process::id());
        let path = std::env::temp_dir().join(&named);
        for address in [
            SocketAddr::from_pathname(&path).expect("a path"),
            SocketAddr::from_abstract_name(named.as_bytes()).expect("a name"),
        ] {
            let manager = UnixDatagram::bind_addr(&address).expect("binds");
            send(&address, "READY=1").expect("sent");
            let mut state = [0; 16];
            let length = manager.recv(&mut state).expect("received");
            assert_eq!(&state[..length], b"READY=1");
        }
        std::fs::remove_file(path).expect("removed");
    }
}
