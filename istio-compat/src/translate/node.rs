//! What a node lends to its pods: the locality.

use mesh::workload::Locality;

use crate::labels;
use crate::view::View;

/// Empty where the node is not known.
pub(super) fn locality(view: &View, node: &str) -> Locality {
    let label = |key| {
        view.node(node)
            .and_then(|node| node.metadata.label(key))
            .unwrap_or_default()
            .into()
    };
    Locality {
        region: label(labels::REGION),
        zone: label(labels::ZONE),
        subzone: label(labels::SUBZONE),
    }
}
