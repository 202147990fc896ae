//! The node's zero-trust tunnel: captures pods' TCP and DNS in their own network namespaces,
//! carries them over HBONE with mutual TLS, and enforces L4 policy.
//!
//! - [`config`]: environment and files, read once.
//! - [`proxy`]: the data path.
//! - [`metrics`]: what is told of it all.

pub mod config;

pub mod proxy;

pub mod metrics;

