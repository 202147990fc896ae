//! The waypoint: the L7 proxy in front of the services that need one.
//!
//! - [`app`]: the whole program, top-down.
//! - [`config`]: the environment, read once; [`startup`]: what is given up.
//! - [`sync`]: the control plane's resources.
//! - [`shared`]: what all workers share.
//! - [`message`]: requests and responses with streamed bodies; where the engine and the
//!   pipeline meet.
//! - [`worker`], `listener`, `tunnel`: threads, their listeners, the tunnels of clients' nodes.
//! - [`sniff`]: what is spoken inside.
//! - [`http1`], [`http2`]: HTTP; `tcp`, `upgrade`: what is not HTTP, or no longer.
//! - [`upstream`]: connections to endpoints.
//! - `revocation`: peers whose certificates are taken back.
//! - `names`: addresses of endpoints that have only a hostname.
//! - [`limits`], `deadline`, `drain`: bounds in memory and time.
//! - `session`, `transport`: what a connection is served with, and its bytes.
//! - [`pipeline`]: what is decided of requests and connections.
//! - `jwt`, `jwks`: tokens, and the keys they are verified with.
//! - `telemetry`, [`access_log`], [`admin`]: what is told of it all.

pub mod app;

pub mod config;

pub mod startup;

pub mod sync;

pub mod shared;

pub mod message;

pub mod worker;

mod listener;

mod tunnel;

mod session;

pub mod sniff;

pub mod http1;

pub mod http2;

mod tcp;

mod upgrade;

pub mod upstream;

pub mod limits;

mod deadline;

mod drain;

mod revocation;

mod names;

mod transport;

pub mod pipeline;

mod jwt;

mod jwks;

mod telemetry;

pub mod access_log;

pub mod admin;
