//! The control plane: objects to mesh resources, the certificate authority, xDS.
//!
//! - [`config`], [`failure`]: how it is started, and why it can't be
//! - [`source`]: where objects come from; [`folder`] is one such place
//! - [`ca`]: the certificate authority

pub mod config;
pub mod failure;

pub mod source;

pub mod folder;

pub mod ca;
