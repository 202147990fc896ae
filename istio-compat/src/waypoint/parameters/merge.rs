//! Kubernetes' strategic merge patch over JSON: mappings are merged, null removes, lists of named
//! things are merged item by item, other lists are replaced.

use serde_json::{Map, Value};

use crate::node::{self, Node};

/// What is to become of the mapping that has it: `merge` where absent, `replace`, or `delete`.
/// As an item of a list that is merged, `$patch: replace` alone replaces the list.
const DIRECTIVE: &str = "$patch";

/// By which fields the items of a list are told apart, where Kubernetes merges it item by item.
fn keys(list: &str) -> &'static [&'static str] {
    match list {
        "containers" | "initContainers" | "env" => &["name"],
        "ports" => &["containerPort", "port"],
        _ => &[],
    }
}

pub(super) fn merge(base: &mut Value, patch: &Value) {
    field("", base, patch);
}

fn field(name: &str, base: &mut Value, patch: &Value) {
    match patch {
        Value::Object(patch) => {
            if directive(patch) == "replace" || !base.is_object() {
                *base = Value::Object(Map::new());
            }
            let Value::Object(fields) = base else {
                return;
            };
            for (key, value) in patch.iter().filter(|(key, _)| *key != DIRECTIVE) {
                if removes(value) {
                    fields.remove(key);
                } else {
                    field(
                        key,
                        fields.entry(key.as_str()).or_insert(Value::Null),
                        value,
                    );
                }
            }
        }
        Value::Array(items) => {
            let keys = keys(name);
            let whole = keys.is_empty() || items.iter().any(|item| is_marker(keys, item));
            let mut merged = match base.take() {
                Value::Array(known) if !whole => known,
                _ => Vec::new(),
            };
            for item in items.iter().filter(|item| !is_marker(keys, item)) {
                list_item(keys, &mut merged, item);
            }
            *base = Value::Array(merged);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *base = patch.clone();
        }
    }
}

/// Whether the item only says that the others are the whole list.
fn is_marker(keys: &[&str], item: &Value) -> bool {
    says(item, "replace") && keys.iter().all(|key| item.get(key).is_none())
}

fn list_item(keys: &[&str], list: &mut Vec<Value>, patch: &Value) {
    let same = |known: &Value| {
        let mut keys = keys.iter().filter_map(|key| Some((key, patch.get(key)?)));
        keys.any(|(key, value)| known.get(key) == Some(value))
    };
    match (list.iter().position(same), says(patch, "delete")) {
        (Some(index), true) => drop(list.remove(index)),
        (None, true) => {}
        (Some(index), false) => field("", &mut list[index], patch),
        (None, false) => {
            let mut new = Value::Null;
            field("", &mut new, patch);
            list.push(new);
        }
    }
}

fn removes(value: &Value) -> bool {
    value.is_null() || says(value, "delete")
}

fn says(value: &Value, wanted: &str) -> bool {
    value
        .as_object()
        .is_some_and(|fields| directive(fields) == wanted)
}

fn directive(fields: &Map<String, Value>) -> &str {
    fields
        .get(DIRECTIVE)
        .and_then(Value::as_str)
        .unwrap_or("merge")
}

/// Whether the path of a field ends in a directive, of which [`check`] tells.
pub(super) fn is_directive(path: &str) -> bool {
    path.rsplit('.')
        .next()
        .is_some_and(|last| last.starts_with('$'))
}

/// What of a patch can't be merged, by its path: directives that are not known, and items that
/// nothing tells apart.
pub(super) fn check(patch: &Node) -> Vec<(String, String)> {
    let mut mistakes = Vec::new();
    check_field("", "", patch, &mut mistakes);
    mistakes
}

fn check_field(path: &str, name: &str, node: &Node, mistakes: &mut Vec<(String, String)>) {
    match &node.value {
        node::Value::Mapping(entries) => {
            for entry in entries {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{}", entry.key);
                if entry.key.starts_with('$') {
                    let value = entry.value.as_str().filter(|_| entry.key == DIRECTIVE);
                    if !value.is_some_and(|one| ["merge", "replace", "delete"].contains(&one)) {
                        let message = "is no directive that is followed: use $patch with merge, \
                                       replace or delete";
                        mistakes.push((path, message.to_owned()));
                    }
                } else {
                    check_field(&path, &entry.key, &entry.value, mistakes);
                }
            }
        }
        node::Value::Sequence(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                let has = |key: &str| item.get(key).is_some_and(|value| !value.is_null());
                let replaces = item.get(DIRECTIVE).and_then(Node::as_str) == Some("replace");
                let keys = keys(name);
                if !keys.is_empty() && !replaces && !keys.iter().any(|key| has(key)) {
                    mistakes.push((
                        path.clone(),
                        format!("has no {}: add it", keys.join(" or ")),
                    ));
                }
                check_field(&path, "", item, mistakes);
            }
        }
        node::Value::Null
        | node::Value::Bool(_)
        | node::Value::Integer(_)
        | node::Value::Unsigned(_)
        | node::Value::Float(_)
        | node::Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests;
