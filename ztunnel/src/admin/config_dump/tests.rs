//! A dump read as istioctl reads it: into types of fixed shape, where one value of another shape
//! spoils all of it.

use std::collections::HashMap;

use mesh::address::{GatewayDestination, NamespacedHostname, NetworkAddress, NetworkCidr};
use mesh::authorization::{Action, Clause, Rule, Scope, ServiceAccountMatch};
use mesh::identity::Identity;
use mesh::service::{
    Algorithm, HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Scope as RoutingScope,
    Visibility,
};
use mesh::snapshot::{Change, Snapshot};
use mesh::workload::{
    ApplicationProtocol, ApplicationTunnel, NetworkMode, TunnelProtocol, WorkloadStatus,
    WorkloadType,
};
use serde::Deserialize;
use tokio::time::Duration;

use super::*;
use crate::access_log::ProcessLog;
use crate::certificates::PodCertificates;
use crate::proxy::WorkloadInfo;
use crate::proxy::connections::{OpenConnection, Protocol};
use crate::proxy::state::State;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Read {
    workloads: Vec<ReadWorkload>,
    services: Vec<ReadService>,
    policies: Vec<ReadPolicy>,
    certificates: Vec<ReadCertificates>,
    #[expect(dead_code, reason = "its shape is what is tested")]
    workload_state: HashMap<String, ReadState>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadWorkload {
    uid: String,
    workload_ips: Vec<String>,
    waypoint: Option<ReadGateway>,
    network_gateway: Option<ReadGateway>,
    protocol: String,
    name: String,
    namespace: String,
    service_account: String,
    workload_name: String,
    workload_type: String,
    canonical_name: String,
    canonical_revision: String,
    cluster_id: String,
    trust_domain: String,
    locality: HashMap<String, String>,
    node: String,
    network: String,
    status: String,
    application_tunnel: ReadTunnel,
    authorization_policies: Vec<String>,
    capacity: u32,
}

#[derive(Debug, Deserialize)]
struct ReadGateway {
    destination: String,
}

#[derive(Debug, Deserialize)]
struct ReadTunnel {
    protocol: String,
    port: Option<u16>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadService {
    name: String,
    namespace: String,
    hostname: String,
    vips: Vec<String>,
    ports: HashMap<String, i64>,
    load_balancer: ReadBalancer,
    waypoint: Option<ReadGateway>,
    endpoints: HashMap<String, ReadEndpoint>,
    subject_alt_names: Vec<String>,
    ip_families: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadBalancer {
    mode: String,
    routing_preferences: Vec<String>,
    health_policy: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadEndpoint {
    workload_uid: String,
    service: String,
    port: HashMap<u16, u16>,
}

#[derive(Debug, Deserialize)]
struct ReadPolicy {
    name: String,
    namespace: String,
    scope: String,
    action: String,
    rules: Vec<Vec<Vec<ReadMatch>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadMatch {
    namespaces: Vec<ReadText>,
    not_principals: Vec<ReadText>,
    principals: Vec<ReadText>,
    source_ips: Vec<String>,
    destination_ports: Vec<u16>,
    service_accounts: Vec<HashMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct ReadText {
    exact: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    presence: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadCertificates {
    identity: String,
    state: String,
    cert_chain: Vec<ReadCertificate>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadCertificate {
    pem: String,
    serial_number: String,
    valid_from: String,
    expiration_time: String,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "its shape is what is tested")]
struct ReadState {
    state: String,
    connections: HashMap<String, Vec<HashMap<String, String>>>,
    info: HashMap<String, String>,
}

fn mesh() -> Vec<Change> {
    let address = |text: &str| text.parse().expect("an address");
    let key = NamespacedHostname::new("shop", "web.shop.svc.cluster.local");
    let gateway = |destination| GatewayAddress {
        destination,
        hbone_mtls_port: 15008,
    };
    let port = Port {
        service_port: 80,
        target_port: 8080,
        app_protocol: Default::default(),
    };
    let mut workload = Workload::new("Kubernetes//Pod/shop/web-0", "web-0", "shop");
    workload.addresses = [address("10.244.1.2"), address("fd00::2")]
        .into_iter()
        .collect();
    workload.tunnel_protocol = TunnelProtocol::Hbone;
    workload.node = "node-1".into();
    workload.network = "west".into();
    workload.workload_name = "web".into();
    workload.canonical_name = "web".into();
    workload.canonical_revision = "v1".into();
    Arc::make_mut(&mut workload.locality).region = "eu".into();
    workload.waypoint = Some(gateway(GatewayDestination::Hostname(
        NamespacedHostname::new("shop", "waypoint.shop.svc.cluster.local"),
    )));
    let far = NetworkAddress::new("east", address("192.0.2.9"));
    workload.network_gateway = Some(gateway(GatewayDestination::Address(far)));
    workload.application_tunnel = Some(ApplicationTunnel {
        protocol: ApplicationProtocol::Proxy,
        port: Some(15088),
    });
    workload.authorization_policies = vec![mesh::authorization::PolicyKey::new("shop", "all")];
    workload.services.insert(key.clone(), vec![port]);
    let mut service = Service::new("web", "shop", &key.hostname);
    service.addresses = vec![NetworkAddress::new("west", address("10.96.0.7"))];
    service.ports = vec![port];
    service.waypoint = workload.waypoint.clone();
    service.weighted_waypoints = vec![WeightedWaypoint {
        destination: gateway(GatewayDestination::Hostname(NamespacedHostname::new(
            "shop",
            "canary.shop.svc.cluster.local",
        ))),
        weight: 30,
    }];
    service.subject_alt_names = vec!["spiffe://td/ns/shop/sa/web".into()];
    service.load_balancing.mode = LoadBalancingMode::Failover;
    service.load_balancing.routing_preference = vec![RoutingScope::Network, RoutingScope::Zone];
    let policy = Authorization {
        name: "all".into(),
        namespace: "shop".into(),
        scope: Scope::WorkloadSelector,
        action: Action::Deny,
        dry_run: true,
        targets: Vec::new(),
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![Match {
                    namespaces: vec![
                        StringMatch::Prefix("a".into()),
                        StringMatch::Suffix("z".into()),
                    ],
                    principals: vec![StringMatch::Exact("td/ns/n/sa/s".into())],
                    not_principals: vec![StringMatch::Presence],
                    source_ips: vec!["10.0.0.0/8".parse().expect("a range")],
                    destination_ports: vec![80],
                    service_accounts: vec![ServiceAccountMatch {
                        namespace: "shop".into(),
                        service_account: "web".into(),
                    }],
                    ..Match::default()
                }],
            }],
        }],
    };
    vec![
        Change::Service(service),
        Change::Workload(workload),
        Change::Authorization(policy),
    ]
}

fn dump(changes: Vec<Change>, certificates: Option<CertificateManager>) -> Read {
    let dumped = dumped(changes, certificates);
    serde_json::from_str(&json(&dumped)).expect("istioctl's shape")
}

fn json(dumped: &Dumped) -> String {
    let mut json = Vec::new();
    dumped.write(&mut json).expect("serialises");
    String::from_utf8(json).expect("text")
}

fn dumped(changes: Vec<Change>, certificates: Option<CertificateManager>) -> Dumped {
    let config = Config::parse(Default::default(), None, 2).expect("valid");
    let mut snapshot = Snapshot::default();
    snapshot.apply(changes);
    let proxy = Shared::new(
        config.proxy.clone(),
        Arc::new(State::new(snapshot)),
        Arc::new(PodCertificates::new(None)),
        Arc::new(ProcessLog),
        Arc::default(),
    );
    Dumped {
        config: Arc::new(config),
        proxy: Arc::new(proxy),
        certificates,
        freshness: None,
    }
}

#[test]
fn what_waits_to_be_served_and_what_has_several_waypoints_is_shown() {
    let dumped = dumped(mesh(), None);
    let info = WorkloadInfo {
        name: "web-0".into(),
        namespace: "shop".into(),
        service_account: "web".into(),
    };
    dumped.proxy.pods.set_pending(vec![("a".into(), info)]);
    let dump = json(&dumped);
    let _: Read = serde_json::from_str(&dump).expect("istioctl's shape");
    let dump: Value = serde_json::from_str(&dump).expect("JSON");
    let state = &dump["workloadState"]["a"];
    assert_eq!(state["state"], "Pending");
    assert_eq!(state["info"]["serviceAccount"], "web");
    let weighted = json!([{
        "destination": {
            "destination": "shop/canary.shop.svc.cluster.local",
            "hboneMtlsPort": 15008,
        },
        "weight": 30,
    }]);
    assert_eq!(dump["services"][0]["weightedWaypoints"], weighted);
}

#[test]
fn workloads_and_services_are_read_field_by_field() {
    let dump = dump(mesh(), None);
    let workload = &dump.workloads[0];
    let texts = [
        (&workload.uid, "Kubernetes//Pod/shop/web-0"),
        (&workload.protocol, "HBONE"),
        (&workload.name, "web-0"),
        (&workload.namespace, "shop"),
        (&workload.service_account, "default"),
        (&workload.workload_name, "web"),
        (&workload.workload_type, "pod"),
        (&workload.canonical_name, "web"),
        (&workload.canonical_revision, "v1"),
        (&workload.cluster_id, "Kubernetes"),
        (&workload.trust_domain, "cluster.local"),
        (&workload.locality["region"], "eu"),
        (&workload.node, "node-1"),
        (&workload.network, "west"),
        (&workload.status, "Healthy"),
        (&workload.application_tunnel.protocol, "PROXY"),
    ];
    for (text, expected) in texts {
        assert_eq!(text, expected);
    }
    assert_eq!(workload.workload_ips, ["10.244.1.2", "fd00::2"]);
    assert_eq!(workload.application_tunnel.port, Some(15088));
    assert_eq!(workload.authorization_policies, ["shop/all"]);
    assert_eq!(workload.capacity, 1);
    let waypoint = "shop/waypoint.shop.svc.cluster.local";
    let of = |gateway: &Option<ReadGateway>| gateway.as_ref().map(|one| one.destination.clone());
    assert_eq!(of(&workload.waypoint).as_deref(), Some(waypoint));
    assert_eq!(
        of(&workload.network_gateway).as_deref(),
        Some("east/192.0.2.9")
    );

    let service = &dump.services[0];
    assert_eq!((&*service.name, &*service.namespace), ("web", "shop"));
    assert_eq!(service.hostname, "web.shop.svc.cluster.local");
    assert_eq!(service.vips, ["west/10.96.0.7"]);
    assert_eq!(service.ports["80"], 8080);
    assert_eq!(service.load_balancer.mode, "Failover");
    assert_eq!(
        service.load_balancer.routing_preferences,
        ["Network", "Zone"]
    );
    assert_eq!(service.load_balancer.health_policy, "OnlyHealthy");
    assert_eq!(of(&service.waypoint).as_deref(), Some(waypoint));
    assert_eq!(service.subject_alt_names, ["spiffe://td/ns/shop/sa/web"]);
    assert_eq!(service.ip_families, "Automatic");
    let endpoint = &service.endpoints["Kubernetes//Pod/shop/web-0"];
    assert_eq!(endpoint.workload_uid, workload.uid);
    assert_eq!(endpoint.service, "shop/web.shop.svc.cluster.local");
    assert_eq!(endpoint.port[&80], 8080);
}

/// One of every kind that there is, next to the usual mesh.
fn every_kind() -> Vec<Change> {
    let mut changes = mesh();
    for (name, kind) in [
        ("a", WorkloadType::Deployment),
        ("b", WorkloadType::CronJob),
        ("c", WorkloadType::Job),
    ] {
        let mut workload = Workload::new(&format!("Kubernetes//Pod/more/{name}"), name, "more");
        workload.workload_type = kind;
        workload.workload_name = name.into();
        workload.hostname = Some("more.example".into());
        workload.native_tunnel = true;
        workload.network_mode = NetworkMode::HostNetwork;
        workload.status = WorkloadStatus::Unhealthy;
        workload.capacity = 7;
        workload.application_tunnel = Some(ApplicationTunnel {
            protocol: ApplicationProtocol::None,
            port: None,
        });
        workload.request_policies = vec![mesh::authorization::PolicyKey::new("more", "a")];
        workload.request_authentications = workload.request_policies.clone();
        workload.admitted_waypoints = vec![Identity::new("td", "more", "waypoint")];
        workload
            .services
            .insert(NamespacedHostname::new("more", "more.example"), Vec::new());
        changes.push(Change::Workload(workload));
    }
    let modes = [
        LoadBalancingMode::Standard,
        LoadBalancingMode::Strict,
        LoadBalancingMode::Passthrough,
    ];
    let families = [IpFamilies::Ipv4Only, IpFamilies::Ipv6Only, IpFamilies::Dual];
    for (mode, ip_families) in modes.into_iter().zip(families) {
        let hostname = format!("{ip_families:?}.example").to_lowercase();
        let mut service = Service::new("more", "more", &hostname);
        service.load_balancing = LoadBalancing {
            mode,
            routing_preference: vec![
                RoutingScope::Region,
                RoutingScope::Subzone,
                RoutingScope::Node,
                RoutingScope::Cluster,
            ],
            health_policy: HealthPolicy::AllowAll,
            algorithm: Algorithm::LeastRequest,
        };
        service.ip_families = ip_families;
        service.canonical = true;
        service.visibility = Visibility::Namespace;
        service.cidr_vips = vec![NetworkCidr {
            network: "west".into(),
            cidr: "192.0.2.0/24".parse().expect("a range"),
        }];
        changes.push(Change::Service(service));
    }
    for (name, scope) in [("global", Scope::Global), ("namespace", Scope::Namespace)] {
        let texts = vec![StringMatch::Presence];
        let ranges = vec!["fd00::/8".parse().expect("a range")];
        let accounts = vec![ServiceAccountMatch {
            namespace: "more".into(),
            service_account: "a".into(),
        }];
        let matches = vec![Match {
            not_namespaces: texts,
            not_service_accounts: accounts,
            not_source_ips: ranges.clone(),
            destination_ips: ranges.clone(),
            not_destination_ips: ranges,
            not_destination_ports: vec![81],
            unparsable: Some("nobody knows".into()),
            ..Match::default()
        }];
        changes.push(Change::Authorization(Authorization {
            name: name.into(),
            namespace: "more".into(),
            scope,
            action: Action::Allow,
            dry_run: false,
            targets: Vec::new(),
            rules: vec![Rule {
                clauses: vec![Clause { matches }, Clause::default()],
            }],
        }));
    }
    changes
}

#[test]
fn a_dump_is_a_local_mesh_the_same_as_it_was_made_of() {
    let dumped = dumped(every_kind(), None);
    let dump = json(&dumped);
    let read = crate::local_xds::snapshot(&dump).expect("a local mesh");
    let made = dumped.proxy.state.snapshot();
    assert!(read.workloads().eq(made.workloads()), "{dump}");
    assert!(read.policies().eq(made.policies()), "{dump}");
    // With the endpoints, which are not told but follow.
    let shown = |snapshot: &Snapshot| -> Vec<_> {
        let mut all: Vec<_> = snapshot.services().map(|entry| service(entry)).collect();
        all.sort_by_key(ToString::to_string);
        all
    };
    assert_eq!(shown(&read), shown(&made));
    let told = |snapshot: &Snapshot| -> Vec<_> {
        let all = snapshot.services();
        all.map(|entry| entry.service.clone()).collect()
    };
    assert_eq!(told(&read), told(&made));
}

#[test]
fn every_kind_of_text_of_a_policy_is_an_object() {
    let dump = dump(mesh(), None);
    let policy = &dump.policies[0];
    assert_eq!((&*policy.name, &*policy.namespace), ("all", "shop"));
    assert_eq!(
        (&*policy.scope, &*policy.action),
        ("WorkloadSelector", "Deny")
    );
    let one = &policy.rules[0][0][0];
    assert_eq!(one.namespaces[0].prefix.as_deref(), Some("a"));
    assert_eq!(one.namespaces[1].suffix.as_deref(), Some("z"));
    assert_eq!(one.principals[0].exact.as_deref(), Some("td/ns/n/sa/s"));
    assert!(one.not_principals[0].presence.is_some());
    assert_eq!(one.source_ips, ["10.0.0.0/8"]);
    assert_eq!(one.destination_ports, [80]);
    assert_eq!(one.service_accounts[0]["serviceAccount"], "web");
}

#[tokio::test]
async fn certificates_have_decimal_numbers_and_times_of_rfc_3339() {
    let signer = identity::authority::Signer::self_signed(
        "cluster.local",
        Duration::from_secs(86_400),
        SystemTime::now(),
    );
    let manager = CertificateManager::new(Arc::new(identity::ca_client::LocalCa {
        signer: signer.expect("a root"),
        lifetime: Duration::from_secs(3600),
    }));
    let identity = Identity::new("cluster.local", "shop", "web");
    manager.certificate(&identity).await.expect("signed");
    let dump = dump(Vec::new(), Some(manager));
    let [web] = &dump.certificates[..] else {
        panic!("{dump:?}");
    };
    assert_eq!(web.identity, "spiffe://cluster.local/ns/shop/sa/web");
    assert_eq!(web.state, "Available");
    let leaf = &web.cert_chain[0];
    assert!(
        leaf.serial_number.bytes().all(|byte| byte.is_ascii_digit()),
        "{leaf:?}"
    );
    for time in [&leaf.valid_from, &leaf.expiration_time] {
        humantime::parse_rfc3339(time).expect("RFC 3339");
    }
    assert!(!leaf.pem.is_empty());
}

#[test]
fn a_connection_through_a_gateway_is_shown_by_name() {
    let connection = OpenConnection {
        src: "10.244.1.2:40000".parse().expect("an address"),
        original_dst: Some(mesh::destination::Authority::Hostname(
            "web.shop".into(),
            80,
        )),
        actual_dst: "192.0.2.9:15008".parse().expect("an address"),
        protocol: Protocol::DoubleHbone,
    };
    let expected = json!({
        "src": "10.244.1.2:40000",
        "originalDst": "web.shop:80",
        "actualDst": "192.0.2.9:15008",
        "protocol": "DOUBLEHBONE",
    });
    assert_eq!(to_value(&connection), expected);
}
