//! Our node tunnel in Istio's place: its control plane, its CNI agent, and the environment of its
//! DaemonSet; nothing of ours around it. And beside Istio's: [`pair`].

mod agent;
mod istiod;
mod node;
mod pair;

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use hbone::client::{self, ConnectRequest};
use http::HeaderMap;
use prost_types::value::Kind;
use proto::authorization::{
    AUTHORIZATION_TYPE_URL, Authorization, Clause, Match, MatchType, Rule, StringMatch,
};
use proto::discovery::{DeltaDiscoveryRequest, Resource};
use proto::workload::{
    ADDRESS_TYPE_URL, Address, AddressType, NetworkAddress, Port, PortList, Service,
    TunnelProtocol, Workload,
};
use serde_json::Value;
use tests::lab::program;

use self::istiod::resource;
use self::node::Node;
use super::lab::{APPLICATION, Lab, PATIENCE};
use super::{SERVICE, close, echo, identity_of, is_refused};
use crate::counterpart::from_pod;

const HOSTNAME: &str = "web.shop.svc.cluster.local";
const WEB: &str = "shop/web.shop.svc.cluster.local";

/// An Istio cluster of one node: its namespace is the pod `node`'s.
struct Cluster {
    lab: Lab,
    node: Node,
}

impl Cluster {
    /// With `variables` besides those that Istio's chart sets.
    fn start(pods: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut lab = Lab::new();
        lab.bare_pod("node");
        for pod in pods {
            lab.bare_pod(pod);
            lab.redirect(pod);
            lab.serve(pod);
        }
        let node = Node::start(&lab, "node", &program("ztunnel"), variables);
        Self { lab, node }
    }

    fn is_ready(&self) -> bool {
        self.node.is_ready(&self.lab)
    }

    fn dump(&self) -> Value {
        self.node.dump(&self.lab)
    }

    /// What the tunnel's own HTTP servers answer a pod.
    fn metrics(&self, pod: &str, port: u16) -> Option<String> {
        let address = SocketAddr::new(self.lab.ip("node"), port);
        node::http_from(&self.lab, pod, address, "GET /metrics")
    }

    fn workload(&self, name: &str) -> Workload {
        let IpAddr::V4(address) = self.lab.ip(name) else {
            panic!("IPv4");
        };
        Workload {
            uid: uid(name),
            name: name.to_owned(),
            namespace: "shop".to_owned(),
            service_account: name.to_owned(),
            addresses: vec![address.octets().to_vec()],
            tunnel_protocol: TunnelProtocol::Hbone.into(),
            node: "node-1".to_owned(),
            canonical_name: name.to_owned(),
            canonical_revision: "latest".to_owned(),
            workload_name: name.to_owned(),
            workload_type: 2,
            cluster_id: "Kubernetes".to_owned(),
            ..Default::default()
        }
    }
}

/// What the tunnel into `server` answers a gateway that asks it for an authority.
fn ask(cluster: &Cluster, authority: &str) -> Result<(), String> {
    let certificate = cluster
        .node
        .istiod
        .workload_certificate(&identity_of("gateway"));
    let target = SocketAddr::new(cluster.lab.ip("server"), 15008);
    from_pod(&cluster.lab, "gateway", target, async |tcp| {
        let tls = certificate.client_config(&[identity_of("server")].into());
        let tunnel = client::handshake(tcp, tls, &Default::default()).await;
        let request = ConnectRequest {
            authority: authority.parse().expect("characters of an authority"),
            headers: HeaderMap::new(),
        };
        let opened = tunnel.expect("a tunnel").open(request).await;
        opened.map(drop).map_err(|error| error.to_string())
    })
}

fn uid(pod: &str) -> String {
    format!("Kubernetes//Pod/shop/{pod}")
}

fn workload(workload: Workload) -> Resource {
    let name = workload.uid.clone();
    let address = Address {
        r#type: Some(AddressType::Workload(workload)),
    };
    resource(ADDRESS_TYPE_URL, &name, &address)
}

fn web() -> Resource {
    let IpAddr::V4(vip) = SERVICE.ip() else {
        panic!("IPv4");
    };
    let service = Service {
        name: "web".to_owned(),
        namespace: "shop".to_owned(),
        hostname: HOSTNAME.to_owned(),
        addresses: vec![NetworkAddress {
            address: vip.octets().to_vec(),
            ..Default::default()
        }],
        ports: vec![port()],
        canonical: true,
        ..Default::default()
    };
    let address = Address {
        r#type: Some(AddressType::Service(service)),
    };
    resource(ADDRESS_TYPE_URL, WEB, &address)
}

fn port() -> Port {
    Port {
        service_port: SERVICE.port().into(),
        target_port: APPLICATION.into(),
        ..Default::default()
    }
}

fn somebody() -> StringMatch {
    StringMatch {
        match_type: Some(MatchType::Presence(())),
    }
}

/// What istiod makes of STRICT.
fn strict() -> Resource {
    let nobody = Match {
        not_principals: vec![somebody()],
        ..Default::default()
    };
    denial("istio_converted_static_strict", nobody)
}

fn denial(name: &str, whom: Match) -> Resource {
    let policy = Authorization {
        name: name.to_owned(),
        namespace: "istio-system".to_owned(),
        scope: 2,
        action: 1,
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![whom],
            }],
        }],
        ..Default::default()
    };
    let name = format!("istio-system/{name}");
    resource(AUTHORIZATION_TYPE_URL, &name, &policy)
}

fn text(request: &DeltaDiscoveryRequest, key: &str) -> Option<String> {
    let fields = &request.node.as_ref()?.metadata.as_ref()?.fields;
    match fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

/// As the chart leaves it: which trust domain a pod is of, the mesh tells, and only the mesh.
#[test]
fn the_mesh_tells_the_trust_domain_of_a_pod() {
    for direct in ["true", "false"] {
        let variables = [("ENABLE_SAME_NODE_DIRECT", direct)];
        let cluster = Cluster::start(&["client", "server", "stranger"], &variables);
        let of = |pod: &str, trust_domain: &str| {
            let mut of = cluster.workload(pod);
            of.trust_domain = trust_domain.to_owned();
            workload(of)
        };
        cluster
            .node
            .istiod
            .set(vec![of("client", "corp"), of("stranger", "")]);
        let agent = cluster.node.agent.accept();
        for pod in ["client", "server", "stranger"] {
            let netns = cluster.lab.netns(pod);
            assert_eq!(agent.add(&format!("uid-{pod}"), pod, &netns), "");
        }
        assert_eq!(agent.snapshot_sent(), "");
        // Told before its connections, and after.
        cluster
            .node
            .istiod
            .certificate("spiffe://corp/ns/shop/sa/client");
        let state = cluster.dump()["workloadState"].clone();
        assert_eq!(state["uid-client"]["info"]["trustDomain"], "corp");
        assert_eq!(state["uid-server"]["info"]["trustDomain"], Value::Null);
        cluster.node.istiod.set(vec![of("server", "corp")]);
        cluster
            .node
            .istiod
            .certificate("spiffe://corp/ns/shop/sa/server");

        let server = cluster.lab.address("server");
        let (mut stream, _) = cluster.lab.call("client", server).expect("call");
        echo(&mut stream);
        close(stream);
        cluster.node.until("the access log", || {
            cluster.node.log().lines().any(|line| {
                line.contains("src.identity=\"spiffe://corp/ns/shop/sa/client\"")
                    && line.contains("dst.identity=\"spiffe://corp/ns/shop/sa/server\"")
                    && line.contains("direction=\"inbound\"")
            })
        });
        assert!(is_refused(cluster.lab.call("stranger", server)), "{direct}");
        cluster.node.until("the refusal", || {
            let log = cluster.node.log();
            log.contains("not of the trust domain of")
                || log.contains("not of our trust domain corp")
        });
    }
}

#[test]
fn a_node_of_an_istio_cluster_needs_nothing_else() {
    let mut cluster = Cluster::start(&["client", "server"], &[]);
    let mut server = cluster.workload("server");
    let member = PortList {
        ports: vec![port()],
    };
    server.services.insert(WEB.to_owned(), member);
    server.authorization_policies = vec!["istio-system/istio_converted_static_strict".to_owned()];
    let mut sidecar = cluster.workload("client");
    sidecar.uid = "Kubernetes//Pod/shop/sidecar".to_owned();
    sidecar.addresses = vec![vec![10, 44, 9, 9]];
    sidecar.tunnel_protocol = TunnelProtocol::LegacyIstioMtls.into();
    let client = cluster.workload("client");
    // The member before its service, and one that no tunnel can speak to.
    cluster.node.istiod.set(vec![
        workload(server),
        workload(client),
        workload(sidecar),
        web(),
        strict(),
    ]);

    // xDS: who asks, with what, for what.
    for url in [ADDRESS_TYPE_URL, AUTHORIZATION_TYPE_URL] {
        let first = |request: &DeltaDiscoveryRequest| {
            request.type_url == url && request.response_nonce.is_empty()
        };
        let (headers, request) = cluster.node.istiod.request(0, first);
        assert_eq!(headers["authorization"], "Bearer t0ken");
        assert_eq!(headers["clusterid"], "Kubernetes");
        assert_eq!(headers["x-tenant"], "one");
        let node = request.node.as_ref().expect("a node");
        let ip = cluster.lab.ip("node");
        assert_eq!(
            node.id,
            format!("ztunnel~{ip}~ztunnel-abcde.istio-system~istio-system.svc.cluster.local")
        );
        for (key, value) in [
            ("NAME", "ztunnel-abcde"),
            ("NAMESPACE", "istio-system"),
            ("NODE_NAME", "node-1"),
            ("CLUSTER_ID", "Kubernetes"),
            ("ENABLE_HBONE", "true"),
        ] {
            assert_eq!(text(&request, key).as_deref(), Some(value), "{key}");
        }
        assert!(request.resource_names_subscribe.is_empty());
        assert!(request.initial_resource_versions.is_empty());
    }
    let (_, refused) = cluster
        .node
        .istiod
        .request(0, |request| request.error_detail.is_some());
    assert_eq!(refused.type_url, ADDRESS_TYPE_URL);
    assert!(!refused.response_nonce.is_empty());
    let error = refused.error_detail.expect("looked for");
    assert!(
        error.message.starts_with("Kubernetes//Pod/shop/sidecar: "),
        "{error:?}"
    );

    // ZDS: the pods of the node.
    let agent = cluster.node.agent.accept();
    assert!(!cluster.is_ready());
    for pod in ["client", "server"] {
        let netns = cluster.lab.netns(pod);
        assert_eq!(agent.add(&format!("uid-{pod}"), pod, &netns), "");
    }
    assert_eq!(agent.snapshot_sent(), "");
    cluster.node.until("readiness", || cluster.is_ready());

    // The CA: on behalf of each.
    for pod in ["client", "server"] {
        let identity = format!("spiffe://cluster.local/ns/shop/sa/{pod}");
        let (headers, request) = cluster.node.istiod.certificate(&identity);
        assert_eq!(headers["authorization"], "Bearer t0ken");
        assert_eq!(headers["clusterid"], "Kubernetes");
        assert_eq!(headers["x-tenant"], "one");
        assert_eq!(request.validity_duration, 86_400);
        assert!(
            request
                .csr
                .starts_with("-----BEGIN CERTIFICATE REQUEST-----")
        );
    }

    // Connections: by address and by service, as whom, and never in plaintext to STRICT.
    for target in [cluster.lab.address("server"), SERVICE] {
        let (mut stream, caller) = cluster.lab.call("client", target).expect("call");
        assert_eq!(caller, cluster.lab.ip("client"));
        echo(&mut stream);
        close(stream);
    }
    cluster.node.until("the access log", || {
        let log = cluster.node.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("connection complete"));
        lines.any(|line| {
            line.contains("src.identity=\"spiffe://cluster.local/ns/shop/sa/client\"")
                && line.contains("dst.identity=\"spiffe://cluster.local/ns/shop/sa/server\"")
                && line.contains("dst.service=\"web.shop.svc.cluster.local\"")
                && line.contains("direction=\"inbound\"")
                && !line.contains("error")
        })
    });
    cluster.lab.bare_pod("plain");
    assert!(is_refused(
        cluster.lab.call("plain", cluster.lab.address("server"))
    ));

    // A type nobody knows is acknowledged, as Istio's tunnel does.
    let unknown = "type.googleapis.com/istio.workload.Workload";
    cluster
        .node
        .istiod
        .send(vec![resource(unknown, "any", &())]);
    let (_, answer) = cluster
        .node
        .istiod
        .request(0, |request| request.type_url == unknown);
    assert_eq!(answer.error_detail, None);

    // istiod restarts without the service: what is held is told, what is gone goes.
    cluster.node.istiod.disconnect();
    cluster.node.istiod.remove(ADDRESS_TYPE_URL, WEB);
    let (_, again) = cluster.node.istiod.request(1, |request| {
        request.type_url == ADDRESS_TYPE_URL && request.response_nonce.is_empty()
    });
    let mut held: Vec<_> = again.initial_resource_versions.keys().cloned().collect();
    held.sort();
    assert_eq!(held, [uid("client"), uid("server"), WEB.to_owned()]);
    assert!(again.node.is_some());
    cluster.node.until("the removal", || {
        cluster.dump()["services"] == serde_json::json!([])
    });

    // The agent restarts: it still has one pod and knows the other no more.
    let mut open = cluster
        .lab
        .call("client", cluster.lab.address("server"))
        .expect("call")
        .0;
    drop(agent);
    cluster
        .node
        .until("readiness follows", || !cluster.is_ready());
    let agent = cluster.node.agent.accept();
    assert_eq!(agent.keep("uid-client"), "");
    let netns = cluster.lab.netns("server");
    assert_eq!(agent.add("uid-server", "server", &netns), "");
    assert_eq!(agent.snapshot_sent(), "");
    cluster.node.until("readiness", || cluster.is_ready());
    echo(&mut open);
    drop(open);
    assert_eq!(agent.delete("uid-server"), "");
    let state = cluster.dump()["workloadState"].clone();
    assert_eq!(state["uid-client"]["state"], "Up");
    assert!(state.get("uid-server").is_none(), "{state}");

    let answer = cluster
        .node
        .http(&cluster.lab, "POST", 15000, "/quitquitquit")
        .expect("answers");
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let mut status = None;
    let ztunnel = &mut cluster.node.ztunnel;
    let end = Instant::now() + PATIENCE;
    while status.is_none() && Instant::now() < end {
        status = ztunnel.try_wait().expect("waits");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(status.and_then(|status| status.code()), Some(0));
}

/// Who scrapes it from a pod of the mesh is somebody, and needs leave.
#[test]
fn the_tunnel_is_reached_as_a_workload_itself() {
    for direct in ["true", "false"] {
        let variables = [("ENABLE_SAME_NODE_DIRECT", direct)];
        let mut cluster = Cluster::start(&["client"], &variables);
        cluster.lab.bare_pod("plain");
        let mut itself = Workload {
            uid: "Kubernetes//Pod/istio-system/ztunnel-abcde".to_owned(),
            name: "ztunnel-abcde".to_owned(),
            namespace: "istio-system".to_owned(),
            service_account: "ztunnel".to_owned(),
            trust_domain: "corp".to_owned(),
            ..cluster.workload("node")
        };
        let mut client = cluster.workload("client");
        client.trust_domain = "corp".to_owned();
        cluster
            .node
            .istiod
            .set(vec![workload(client), workload(itself.clone())]);
        let agent = cluster.node.agent.accept();
        let netns = cluster.lab.netns("client");
        assert_eq!(agent.add("uid-client", "client", &netns), "");
        assert_eq!(agent.snapshot_sent(), "");
        cluster.node.until("readiness", || cluster.is_ready());
        let own = "spiffe://corp/ns/istio-system/sa/ztunnel";
        cluster.node.istiod.certificate(own);

        let page = cluster.metrics("client", 15020).expect("answers");
        assert!(page.contains("istio_build"), "{page}");
        let is_logged = |direction: &str, line: &str| {
            line.contains("connection complete")
                && line.contains("src.identity=\"spiffe://corp/ns/shop/sa/client\"")
                && line.contains(&format!("dst.identity=\"{own}\""))
                && line.contains(&format!("direction=\"{direction}\""))
                && !line.contains("error")
        };
        for direction in ["inbound", "outbound"] {
            cluster.node.until("the access log", || {
                let log = cluster.node.log();
                log.lines().any(|line| is_logged(direction, line))
            });
        }
        let page = cluster.metrics("client", 15020).expect("answers");
        let counted = [
            "istio_tcp_connections_opened_total{",
            "reporter=\"destination\"",
            "destination_principal=\"spiffe://corp/ns/istio-system/sa/ztunnel\"",
            "connection_security_policy=\"mutual_tls\"",
        ];
        let is_counted = |line: &str| counted.iter().all(|part| line.contains(part));
        assert!(page.lines().any(is_counted), "{page}");
        let state = cluster.dump()["workloadState"]["ztunnel"].clone();
        assert_eq!(state["state"], "Up", "{state}");
        assert_eq!(state["info"]["trustDomain"], "corp", "{state}");

        // istiod listens in the same namespace, and the admin server on its loopback.
        for port in [node::XDS_PORT, 15000] {
            assert_eq!(cluster.metrics("client", port), None);
            let refused = format!("port {port} is not the ztunnel's own");
            cluster
                .node
                .until(&refused, || cluster.node.log().contains(&refused));
        }
        assert!(cluster.metrics("plain", 15020).is_some());

        let name = "istio-system/nobody";
        itself.authorization_policies = vec![name.to_owned()];
        let whom = Match {
            principals: vec![somebody()],
            ..Default::default()
        };
        let policy = denial("nobody", whom);
        cluster.node.istiod.set(vec![policy, workload(itself)]);
        cluster
            .node
            .until("the policy", || cluster.metrics("client", 15020).is_none());
        cluster
            .node
            .until("the denial", || cluster.node.log().contains(name));
    }
}

#[test]
fn a_service_that_only_a_peer_names_is_asked_for() {
    let on_demand = [
        ("XDS_ON_DEMAND", "true"),
        ("ISTIO_META_DNS_CAPTURE", "false"),
    ];
    let mut cluster = Cluster::start(&["server"], &on_demand);
    cluster.lab.bare_pod("gateway");
    let mut server = cluster.workload("server");
    let member = PortList {
        ports: vec![port()],
    };
    server.services.insert(WEB.to_owned(), member);
    cluster.node.istiod.set(vec![workload(server)]);
    let agent = cluster.node.agent.accept();
    let netns = cluster.lab.netns("server");
    assert_eq!(agent.add("uid-server", "server", &netns), "");
    assert_eq!(agent.snapshot_sent(), "");
    cluster.node.until("readiness", || cluster.is_ready());

    let istiod = cluster.node.istiod.clone();
    let answering = thread::spawn(move || {
        istiod.request(0, |request| {
            let mut names = request.resource_names_subscribe.iter();
            names.any(|name| name == WEB)
        });
        istiod.set(vec![web()]);
    });
    let authority = format!("{HOSTNAME}:{}", SERVICE.port());
    ask(&cluster, &authority).expect("the service is known by then");
    answering.join().expect("asked");
    let refused = ask(&cluster, "elsewhere.shop.svc.cluster.local:80");
    assert!(refused.expect_err("not its own").contains("503"));
}
