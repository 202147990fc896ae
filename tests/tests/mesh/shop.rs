//! The mesh that tests share when they change nothing in it.

use std::ops::Deref;
use std::sync::OnceLock;
use std::thread;

use tests::lab::Lab;

pub(crate) const YAML: &str = include_str!("objects/shop.yaml");

/// The head of other meshes' YAML: `shop`, whose pods are captured, and `plain`, whose are not.
pub(crate) const NAMESPACES: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
---
";

/// A test's use of the shared shop. Nobody drops the shop itself, so the link between its nodes
/// is checked when a test is done with it.
pub(crate) struct Shared(&'static Lab);

/// A shop of one's own, to change.
pub(crate) fn own() -> Lab {
    Lab::up(YAML).expect("the mesh starts")
}

/// The shared shop: started once, never changed, gone with the test process.
pub(crate) fn shared() -> Shared {
    static SHOP: OnceLock<Lab> = OnceLock::new();
    Shared(SHOP.get_or_init(own))
}

// === impl Shared ===

impl Deref for Shared {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.0.check_link();
        }
    }
}
