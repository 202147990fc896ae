//! Who needs a waypoint and why, which one it gets, and what that comes to.

use crate::kind::Kind;
use crate::kinds::deployment::Deployment;
use crate::object::{Body, ObjectKey, Resource};
use crate::parse::{Raw, parse};
use crate::translate::Translation;
use crate::view::{Context, View};
use crate::waypoint::binding::Cause;
use crate::waypoint::deployment;

const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 10.96.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web, version: v1}}
spec: {serviceAccountName: web, containers: [{name: web, command: [web]}]}
status: {phase: Running, podIP: 10.244.1.2, conditions: [{type: Ready, status: \"True\"}]}
---
";

/// The shop with more objects, which take the place of those of the same name.
fn view(more: &str) -> View {
    let mut view = View::new(Context::default());
    for text in [SHOP, more] {
        let parsed = parse("shop.yaml", text.as_bytes(), Raw::Drop)
            .unwrap_or_else(|rejected| panic!("{:?}", rejected.errors));
        for object in &parsed.objects {
            view.apply(&object.key(), Some(object));
        }
    }
    view
}

fn web() -> ObjectKey {
    ObjectKey::new(Kind::Service, "shop", "web")
}

fn pod(view: &View) -> Translation {
    view.translate(&ObjectKey::new(Kind::Pod, "shop", "web-1"))
}

#[track_caller]
fn check_reasons(more: &str, expected: &[&str]) {
    let view = view(more);
    let reasons: Vec<String> = view
        .reasons(&web())
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(reasons, expected);
    // On demand, and no label: bound if and only if there is a reason.
    let bound = view.translate(&web()).binding;
    assert_eq!(bound.is_some(), !expected.is_empty());
}

fn policy(namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: rules, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn gateway(namespace: &str, name: &str, labels: &str, more: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
         metadata: {{name: {name}, namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec: {{gatewayClassName: istio-waypoint, listeners: [{{name: mesh, port: 15008, protocol: HBONE{more}}}]}}\n---\n"
    )
}

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
";

#[test]
fn nothing_is_bound_without_a_reason() {
    check_reasons("", &[]);
    check_reasons(
        &policy("shop", "{rules: [{to: [{operation: {ports: ['80']}}]}]}"),
        &[],
    );
    check_reasons(
        &policy("bank", "{rules: [{to: [{operation: {methods: [GET]}}]}]}"),
        &[],
    );
}

#[test]
fn a_route_is_a_reason_for_the_service_alone() {
    check_reasons(ROUTE, &["HTTPRoute shop/canary is attached to it"]);
    let pod = pod(&view(ROUTE));
    assert_eq!(pod.workloads[0].waypoint, None);
    assert!(pod.authorizations.is_empty());
}

#[test]
fn a_policy_about_requests_is_one_for_all_it_covers() {
    let spec = "{rules: [{}, {to: [{operation: {methods: [GET], paths: [/a]}}]}]}";
    let covers = "covers it, and its rule 2 uses to.operation.methods, to.operation.paths";
    for namespace in ["shop", "istio-system"] {
        let expected = format!("AuthorizationPolicy {namespace}/rules {covers}");
        check_reasons(&policy(namespace, spec), &[&expected]);
    }
}

#[test]
fn a_selector_covers_the_services_of_the_pods_it_chooses() {
    let spec = |version| {
        format!(
            "{{selector: {{matchLabels: {{version: {version}}}}}, \
             rules: [{{when: [{{key: 'request.headers[x]', values: [a]}}]}}]}}"
        )
    };
    check_reasons(&policy("shop", &spec("v2")), &[]);
    check_reasons(
        &policy("shop", &spec("v1")),
        &["AuthorizationPolicy shop/rules covers it, and its rule 1 uses when request.headers[x]"],
    );
}

#[test]
fn a_target_is_a_reason_even_for_a_policy_of_connections() {
    check_reasons(
        &policy(
            "shop",
            "{targetRefs: [{group: '', kind: Service, name: web}], rules: [{}]}",
        ),
        &["AuthorizationPolicy shop/rules targets it"],
    );
}

#[test]
fn tokens_are_a_reason() {
    let text = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: me, jwks: '{\"keys\": []}'}]}
";
    let expected = "RequestAuthentication shop/tokens covers it, and is about tokens of requests";
    check_reasons(text, &[expected]);
}

#[test]
fn off_makes_none_and_leaves_the_node_to_refuse() {
    let off = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, weft.dev/waypoint: 'off'}}
---
";
    let view = view(&format!("{off}{ROUTE}"));
    assert_eq!(view.reasons(&web()).len(), 1);
    assert_eq!(view.translate(&web()).binding, None);
    assert!(deployment::wanted(&view, []).is_empty());
}

#[test]
fn what_only_a_waypoint_can_enforce_cannot_be_bypassed() {
    let view = view(&policy(
        "shop",
        "{rules: [{to: [{operation: {methods: [GET]}}]}]}",
    ));
    let pod = pod(&view);
    assert!(pod.workloads[0].waypoint.is_some(), "dialled itself");
    let policy = pod.authorizations.first().expect("a policy");
    assert_eq!(&*policy.name, "weft_waypoint_required_shop_waypoint");
    assert!(
        pod.workloads[0]
            .authorization_policies
            .contains(&policy.key())
    );
}

#[test]
fn a_targets_waypoint_is_required_on_its_ports_alone() {
    let view = view(&policy(
        "shop",
        "{targetRefs: [{group: '', kind: Service, name: web}], rules: [{}]}",
    ));
    let pod = pod(&view);
    let policy = pod.authorizations.first().expect("a policy");
    assert_eq!(&*policy.name, "weft_waypoint_required_shop_waypoint_8080");
    assert_eq!(policy.rules[0].clauses.len(), 2);
}

const LABELLED: &str = "
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  labels: {istio.io/use-waypoint: gate, istio.io/use-waypoint-namespace: infra}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
";

#[track_caller]
fn check_label(more: &str, refusal: Option<&str>) {
    let view = view(&format!("{LABELLED}{more}"));
    let binding = view.translate(&web()).binding.expect("bound");
    assert!(matches!(binding.cause, Cause::Label(_)));
    assert_eq!(binding.refusal.map(|one| one.reason()), refusal);
    let admitted = &pod(&view).workloads[0].admitted_waypoints;
    assert_eq!(admitted.is_empty(), refusal.is_some(), "{admitted:?}");
}

#[test]
fn a_label_binds_where_the_gateway_admits_it_and_refuses_otherwise() {
    let all = ", allowedRoutes: {namespaces: {from: All}}";
    let chosen = ", allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {istio.io/dataplane-mode: ambient}}}}";
    check_label("", Some("WaypointIsNotReady"));
    check_label(&gateway("infra", "gate", "", ""), Some("AttachmentDenied"));
    check_label(&gateway("infra", "gate", "", all), None);
    check_label(&gateway("infra", "gate", "", chosen), None);
    check_label(
        &gateway("infra", "gate", "istio.io/waypoint-for: workload", all),
        Some("UnsupportedTrafficType"),
    );
}

#[test]
fn none_and_what_runs_waypoints_have_none() {
    let none = LABELLED.replace("use-waypoint: gate", "use-waypoint: none");
    assert_eq!(
        view(&format!("{none}{ROUTE}")).translate(&web()).binding,
        None
    );
    let view = view(ROUTE);
    let gateway = deployment::on_demand_gateway("shop");
    for body in deployment::objects(&view, &gateway) {
        if let Body::Service(service) = &body {
            assert_eq!(
                view.binding_of_service(Kind::Service, &service.metadata),
                None
            );
        }
    }
}

#[test]
fn an_account_of_others_is_nobodys_waypoint() {
    let view = view(&gateway("shop", "web", "", ""));
    let pod = pod(&view);
    assert!(pod.workloads[0].admitted_waypoints.is_empty());
    let gateway = ObjectKey::new(Kind::Gateway, "shop", "web");
    assert!(!view.translate(&gateway).conditions[0].is_true());
    assert!(deployment::wanted(&view, []).is_empty());
}

#[test]
fn a_users_gateway_takes_the_place_of_one_on_demand() {
    let names = |view: &View| -> Vec<String> {
        let bodies = deployment::wanted(view, ["shop"]);
        let names = bodies.iter();
        names
            .map(|body| format!("{} {}", body.kind(), body.metadata().name))
            .collect()
    };
    let three = [
        "ServiceAccount waypoint",
        "Service waypoint",
        "Deployment waypoint",
    ];
    assert_eq!(
        names(&view(ROUTE)),
        [&three[..], &["Gateway waypoint"]].concat()
    );
    assert_eq!(
        names(&view(&format!(
            "{ROUTE}{}",
            gateway("shop", "waypoint", "", "")
        ))),
        three
    );
}

#[test]
fn replicas_are_an_annotation() {
    let text = gateway("shop", "gate", "", "").replace(
        "labels: {}",
        "annotations: {weft.dev/replicas: '3', note: kept}",
    );
    let view = view(&text);
    let bodies = deployment::wanted(&view, []);
    let deployment = bodies.iter().find_map(Deployment::of).expect("one");
    assert_eq!(deployment.spec.replicas, Some(3));
    assert_eq!(deployment.metadata.annotation("note"), Some("kept"));
}
