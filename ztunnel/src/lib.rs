//! The node's zero-trust tunnel: captures pods' TCP and DNS in their own network namespaces,
//! carries them over HBONE with mutual TLS, and enforces L4 policy.
//!
//! - [`metrics`]: the label set of `istio_tcp_*`.
//! - [`proxy`]: the data path.

pub mod metrics;

pub mod proxy;
