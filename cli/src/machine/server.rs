//! Answers commands on the control socket.
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};

use super::{Machine, exec};
use crate::control::{Exec, Reply, Request, Target, wire};

const DIAL: Duration = Duration::from_secs(5);
/// ztunnel's own mark: the connection is not captured on its way out.
const MARK: u32 = cni::rules::ZTUNNEL_MARK;

struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// Accepts commands as long as the machine lives.
pub(super) fn listen(machine: Rc<Machine>) -> io::Result<()> {
    let path = machine.config.state.control_socket();
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    tokio::task::spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = Connection {
                        stream,
                        buffer: Vec::new(),
                        descriptors: Vec::new(),
                    };
                    tokio::task::spawn_local(serve(machine.clone(), connection));
                }
                Err(error) => {
                    // Out of descriptors: others must be given back first.
                    tracing::warn!(%error, "can't accept a command");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

async fn serve(machine: Rc<Machine>, mut connection: Connection) {
    while let Ok(Some(request)) = connection.receive().await {
        let (reply, descriptor) = match request {
            Request::Status => (Reply::Status(Box::new(machine.status())), None),
            Request::UpgradeZtunnel { node, program } => {
                (machine.upgrade_ztunnel(&node, program).await, None)
            }
            Request::Shutdown => {
                machine.shutdown.cancel();
                (Reply::ShuttingDown, None)
            }
            Request::Dial { target, port } => match dial(&machine, &target, port).await {
                Ok(socket) => (Reply::Connected, Some(socket)),
                Err(reply) => (reply, None),
            },
            Request::Exec(request) => {
                run(&machine, &mut connection, request).await;
                return;
            }
            Request::Signal(_) => (Reply::Failed("no command runs".to_owned()), None),
        };
        if connection
            .send(&reply, descriptor.as_ref().map(AsFd::as_fd))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Runs a command until it ends; its caller's signals go to it, and so does its caller's end.
async fn run(machine: &Machine, connection: &mut Connection, request: Exec) {
    let descriptors = std::mem::take(&mut connection.descriptors);
    let mut child = match exec::spawn(machine, request, descriptors) {
        Ok(child) => child,
        Err(reply) => {
            let _ = connection.send(&reply, None).await;
            return;
        }
    };
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .map(Pid::from_raw);
    if connection.send(&Reply::Started, None).await.is_err() {
        return;
    }
    let send = |signal: Signal| {
        if let Some(pid) = pid {
            let _ = kill(pid, signal);
        }
    };
    loop {
        tokio::select! {
            status = child.wait() => {
                use std::os::unix::process::ExitStatusExt;
                let code = status.map_or(1, |status| status.code().unwrap_or(128 + status.signal().unwrap_or_default()));
                let _ = connection.send(&Reply::Exited(code), None).await;
                return;
            }
            request = connection.receive() => match request {
                Ok(Some(Request::Signal(number))) => {
                    if let Ok(signal) = Signal::try_from(number) {
                        send(signal);
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    send(Signal::SIGHUP);
                    if tokio::time::timeout(Duration::from_secs(2), child.wait()).await.is_err() {
                        let _ = child.kill().await;
                    }
                    return;
                }
            }
        }
    }
}

/// Connects from inside the target's network, to the target itself.
async fn dial(machine: &Machine, target: &Target, port: u16) -> Result<OwnedFd, Reply> {
    let (netns, addresses) = exec::network_of(machine, target).map_err(Reply::NotFound)?;
    let mut last = None;
    for address in addresses {
        let address = std::net::SocketAddr::new(address, port);
        let connect = move || {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
            socket.set_mark(MARK)?;
            socket.connect_timeout(&address.into(), DIAL)?;
            io::Result::Ok(OwnedFd::from(socket))
        };
        match cni::netns::run(&netns, connect).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) | Err(error) => last = Some(error),
        }
    }
    let why = last.map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
    Err(Reply::Failed(format!(
        "can't connect to port {port} there: {why}"
    )))
}

// === impl Connection ===

impl Connection {
    async fn receive(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some(request) = wire::decode(&mut self.buffer)? {
                return Ok(Some(request));
            }
            let socket = self.stream.as_raw_fd();
            let (buffer, descriptors) = (&mut self.buffer, &mut self.descriptors);
            let receive = || wire::receive(socket, buffer, descriptors);
            if self.stream.async_io(Interest::READABLE, receive).await? == 0 {
                return Ok(None);
            }
        }
    }

    async fn send(&self, reply: &Reply, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let frame = wire::encode(reply)?;
        let mut descriptors: Vec<_> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
        let socket = self.stream.as_raw_fd();
        let mut sent = 0;
        while sent < frame.len() {
            sent += self
                .stream
                .async_io(Interest::WRITABLE, || {
                    wire::send(socket, &frame[sent..], &descriptors)
                })
                .await?;
            descriptors.clear();
        }
        Ok(())
    }
}
