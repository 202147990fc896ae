//! What the agent asks for, from packets.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use prost::Message;
use proto::zds::WorkloadRequest;
use proto::zds::workload_request::Payload;

use super::netns::{self, NetnsId};
pub use crate::packet::Packet;
use crate::proxy::{PodSpec, Served, WorkloadInfo};

/// One request.
#[derive(Debug)]
pub enum Request {
    Add(Pod),
    Keep(Arc<str>),
    Delete(Arc<str>),
    SnapshotSent,
}

/// A pod to serve.
#[derive(Clone, Debug)]
pub struct Pod {
    pub spec: PodSpec,
    /// Its own DNS search domains; none where the agent doesn't say.
    pub search_domains: Vec<String>,
    pub netns_id: NetnsId,
}

/// A packet that is no request.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("cannot decode the request: {0}")]
    Message(#[from] prost::DecodeError),
    #[error("the request has no payload this version knows")]
    Payload,
    #[error("AddWorkload without workload_info")]
    MissingWorkloadInfo,
    #[error("AddWorkload needs one descriptor and has {0}")]
    Descriptors(usize),
    #[error("only AddWorkload comes with a descriptor")]
    UnexpectedDescriptor,
    #[error("the descriptor is not a network namespace: {0}")]
    Netns(io::Error),
}

// === impl Request ===

impl Request {
    pub fn decode(packet: Packet) -> Result<Self, DecodeError> {
        let request = WorkloadRequest::decode(&*packet.bytes)?;
        let payload = request.payload.ok_or(DecodeError::Payload)?;
        let Payload::Add(add) = payload else {
            if !packet.fds.is_empty() {
                return Err(DecodeError::UnexpectedDescriptor);
            }
            return Ok(match payload {
                Payload::Keep(keep) => Self::Keep(keep.uid.into()),
                Payload::Del(delete) => Self::Delete(delete.uid.into()),
                Payload::SnapshotSent(_) | Payload::Add(_) => Self::SnapshotSent,
            });
        };
        let info = add.workload_info.ok_or(DecodeError::MissingWorkloadInfo)?;
        let count = packet.fds.len();
        let [fd] =
            <[OwnedFd; 1]>::try_from(packet.fds).map_err(|_| DecodeError::Descriptors(count))?;
        let (fd, netns_id) = netns::identify(fd).map_err(DecodeError::Netns)?;
        Ok(Self::Add(Pod {
            spec: PodSpec {
                uid: add.uid.into(),
                info: WorkloadInfo {
                    name: info.name.into(),
                    namespace: info.namespace.into(),
                    service_account: info.service_account.into(),
                },
                netns: Some(fd),
                served: Served::Everything,
            },
            search_domains: info.search_domains,
            netns_id,
        }))
    }
}

// === impl DecodeError ===

impl DecodeError {
    /// Not a broken packet but an agent that speaks something else.
    pub(super) fn is_protocol_violation(&self) -> bool {
        matches!(self, Self::MissingWorkloadInfo)
    }
}
