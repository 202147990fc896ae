//! Golden pairs: `golden/KIND/CASE/in.yaml` translates to `out.yaml` beside it.
//!
//! `UPDATE=1 cargo test -p istio-compat --test compat golden` rewrites the outputs; read the
//! difference before committing it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use istio_compat::diagnostic::Diagnostic;
use istio_compat::kind::Kind;
use istio_compat::object::Object;
use istio_compat::parse::{Parsed, Raw, parse};
use istio_compat::view::{Context, View};
use istio_compat::waypoint::deployment;
use serde_json::{Map, Value, json};

use crate::shown;

/// The folders of all cases.
pub(crate) fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    folders(&root)
        .iter()
        .flat_map(|kind| folders(kind))
        .collect()
}

#[test]
fn every_case_translates_as_written() {
    let update = std::env::var_os("UPDATE").is_some();
    let cases = cases();
    assert!(cases.len() >= 100, "only {} cases found", cases.len());
    let mut different = Vec::new();
    for case in cases {
        let output = translate(&case);
        let expected = case.join("out.yaml");
        if update {
            fs::write(&expected, output).expect("out.yaml is writable");
        } else if fs::read_to_string(&expected).unwrap_or_default() != output {
            different.push(format!("{}:\n{output}", case.display()));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).expect("a folder");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    folders
}

/// All that the objects of a case come to. Where the case is about policies, workloads are
/// shown by the policies they list; where it is about parameters, what runs the waypoints is shown.
fn translate(case: &Path) -> String {
    let objects = read(&case.join("in.yaml"));
    let mut view = View::new(Context::default());
    for object in &objects {
        view.apply(&object.key(), Some(object));
    }
    let policies = [
        "authorization_policy",
        "peer_authentication",
        "request_authentication",
    ];
    let about_policies = is_about(case, &policies);
    let mut output: BTreeMap<&str, Value> = BTreeMap::new();
    let mut add = |section, value: Value| {
        let list = output.entry(section).or_insert_with(|| json!([]));
        list.as_array_mut().expect("a list").push(value);
    };
    for object in &objects {
        let translation = view.translate(&object.key());
        for workload in translation.workloads {
            let value = serde_json::to_value(&workload).expect("serializable");
            if about_policies {
                add(
                    "workloads",
                    without_empty_lists(json!({
                        "uid": value["uid"],
                        "authorizationPolicies": value["authorizationPolicies"],
                        "requestPolicies": value["requestPolicies"],
                        "requestAuthentications": value["requestAuthentications"],
                    })),
                );
            } else {
                add("workloads", without_blanks(value));
            }
        }
        for service in translation.services {
            let value = serde_json::to_value(&service).expect("serializable");
            add("services", without_blanks(value));
        }
        for authorization in translation.authorizations {
            let value = serde_json::to_value(&authorization).expect("serializable");
            add("authorizations", value);
        }
        for policy in translation.authorization_policies {
            let value = serde_json::to_value(&policy).expect("serializable");
            add("authorizationPolicies", value);
        }
        for policy in translation.request_authentications {
            add(
                "requestAuthentications",
                shown::request_authentication(&policy),
            );
        }
        for route in translation.routes {
            add("routes", shown::route(&route));
        }
        for parent in translation.parents {
            let value = serde_json::to_value(&parent).expect("serializable");
            add("parents", value);
        }
        if let Some(gateway) = translation.gateway {
            let value = serde_json::to_value(&gateway).expect("serializable");
            add("gateways", without_blanks(value));
        }
        // Those of a route are its parents', together.
        let conditions = match object.kind() {
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TcpRoute => Vec::new(),
            _ => translation.conditions,
        };
        for condition in conditions {
            let mut value = serde_json::to_value(&condition).expect("serializable");
            value["object"] = object.key().to_string().into();
            add("conditions", value);
        }
    }
    if is_about(case, &["parameters"]) {
        let made = deployment::wanted(&view, []).objects.into_iter();
        for body in made.filter(|body| body.kind() != Kind::GatewayClass) {
            add("made", serde_json::to_value(&body).expect("serializable"));
        }
    }
    serde_saphyr::to_string(&output).expect("serializable")
}

fn is_about(case: &Path, kinds: &[&str]) -> bool {
    let folder = case.parent();
    folder.is_some_and(|folder| kinds.iter().any(|kind| folder.ends_with(kind)))
}

pub(crate) fn read(path: &Path) -> Vec<Object> {
    let content = fs::read(path).expect("in.yaml is readable");
    let Parsed { objects, warnings } = parse(&path.display().to_string(), &content, Raw::Drop)
        .unwrap_or_else(|rejected| panic!("{:#?}", rejected.errors));
    // What is not honoured yet is warned of, and comes to something all the same.
    let is_known = |warning: &Diagnostic| warning.message.contains("is not honoured yet");
    assert!(warnings.iter().all(is_known), "{warnings:#?}");
    objects
}

/// Leaves out the lists that only some cases are about.
fn without_empty_lists(mut value: Value) -> Value {
    for field in ["requestPolicies", "requestAuthentications"] {
        if is_blank(&value[field])
            && let Some(fields) = value.as_object_mut()
        {
            fields.remove(field);
        }
    }
    value
}

/// Leaves out what is empty, so that a case shows what it is about.
fn without_blanks(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, value)| (key, without_blanks(value)))
                .filter(|(_, value)| !is_blank(value))
                .collect::<Map<_, _>>(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_blanks).collect()),
        value => value,
    }
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[test]
fn the_examples_read_without_warnings() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples");
    let mut objects = 0;
    for entry in fs::read_dir(examples).expect("a folder") {
        objects += read(&entry.expect("readable").path()).len();
    }
    assert!(objects > 0);
}
