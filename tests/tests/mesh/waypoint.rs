//! Waypoints on demand: made where something needs one, bound to what needs it, gone with the
//! last reason; and those that labels name.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::lab::{Lab, SOON};

const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

const SHOP: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  containers: [{name: client, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers: [{name: web, command: [peer, serve, --name, web]}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: plain, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
";

const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

fn waypoints(lab: &Lab) -> Result<Vec<Value>> {
    let text = lab.weft(&["waypoint", "list", "-A", "-o", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

/// Waits until the only waypoint is ready and has so many services bound.
#[track_caller]
fn wait_for_one(lab: &Lab, services: usize) -> Value {
    lab.eventually(SOON, "the waypoint is ready", || {
        let waypoints = waypoints(lab)?;
        ensure!(waypoints.len() == 1, "{waypoints:?}");
        let one = &waypoints[0];
        let bound = one["services"].as_array().map_or(0, Vec::len);
        ensure!(one["ready"] == true && bound == services, "{one}");
        Ok(())
    })
    .expect("one waypoint");
    let mut waypoints = waypoints(lab).expect("a list");
    waypoints.pop().expect("one waypoint")
}

/// What the node has been told of a service's waypoint.
fn waypoint_of(lab: &Lab, service: &str) -> Result<Value> {
    let dump = lab.config_dump("node-1")?;
    let services = dump["services"].as_array().cloned().unwrap_or_default();
    let found = services.into_iter().find(|one| one["name"] == *service);
    Ok(found.map_or(Value::Null, |mut one| one["waypoint"].take()))
}

fn waypoint_pods(lab: &Lab) -> Result<usize> {
    let pods = lab.pods()?;
    let pods = pods.iter();
    Ok(pods
        .filter(|pod| !pod["metadata"]["labels"][GATEWAY_NAME].is_null())
        .count())
}

#[test]
fn a_waypoint_comes_with_the_first_reason_and_goes_with_the_last() {
    let lab = Lab::up(SHOP).expect("the mesh starts");
    assert_eq!(waypoints(&lab).expect("a list"), Vec::<Value>::new());
    lab.write("route.yaml", ROUTE).expect("written");
    let one = wait_for_one(&lab, 1);
    assert_eq!(
        (&one["onDemand"], &one["name"]),
        (&true.into(), &"waypoint".into())
    );
    let reason = &one["services"][0]["reasons"][0];
    assert_eq!(reason["object"], "HTTPRoute shop/canary");
    let file = reason["file"].as_str().unwrap_or_default();
    assert!(
        file.ends_with("route.yaml") && reason["line"] == 1,
        "{reason}"
    );

    lab.eventually(SOON, "the node is told", || {
        let waypoint = waypoint_of(&lab, "web")?;
        ensure!(!waypoint.is_null(), "not bound");
        Ok(())
    })
    .expect("bound");
    assert_eq!(
        waypoint_of(&lab, "plain").expect("a dump"),
        Value::Null,
        "no reason, no waypoint"
    );
    let why = lab
        .weft(&["waypoint", "why", "web", "-n", "shop"])
        .expect("said");
    assert!(
        why.contains("HTTPRoute shop/canary") && why.contains("route.yaml:1"),
        "{why}"
    );
    let gateways = lab.weft(&["get", "gateways", "-n", "shop"]).expect("shown");
    assert!(gateways.contains("weft"), "{gateways}");
    assert!(
        gateways.contains("waypoint.shop.svc.cluster.local"),
        "{gateways}"
    );
    let refused = lab.weft(&["waypoint", "delete", "waypoint", "-n", "shop"]);
    assert!(format!("{:?}", refused.expect_err("ours")).contains("on demand"));

    lab.remove("route.yaml").expect("removed");
    lab.eventually(
        SOON,
        "the service is unbound while the waypoint drains",
        || {
            ensure!(waypoint_of(&lab, "web")?.is_null(), "still bound");
            Ok(())
        },
    )
    .expect("unbound");
    assert_eq!(waypoint_pods(&lab).expect("pods"), 1, "it drains first");
    lab.eventually(SOON, "the waypoint is gone", || {
        ensure!(
            waypoint_pods(&lab)? == 0 && waypoints(&lab)?.is_empty(),
            "still there"
        );
        Ok(())
    })
    .expect("gone");
}

#[test]
fn off_makes_no_waypoint() {
    let off = SHOP.replace(
        "dataplane-mode: ambient",
        "dataplane-mode: ambient, weft.dev/waypoint: 'off'",
    );
    let lab = Lab::up(&format!("{off}---\n{ROUTE}")).expect("the mesh starts");
    assert_eq!(waypoints(&lab).expect("a list"), Vec::<Value>::new());
    let why = lab.weft(&["waypoint", "why", "shop/web"]).expect("said");
    assert!(
        why.contains("HTTPRoute shop/canary") && why.contains("weft.dev/waypoint: off"),
        "{why}"
    );
    let reply = lab.peer("shop/client", &["get", "web:80"]);
    assert!(reply.is_ok(), "{reply:?}");
}

#[test]
fn a_shared_waypoint_stands_only_before_namespaces_it_admits() {
    let labels = "labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: gate, \
                  istio.io/use-waypoint-namespace: infra}";
    let shop = SHOP.replace("labels: {istio.io/dataplane-mode: ambient}", labels);
    let gateway = |from: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\n\
             metadata: {{name: gate, namespace: infra}}\n\
             spec:\n  gatewayClassName: istio-waypoint\n  listeners:\n  \
             - {{name: mesh, port: 15008, protocol: HBONE, allowedRoutes: {{namespaces: {{from: {from}}}}}}}\n"
        )
    };
    let lab = Lab::up(&shop).expect("the mesh starts");
    lab.write("gate.yaml", &gateway("Same")).expect("written");
    let one = wait_for_one(&lab, 2);
    assert_eq!(one["onDemand"], false);
    let refused = one["services"][0]["refused"].as_str().unwrap_or_default();
    assert!(refused.contains("allowedRoutes"), "{one}");
    lab.eventually(SOON, "the node refuses", || {
        let waypoint = waypoint_of(&lab, "web")?.to_string();
        ensure!(waypoint.contains("attachment-denied.invalid"), "{waypoint}");
        Ok(())
    })
    .expect("refused");
    let get = lab.peer("shop/client", &["get", "web:80"]);
    assert!(get.is_err(), "went around: {get:?}");

    lab.write("gate.yaml", &gateway("All")).expect("written");
    lab.eventually(SOON, "the service is bound", || {
        let waypoint = waypoint_of(&lab, "web")?.to_string();
        ensure!(
            waypoint.contains("gate.infra.svc.cluster.local"),
            "{waypoint}"
        );
        Ok(())
    })
    .expect("bound");
}

/// The status of a request, and the pod that answered it.
fn ask(lab: &Lab, method: &str, host: &str) -> Result<(u64, String)> {
    let url = format!("http://{host}/");
    let answer = lab.exec("shop/client", &["web", "ask", "-X", method, &url])?;
    let answer: Value = serde_json::from_str(&answer)?;
    let pod = answer["seen"]["pod"].as_str().unwrap_or_default();
    Ok((
        answer["status"].as_u64().unwrap_or_default(),
        pod.to_owned(),
    ))
}

#[test]
fn a_policy_about_requests_is_not_bypassed_by_dialling_the_pod() {
    let yaml = SHOP.replace("[peer, serve, --name, web]", "[web, serve, --name, web]");
    let lab = Lab::up(&yaml).expect("the mesh starts");
    let pod = lab.addresses("shop/web").expect("addresses")[0];
    let targets = [format!("{pod}:8080"), "web".to_owned()];
    for target in &targets {
        lab.eventually(SOON, "allowed at first", || {
            let seen = ask(&lab, "GET", target)?;
            ensure!(seen == (200, "web".to_owned()), "{seen:?}");
            Ok(())
        })
        .expect("allowed");
    }
    let policy = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: rules, namespace: shop}
spec:
  action: DENY
  selector: {matchLabels: {app: web}}
  rules: [{to: [{operation: {methods: [GET]}}]}]
";
    lab.write("policy.yaml", policy).expect("written");
    let one = wait_for_one(&lab, 2);
    assert_eq!(one["workloads"].as_array().map(Vec::len), Some(1), "{one}");
    for target in &targets {
        lab.eventually(SOON, "POST is allowed by the waypoint", || {
            let seen = ask(&lab, "POST", target)?;
            ensure!(seen == (200, "web".to_owned()), "{seen:?}");
            let denied = ask(&lab, "GET", target)?;
            ensure!(denied == (403, String::new()), "{denied:?}");
            Ok(())
        })
        .expect(target);
    }
    lab.eventually(SOON, "the waypoint's own identity is logged", || {
        let logs = ["node-1", "node-2"];
        let logs = logs.map(|node| lab.run_file(&format!("nodes/{node}/ztunnel.log")));
        ensure!(logs.concat().contains("sa/waypoint"), "{logs:?}");
        Ok(())
    })
    .expect("logged");
}

/// Requests that were answered and connections that a waypoint has counted, by the service they
/// were addressed to.
fn counted(lab: &Lab) -> Result<BTreeMap<String, u64>> {
    let label = "gateway.networking.k8s.io/gateway-name";
    let pods = lab.pods()?;
    let mut counted = BTreeMap::new();
    for pod in pods
        .iter()
        .filter(|pod| !pod["metadata"]["labels"][label].is_null())
    {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let page = ["peer", "http", "127.0.0.1:15020", "/stats/prometheus"];
        let text = lab.exec(&format!("shop/{name}"), &page)?;
        let series = text.lines().filter(|line| {
            let is_request = line.starts_with("istio_requests_total{");
            (is_request && line.contains("response_code=\"200\""))
                || line.starts_with("istio_tcp_connections_opened_total{")
        });
        for line in series {
            let service = line.split("destination_service_name=\"").nth(1);
            let service = service
                .and_then(|rest| rest.split('"').next())
                .unwrap_or_default();
            let amount = line.rsplit(' ').next().unwrap_or_default().parse::<f64>()?;
            *counted.entry(service.to_owned()).or_default() += amount as u64;
        }
    }
    Ok(counted)
}

#[test]
fn a_service_without_a_reason_never_passes_a_waypoint() {
    let yaml = SHOP.replace("[peer, serve, --name, web]", "[web, serve, --name, web]");
    let lab = Lab::up(&format!("{yaml}---\n{ROUTE}")).expect("the mesh starts");
    wait_for_one(&lab, 1);
    lab.eventually(SOON, "the routed service answers", || {
        let seen = ask(&lab, "GET", "web")?;
        ensure!(seen == (200, "web".to_owned()), "{seen:?}");
        Ok(())
    })
    .expect("answered");
    for _ in 0..10 {
        for service in ["plain", "web", "plain"] {
            let seen = ask(&lab, "GET", service).expect("an answer");
            assert_eq!(seen, (200, "web".to_owned()), "{service}");
        }
    }
    // The answer comes first, then its count. With the one that was waited for.
    lab.eventually(SOON, "every answer is counted", || {
        let counted = counted(&lab)?;
        ensure!(
            counted == BTreeMap::from([("web".to_owned(), 11)]),
            "{counted:?}"
        );
        Ok(())
    })
    .expect("of nobody else");

    // Were it to pass, it would be counted.
    let label =
        "metadata: {name: plain, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}";
    let labelled = yaml.replace("metadata: {name: plain, namespace: shop}", label);
    lab.write("lab.yaml", &format!("{labelled}---\n{ROUTE}"))
        .expect("written");
    lab.eventually(SOON, "it is counted", || {
        ask(&lab, "GET", "plain")?;
        let counted = counted(&lab)?;
        ensure!(counted.contains_key("plain"), "{counted:?}");
        Ok(())
    })
    .expect("counted");
}

/// A waypoint of one's own, and what is laid over the objects that run it.
const SHAPED: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gate, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  infrastructure: {parametersRef: {group: '', kind: ConfigMap, name: gate}}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: gate, namespace: shop}
data:
  deployment: |
    metadata: {labels: {tier: edge}}
    spec:
      replicas: 2
      template:
        metadata: {labels: {tier: edge}}
        spec:
          containers:
          - name: istio-proxy
            env: [{name: RUST_LOG, value: debug}]
  horizontalPodAutoscaler: |
    spec: {maxReplicas: 3}
";

#[test]
fn a_config_map_shapes_what_runs_a_waypoint() {
    let lab = Lab::up(SHOP).expect("the mesh starts");
    lab.write("gate.yaml", SHAPED).expect("written");
    let shaped = |replicas: usize| {
        lab.eventually(SOON, "the waypoint is as it was shaped", || {
            let pods = lab.pods()?;
            let label = |pod: &Value, key: &str| pod["metadata"]["labels"][key].clone();
            let pods = pods.iter().filter(|pod| label(pod, GATEWAY_NAME) == "gate");
            let ready = pods.filter(|pod| {
                let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
                let mut ready = conditions.filter(|one| one["type"] == "Ready");
                label(pod, "tier") == "edge" && ready.any(|one| one["status"] == "True")
            });
            let ready = ready.count();
            ensure!(ready == replicas, "{ready} pods are ready and labelled");
            Ok(())
        })
        .expect("shaped");
    };
    shaped(2);
    let deployment = lab.weft(&["get", "deployment", "gate", "-n", "shop", "-o", "json"]);
    let deployment = deployment.expect("shown");
    assert!(deployment.contains("\"tier\": \"edge\""), "{deployment}");
    let one = wait_for_one(&lab, 0);
    let accepted = one["conditions"][0]["message"].as_str().unwrap_or_default();
    assert!(
        accepted.contains("data.horizontalPodAutoscaler: is not honoured"),
        "{one}"
    );

    // What is not understood is told, and ends nothing.
    lab.write("gate.yaml", &SHAPED.replace("replicas: 2", "replicas: two"))
        .expect("written");
    lab.eventually(SOON, "the mistake is told", || {
        let waypoints = waypoints(&lab)?;
        let accepted = &waypoints[0]["conditions"][0];
        ensure!(accepted["reason"] == "InvalidParameters", "{accepted}");
        let message = accepted["message"].as_str().unwrap_or_default();
        ensure!(message.contains("line 3: spec.replicas"), "{accepted}");
        Ok(())
    })
    .expect("told");
    let status = lab.weft(&["status"]).expect("shown");
    let said = status
        .matches("ConfigMap shop/gate: data.deployment")
        .count();
    assert_eq!(said, 1, "{status}");
    shaped(2);
    lab.write("gate.yaml", &SHAPED.replace("replicas: 2", "replicas: 1"))
        .expect("written");
    shaped(1);
}
