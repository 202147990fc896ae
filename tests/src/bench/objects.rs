//! The objects of the benchmark: the same pods outside the mesh, on our nodes, on another's.

use super::system::System;

/// A client and a server on its node (`near`) and on the other one (`far`).
const PODS: &str = include_str!("objects.yaml");
/// A server that speaks HBONE itself.
const COLD: &str = include_str!("cold.yaml");

/// The pods of one system.
pub(super) fn pods(system: System) -> String {
    let mode = match system {
        System::Plain => "none",
        System::Weft | System::Other => "ambient",
    };
    fill(PODS, system).replace("MODE", mode)
}

/// The pod of one system that ends each tunnel after a connection.
pub(super) fn cold(system: System, authority: &str) -> String {
    fill(COLD, system).replace("AUTHORITY", authority)
}

fn fill(yaml: &str, system: System) -> String {
    let [near, far] = system.nodes();
    yaml.replace("NAMESPACE", system.name())
        .replace("NEAR", near)
        .replace("FAR", far)
}
