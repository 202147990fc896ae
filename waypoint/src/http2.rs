//! HTTP/2 (RFC 9113), with prior knowledge: framing, flow control and HPACK are the `h2` crate's,
//! what a message may be is ours.
//!
//! - [`message`]: requests and responses on their way in and out, without I/O.
//! - `body`: content from and to a stream.
//! - `server`: a client's connection; `refusals`: what the crate refuses of it by itself.
//! - `client`: a connection to an endpoint.

pub mod message;

pub(crate) mod body;

pub(crate) mod server;

mod refusals;

pub(crate) mod client;
