//! Lays a patch over an object, which has to stay the object that the mesh made, and a good one.

use serde_json::Value;

use super::{Mistake, merge};
use crate::diagnostic::Severity;
use crate::labels;
use crate::node::Node;
use crate::object::Resource;
use crate::validate::{self, Problems, Validate};
use crate::waypoint::HBONE_PORT;
use crate::waypoint::deployment::CONTAINER;

pub(super) fn lay<T: Resource + Validate>(
    key: &str,
    patch: Option<&Value>,
    object: T,
) -> Result<T, Mistake> {
    let Some(patch) = patch else {
        return Ok(object);
    };
    let wrong = |field: &str, message: String| Mistake {
        key: key.to_owned(),
        line: 0,
        field: field.to_owned(),
        message,
    };
    let before = serde_json::to_value(&object).map_err(|error| wrong("", error.to_string()))?;
    let mut after = before.clone();
    merge::merge(&mut after, patch);
    for ((field, was), (_, is)) in kept(&before).into_iter().zip(kept(&after)) {
        if was != is {
            return Err(wrong(
                &field,
                "is the mesh's to say: leave it out".to_owned(),
            ));
        }
    }
    let object: T = serde_json::from_value(after).map_err(|error| wrong("", error.to_string()))?;
    let nothing = Node::empty();
    let mut problems = Problems::new(&nothing);
    validate::metadata(object.metadata(), &mut problems);
    object.validate(&mut problems);
    let mut problems = problems.into_inner().into_iter();
    match problems.find(|problem| problem.severity == Severity::Error) {
        Some(problem) => Err(wrong(&problem.field, problem.message)),
        None => Ok(object),
    }
}

/// Of an object as JSON, what no patch may change, by its path: by these the mesh knows the waypoint,
/// and the machine what to run.
fn kept(object: &Value) -> Vec<(String, Option<&Value>)> {
    const PATHS: [&str; 10] = [
        "metadata.name",
        "metadata.generateName",
        "metadata.namespace",
        "metadata.uid",
        "metadata.creationTimestamp",
        "metadata.deletionTimestamp",
        "metadata.ownerReferences",
        "spec.selector",
        "spec.template.spec.serviceAccountName",
        "spec.template.spec.serviceAccount",
    ];
    const LABELS: [&str; 4] = [
        labels::MANAGED,
        labels::GATEWAY_NAME,
        labels::DATAPLANE_MODE,
        labels::TUNNEL,
    ];
    let at = |path: &str| {
        path.split('.')
            .try_fold(object, |value, key| value.get(key))
    };
    let item = |list: &str, field: &str, wanted: Value| {
        let items = at(list).and_then(Value::as_array).into_iter().flatten();
        items.into_iter().find(|item| item[field] == wanted)
    };
    let mut kept: Vec<_> = PATHS
        .iter()
        .map(|path| ((*path).to_owned(), at(path)))
        .collect();
    kept.push(("status".to_owned(), object.get("status")));
    for of in ["metadata.labels", "spec.template.metadata.labels"] {
        let labels = at(of);
        kept.extend(LABELS.iter().map(|key| {
            (
                format!("{of}[\"{key}\"]"),
                labels.and_then(|labels| labels.get(*key)),
            )
        }));
    }
    let containers = "spec.template.spec.containers";
    let container = item(containers, "name", CONTAINER.into());
    for field in ["name", "command", "args", "workingDir"] {
        let value = container.and_then(|container| container.get(field));
        kept.push((format!("{containers}[{CONTAINER}].{field}"), value));
    }
    let port = item("spec.ports", "port", HBONE_PORT.into());
    kept.push((format!("spec.ports[{HBONE_PORT}]"), port));
    kept
}
