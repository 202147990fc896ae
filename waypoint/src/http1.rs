//! HTTP/1.1 (RFC 9112), of our own on `httparse`: strict about what can be understood in two
//! ways, and without a copy or a buffer that a message does not need.
//!
//! - [`head`], [`framing`], [`chunked`]: reading, without I/O.
//! - `encode`: writing, without I/O.
//! - `wire`: a transport with what was read ahead and what waits to be written.
//! - `connection`: a client's connection.
//! - `call`: one request to an endpoint.
//! - [`fuzz`]: what must hold of any input.

pub mod head;

pub mod framing;

pub mod chunked;

pub(crate) mod encode;

pub(crate) mod wire;

pub(crate) mod connection;

pub(crate) mod call;

pub mod fuzz;
