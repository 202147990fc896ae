//! `weft`: the user's command, and the whole mesh on one machine.
//!
//! - [`command`]: what can be typed, one file per verb
//! - [`exit`]: exit codes and the error that carries one
//! - [`state`]: where everything lies on disk
//! - [`control`]: how commands talk to a running machine
//! - [`http`], [`table`], [`yaml`]: asking the pieces, and printing what they say
//! - [`objects`]: the folder's objects and edits of them
//! - [`bookinfo`]: the demo application
//! - [`machine`]: the mesh on one machine
//! - [`system`]: raw system calls
mod bookinfo;
mod command;
mod control;
mod exit;
mod http;
mod machine;
mod objects;
mod state;
mod system;
mod table;
mod yaml;

pub use command::main;
