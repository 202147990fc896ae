//! The HBONE tunnel: TCP streams as CONNECT requests of HTTP/2 over mutual TLS.
//!
//! Everything here runs on one thread: a worker's tunnels and copies never leave it.
//!
//! - [`settings`]: windows, limits and times.
//! - [`headers`]: what a CONNECT request says besides its target.
//! - [`client`], [`server`]: the two ends of a tunnel.
//! - [`stream`]: one tunnelled connection.
//! - [`copy`]: moving its bytes to and from a TCP socket.
//! - [`pool`]: tunnels shared by the connections of one pod to one peer.

pub mod settings;

pub mod headers;

pub mod client;

pub mod server;

pub mod stream;

pub mod copy;

pub mod pool;

mod guard;
mod keepalive;
mod tls;
mod unacknowledged;

#[cfg(test)]
mod tests;
