//! The waypoint: the L7 proxy in front of the services that need one.
//!
//! - [`app`]: the whole program, top-down.
//! - [`config`]: the environment, read once.
//! - [`sync`]: the control plane's resources.
//! - [`shared`]: what all workers share.
//! - [`message`]: requests and responses with streamed bodies; where the engine and the
//!   pipeline meet.
//! - [`access_log`], [`admin`]: what is told of it all.

pub mod app;

pub mod config;

pub mod sync;

pub mod shared;

pub mod message;

pub mod access_log;

pub mod admin;
