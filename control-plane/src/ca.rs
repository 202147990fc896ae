//! The certificate authority: who may have which certificate, and the service that issues them.
//!
//! - `authority`, `store`: the signing key and its files; `rotation`: replacing the root in use;
//!   `revocations`: what has been taken back
//! - `token`: who asks; `node_authorizer`: what they may ask for
//! - `csr`: what a request must be; `service`: the gRPC service over all of these
//! - `serving`: the control plane's own certificate

mod authority;
mod csr;
mod node_authorizer;
mod revocations;
mod rotation;
mod service;
mod serving;
mod store;
mod token;

pub use authority::{Authority, Trust};
pub use node_authorizer::{Account, PodRecord, Pods, Refusal, running_pod};
pub use rotation::{Phase, Step};
pub use service::{Policy, Service, service};
pub use serving::Serving;
pub use store::StoreError;
pub use token::{Authenticator, Caller, PodReference, TokenError};

#[cfg(test)]
mod tests;
