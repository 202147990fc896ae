//! The mesh that tests share when they change nothing in it.

use std::sync::OnceLock;

use tests::lab::Lab;

pub(crate) const YAML: &str = include_str!("objects/shop.yaml");

/// A shop of one's own, to change.
pub(crate) fn own() -> Lab {
    Lab::up(YAML).expect("the mesh starts")
}

/// The shared shop: started once, never changed, gone with the test process.
pub(crate) fn shared() -> &'static Lab {
    static SHOP: OnceLock<Lab> = OnceLock::new();
    SHOP.get_or_init(own)
}
