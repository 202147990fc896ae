//! The mesh's vocabulary and every decision, as values and pure functions.
//!
//! Nothing here reads a clock, a socket, a file or the environment; callers pass
//! what they know and act on the answer.
//!
//! - [`identity`]: who a workload is (SPIFFE).
//! - [`address`]: addresses on named networks, hostnames in namespaces, gateways.
//! - [`workload`], [`service`]: endpoints and groups of endpoints.
//! - [`path`], [`authority`]: what a request is addressed to, in one form.
//! - [`request`]: an HTTP request as decisions see it.
//! - [`policy_target`]: what policies are attached to.
//! - [`authorization`]: policies and their evaluation, on connections and on requests.
//! - [`request_authentication`]: which tokens are accepted.
//! - [`json_web_token`]: the tokens themselves.
//! - [`route`]: which requests go to which backends.
//! - [`retry`], [`timeout`]: how often and how long; [`steering`]: what a client asks of both.
//! - [`grpc`], [`local_reply`]: what the proxy itself answers.
//! - [`snapshot`]: one immutable, indexed view of all of them.
//! - [`balancing`]: which endpoints, in which order.
//! - [`destination`]: where a captured connection goes, and whether it may come in.
//! - [`waypoint`]: what a waypoint decides of a request, in order.
//! - [`dns`]: which questions the mesh answers, and with what.

pub mod identity;

pub mod address;

pub mod workload;

pub mod service;

pub mod path;

pub mod authority;

mod prefix_index;

pub mod request;

pub mod policy_target;

pub mod authorization;

pub mod request_authentication;

pub mod json_web_token;

pub mod route;

pub mod retry;

pub mod timeout;

pub mod steering;

pub mod grpc;

pub mod local_reply;

pub mod snapshot;

pub mod balancing;

pub mod destination;

pub mod waypoint;

pub mod dns;
