//! The side that is replaced: lends its sockets to one successor at a time, and serves on until
//! that one is ready.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use prost::Message;
use proto::handover::reply::Payload as Answer;
use proto::handover::request::Payload as Ask;
use proto::handover::{
    Farewell, MAX_DESCRIPTORS, Released, Reply, Request, Sockets, SocketsRequest, Transport,
    VERSION, Welcome,
};
use tokio::time;

use super::{Owner, Port};
use crate::inpod::NetnsId;
use crate::packet::{Listener, Socket};

/// Time to say who one is.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whoever listens.
pub trait Lender: Sync {
    /// Duplicates of an owner's sockets of one port; none where it has none.
    fn lend(&self, owner: Owner, port: Port) -> impl Future<Output = Vec<OwnedFd>> + Send;

    /// Whoever borrowed is gone.
    fn take_back(&self);
}

/// Where successors come to.
#[derive(Debug)]
pub struct Predecessor {
    listener: Listener,
    path: PathBuf,
    replaced: bool,
}

/// A successor that is ready. Nothing has stopped yet.
#[derive(Debug)]
pub struct Successor {
    socket: Socket,
    /// As the kernel tells it.
    pub pid: i32,
}

/// How one conversation ended.
enum Ended {
    Ready(Socket),
    Gone(String),
}

type Conversation<'a> = Pin<Box<dyn Future<Output = Ended> + Send + 'a>>;

// === impl Predecessor ===

impl Predecessor {
    /// Listens at `path`, which from here on is this process's and no more its predecessor's.
    pub fn bind(path: &Path) -> io::Result<Self> {
        Ok(Self {
            listener: Listener::bind(path)?,
            path: path.to_owned(),
            replaced: false,
        })
    }

    /// Answers until a successor is ready.
    pub async fn replaced(mut self, lender: &impl Lender) -> Successor {
        let mut pid = 0;
        let mut conversation: Option<Conversation<'_>> = None;
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok(socket) => match greet(&socket).await {
                        Some(Ask::Hello(hello)) => {
                            let refusal = refusal(hello.version, conversation.is_some());
                            let welcome = Answer::Welcome(Welcome {
                                refusal: refusal.clone().unwrap_or_default(),
                                version: VERSION,
                                release: env!("CARGO_PKG_VERSION").to_owned(),
                            });
                            let said = say(&socket, welcome).await;
                            if let Some(reason) = refusal {
                                tracing::warn!(release = hello.release, reason, "hands nothing over");
                            } else if said.is_ok() {
                                pid = socket.peer().map_or(0, |peer| peer.pid());
                                tracing::info!(pid, release = hello.release, "a successor has started");
                                conversation = Some(Box::pin(converse(socket, lender)));
                            }
                        }
                        Some(Ask::Sockets(_) | Ask::Ready(_)) | None => {}
                    },
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a successor");
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                ended = finished(&mut conversation) => {
                    conversation = None;
                    match ended {
                        Ended::Ready(socket) => {
                            self.replaced = true;
                            return Successor { socket, pid };
                        }
                        Ended::Gone(reason) => {
                            lender.take_back();
                            tracing::warn!(pid, reason, "the successor is gone; serving on");
                        }
                    }
                }
            }
        }
    }
}

impl Drop for Predecessor {
    fn drop(&mut self) {
        // After a handover the path is the successor's.
        if !self.replaced {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

// === impl Successor ===

impl Successor {
    /// Says that nothing more is accepted here, and how many connections go on.
    pub async fn release(&mut self, connections: usize) {
        let connections = u64::try_from(connections).unwrap_or(u64::MAX);
        let released = Answer::Released(Released { connections });
        if let Err(error) = say(&self.socket, released).await {
            tracing::warn!(%error, "the successor is gone");
        }
    }

    /// The last word: how many connections were cut.
    pub async fn farewell(self, cut: usize) {
        let cut = u64::try_from(cut).unwrap_or(u64::MAX);
        // It may have gone its way meanwhile.
        let _ = say(&self.socket, Answer::Farewell(Farewell { cut })).await;
    }
}

/// Why a successor gets nothing.
fn refusal(version: u32, taken: bool) -> Option<String> {
    match (version, taken) {
        (VERSION, false) => None,
        (VERSION, true) => Some("another successor is getting ready".to_owned()),
        _ => Some(format!(
            "it speaks version {version} of the handover, this process {VERSION}"
        )),
    }
}

/// The first request of somebody of our own user.
async fn greet(socket: &Socket) -> Option<Ask> {
    let own = nix::unistd::geteuid().as_raw();
    match socket.peer() {
        Ok(peer) if peer.uid() == own || peer.uid() == 0 => {}
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "refused a successor of another user");
            return None;
        }
        Err(_) => return None,
    }
    time::timeout(PATIENCE, request(socket)).await.ok()?.ok()
}

async fn request(socket: &Socket) -> io::Result<Ask> {
    let packet = socket.receive().await?;
    let packet = packet.ok_or(io::ErrorKind::UnexpectedEof)?;
    let request = Request::decode(&*packet.bytes).map_err(io::Error::other)?;
    let unknown = || io::Error::other("a request this version does not know");
    request.payload.ok_or_else(unknown)
}

async fn finished(conversation: &mut Option<Conversation<'_>>) -> Ended {
    match conversation {
        Some(conversation) => conversation.await,
        None => std::future::pending().await,
    }
}

async fn converse(socket: Socket, lender: &impl Lender) -> Ended {
    loop {
        let lent = match request(&socket).await {
            Ok(Ask::Sockets(asked)) => answer(&socket, asked, lender).await,
            Ok(Ask::Ready(_)) => return Ended::Ready(socket),
            Ok(Ask::Hello(_)) => Err(io::Error::other("a request out of its turn")),
            Err(error) => Err(error),
        };
        if let Err(error) = lent {
            return Ended::Gone(error.to_string());
        }
    }
}

async fn answer(socket: &Socket, asked: SocketsRequest, lender: &impl Lender) -> io::Result<()> {
    let malformed = || io::Error::other("a malformed request");
    let netns = asked.netns.ok_or_else(malformed)?;
    let netns = NetnsId {
        device: netns.device,
        inode: netns.inode,
    };
    let number = u16::try_from(asked.port).map_err(io::Error::other)?;
    let port = match asked.transport() {
        Transport::Tcp => Port::Tcp(number),
        Transport::Udp => Port::Udp(number),
        Transport::Unspecified => return Err(malformed()),
    };
    let owner = match asked.pod_uid.is_empty() {
        true => Owner::Process { netns },
        false => Owner::Pod {
            uid: asked.pod_uid.into(),
            netns,
        },
    };
    let sockets = lender.lend(owner, port).await;
    tracing::debug!(?port, sockets = sockets.len(), "lent");
    let mut packets: Vec<_> = sockets.chunks(MAX_DESCRIPTORS).collect();
    if packets.is_empty() {
        packets.push(&[]);
    }
    let last = packets.len() - 1;
    for (index, fds) in packets.into_iter().enumerate() {
        let more = index < last;
        let reply = reply(Answer::Sockets(Sockets { more }));
        let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        socket.send_with(&reply, &fds).await?;
    }
    Ok(())
}

async fn say(socket: &Socket, answer: Answer) -> io::Result<()> {
    socket.send(&reply(answer)).await
}

fn reply(answer: Answer) -> Reply {
    Reply {
        payload: Some(answer),
    }
}

#[cfg(test)]
mod tests;
