//! What a node tunnel and the one that takes its place say to each other.

pub use crate::generated::weft::handover::{
    Farewell, Hello, NetworkNamespace, Ready, Released, Reply, Request, Sockets, SocketsRequest,
    Transport, Welcome, reply, request,
};

/// Of the protocol. A change that older ones would misread gets another number.
pub const VERSION: u32 = 1;

/// Descriptors that the kernel lets through with one packet (`SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;
