//! What the tests share: the application in the pods and the mesh they run in.
//!
//! - [`peer`]: the application, server and clients.
//! - [`web`]: a web application, server and clients.
//! - [`bench`]: the loads of the benchmark and its table.
//! - [`forge`]: an attacker.
//! - [`wire`]: a bad cable.
//! - [`lab`]: a real mesh under a temporary state folder, gone when dropped.

pub mod bench;

pub mod forge;

pub mod peer;

pub mod web;

pub mod wire;

pub mod lab;
