//! Arbitrary resources for the round-trip tests.

pub(crate) mod l7;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use mesh::address::{
    GatewayAddress, GatewayDestination, NamespacedHostname, NetworkAddress, NetworkCidr,
};
use mesh::authorization::{
    Action, Authorization, Clause, Match, PolicyKey, Rule, Scope as PolicyScope,
    ServiceAccountMatch, StringMatch,
};
use mesh::service::{
    Algorithm, AppProtocol, HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Port,
    Scope, Service, Visibility, WeightedWaypoint,
};
use mesh::workload::{
    ApplicationProtocol, ApplicationTunnel, Locality, NetworkMode, Template, TunnelProtocol,
    Workload, WorkloadStatus, WorkloadType,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

fn name() -> impl Strategy<Value = Arc<str>> {
    "[a-z][a-z0-9.-]{0,7}".prop_map(Into::into)
}

fn text() -> impl Strategy<Value = Arc<str>> {
    "[a-z0-9.-]{0,8}".prop_map(Into::into)
}

fn ip() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|ip| ip.to_canonical())
}

fn range() -> impl Strategy<Value = IpNet> {
    (ip(), 0..=128u8).prop_map(|(ip, length)| {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, length.min(longest)).expect("length in range")
    })
}

fn network_address() -> impl Strategy<Value = NetworkAddress> {
    (text(), ip()).prop_map(|(network, ip)| NetworkAddress::new(network, ip))
}

fn network_cidr() -> impl Strategy<Value = NetworkCidr> {
    (text(), range())
        .prop_map(|(network, cidr)| NetworkCidr {
            network,
            cidr: cidr.trunc(),
        })
        .prop_filter("one address", |range| {
            range.cidr.prefix_len() != range.cidr.max_prefix_len()
        })
        .prop_filter("a mapped range is read as IPv4", |range| {
            range.cidr.addr().to_canonical() == range.cidr.addr()
        })
}

fn service_key() -> impl Strategy<Value = NamespacedHostname> {
    (name(), name()).prop_map(|(namespace, hostname)| NamespacedHostname::new(namespace, hostname))
}

pub(crate) fn gateway_address() -> impl Strategy<Value = GatewayAddress> {
    let destination = prop_oneof![
        network_address().prop_map(GatewayDestination::Address),
        service_key().prop_map(GatewayDestination::Hostname),
    ];
    (destination, any::<u16>()).prop_map(|(destination, hbone_mtls_port)| GatewayAddress {
        destination,
        hbone_mtls_port,
    })
}

pub(crate) fn port() -> impl Strategy<Value = Port> {
    let protocols = [
        AppProtocol::Unknown,
        AppProtocol::Http11,
        AppProtocol::Http2,
        AppProtocol::Grpc,
        AppProtocol::Tcp,
        AppProtocol::Tls,
    ];
    (any::<u16>(), any::<u16>(), select(protocols.to_vec())).prop_map(
        |(service_port, target_port, app_protocol)| Port {
            service_port,
            target_port,
            app_protocol,
        },
    )
}

pub(crate) fn load_balancing() -> impl Strategy<Value = LoadBalancing> {
    let mode = select(vec![
        LoadBalancingMode::Standard,
        LoadBalancingMode::Strict,
        LoadBalancingMode::Failover,
        LoadBalancingMode::Passthrough,
    ]);
    let scope = select(vec![
        Scope::Region,
        Scope::Zone,
        Scope::Subzone,
        Scope::Node,
        Scope::Cluster,
        Scope::Network,
    ]);
    let health = select(vec![HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll]);
    let algorithm = select(vec![Algorithm::Random, Algorithm::LeastRequest]);
    (mode, vec(scope, 0..4), health, algorithm).prop_map(
        |(mode, routing_preference, health_policy, algorithm)| LoadBalancing {
            mode,
            routing_preference,
            health_policy,
            algorithm,
        },
    )
}

pub(crate) fn service() -> impl Strategy<Value = Service> {
    let weighted =
        (gateway_address(), any::<u32>()).prop_map(|(destination, weight)| WeightedWaypoint {
            destination,
            weight,
        });
    let families = select(vec![
        IpFamilies::Automatic,
        IpFamilies::Ipv4Only,
        IpFamilies::Ipv6Only,
        IpFamilies::Dual,
    ]);
    let visibility = select(vec![Visibility::Public, Visibility::Namespace]);
    (
        (text(), name(), name()),
        (vec(network_address(), 0..3), vec(network_cidr(), 0..3)),
        (vec(port(), 0..3), vec(text(), 0..3)),
        (option::of(gateway_address()), vec(weighted, 0..3)),
        (load_balancing(), families),
        (any::<bool>(), any::<bool>(), visibility),
    )
        .prop_map(
            |(names, addresses, ports, waypoints, balancing, rest)| Service {
                name: names.0,
                namespace: names.1,
                hostname: names.2,
                addresses: addresses.0,
                cidr_vips: addresses.1,
                ports: ports.0,
                subject_alt_names: ports.1,
                waypoint: waypoints.0,
                weighted_waypoints: waypoints.1,
                load_balancing: balancing.0,
                ip_families: balancing.1,
                canonical: rest.0,
                ingress_use_waypoint: rest.1,
                visibility: rest.2,
            },
        )
}

pub(crate) fn workload() -> impl Strategy<Value = Workload> {
    let application_tunnel = (
        select(vec![ApplicationProtocol::None, ApplicationProtocol::Proxy]),
        option::of(1..=u16::MAX),
    )
        .prop_map(|(protocol, port)| ApplicationTunnel { protocol, port });
    let locality = (text(), text(), text()).prop_map(|(region, zone, subzone)| Locality {
        region,
        zone,
        subzone,
    });
    let policy = (name(), name()).prop_map(|(namespace, name)| PolicyKey::new(namespace, name));
    let workload_type = select(vec![
        WorkloadType::Deployment,
        WorkloadType::CronJob,
        WorkloadType::Pod,
        WorkloadType::Job,
    ]);
    (
        (name(), text(), text(), name(), name(), name()),
        (text(), text(), vec(ip(), 0..3), option::of(name())),
        (
            select(vec![TunnelProtocol::None, TunnelProtocol::Hbone]),
            any::<bool>(),
            select(vec![NetworkMode::Standard, NetworkMode::HostNetwork]),
        ),
        (
            option::of(gateway_address()),
            option::of(gateway_address()),
            option::of(application_tunnel),
        ),
        (text(), text(), text(), workload_type, locality),
        (
            select(vec![WorkloadStatus::Healthy, WorkloadStatus::Unhealthy]),
            any::<u32>(),
            vec(policy, 0..3),
            btree_map(service_key(), vec(port(), 0..3), 0..3),
        ),
    )
        .prop_map(|(who, place, tunnel, gateways, telemetry, rest)| {
            let template = Template {
                namespace: who.2,
                service_account: who.3,
                trust_domain: who.4,
                cluster_id: who.5,
                network: place.0,
                hostname: place.3,
                tunnel_protocol: tunnel.0,
                native_tunnel: tunnel.1,
                network_mode: tunnel.2,
                network_gateway: gateways.0,
                waypoint: gateways.1,
                application_tunnel: gateways.2,
                canonical_name: telemetry.0,
                canonical_revision: telemetry.1,
                workload_name: telemetry.2,
                workload_type: telemetry.3,
                capacity: rest.1,
                request_policies: rest.2.clone(),
                request_authentications: rest.2.iter().rev().cloned().collect(),
                admitted_waypoints: Vec::new(),
                authorization_policies: rest.2,
                services: rest.3.into_iter().collect(),
            };
            let mut workload = Workload::of_template(&who.0, &who.1, Arc::new(template));
            workload.node = place.1;
            workload.addresses = place.2.into();
            workload.locality = Arc::new(telemetry.4);
            workload.status = rest.0;
            workload
        })
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        text().prop_map(StringMatch::Exact),
        text().prop_map(StringMatch::Prefix),
        text().prop_map(StringMatch::Suffix),
        Just(StringMatch::Presence),
    ]
}

fn matching_range() -> impl Strategy<Value = IpNet> {
    range().prop_filter("a mapped range is read as IPv4", |range| {
        range.addr().to_canonical() == range.addr()
    })
}

fn one_match() -> impl Strategy<Value = Match> {
    let strings = || vec(string_match(), 0..2);
    let accounts = || {
        let account =
            (text(), text()).prop_map(|(namespace, service_account)| ServiceAccountMatch {
                namespace,
                service_account,
            });
        vec(account, 0..2)
    };
    let ranges = || vec(matching_range(), 0..2);
    let ports = || vec(any::<u16>(), 0..2);
    let readable = (
        (strings(), strings(), strings(), strings()),
        (accounts(), accounts()),
        (ranges(), ranges(), ranges(), ranges()),
        (ports(), ports()),
    )
        .prop_map(|(strings, accounts, ranges, ports)| Match {
            namespaces: strings.0,
            not_namespaces: strings.1,
            principals: strings.2,
            not_principals: strings.3,
            service_accounts: accounts.0,
            not_service_accounts: accounts.1,
            source_ips: ranges.0,
            not_source_ips: ranges.1,
            destination_ips: ranges.2,
            not_destination_ips: ranges.3,
            destination_ports: ports.0,
            not_destination_ports: ports.1,
            request: None,
            unparsable: None,
        });
    let unparsable = text().prop_map(|reason| Match {
        unparsable: Some(reason),
        ..Default::default()
    });
    prop_oneof![4 => readable, 1 => unparsable]
}

pub(crate) fn authorization() -> impl Strategy<Value = Authorization> {
    let clause = vec(one_match(), 0..3).prop_map(|matches| Clause { matches });
    let rule = vec(clause, 0..3).prop_map(|clauses| Rule { clauses });
    (
        (name(), name()),
        select(vec![
            PolicyScope::Global,
            PolicyScope::Namespace,
            PolicyScope::WorkloadSelector,
        ]),
        select(vec![Action::Allow, Action::Deny]),
        any::<bool>(),
        vec(rule, 0..3),
    )
        .prop_map(|(key, scope, action, dry_run, rules)| Authorization {
            name: key.0,
            namespace: key.1,
            scope,
            action,
            dry_run,
            targets: Vec::new(),
            rules,
        })
}
