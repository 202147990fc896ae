//! What the CNI agent and the node tunnel say to each other.

pub use crate::generated::istio::workload::zds::{
    Ack, AddWorkload, DelWorkload, KeepWorkload, SnapshotSent, Version, WorkloadInfo,
    WorkloadRequest, WorkloadResponse, ZdsHello, workload_request, workload_response,
};

/// Largest packet either side sends or accepts.
pub const MAX_PACKET: usize = 1024;
