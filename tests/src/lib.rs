//! What the tests share: the application in the pods and the mesh they run in.
//!
//! - [`peer`]: the application, server and clients.
//! - [`lab`]: a real mesh under a temporary state folder, gone when dropped.

pub mod peer;

pub mod lab;
