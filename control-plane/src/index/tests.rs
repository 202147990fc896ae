//! Whatever the order of changes, the index ends where building it anew would, and tells
//! its followers every step of the way.

use std::collections::BTreeMap;

use istio_compat::parse::{Raw, parse};
use proptest::prelude::*;

use super::*;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// What somebody may do to a folder: a document, or the key of one to delete.
#[derive(Clone, Debug)]
enum Step {
    Apply(String),
    Delete(ObjectKey),
}

impl Step {
    fn event(&self) -> Event {
        match self {
            Self::Apply(text) => Event::Applied(object(text)),
            Self::Delete(key) => Event::Deleted(key.clone()),
        }
    }
}

fn object(text: &str) -> Object {
    let parsed = parse("test.yaml", text.as_bytes(), Raw::Drop)
        .unwrap_or_else(|rejected| panic!("{:?}\n{text}", rejected.errors));
    let mut objects = parsed.objects;
    objects.pop().expect("one document")
}

fn namespaces() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["istio-system", "shop", "bank"])
}

fn names() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c"])
}

/// Labels that meet selectors often enough.
fn labels() -> impl Strategy<Value = String> {
    let pair = |key: &'static str| {
        prop::option::of(prop::sample::select(vec!["one", "two"]))
            .prop_map(move |value| value.map(|value| format!("{key}: {value}")))
    };
    (pair("app"), pair("version")).prop_map(|(app, version)| {
        let pairs: Vec<String> = app.into_iter().chain(version).collect();
        format!("{{{}}}", pairs.join(", "))
    })
}

fn document(kind: &str, api_version: &str, namespace: &str, name: &str, rest: &str) -> String {
    format!(
        "apiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: {name}\n  namespace: {namespace}\n{rest}"
    )
}

fn pod() -> impl Strategy<Value = String> {
    let phases = prop::sample::select(vec!["Pending", "Running", "Succeeded"]);
    let captured = prop::sample::select(vec!["enabled", "pending"]);
    let nodes = prop::sample::select(vec!["node-1", "node-2"]);
    let scope = (namespaces(), names());
    (scope, labels(), nodes, phases, captured, 1..20u8).prop_map(
        |((namespace, name), labels, node, phase, captured, ip)| {
            let rest = format!(
                "  labels: {labels}\n  annotations: {{ambient.istio.io/redirection: {captured}}}\n\
                 spec:\n  nodeName: {node}\n  serviceAccountName: {name}\n  containers:\n  - name: main\n    \
                 command: [serve]\n    ports:\n    - {{name: http, containerPort: 80{}}}\n\
                 status:\n  phase: {phase}\n  podIPs: [{{ip: 10.244.1.{ip}}}]\n  \
                 conditions: [{{type: Ready, status: \"True\"}}]\n",
                ip % 10
            );
            document("Pod", "v1", namespace, name, &rest)
        },
    )
}

fn service() -> impl Strategy<Value = String> {
    let ports = prop::sample::select(vec!["8080", "http"]);
    (namespaces(), names(), labels(), ports, 1..20u8).prop_map(
        |(namespace, name, selector, port, ip)| {
            let rest = format!(
                "spec:\n  clusterIP: 10.96.0.{ip}\n  selector: {selector}\n  ports:\n  \
                 - {{name: http, port: 80, targetPort: {port}}}\n"
            );
            document("Service", "v1", namespace, name, &rest)
        },
    )
}

fn service_entry() -> impl Strategy<Value = String> {
    let hosts = prop::sample::select(vec![
        "api.example.com",
        "db.example.com",
        "a.shop.svc.cluster.local",
    ]);
    let backs = prop_oneof![
        labels().prop_filter_map("a selector needs labels", |labels| {
            (labels != "{}").then(|| format!("  workloadSelector: {{labels: {labels}}}\n"))
        }),
        (1..9u8, labels()).prop_map(|(ip, labels)| format!(
            "  endpoints:\n  - {{address: 10.9.0.{ip}, labels: {labels}}}\n"
        )),
    ];
    (namespaces(), names(), hosts, backs).prop_map(|(namespace, name, host, backs)| {
        let rest = format!(
            "spec:\n  hosts: [{host}]\n  resolution: STATIC\n  \
             ports: [{{number: 80, name: http, protocol: HTTP}}]\n{backs}"
        );
        document(
            "ServiceEntry",
            "networking.istio.io/v1",
            namespace,
            name,
            &rest,
        )
    })
}

fn workload_entry() -> impl Strategy<Value = String> {
    (namespaces(), names(), labels(), 1..9u8).prop_map(|(namespace, name, labels, ip)| {
        let rest = format!("spec:\n  address: 10.8.0.{ip}\n  labels: {labels}\n");
        document(
            "WorkloadEntry",
            "networking.istio.io/v1",
            namespace,
            name,
            &rest,
        )
    })
}

/// What a route may be attached to, or send requests to, there or not.
fn service_reference() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(vec![
        "kind: Service, group: \"\"",
        "kind: ServiceEntry, group: networking.istio.io",
    ]);
    let ports = prop::sample::select(vec!["", ", port: 80", ", port: 81"]);
    (kinds, namespaces(), names(), ports).prop_map(|(kind, namespace, name, port)| {
        format!("{{{kind}, namespace: {namespace}, name: {name}{port}}}")
    })
}

fn backend_reference() -> impl Strategy<Value = String> {
    let hosts = prop::sample::select(vec!["api.example.com", "a.shop.svc.cluster.local"]);
    prop_oneof![
        3 => (namespaces(), names()).prop_map(|(namespace, name)| {
            format!("{{namespace: {namespace}, name: {name}, port: 80}}")
        }),
        1 => hosts.prop_map(|host| {
            format!("{{group: networking.istio.io, kind: Hostname, name: {host}, port: 80}}")
        }),
    ]
}

fn route() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(vec![
        ("HTTPRoute", "gateway.networking.k8s.io/v1"),
        ("GRPCRoute", "gateway.networking.k8s.io/v1"),
        ("TCPRoute", "gateway.networking.k8s.io/v1alpha2"),
    ]);
    let parents = prop::collection::btree_set(service_reference(), 1..3);
    (
        kinds,
        namespaces(),
        names(),
        parents,
        backend_reference(),
        backend_reference(),
    )
        .prop_map(
            |((kind, version), namespace, name, parents, backend, mirror)| {
                let filters = match kind {
                    "TCPRoute" => String::new(),
                    _ => format!(
                        "    filters: [{{type: RequestMirror, requestMirror: {{backendRef: {mirror}}}}}]\n"
                    ),
                };
                let rest = format!(
                    "spec:\n  parentRefs: [{}]\n  rules:\n  - backendRefs: [{backend}]\n{filters}",
                    Vec::from_iter(parents).join(", ")
                );
                document(kind, version, namespace, name, &rest)
            },
        )
}

fn targets() -> impl Strategy<Value = String> {
    let kinds = prop::sample::select(vec!["Service", "ServiceEntry", "Gateway", "GatewayClass"]);
    (kinds, names()).prop_map(|(kind, name)| {
        let group = match kind {
            "Service" => "\"\"",
            "ServiceEntry" => "networking.istio.io",
            _ => "gateway.networking.k8s.io",
        };
        format!("  targetRefs: [{{group: {group}, kind: {kind}, name: {name}}}]\n")
    })
}

fn request_authentication() -> impl Strategy<Value = String> {
    let issuers = prop::sample::select(vec!["https://one.example.com", "https://two.example.com"]);
    let attached = prop_oneof![selector(), targets()];
    (namespaces(), names(), attached, issuers).prop_map(|(namespace, name, attached, issuer)| {
        let rest = format!("spec:\n{attached}  jwtRules: [{{issuer: \"{issuer}\"}}]\n");
        document(
            "RequestAuthentication",
            "security.istio.io/v1",
            namespace,
            name,
            &rest,
        )
    })
}

fn gateway_class() -> impl Strategy<Value = String> {
    let controllers = prop::sample::select(vec!["istio.io/mesh-controller", "example.com/other"]);
    (names(), controllers).prop_map(|(name, controller)| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n\
             metadata: {{name: {name}}}\nspec: {{controllerName: {controller}}}\n"
        )
    })
}

fn selector() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        labels().prop_filter_map("a selector needs labels", |labels| {
            (labels != "{}").then(|| format!("  selector: {{matchLabels: {labels}}}\n"))
        }),
    ]
}

fn authorization_policy() -> impl Strategy<Value = String> {
    let actions = prop::sample::select(vec!["ALLOW", "DENY", "AUDIT", "CUSTOM"]);
    let rules = prop::sample::select(vec![
        "  rules:\n  - from: [{source: {namespaces: [shop]}}]\n",
        "  rules:\n  - to: [{operation: {methods: [GET]}}]\n",
        "  rules:\n  - {}\n",
    ]);
    let attached = prop_oneof![2 => selector(), 1 => targets()];
    (namespaces(), names(), attached, actions, rules).prop_map(
        |(namespace, name, attached, action, rules)| {
            let provider = match action {
                "CUSTOM" => "  provider: {name: asked}\n",
                _ => "",
            };
            let rest = format!("spec:\n  action: {action}\n{provider}{attached}{rules}");
            document(
                "AuthorizationPolicy",
                "security.istio.io/v1",
                namespace,
                name,
                &rest,
            )
        },
    )
}

fn peer_authentication() -> impl Strategy<Value = String> {
    let modes = || prop::sample::select(vec!["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]);
    (namespaces(), names(), selector(), modes(), modes()).prop_map(
        |(namespace, name, selector, mode, port)| {
            let ports = match selector.as_str() {
                "" => String::new(),
                _ => format!("  portLevelMtls: {{80: {{mode: {port}}}}}\n"),
            };
            let rest = format!("spec:\n  mtls: {{mode: {mode}}}\n{selector}{ports}");
            document(
                "PeerAuthentication",
                "security.istio.io/v1",
                namespace,
                name,
                &rest,
            )
        },
    )
}

fn namespace() -> impl Strategy<Value = String> {
    let distributions = prop::sample::select(vec!["PreferClose", "PreferSameNode", "Any"]);
    let waypoints = prop::sample::select(vec![
        "istio.io/use-waypoint: none",
        "istio.io/use-waypoint: waypoint",
        "istio.io/use-waypoint: a, istio.io/use-waypoint-namespace: bank",
        "istio.io/dataplane-mode: ambient",
        "istio.io/dataplane-mode: ambient, weft.dev/waypoint: \"off\"",
    ]);
    (namespaces(), distributions, waypoints).prop_map(|(name, distribution, waypoint)| {
        format!(
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  \
             labels: {{{waypoint}}}\n  \
             annotations: {{networking.istio.io/traffic-distribution: {distribution}}}\n"
        )
    })
}

fn gateway() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec!["a", "waypoint"]);
    let labels = prop::sample::select(vec![
        "",
        "istio.io/waypoint-for: all",
        "weft.dev/on-demand: \"true\"",
    ]);
    let allowed = prop::sample::select(vec![
        "",
        ", allowedRoutes: {namespaces: {from: All}}",
        ", allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {istio.io/dataplane-mode: ambient}}}}",
    ]);
    let classes = prop::sample::select(vec!["istio-waypoint", "a"]);
    (namespaces(), names, labels, allowed, classes).prop_map(
        |(namespace, name, labels, allowed, class)| {
            let rest = format!(
                "  labels: {{{labels}}}\nspec:\n  gatewayClassName: {class}\n  listeners:\n  \
                 - {{name: mesh, port: 15008, protocol: HBONE{allowed}}}\n"
            );
            document(
                "Gateway",
                "gateway.networking.k8s.io/v1",
                namespace,
                name,
                &rest,
            )
        },
    )
}

/// A pod as a waypoint's Deployment makes it.
fn waypoint_pod() -> impl Strategy<Value = String> {
    let gateways = prop::sample::select(vec!["a", "waypoint"]);
    (namespaces(), gateways, any::<bool>()).prop_map(|(namespace, gateway, ready)| {
        let ready = if ready { "True" } else { "False" };
        let rest = format!(
            "  labels: {{gateway.istio.io/managed: istio.io-mesh-controller, \
             gateway.networking.k8s.io/gateway-name: {gateway}}}\n\
             spec:\n  nodeName: node-1\n  serviceAccountName: {gateway}\n  containers:\n  \
             - {{name: main, command: [serve]}}\n\
             status:\n  phase: Running\n  podIPs: [{{ip: 10.244.1.99}}]\n  \
             conditions: [{{type: Ready, status: \"{ready}\"}}]\n"
        );
        document("Pod", "v1", namespace, "c", &rest)
    })
}

fn node() -> impl Strategy<Value = String> {
    let nodes = prop::sample::select(vec!["node-1", "node-2"]);
    let zones = prop::sample::select(vec!["z1", "z2"]);
    (nodes, zones).prop_map(|(name, zone)| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n  \
             labels: {{topology.kubernetes.io/region: r, topology.kubernetes.io/zone: {zone}}}\n"
        )
    })
}

fn deletion() -> impl Strategy<Value = Step> {
    let kinds = prop::sample::select(Kind::ALL.to_vec());
    (kinds, namespaces(), names()).prop_map(|(kind, namespace, name)| {
        Step::Delete(match kind {
            Kind::Namespace => ObjectKey::new(kind, "", namespace),
            Kind::Node => ObjectKey::new(kind, "", "node-1"),
            Kind::GatewayClass => ObjectKey::new(kind, "", name),
            _ => ObjectKey::new(kind, namespace, name),
        })
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => pod().prop_map(Step::Apply),
        2 => service().prop_map(Step::Apply),
        2 => service_entry().prop_map(Step::Apply),
        1 => workload_entry().prop_map(Step::Apply),
        2 => authorization_policy().prop_map(Step::Apply),
        2 => peer_authentication().prop_map(Step::Apply),
        1 => namespace().prop_map(Step::Apply),
        1 => node().prop_map(Step::Apply),
        3 => route().prop_map(Step::Apply),
        2 => request_authentication().prop_map(Step::Apply),
        1 => gateway().prop_map(Step::Apply),
        1 => gateway_class().prop_map(Step::Apply),
        1 => waypoint_pod().prop_map(Step::Apply),
        4 => deletion(),
    ]
}

/// What a follower of the changes holds, by name.
type Followed = BTreeMap<String, String>;

fn follow(followed: &mut Followed, changes: Vec<Change>) {
    for change in changes {
        match &change {
            Change::Workload(workload) => {
                followed.insert(format!("address {}", workload.uid), format!("{workload:?}"));
            }
            Change::Service(service) => {
                followed.insert(format!("address {}", service.key()), format!("{service:?}"));
            }
            Change::Authorization(policy) => {
                followed.insert(format!("policy {}", policy.key()), format!("{policy:?}"));
            }
            Change::RemoveAddress(name) => {
                let known = followed.remove(&format!("address {name}"));
                assert!(known.is_some(), "{name} was removed and never sent");
            }
            Change::RemoveAuthorization(key) => {
                let known = followed.remove(&format!("policy {key}"));
                assert!(known.is_some(), "{key} was removed and never sent");
            }
            Change::Route(route) => {
                followed.insert(format!("route {}", route.key), format!("{route:?}"));
            }
            Change::AuthorizationPolicy(policy) => {
                followed.insert(format!("whole {}", policy.key()), format!("{policy:?}"));
            }
            Change::RequestAuthentication(policy) => {
                followed.insert(format!("tokens {}", policy.key()), format!("{policy:?}"));
            }
            Change::RemoveRoute(key) => {
                let known = followed.remove(&format!("route {key}"));
                assert!(known.is_some(), "{key} was removed and never sent");
            }
            Change::RemoveAuthorizationPolicy(key) => {
                let known = followed.remove(&format!("whole {key}"));
                assert!(known.is_some(), "{key} was removed and never sent");
            }
            Change::RemoveRequestAuthentication(key) => {
                let known = followed.remove(&format!("tokens {key}"));
                assert!(known.is_some(), "{key} was removed and never sent");
            }
        }
    }
}

fn resources(index: &Index) -> BTreeMap<ResourceKey, Resource> {
    let resources = index.resources();
    resources
        .map(|(key, resource)| (key.clone(), resource.clone()))
        .collect()
}

/// All conditions but for the generation, which is history's: it is the object's own.
fn said(index: &Index) -> Vec<(&ObjectKey, Condition)> {
    let own = index.conditions.iter();
    let own = own.flat_map(|(key, conditions)| conditions.iter().map(move |one| (key, one)));
    let of_parents = index.parents.iter().flat_map(|(key, parents)| {
        let conditions = parents.iter().flat_map(|parent| &parent.conditions);
        conditions.map(move |one| (key, one))
    });
    let of_listeners = index.gateways.iter().flat_map(|(key, gateway)| {
        let conditions = gateway.listeners.iter().flat_map(|one| &one.conditions);
        conditions.map(move |one| (key, one))
    });
    let all = own.chain(of_parents).chain(of_listeners);
    let mut all: Vec<_> = all
        .map(|(key, condition)| {
            assert_eq!(
                condition.observed_generation,
                index.generation(key),
                "{key}"
            );
            let condition = Condition {
                observed_generation: None,
                ..condition.clone()
            };
            (key, condition)
        })
        .collect();
    all.sort_by_key(|(key, _)| *key);
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_of_changes_ends_in_what_building_anew_gives(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12)
    ) {
        let mut index = Index::new(Context::default());
        let mut followed = Followed::new();
        for batch in &batches {
            follow(&mut followed, index.apply(batch.iter().map(Step::event), NOW));
        }
        let mut anew = Index::new(Context::default());
        let objects = index.objects().map(|(_, object)| Event::Applied(object.clone()));
        let mut told_anew = Followed::new();
        follow(&mut told_anew, anew.apply(objects, NOW));

        prop_assert_eq!(resources(&index), resources(&anew));
        prop_assert_eq!(said(&index), said(&anew));
        prop_assert_eq!(&index.bindings, &anew.bindings);
        prop_assert_eq!(&index.pods_by_node, &anew.pods_by_node);
        prop_assert_eq!(followed, told_anew);
    }
}

#[test]
fn what_did_not_change_is_not_told() {
    let mut index = Index::new(Context::default());
    let web = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
               spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}\n";
    assert_eq!(index.apply([Event::Applied(object(web))], NOW).len(), 1);
    let moved = format!("# The same, further down.\n\n{web}");
    assert_eq!(index.apply([Event::Applied(object(&moved))], NOW), []);
    assert_eq!(
        index.objects().next().map(|(_, object)| object.origin.line),
        Some(3)
    );
    let unrelated = web.replace("{app: web}", "{app: other}");
    assert_eq!(index.apply([Event::Applied(object(&unrelated))], NOW), []);
}

#[test]
fn a_host_without_address_keeps_the_one_it_got() {
    let folder = tempfile::tempdir().expect("a folder");
    let book = folder.path().join("book.json");
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
                 metadata: {name: api, namespace: shop}\n\
                 spec: {hosts: [api.example.com], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}\n";
    let run = || {
        let index = Index::new(Context::default());
        let mut index = index.with_address_book(&book).expect("opens");
        let changes = index.apply([Event::Applied(object(entry))], NOW);
        index.save_addresses().expect("saves");
        changes.into_iter().find_map(|change| match change {
            Change::Service(service) => Some(service.addresses),
            _ => None,
        })
    };
    let first = run().expect("a service");
    assert_eq!(first.len(), 2);
    let text = std::fs::read_to_string(&book).expect("written");
    let text = text.replace(&first[0].address.to_string(), "240.240.9.9");
    let text = text.replace(&first[1].address.to_string(), "2001:2::909");
    std::fs::write(&book, text).expect("writes");
    let second = run().expect("a service");
    assert_eq!(second[0].address.to_string(), "240.240.9.9");
    assert_eq!(second[1].address.to_string(), "2001:2::909");
}
