//! The conversation with one ztunnel: hello, snapshot, then orders, each acknowledged in turn.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use prost::Message as _;
use proto::zds::{
    AddWorkload, DelWorkload, KeepWorkload, MAX_PACKET, SnapshotSent, Version, WorkloadInfo,
    WorkloadRequest, WorkloadResponse, ZdsHello, workload_request::Payload as RequestPayload,
    workload_response::Payload as ResponsePayload,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::packet::PacketSocket;
use super::{DEADLINE, Delivery};

/// One message to ztunnel.
#[derive(Debug)]
pub(super) struct Request {
    payload: RequestPayload,
    netns: Option<Arc<OwnedFd>>,
}

/// A request and where its acknowledgement goes.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) request: Request,
    pub(super) answer: oneshot::Sender<Result<(), String>>,
}

pub(super) enum Event {
    /// A pod was answered.
    Delivered(String, Delivery),
    Synced,
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("it did not answer in time")]
    Silent,
    #[error("it sent something unasked for")]
    Unexpected,
    #[error("its message could not be read: {0}")]
    Unreadable(#[from] prost::DecodeError),
    #[error("the agent is stopping")]
    Stopping,
}

/// Whether the peer speaks our version.
pub(super) async fn hello(socket: &PacketSocket) -> Result<(), End> {
    let packet = within(socket.receive()).await?;
    match ZdsHello::decode(packet.as_slice())?.version() {
        Version::V1 => Ok(()),
        Version::NotUsed => Err(End::Unexpected),
    }
}

/// Replays the snapshot, then carries orders until either side is gone.
pub(super) async fn run(
    socket: &PacketSocket,
    snapshot: Vec<(String, Request)>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    report: impl Fn(Event),
) -> End {
    for (uid, request) in snapshot {
        match exchange(socket, &request).await {
            Ok(result) => {
                // One pod that fails must not keep the others from their proxy.
                if let Err(reason) = &result {
                    tracing::warn!(uid, reason, "ztunnel did not take a known pod");
                }
                report(Event::Delivered(uid, result.into()));
            }
            Err(end) => return end,
        }
    }
    match exchange(socket, &Request::snapshot_sent()).await {
        Ok(Ok(())) => report(Event::Synced),
        Ok(Err(reason)) => tracing::warn!(reason, "ztunnel did not take the snapshot"),
        Err(end) => return end,
    }
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            // It speaks only when asked: anything here is a fault or the end.
            unasked = socket.receive() => return match unasked {
                Ok(_) => End::Unexpected,
                Err(error) => End::Broken(error),
            },
        };
        let Some(Order { request, answer }) = order else {
            return End::Stopping;
        };
        match exchange(socket, &request).await {
            Ok(result) => {
                if let RequestPayload::Add(add) = request.payload {
                    report(Event::Delivered(add.uid, result.clone().into()));
                }
                // Whoever asked may have stopped waiting.
                let _ = answer.send(result);
            }
            Err(end) => {
                let _ = answer.send(Err(end.to_string()));
                return end;
            }
        }
    }
}

/// Sends one request and reads its acknowledgement. Acknowledgements match by order alone, so
/// after a missing one the connection is of no more use.
async fn exchange(socket: &PacketSocket, request: &Request) -> Result<Result<(), String>, End> {
    let packet = match request.encode() {
        Ok(packet) => packet,
        Err(reason) => return Ok(Err(reason)),
    };
    let fd = request.netns.as_deref().map(|netns| netns.as_fd());
    within(socket.send(&packet, fd)).await?;
    let packet = within(socket.receive()).await?;
    match WorkloadResponse::decode(packet.as_slice())?.payload {
        Some(ResponsePayload::Ack(ack)) if ack.error.is_empty() => Ok(Ok(())),
        Some(ResponsePayload::Ack(ack)) => Ok(Err(ack.error)),
        None => Err(End::Unexpected),
    }
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> Result<T, End> {
    match timeout(DEADLINE, step).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(End::Silent),
    }
}

// === impl Delivery ===

impl From<Result<(), String>> for Delivery {
    fn from(acknowledgement: Result<(), String>) -> Delivery {
        match acknowledgement {
            Ok(()) => Delivery::Done,
            Err(reason) => Delivery::Pending { reason },
        }
    }
}

// === impl Request ===

impl Request {
    pub(super) fn add(uid: &str, info: WorkloadInfo, netns: Arc<OwnedFd>) -> Request {
        Request {
            payload: RequestPayload::Add(AddWorkload {
                uid: uid.to_owned(),
                workload_info: Some(info),
            }),
            netns: Some(netns),
        }
    }

    pub(super) fn keep(uid: &str) -> Request {
        Request {
            payload: RequestPayload::Keep(KeepWorkload {
                uid: uid.to_owned(),
            }),
            netns: None,
        }
    }

    pub(super) fn del(uid: &str) -> Request {
        Request {
            payload: RequestPayload::Del(DelWorkload {
                uid: uid.to_owned(),
            }),
            netns: None,
        }
    }

    fn snapshot_sent() -> Request {
        Request {
            payload: RequestPayload::SnapshotSent(SnapshotSent {}),
            netns: None,
        }
    }

    fn encode(&self) -> Result<Vec<u8>, String> {
        let mut request = WorkloadRequest {
            payload: Some(self.payload.clone()),
        };
        if request.encoded_len() > MAX_PACKET
            && let Some(RequestPayload::Add(AddWorkload {
                workload_info: Some(info),
                uid,
            })) = &mut request.payload
        {
            // Names in other search domains resolve more slowly without; the pod stays protected.
            tracing::warn!(uid, "too many DNS search domains for one packet: sent none");
            info.search_domains.clear();
        }
        if request.encoded_len() > MAX_PACKET {
            return Err(format!(
                "its names do not fit a packet of {MAX_PACKET} bytes"
            ));
        }
        Ok(request.encode_to_vec())
    }
}
