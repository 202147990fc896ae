//! `weft`: the user's command, and the whole mesh on one machine.
//!
//! - [`command`]: what can be typed, one file per verb
//! - [`exit`]: exit codes and the error that carries one
//! - [`state`]: where everything lies on disk
//! - [`control`]: how commands talk to a running machine
//! - [`system`]: raw system calls
mod command;
mod control;
mod exit;
mod state;
mod system;

pub use command::main;
