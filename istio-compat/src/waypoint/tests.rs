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
    assert_eq!(
        wanted(&view),
        ["GatewayClass istio-waypoint", "GatewayClass weft-waypoint"]
    );
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

/// A second service over the pods of `web`.
fn beside(target: u16) -> String {
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: beside, namespace: shop}}\n\
         spec: {{clusterIP: 10.96.0.2, selector: {{app: web}}, ports: [{{port: 80, targetPort: {target}}}]}}\n---\n"
    );
    let policy = "{targetRefs: [{group: '', kind: Service, name: beside}], rules: [{}]}";
    service + &self::policy("shop", policy)
}

#[test]
fn what_guards_the_pods_of_another_service_is_a_reason() {
    check_reasons(
        &beside(8080),
        &[
            "AuthorizationPolicy shop/rules targets Service shop/beside, which leads to the same pods",
        ],
    );
    check_reasons(&beside(9090), &[]);
}

/// The order in which they come makes no difference.
#[test]
fn a_pod_that_two_services_share_changes_what_they_need() {
    let mut view = view(&beside(8080));
    let pod = ObjectKey::new(Kind::Pod, "shop", "web-1");
    let touched = view.apply(&pod, None);
    assert!(touched.contains(&web()), "{touched:?}");
    assert_eq!(view.reasons(&web()), Vec::new());
    let parsed = parse("shop.yaml", SHOP.as_bytes(), Raw::Drop).expect("read");
    let mut objects = parsed.objects.iter();
    let again = objects.find(|object| object.key() == pod);
    let touched = view.apply(&pod, again);
    assert!(touched.contains(&web()), "{touched:?}");
    assert_eq!(view.reasons(&web()).len(), 1);
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

/// A Gateway in `infra` for all, and a ready pod of it.
fn running(name: &str) -> String {
    let admits = ", allowedRoutes: {namespaces: {from: All}}";
    gateway("infra", name, "", admits)
        + &format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}-1\n  namespace: infra\n  \
             labels: {{gateway.istio.io/managed: istio.io-mesh-controller, gateway.networking.k8s.io/gateway-name: {name}}}\n\
             spec: {{serviceAccountName: {name}, containers: [{{name: it}}]}}\n\
             status: {{phase: Running, podIP: 10.244.9.9, conditions: [{{type: Ready, status: \"True\"}}]}}\n---\n"
        )
}

#[test]
fn a_canary_waypoint_gets_its_share_or_nothing() {
    let service = |canary: &str, weight: &str| {
        LABELLED.replace(
            "labels: {",
            &format!(
                "annotations: {{istio.io/use-waypoint-canary-weight: '{weight}'}}\n  \
                     labels: {{istio.io/use-waypoint-canary: {canary}, \
                     istio.io/use-waypoint-canary-namespace: infra, "
            ),
        )
    };
    let check = |canary, weight, shares: &[u32], said: &str| {
        let view = view(&(service(canary, weight) + &running("gate") + &running("next")));
        let translation = view.translate(&web());
        let weighted = translation.services[0].weighted_waypoints.iter();
        let seen: Vec<u32> = weighted.map(|one| one.weight).collect();
        assert_eq!(seen, shares, "{canary} {weight}");
        let condition = &translation.conditions[0];
        assert!(condition.is_true(), "{condition:?}");
        assert!(condition.message.contains(said), "{}", condition.message);
        let admitted = pod(&view).workloads[0].admitted_waypoints.len();
        assert_eq!(admitted, if shares.is_empty() { 1 } else { 2 }, "{canary}");
    };
    check("next", "20", &[80, 20], "20 % of connections");
    check("next", "0", &[], "0 % of connections");
    check("next", "many", &[], "CanaryInvalidWeight");
    check("next", "101", &[], "CanaryInvalidWeight");
    check("gate", "20", &[], "CanarySameAsPrimary");
    check("gone", "20", &[], "WaypointIsNotReady");
    check("none", "20", &[], "bound to waypoint");
}

#[test]
fn none_and_what_runs_waypoints_have_none() {
    let none = LABELLED.replace("use-waypoint: gate", "use-waypoint: none");
    assert_eq!(
        view(&format!("{none}{ROUTE}")).translate(&web()).binding,
        None
    );
    let view = view(ROUTE);
    for body in deployment::wanted(&view, ["shop"]).objects {
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
    assert_eq!(
        wanted(&view),
        ["GatewayClass istio-waypoint", "GatewayClass weft-waypoint"]
    );
}

fn wanted(view: &View) -> Vec<String> {
    let bodies = deployment::wanted(view, []).objects;
    let names = bodies.iter();
    names
        .map(|body| format!("{} {}", body.kind(), body.metadata().name))
        .collect()
}

#[test]
fn a_class_that_somebody_else_has_is_not_made() {
    let class = "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n\
                 metadata: {name: istio-waypoint}\nspec: {controllerName: example.com/own}\n";
    assert_eq!(wanted(&view(class)), ["GatewayClass weft-waypoint"]);
    // What was made stays, though it is there now.
    let mut view = view("");
    for body in deployment::wanted(&view, []).objects {
        let object = crate::object::Object {
            origin: crate::diagnostic::Origin::new("", 0),
            body,
            rules: Default::default(),
            raw: None,
        };
        view.apply(&object.key(), Some(&object));
    }
    assert_eq!(wanted(&view).len(), 2);
}

#[test]
fn a_users_gateway_takes_the_place_of_one_on_demand() {
    let names = |view: &View| -> Vec<String> {
        let bodies = deployment::wanted(view, ["shop"]).objects;
        let names = bodies
            .iter()
            .filter(|body| body.kind() != Kind::GatewayClass);
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
    let bodies = deployment::wanted(&view, []).objects;
    let deployment = bodies.iter().find_map(Deployment::of).expect("one");
    assert_eq!(deployment.spec.replicas, Some(3));
    assert_eq!(deployment.metadata.annotation("note"), Some("kept"));
}
