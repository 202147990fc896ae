//! The side that takes over: asks its predecessor for sockets, says when it is ready, and hears
//! what became of the rest.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use prost::Message;
use proto::handover::reply::Payload as Answer;
use proto::handover::request::Payload as Ask;
use proto::handover::{
    Farewell, Hello, NetworkNamespace, Ready, Reply, Request, SocketsRequest, Transport, VERSION,
};
use tokio::sync::Mutex;
use tokio::time;

use super::inherited::{Gate, Gatekeeper, Inherited};
use super::{Owner, Port};
use crate::packet::Socket;

/// A predecessor that does not answer so long is as good as none.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was found where a predecessor would be.
#[derive(Debug)]
pub enum Found {
    Nobody,
    /// Somebody serves, and hands nothing over.
    Refused(String),
    Predecessor(Succession),
}

/// A handover under way.
#[derive(Debug)]
pub struct Succession {
    /// None once this process has taken over: nothing is lent any more.
    socket: Mutex<Option<Socket>>,
    gatekeeper: Gatekeeper,
    /// Of its program.
    release: String,
}

/// A predecessor that lets what it has open end.
#[derive(Debug)]
pub struct Former {
    socket: Socket,
    /// Connections that go on there.
    pub left: u64,
}

/// Looks for a predecessor.
pub async fn find(path: &Path) -> Found {
    let Ok(socket) = Socket::connect(path) else {
        return Found::Nobody;
    };
    let hello = Ask::Hello(Hello {
        version: VERSION,
        release: env!("CARGO_PKG_VERSION").to_owned(),
    });
    match exchange(&socket, hello).await {
        Ok((Answer::Welcome(welcome), _)) if welcome.refusal.is_empty() => {
            Found::Predecessor(Succession {
                socket: Mutex::new(Some(socket)),
                gatekeeper: Gatekeeper::new(),
                release: welcome.release,
            })
        }
        Ok((Answer::Welcome(welcome), _)) => Found::Refused(welcome.refusal),
        Ok(_) => Found::Refused("it answered something else".to_owned()),
        Err(error) => Found::Refused(error.to_string()),
    }
}

/// One request and its answer.
async fn exchange(socket: &Socket, ask: Ask) -> io::Result<(Answer, Vec<OwnedFd>)> {
    let exchange = async {
        socket.send(&Request { payload: Some(ask) }).await?;
        receive(socket).await
    };
    time::timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(io::Error::other("no answer in time")))
}

async fn receive(socket: &Socket) -> io::Result<(Answer, Vec<OwnedFd>)> {
    let packet = socket.receive().await?;
    let packet = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
    let reply = Reply::decode(&*packet.bytes).map_err(io::Error::other)?;
    let answer = reply.payload;
    let answer = answer.ok_or_else(|| io::Error::other("an answer this version does not know"))?;
    Ok((answer, packet.fds))
}

// === impl Succession ===

impl Succession {
    /// Of the predecessor's program.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// Opens when this process takes over.
    pub fn gate(&self) -> Gate {
        self.gatekeeper.gate()
    }

    /// Whether this process has taken over.
    pub async fn is_over(&self) -> bool {
        self.socket.lock().await.is_none()
    }

    /// The sockets that an owner has in the predecessor; those of its ports that it has none of
    /// are to be made anew. After the handover these are all.
    pub async fn inherit(&self, owner: &Owner, ports: &[Port]) -> Inherited {
        let lock = self.socket.lock().await;
        let Some(socket) = &*lock else {
            return Inherited::none();
        };
        let mut inherited = Inherited::behind(self.gate());
        for port in ports {
            match sockets(socket, owner, *port).await {
                Ok(sockets) => match port {
                    Port::Tcp(port) => inherited.add_tcp(*port, sockets),
                    Port::Udp(port) => inherited.add_udp(*port, sockets),
                },
                Err(error) => {
                    tracing::warn!(?owner, %error, "the former process hands nothing over");
                    break;
                }
            }
        }
        inherited
    }

    /// Accepts from here on, and has the predecessor stop; none where it is gone. It is heard of
    /// again only at its end, so nobody else may wait for it from here on.
    pub async fn take_over(&self) -> Option<Former> {
        // First this, so that there is no moment in which nobody accepts.
        self.gatekeeper.open();
        let socket = self.socket.lock().await.take()?;
        match exchange(&socket, Ask::Ready(Ready {})).await {
            Ok((Answer::Released(released), _)) => Some(Former {
                socket,
                left: released.connections,
            }),
            Ok(_) => None,
            Err(error) => {
                tracing::warn!(%error, "the former process did not hear that it is replaced");
                None
            }
        }
    }
}

// === impl Former ===

impl Former {
    /// Waits for its end; how many connections it cut, if it could still tell.
    pub async fn farewell(self) -> Option<u64> {
        match receive(&self.socket).await {
            Ok((Answer::Farewell(Farewell { cut }), _)) => Some(cut),
            Ok(_) | Err(_) => None,
        }
    }
}

async fn sockets(socket: &Socket, owner: &Owner, port: Port) -> io::Result<Vec<OwnedFd>> {
    let (pod_uid, netns) = match owner {
        Owner::Pod { uid, netns } => (uid.to_string(), netns),
        Owner::Process { netns } => (String::new(), netns),
    };
    let (transport, port) = match port {
        Port::Tcp(port) => (Transport::Tcp, port),
        Port::Udp(port) => (Transport::Udp, port),
    };
    let ask = Ask::Sockets(SocketsRequest {
        pod_uid,
        netns: Some(NetworkNamespace {
            device: netns.device,
            inode: netns.inode,
        }),
        transport: transport.into(),
        port: port.into(),
    });
    let (mut answer, mut all) = exchange(socket, ask).await?;
    loop {
        match answer {
            Answer::Sockets(sockets) if sockets.more => {
                let (next, fds) = receive(socket).await?;
                all.extend(fds);
                answer = next;
            }
            Answer::Sockets(_) => return Ok(all),
            Answer::Welcome(_) | Answer::Released(_) | Answer::Farewell(_) => {
                return Err(io::Error::other("an answer to something else"));
            }
        }
    }
}
