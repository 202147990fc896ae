//! The node's zero-trust tunnel: captures pods' TCP and DNS in their own network namespaces,
//! carries them over HBONE with mutual TLS, and enforces L4 policy.
//!
//! - [`app`]: the whole program, top-down.
//! - [`config`]: environment and files, read once.
//! - [`startup`]: what must be right before the first pod.
//! - [`sync`], [`local_xds`]: the mesh, from the control plane or a file.
//! - [`inpod`]: which pods the CNI agent hands over.
//! - [`handover`]: one process taking another's place.
//! - `packet`: packets with descriptors, for both.
//! - [`local`]: finding them among the mesh's workloads.
//! - [`certificates`] of their identities.
//! - [`proxy`]: the data path.
//! - [`dns`]: the DNS proxy.
//! - [`metrics`], [`access_log`], [`admin`]: what is told of it all.

pub mod app;

pub mod config;

pub mod startup;

pub mod sync;

pub mod local_xds;

pub mod inpod;

pub mod handover;

mod packet;

pub mod local;

pub mod certificates;

pub mod proxy;

pub mod dns;

pub mod metrics;

pub mod access_log;

pub mod admin;
