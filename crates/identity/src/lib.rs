//! Certificates: request, rotate, verify; rustls configurations; the crypto provider.
//!
//! - [`provider()`]: BoringSSL for rustls, and what it may negotiate
//! - [`key`]: keys that stay in memory
//! - [`certificate`]: a workload's certificate and the TLS configurations made from it
//! - [`verify`]: what a peer must show
//! - [`peer_identity`], [`key_exchange_group`]: what a handshake established
//! - [`authority`]: signing

pub mod authority;
pub mod certificate;
pub mod key;
mod peer;
mod provider;
pub mod verify;

pub use certificate::{WorkloadCertificate, no_server_name};
pub use peer::{key_exchange_group, peer_identity};
pub use provider::provider;

#[cfg(test)]
mod tests;
