//! Delta xDS, both halves, for the resource types of the mesh.
//!
//! - [`resource_type`]: addresses, policies, routes, and which proxies need which.
//! - [`node`]: who a client says it is.
//! - [`client`]: keeps a node in sync with a control plane.
//! - [`state`]: what a node knows of the mesh, for its data path.
//! - [`server`]: keeps any number of nodes in sync with a set of resources.

pub mod resource_type;

pub mod node;

pub mod client;

pub mod state;

pub mod server;
