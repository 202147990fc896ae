//! What patches come to, and which can't be merged.

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{check, merge};
use crate::parse::document;

#[track_caller]
fn merged(base: Value, patch: Value, expected: Value) {
    let mut result = base;
    merge(&mut result, &patch);
    assert_eq!(result, expected, "{patch}");
}

#[test]
fn mappings_are_merged_and_null_removes() {
    merged(
        json!({"labels": {"a": "1", "b": "2"}, "replicas": 1}),
        json!({"labels": {"b": null, "c": "3"}, "gone": null, "new": {"x": null, "y": 1}}),
        json!({"labels": {"a": "1", "c": "3"}, "replicas": 1, "new": {"y": 1}}),
    );
}

#[test]
fn named_items_are_merged_and_others_appended() {
    merged(
        json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]}),
        json!({"containers": [
            {"name": "b"},
            {"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "3"}]},
        ]}),
        json!({"containers": [
            {"name": "a", "env": [{"name": "X", "value": "3"}, {"name": "Y", "value": "2"}]},
            {"name": "b"},
        ]}),
    );
}

#[test]
fn ports_are_told_apart_by_their_number() {
    merged(
        json!({"ports": [{"port": 80, "name": "http"}]}),
        json!({"ports": [{"port": 80, "targetPort": 8080}, {"port": 81}]}),
        json!({"ports": [{"port": 80, "name": "http", "targetPort": 8080}, {"port": 81}]}),
    );
    merged(
        json!({"ports": [{"containerPort": 80, "name": "http"}]}),
        json!({"ports": [{"containerPort": 80, "name": "web"}]}),
        json!({"ports": [{"containerPort": 80, "name": "web"}]}),
    );
}

#[test]
fn other_lists_are_replaced() {
    merged(
        json!({"args": ["a", "b"], "searches": ["x"]}),
        json!({"args": ["c"]}),
        json!({"args": ["c"], "searches": ["x"]}),
    );
}

#[test]
fn directives_delete_and_replace() {
    let base = json!({"labels": {"a": "1"}, "env": [{"name": "X"}, {"name": "Y"}]});
    merged(
        base.clone(),
        json!({"labels": {"$patch": "replace", "b": "2"}, "env": [{"name": "X", "$patch": "delete"}]}),
        json!({"labels": {"b": "2"}, "env": [{"name": "Y"}]}),
    );
    merged(
        base.clone(),
        json!({"labels": {"$patch": "delete"}, "env": [{"$patch": "replace"}, {"name": "Z"}]}),
        json!({"env": [{"name": "Z"}]}),
    );
    merged(
        base,
        json!({"env": [{"name": "X", "$patch": "replace", "value": "1"}, {"name": "Q", "$patch": "delete"}]}),
        json!({"labels": {"a": "1"}, "env": [{"name": "X", "value": "1"}, {"name": "Y"}]}),
    );
}

#[test]
fn what_cant_be_merged_is_named() {
    let check = |text: &str| {
        let node = document(text).expect("YAML").expect("a document");
        let mistakes = check(&node).into_iter();
        mistakes.map(|(field, _)| field).collect::<Vec<_>>()
    };
    assert_eq!(
        check("{env: [{name: X, $patch: merge}, {$patch: replace}]}"),
        [""; 0]
    );
    assert_eq!(
        check("{spec: {env: [{name: X}, {value: a}]}}"),
        ["spec.env[1]"]
    );
    assert_eq!(check("{ports: [{name: http}]}"), ["ports[0]"]);
    assert_eq!(check("{spec: {$patch: remove}}"), ["spec.$patch"]);
    assert_eq!(check("{spec: {$retainKeys: [a]}}"), ["spec.$retainKeys"]);
}

/// Anything that a patch may say, directives included.
fn patches() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        "[ab]".prop_map(Value::from)
    ];
    let keys = prop::sample::select(vec!["name", "env", "ports", "port", "x", "$patch"]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(keys.clone(), inner, 0..4).prop_map(|fields| {
                let fields = fields
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value));
                Value::Object(fields.collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_patch_merges_and_leaves_no_directive(base in patches(), patch in patches()) {
        let mut nothing = Value::Null;
        merge(&mut nothing, &base);
        let mut result = nothing.clone();
        merge(&mut result, &json!({}));
        if nothing.is_object() {
            prop_assert_eq!(&result, &nothing);
        }
        merge(&mut result, &patch);
        prop_assert!(!result.to_string().contains("$patch"), "{}", result);
    }
}
