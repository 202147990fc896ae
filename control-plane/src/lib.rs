//! The control plane: objects to mesh resources, the certificate authority, xDS.
//!
//! - [`config`], [`failure`]: how it is started, and why it can't be
//! - [`source`]: where objects come from; [`folder`] is one such place
//! - [`index`]: from objects to resources, incrementally
//! - [`controller`]: the one writer between a source and everybody who reads
//! - [`ca`]: the certificate authority; `pods` is what it knows of them
//! - `waypoints`: the objects that run waypoints, put where the machine finds them
//! - [`serve`]: the program: xDS and certificates for proxies, `api` for people, `telemetry`

pub mod config;
pub mod failure;

pub mod source;

pub mod folder;

pub mod index;

pub mod controller;

pub mod ca;

mod pods;

mod waypoints;

pub mod serve;

mod api;
mod telemetry;
