//! The node's zero-trust tunnel: captures pods' TCP and DNS in their own network namespaces,
//! carries them over HBONE with mutual TLS, and enforces L4 policy.
//!
//! - [`config`]: environment and files, read once.
//! - [`inpod`]: which pods the CNI agent hands over.
//! - [`local`]: finding them among the mesh's workloads.
//! - [`proxy`]: the data path.
//! - [`dns`]: the DNS proxy.
//! - [`metrics`]: what is told of it all.

pub mod config;

pub mod inpod;

pub mod local;

pub mod proxy;

pub mod dns;

pub mod metrics;

