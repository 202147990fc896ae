//! Texts that are read, and those that are refused.

use mesh::authorization;
use mesh::service::IpFamilies;
use mesh::workload::{TunnelProtocol, WorkloadUid};

use super::*;

const SHOP: &str = r#"
workloads:
- uid: Kubernetes//Pod/shop/web-0
  name: web-0
  namespace: shop
  serviceAccount: web
  node: node-1
  workloadIps: [10.0.0.7, "fd00::7"]
  protocol: HBONE
  authorizationPolicies: [shop/only-frontend]
  waypoint: {destination: shop/waypoint.shop.svc.cluster.local}
  services:
    shop/web.shop.svc.cluster.local: {80: 8080}
services:
- name: web
  namespace: shop
  hostname: web.shop.svc.cluster.local
  vips: [/10.96.0.1]
  ports: {80: 8080}
policies:
- name: only-frontend
  namespace: shop
  scope: WorkloadSelector
  action: Allow
  rules:
  - - - principals: [{exact: cluster.local/ns/shop/sa/frontend}]
        notNamespaces: [{Presence: []}]
        sourceIps: [10.0.0.0/8]
        destinationPorts: [8080]
"#;

#[test]
fn a_mesh_is_read_with_its_services_and_policies() {
    let snapshot = snapshot(SHOP).expect("valid");
    let uid = WorkloadUid::new("Kubernetes//Pod/shop/web-0");
    let workload = snapshot.workload(&uid).expect("the workload");
    assert_eq!(
        workload.identity().to_string(),
        "spiffe://cluster.local/ns/shop/sa/web"
    );
    assert_eq!(workload.tunnel_protocol, TunnelProtocol::Hbone);
    let waypoint = workload.waypoint.as_ref().expect("a waypoint");
    assert_eq!(waypoint.hbone_mtls_port, 15008);
    let vip = NetworkAddress::new("", "10.96.0.1".parse().expect("address"));
    let service = snapshot.service_at(&vip, "shop").expect("the service");
    assert_eq!(service.target_port(&service.endpoints[0], 80), Some(8080));
    let policy = snapshot.policy(&workload.authorization_policies[0]);
    let policy = policy.expect("the policy");
    let condition = &policy.rules[0].clauses[0].matches[0];
    assert_eq!(condition.destination_ports, [8080]);
    assert_eq!(
        condition.not_namespaces,
        [authorization::StringMatch::Presence]
    );
    assert_eq!(condition.source_ips.len(), 1);
}

#[test]
fn what_is_not_understood_is_a_mistake() {
    for (text, expected) in [
        ("workloads: [{uid: a, name: a}]", "namespace"),
        ("workload: []", "workload"),
        (
            "policies: [{name: a, namespace: b, scope: Global, action: Deny, rules: [[[{principal: []}]]]}]",
            "principal",
        ),
        (
            "services: [{name: a, namespace: b, hostname: c, vips: [10.0.0.1]}]",
            "network/address",
        ),
        (
            "workloads: [{uid: a, name: a, namespace: b, authorizationPolicies: [c]}]",
            "namespace/name",
        ),
        (
            "services: [{name: a, namespace: b, hostname: c, cidrVips: [/10.0.0.0]}]",
            "prefix length",
        ),
        (
            "services: [{name: a, namespace: b, hostname: c, endpoints: {d: {}}}]",
            "no workload of that uid",
        ),
        (
            "workloads: [{uid: a, namespace: b, admittedWaypoints: [c]}]",
            "spiffe",
        ),
    ] {
        let mistake = snapshot(text).expect_err(text);
        assert!(mistake.contains(expected), "{text}: {mistake}");
    }
}

/// A text of the shape that Istio's own example has: two workloads of one machine, captured and
/// not, that back two services, one of them of another network.
#[test]
fn istio_s_example_is_understood() {
    const LOCALHOST: &str = r#"
policies:
  - name: all-but-one-port
    namespace: here
    scope: Namespace
    action: Allow
    dryRun: false
    rules:
    - - - notDestinationPorts:
          - 7777
services:
- {name: near, namespace: here, hostname: near.example, vips: [/127.9.0.1], ports: {81: 8081},
   subjectAltNames: ["spiffe://cluster.local/ns/here/sa/near"], canonical: true, ipFamilies: IPv4}
- {name: far, namespace: here, hostname: far.example, vips: [elsewhere/127.9.0.2], ports: {81: 8081},
   canonical: true}
workloads:
- uid: cluster1//v1/Pod/here/captured
  name: captured
  namespace: here
  serviceAccount: near
  workloadIps: ["127.0.0.1"]
  protocol: HBONE
  node: this
  network: ""
  services: &services
    "here/near.example":
      81: 8081
    "here/far.example":
      81: 8081
- uid: cluster1//v1/Pod/here/plain
  name: plain
  namespace: here
  serviceAccount: near
  workloadIps: ["127.0.0.2"]
  protocol: TCP
  node: this
  network: ""
  services: *services
"#;
    let snapshot = snapshot(LOCALHOST).expect("valid");
    let mut services: Vec<_> = snapshot.services().collect();
    services.sort_by_key(|entry| entry.service.key());
    let members: Vec<_> = services.iter().map(|entry| entry.members).collect();
    assert_eq!(members, [2, 2]);
    assert_eq!(&*services[0].service.addresses[0].network, "elsewhere");
    assert_eq!(services[1].service.ip_families, IpFamilies::Ipv4Only);
    assert_eq!(snapshot.policies().count(), 1);
}
