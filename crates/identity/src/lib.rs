//! Certificates: request, rotate, verify; rustls configurations; the crypto provider.
//!
//! - `provider`: BoringSSL for rustls, and what it may negotiate
//! - `key`: keys that stay in memory
//! - `certificate`: a workload's certificate and the TLS configurations made from it
//! - `verify`, `peer`: what the other end must show, and who it turned out to be
//! - `verified`: who was let in once, and would not be any more
//! - `revocation`: what their issuers have taken back, by `serial`
//! - `manager`: a current certificate for every identity in use
//! - `request`, `ca_client`, `grpc`: asking a control plane for them
//! - `authority`, `serving`: signing them; a server's own

pub mod authority;
pub mod ca_client;
pub mod certificate;
pub mod grpc;
pub mod key;
pub mod manager;
mod peer;
mod provider;
mod request;
pub mod revocation;
pub mod serial;
pub mod serving;
mod verified;
pub mod verify;

pub use certificate::{WorkloadCertificate, no_server_name};
pub use peer::{identities, identity_of, key_exchange_group, peer_identity};
pub use provider::{InUse, KeyExchange, choose_key_exchange, provider};
pub use request::signing_request;
pub use verified::VerifiedClient;

#[cfg(test)]
mod memory;

#[cfg(test)]
mod tests;
