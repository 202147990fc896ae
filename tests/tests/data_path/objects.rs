//! What the mesh is told of, in the tests of what crosses the wire.

use std::net::SocketAddr;
use std::sync::Arc;

use mesh::address::{GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress};
use mesh::authorization::{Action, Authorization, Clause, Match, Rule, Scope, StringMatch};
use mesh::destination::HBONE_PORT;
use mesh::service::{AppProtocol, Port, Service};
use mesh::snapshot::Change;
use mesh::workload::{Locality, TunnelProtocol, Workload, WorkloadType};

use super::counterpart::{Head, TRACE};
use super::lab::{APPLICATION, Lab};
use super::{SERVICE, identity_of};

pub(crate) const HOSTNAME: &str = "web.shop.svc.cluster.local";
/// Where the network gateway ends tunnels: not at 15008.
pub(crate) const GATEWAY_PORT: u16 = 15018;

/// A workload of which all is known that `baggage` can say.
pub(crate) fn described(lab: &Lab, name: &str, node: usize) -> Workload {
    let mut workload = lab.workload(name, node);
    workload.workload_type = WorkloadType::Deployment;
    workload.canonical_name = format!("{name}-app").into();
    workload.canonical_revision = "v1".into();
    workload.locality = Arc::new(Locality {
        region: "eu".into(),
        zone: "eu-1".into(),
        ..Locality::default()
    });
    workload
}

/// What [`described`] makes the `baggage` of `name`.
pub(crate) fn baggage(name: &str) -> String {
    format!(
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name={name},\
         service.name={name}-app,service.version=v1,cloud.region=eu,cloud.availability_zone=eu-1"
    )
}

/// The CONNECT of `client` for its application at `source`; `host` is of the service that this dialled.
pub(crate) fn tunnel_request(target: &str, source: SocketAddr, host: Option<&str>) -> Head {
    let host = host.map(|host| format!(";host={host}"));
    let forwarded = format!("for=\"{source}\"{}", host.unwrap_or_default());
    let baggage = baggage("client");
    let headers = [
        ("baggage", baggage.as_str()),
        ("forwarded", &forwarded),
        ("traceparent", TRACE),
    ];
    Head::connect(target, &headers)
}

/// `web`, at [`SERVICE`] in these networks.
pub(crate) fn web(networks: &[&str]) -> Service {
    let mut service = Service::new("web", "shop", HOSTNAME);
    let address = |network: &&str| NetworkAddress::new(*network, SERVICE.ip());
    service.addresses = networks.iter().map(address).collect();
    service.ports = vec![port(SERVICE.port(), APPLICATION)];
    service
}

pub(crate) fn port(service_port: u16, target_port: u16) -> Port {
    Port {
        service_port,
        target_port,
        app_protocol: AppProtocol::Unknown,
    }
}

/// What leads to a waypoint that runs in the pod `name` on a node.
pub(crate) fn waypoint(lab: &Lab, name: &str, node: usize) -> (GatewayAddress, Service, Workload) {
    let hostname = format!("{name}.shop.svc.cluster.local");
    let mut service = Service::new(name, "shop", &hostname);
    service.ports = vec![port(HBONE_PORT, HBONE_PORT)];
    let mut workload = lab.workload(name, node);
    workload
        .services
        .insert(service.key(), service.ports.clone());
    let address = GatewayAddress {
        destination: GatewayDestination::Hostname(NamespacedHostname::new("shop", &*hostname)),
        hbone_mtls_port: HBONE_PORT,
    };
    (address, service, workload)
}

/// The gateway of the network `far`, and what stands for all endpoints of `service` behind it.
pub(crate) fn behind_gateway(lab: &Lab, service: &Service) -> [Change; 2] {
    let mut gateway = Workload::new("NetworkGateway/far/gateway", "gateway", "shop");
    gateway.service_account = "gateway".into();
    gateway.tunnel_protocol = TunnelProtocol::Hbone;
    gateway.network = "far".into();
    gateway.addresses = [lab.ip("gateway")].into();
    let uid = format!("far/SplitHorizonWorkload/gateway/{}", service.name);
    let mut folded = Workload::new(&uid, &service.name, "shop");
    folded.tunnel_protocol = TunnelProtocol::Hbone;
    folded.network = "far".into();
    folded.network_gateway = Some(GatewayAddress {
        destination: GatewayDestination::Address(NetworkAddress::new("far", lab.ip("gateway"))),
        hbone_mtls_port: GATEWAY_PORT,
    });
    folded.services.insert(service.key(), service.ports.clone());
    [Change::Workload(gateway), Change::Workload(folded)]
}

/// Lets only `account` in.
pub(crate) fn only(account: &str) -> Change {
    let principal = identity_of(account).principal().into();
    Change::Authorization(Authorization {
        name: "only".into(),
        namespace: "shop".into(),
        scope: Scope::Namespace,
        action: Action::Allow,
        dry_run: false,
        targets: Vec::new(),
        rules: vec![Rule {
            clauses: vec![Clause {
                matches: vec![Match {
                    principals: vec![StringMatch::Exact(principal)],
                    ..Match::default()
                }],
            }],
        }],
    })
}
