//! Protocol buffers of the mesh and their conversions to its vocabulary.
//!
//! - [`discovery`]: the envelope of xDS.
//! - [`workload`]: workloads and services.
//! - [`authorization`]: L4 policies.
//! - [`l7`]: routes, whole policies, accepted tokens: what waypoints need.
//! - [`zds`]: pods handed to the node tunnel.
//! - [`citadel`]: the certificate authority.
//! - [`handover`]: a node tunnel that takes another's place.
//!
//! A module holds its generated messages and their `TryFrom` to and `From` the types of
//! `mesh`; past this crate nobody handles a message's fields but to move it over a wire.

mod generated {
    #![allow(
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::allow_attributes_without_reason,
        reason = "written by prost and tonic from the .proto files"
    )]
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}

mod error;
mod ip;

pub use error::ConversionError;

pub mod discovery;

pub mod workload;

pub mod authorization;

pub mod l7;

pub mod zds;

pub mod citadel;

pub mod handover;

#[cfg(test)]
mod strategies;
