//! What a namespace's labels and annotations lend to the objects in it.

use crate::kinds::metadata::ObjectMeta;
use crate::view::View;

/// The value of a label: the object's own, else its namespace's.
pub(super) fn inherited_label<'a>(
    view: &'a View,
    metadata: &'a ObjectMeta,
    key: &str,
) -> Option<&'a str> {
    metadata.label(key).or_else(|| {
        view.namespace(&metadata.namespace)
            .and_then(|namespace| namespace.metadata.label(key))
    })
}

/// The value of an annotation: the object's own, else its namespace's.
pub(super) fn inherited_annotation<'a>(
    view: &'a View,
    metadata: &'a ObjectMeta,
    key: &str,
) -> Option<&'a str> {
    metadata.annotation(key).or_else(|| {
        view.namespace(&metadata.namespace)
            .and_then(|namespace| namespace.metadata.annotation(key))
    })
}
