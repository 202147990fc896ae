//! The waypoint: the L7 proxy in front of the services that need one.
//!
//! - [`message`]: requests and responses with streamed bodies; where the engine and the
//!   pipeline meet.

pub mod message;
