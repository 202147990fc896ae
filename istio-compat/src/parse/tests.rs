//! Tests of reading files.

use super::*;
use crate::kinds::IntOrString;
use crate::kinds::metadata::Condition;

fn read(text: &str) -> Result<Parsed, Rejected> {
    parse("shop.yaml", text.as_bytes(), Raw::Drop)
}

fn objects(text: &str) -> Vec<Object> {
    let parsed = read(text).unwrap_or_else(|rejected| panic!("{:#?}", lines(&rejected.errors)));
    assert_eq!(lines(&parsed.warnings), [""; 0], "warnings of {text}");
    parsed.objects
}

fn errors(text: &str) -> Vec<String> {
    lines(&read(text).expect_err("a mistake").errors)
}

fn warnings(text: &str) -> Vec<String> {
    match read(text) {
        Ok(parsed) => lines(&parsed.warnings),
        Err(rejected) => panic!("{:#?}", lines(&rejected.errors)),
    }
}

fn lines(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

const SERVICE: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
spec:
  ports:
  - port: 80
    targetPort: http
";

#[test]
fn documents_know_their_lines() {
    let text = format!(
        "# the shop\n{SERVICE}---\n---\n# nothing\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: shop}}\n"
    );
    let objects = objects(&text);
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[0].origin.to_string(), "shop.yaml:2");
    assert_eq!(objects[0].key().to_string(), "Service shop/web");
    assert_eq!(objects[1].origin.to_string(), "shop.yaml:15");
    let service = objects[0].get::<Service>().expect("a service");
    assert_eq!(
        service.spec.ports[0].target_port,
        Some(IntOrString::String("http".into()))
    );
}

#[test]
fn windows_line_ends_and_byte_order_marks_are_read() {
    let text = format!("\u{feff}{}", SERVICE.replace('\n', "\r\n"));
    assert_eq!(objects(&text).len(), 1);
}

#[test]
fn json_and_lists_are_read() {
    let text = r#"{"apiVersion":"v1","kind":"List","items":[
        {"apiVersion":"v1","kind":"Namespace","metadata":{"name":"shop","resourceVersion":"7"}},
        {"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"web"}}]}"#;
    let objects = objects(text);
    assert_eq!(objects[1].key().to_string(), "ServiceAccount default/web");
}

#[test]
fn mistakes_in_json_have_places_too() {
    let text = "{\"apiVersion\":\"v1\",\n \"kind\":\"Pod\",\n \"metadata\":{\"name\":\"A\"}}";
    assert!(
        errors(text)[0].starts_with("shop.yaml:3:"),
        "{:?}",
        errors(text)
    );
    let twice = r#"{"apiVersion":"v1","kind":"Namespace","kind":"Pod"}"#;
    assert_eq!(errors(twice).len(), 1);
}

#[test]
fn unknown_fields_are_warned_of_with_their_place() {
    let text = SERVICE.replace("targetPort", "targtPort");
    assert_eq!(
        warnings(&text),
        [
            "shop.yaml:9:5: warning: Service shop/web: spec.ports[0].targtPort: \
          is not a known field (did you mean targetPort?): it has no effect"
        ]
    );
}

#[test]
fn session_affinity_is_warned_of_where_it_is_wanted() {
    for (value, warned) in [("ClientIP", true), ("None", false), ("", false)] {
        let text = format!("{SERVICE}  sessionAffinity: {value}\n");
        let expected = "shop.yaml:10:3: warning: Service shop/web: spec.sessionAffinity: \
                        is not honoured: it has no effect";
        let expected: &[&str] = if warned { &[expected] } else { &[] };
        assert_eq!(warnings(&text), expected, "{value:?}");
    }
}

#[test]
fn unknown_fields_of_a_security_policy_are_errors() {
    let text = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a}
spec:
  rules:
  - from:
    - source:
        principal: [cluster.local/ns/shop/sa/web]
";
    assert_eq!(
        errors(text),
        ["shop.yaml:8:9: error: AuthorizationPolicy default/a: \
          spec.rules[0].from[0].source.principal: \
          is not a known field (did you mean principals?)"]
    );
}

#[test]
fn an_emptied_list_in_a_policy_is_an_error() {
    let text = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a}
spec:
  rules:
  - from:
    - source:
        namespaces: [shop]
        ipBlocks: []
  - to:
";
    let errors = errors(text);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].starts_with("shop.yaml:9:9: error: "),
        "{errors:?}"
    );
    assert!(errors[1].starts_with("shop.yaml:10:"), "{errors:?}");
}

#[test]
fn a_rule_without_value_is_an_error() {
    let text = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: a}
spec:
  rules:
  -
";
    assert!(errors(text)[0].contains("spec.rules[0]: has no value"));
}

#[test]
fn numbers_are_no_texts() {
    let text = SERVICE.replace("name: web", "name: 5");
    assert_eq!(
        errors(&text),
        ["shop.yaml:4:9: error: Service: metadata.name: \
          must be a text: put it in quotes, not 5 (a number)"]
    );
    let text = SERVICE.replace("port: 80", "port: 70000");
    assert_eq!(
        errors(&text),
        ["shop.yaml:8:11: error: Service: spec.ports[0].port: \
          must be a whole number from 0 to 65535, not 70000 (a number)"]
    );
}

#[test]
fn one_bad_document_rejects_the_file() {
    let text = format!("{SERVICE}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: Shop}}\n");
    let errors = errors(&text);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].starts_with("shop.yaml:13:"), "{errors:?}");
}

#[test]
fn syntax_errors_have_places() {
    for (text, place) in [
        ("a: [1\nb: 2\n", "shop.yaml:2:"),
        ("kind: Pod\n\tmetadata: {}\n", "shop.yaml:1:"),
        ("a: 1\na: 2\n", "shop.yaml:2:1"),
        ("a: *nothing\n", "shop.yaml:1:4"),
    ] {
        let errors = errors(text);
        assert!(errors[0].starts_with(place), "{text:?}: {errors:?}");
    }
}

#[test]
fn a_tab_is_named() {
    assert!(errors("kind: Pod\nmetadata:\n\tname: a\n")[0].contains("not tabs"));
}

#[test]
fn bytes_that_are_no_text_are_named() {
    let error = parse("x.yaml", b"a: 1\nb: \xff\n", Raw::Drop).expect_err("not UTF-8");
    assert_eq!(
        lines(&error.errors),
        ["x.yaml:2:4: error: the file is not UTF-8 text"]
    );
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*a{}", level - 1);
        let list = vec![before; 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert_eq!(errors(&text).len(), 1);
}

#[test]
fn anchors_are_read() {
    let text = "\
apiVersion: v1
kind: Service
metadata:
  name: web
  labels: &labels {app: web}
spec:
  selector: *labels
  ports: [{port: 80}]
";
    let objects = objects(text);
    let service = objects[0].get::<Service>().expect("a service");
    assert_eq!(service.spec.selector["app"], "web");
}

#[test]
fn kinds_that_are_not_honoured_are_named() {
    let document = |api_version: &str, kind: &str| {
        format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a, namespace: b}}\n")
    };
    assert_eq!(
        warnings(&document("gateway.networking.k8s.io/v1", "TLSRoute")),
        ["shop.yaml:2:7: warning: TLSRoute b/a: kind: TLSRoute \
          (gateway.networking.k8s.io/v1) is not honoured yet: the object has no effect"]
    );
    assert_eq!(
        warnings(&document("cert-manager.io/v1", "Certificate")).len(),
        1
    );
    assert_eq!(
        errors(&document("security.istio.io/v1", "AuthorizationPolcy")),
        [
            "shop.yaml:2:7: error: AuthorizationPolcy b/a: kind: there is no kind \
          AuthorizationPolcy in security.istio.io/v1 (did you mean AuthorizationPolicy?)"
        ]
    );
    assert_eq!(
        errors(&document("security.istio.io/v2", "PeerAuthentication")),
        [
            "shop.yaml:1:13: error: PeerAuthentication b/a: apiVersion: security.istio.io/v2 is \
          not a version of PeerAuthentication: use security.istio.io/v1 or \
          security.istio.io/v1beta1"
        ]
    );
}

#[test]
fn an_object_defined_twice_names_both_places() {
    let errors = errors(&format!("{SERVICE}---\n{SERVICE}"));
    assert_eq!(
        errors,
        ["shop.yaml:11:1: error: Service shop/web: \
          is already defined at shop.yaml:1: keep one of them"]
    );
}

#[test]
fn what_kubectl_prints_reads_without_warnings() {
    let text = include_str!("tests/kubectl.yaml");
    let objects = objects(text);
    assert_eq!(objects.len(), 4);
}

#[test]
fn what_is_written_reads_back() {
    for object in objects(include_str!("tests/kubectl.yaml")) {
        let json = serde_json::to_string(&object).expect("serializable");
        let again = objects_of(&json);
        assert_eq!(again[0].body, object.body);
        let yaml = serde_saphyr::to_string(&object).expect("serializable");
        assert_eq!(objects_of(&yaml)[0].body, object.body, "{yaml}");
    }
}

fn objects_of(text: &str) -> Vec<Object> {
    objects(text)
}

#[test]
fn raw_keeps_what_is_not_known() {
    let text = SERVICE.replace("targetPort: http", "color: red");
    let parsed = parse("shop.yaml", text.as_bytes(), Raw::Keep).expect("well formed");
    let json = parsed.objects[0].to_json(&[Condition::new("Seen", true, "Yes", "")]);
    assert_eq!(json["spec"]["ports"][0]["color"], "red");
    assert_eq!(json["status"]["conditions"][0]["type"], "Seen");
}

#[test]
fn each_rule_knows_its_line() {
    let yaml = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: rules, namespace: shop}
spec:
  rules:
  - from: [{source: {namespaces: [a]}}]
  - to:
    - operation: {methods: [GET]}
";
    let json = "{\"apiVersion\": \"security.istio.io/v1\", \"kind\": \"AuthorizationPolicy\",\n\
                \"metadata\": {\"name\": \"rules\"}, \"spec\": {\"rules\": [\n{},\n{}]}}";
    for (text, lines) in [(yaml, [10, 11]), (json, [3, 4])] {
        let parsed = parse("policy", text.as_bytes(), Raw::Drop);
        let parsed = parsed.unwrap_or_else(|rejected| panic!("{:?}", rejected.errors));
        let policy = parsed.objects.last().expect("one");
        assert_eq!([policy.rule_line(0), policy.rule_line(1)], lines);
        assert_eq!(policy.rule_line(2), policy.origin.line, "no such rule");
    }
}

/// What would change the mesh if it were honoured, by every name it goes by.
#[test]
fn what_is_not_honoured_yet_is_warned_of_by_name_and_line() {
    for (api_version, kinds) in [
        (
            "networking.istio.io/v1",
            &[
                "VirtualService",
                "DestinationRule",
                "EnvoyFilter",
                "Sidecar",
                "ProxyConfig",
                "Gateway",
                "WorkloadGroup",
            ][..],
        ),
        ("telemetry.istio.io/v1", &["Telemetry"]),
        (
            "extensions.istio.io/v1alpha1",
            &["WasmPlugin", "TrafficExtension"],
        ),
        (
            "gateway.networking.k8s.io/v1alpha2",
            &["TLSRoute", "UDPRoute", "BackendTLSPolicy", "ListenerSet"],
        ),
        (
            "gateway.networking.x-k8s.io/v1alpha1",
            &["XBackendTrafficPolicy", "XListenerSet"],
        ),
    ] {
        for kind in kinds {
            let text = format!(
                "# a comment\napiVersion: {api_version}\nkind: {kind}\n\
                 metadata: {{name: it, namespace: shop}}\nspec: {{}}\n"
            );
            let parsed = parse("own.yaml", text.as_bytes(), Raw::Drop).expect("read");
            let [warning] = &parsed.warnings[..] else {
                panic!("{kind}: {:?}", parsed.warnings);
            };
            let told = warning.to_string();
            let expected = format!(
                "own.yaml:3:7: warning: {kind} shop/it: kind: {kind} ({api_version}) is not \
                 honoured yet: the object has no effect"
            );
            assert_eq!(told, expected);
            assert!(parsed.objects.is_empty());
        }
    }
}
