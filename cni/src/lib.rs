//! Redirect rules of a pod, and the agent that hands pods to ztunnel.
//!
//! - [`rules`]: which packets of a pod go to ztunnel, as data, and as nftables text.
//! - [`netns`]: work inside another network namespace without ever moving the caller.
//! - [`apply`]: puts the rules and their routes into a namespace, and reads them back.
//! - [`zds_server`]: tells ztunnel which pods it carries, and hands over their namespaces.
//! - [`connections`]: ends what is open in a namespace.
//! - [`agent`]: enrols and releases pods, and keeps them enrolled.

pub mod rules;

pub mod netns;

pub mod apply;

pub mod zds_server;

pub mod connections;

pub mod agent;
