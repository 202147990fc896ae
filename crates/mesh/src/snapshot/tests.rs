//! Tests of the snapshot: its lookups, and that history leaves no trace in it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::authorization::Action;
use crate::authorization::Scope;
use crate::service::HealthPolicy;
use crate::workload::TunnelProtocol;
use crate::workload::WorkloadStatus;

fn pod(name: &str, last_byte: u8) -> Workload {
    let mut workload = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), name, "shop");
    workload.addresses = [[10, 0, 0, last_byte].into()].into_iter().collect();
    workload
}

fn entry(name: &str, last_byte: u8) -> Workload {
    let uid = format!("Kubernetes/networking.istio.io/WorkloadEntry/shop/{name}");
    let mut entry = pod(name, last_byte);
    entry.uid = WorkloadUid::new(uid);
    entry
}

fn at(last_byte: u8) -> NetworkAddress {
    NetworkAddress::new("", IpAddr::from([10, 0, 0, last_byte]))
}

fn service(namespace: &str, hostname: &str, vip: u8) -> Service {
    let mut service = Service::new("web", namespace, hostname);
    service.addresses = vec![at(vip)];
    service
}

fn range(namespace: &str, hostname: &str, cidr: &str) -> Service {
    let mut service = Service::new("web", namespace, hostname);
    service.cidr_vips = vec![NetworkCidr {
        network: "".into(),
        cidr: cidr.parse().expect("literal"),
    }];
    service
}

fn snapshot(changes: impl IntoIterator<Item = Change>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    snapshot.apply(changes);
    snapshot
}

fn name_at(snapshot: &Snapshot, last_byte: u8) -> Option<&str> {
    snapshot
        .workload_at(&at(last_byte))
        .map(|workload| workload.name())
}

fn host_at<'a>(snapshot: &'a Snapshot, last_byte: u8, client: &str) -> Option<&'a str> {
    let entry = snapshot.service_at(&at(last_byte), client)?;
    Some(&entry.service.hostname)
}

#[test]
fn of_several_at_one_address_a_pod_wins_then_hbone_then_the_lowest_uid() {
    let mut hbone = entry("b", 1);
    hbone.tunnel_protocol = TunnelProtocol::Hbone;
    let workloads = [entry("a", 1), hbone, entry("c", 1), pod("z", 1)];
    let mut snapshot = snapshot(workloads.clone().map(Change::Workload));
    for (expected, workload) in [("z", 3), ("b", 1), ("a", 0), ("c", 2)] {
        assert_eq!(name_at(&snapshot, 1), Some(expected));
        let uid = workloads[workload].uid.0.clone();
        snapshot.apply([Change::RemoveAddress(uid)]);
    }
    assert_eq!(name_at(&snapshot, 1), None);
}

#[test]
fn a_workload_moves_with_its_address() {
    let mut snapshot = snapshot([Change::Workload(pod("web", 1))]);
    let before = snapshot.clone();
    snapshot.apply([Change::Workload(pod("web", 2))]);
    assert_eq!(
        (name_at(&snapshot, 1), name_at(&snapshot, 2)),
        (None, Some("web"))
    );
    // A reader of the old one sees none of it.
    assert_eq!(
        (name_at(&before, 1), name_at(&before, 2)),
        (Some("web"), None)
    );
}

#[test]
fn a_host_network_workload_is_never_found_by_address() {
    let mut agent = pod("agent", 1);
    agent.network_mode = NetworkMode::HostNetwork;
    assert_eq!(name_at(&snapshot([Change::Workload(agent)]), 1), None);
}

#[test]
fn of_several_services_at_one_address_the_clients_namespace_wins_then_the_canonical() {
    let mut canonical = service("bank", "b", 1);
    canonical.canonical = true;
    let services = [service("aaa", "a", 1), canonical, service("shop", "s", 1)];
    let snapshot = snapshot(services.map(Change::Service));
    assert_eq!(host_at(&snapshot, 1, "shop"), Some("s"));
    assert_eq!(host_at(&snapshot, 1, "aaa"), Some("a"));
    assert_eq!(host_at(&snapshot, 1, "other"), Some("b"));
}

#[test]
fn a_preferred_namespace_breaks_the_ties_that_are_left() {
    let mut canonical = service("bank", "b", 1);
    let plain = [
        service("aaa", "a", 1),
        canonical.clone(),
        service("zoo", "z", 1),
    ];
    let mut snapshot = snapshot(plain.map(Change::Service));
    assert_eq!(host_at(&snapshot, 1, "other"), Some("a"));
    snapshot.prefer_namespace(Some("zoo".into()));
    assert_eq!(host_at(&snapshot, 1, "other"), Some("z"));
    assert_eq!(host_at(&snapshot, 1, "aaa"), Some("a"));
    canonical.canonical = true;
    snapshot.apply([Change::Service(canonical)]);
    assert_eq!(host_at(&snapshot, 1, "other"), Some("b"));
}

#[test]
fn an_exact_address_comes_before_ranges_and_long_ranges_before_short_ones() {
    let services = [
        range("shop", "wide", "10.0.0.0/8"),
        range("shop", "narrow", "10.0.0.0/24"),
        service("shop", "exact", 1),
    ];
    let snapshot = snapshot(services.map(Change::Service));
    assert_eq!(host_at(&snapshot, 1, "shop"), Some("exact"));
    assert_eq!(host_at(&snapshot, 2, "shop"), Some("narrow"));
    let outside = NetworkAddress::new("", IpAddr::from([10, 9, 9, 9]));
    let wide = snapshot.service_at(&outside, "shop").expect("in the range");
    assert_eq!(&*wide.service.hostname, "wide");
    let elsewhere = NetworkAddress::new("far", IpAddr::from([10, 0, 0, 2]));
    assert!(snapshot.service_at(&elsewhere, "shop").is_none());
}

#[test]
fn of_ranges_the_clients_namespace_comes_first_then_the_longest_then_the_canonical() {
    let canonical = |mut service: Service| {
        service.canonical = true;
        service
    };
    let own = || range("shop", "own", "10.0.0.0/8");
    let wide = || range("bank", "wide", "10.0.0.0/8");
    let narrow = || range("bank", "narrow", "10.0.0.0/24");
    let other = || range("mail", "other", "10.0.0.0/24");
    for (services, expected) in [
        ([own(), narrow()], "own"),
        ([own(), canonical(narrow())], "own"),
        ([wide(), narrow()], "narrow"),
        ([canonical(wide()), narrow()], "narrow"),
        ([narrow(), other()], "narrow"),
        ([narrow(), canonical(other())], "other"),
    ] {
        let mut changes = services.map(Change::Service);
        assert_eq!(
            host_at(&snapshot(changes.clone()), 1, "shop"),
            Some(expected)
        );
        changes.reverse();
        assert_eq!(host_at(&snapshot(changes), 1, "shop"), Some(expected));
    }
}

#[test]
fn a_hidden_service_gives_way_to_a_visible_one() {
    let mut hidden = range("bank", "hidden", "10.0.0.0/24");
    hidden.visibility = Visibility::Namespace;
    let services = [hidden, range("bank", "wide", "10.0.0.0/8")];
    let snapshot = snapshot(services.map(Change::Service));
    assert_eq!(host_at(&snapshot, 1, "bank"), Some("hidden"));
    assert_eq!(host_at(&snapshot, 1, "shop"), Some("wide"));
}

#[test]
fn endpoints_wait_for_their_service_and_outlive_it() {
    let web = service("shop", "web", 9);
    let mut member = pod("web", 1);
    member.services.insert(web.key(), Vec::new());
    let mut snapshot = snapshot([Change::Workload(member)]);
    let endpoints = |snapshot: &Snapshot| snapshot.service(&web.key()).map(|e| e.endpoints.len());
    assert_eq!(endpoints(&snapshot), None);
    snapshot.apply([Change::Service(web.clone())]);
    assert_eq!(endpoints(&snapshot), Some(1));
    snapshot.apply([Change::RemoveAddress("shop/web".into())]);
    assert_eq!(endpoints(&snapshot), None);
    snapshot.apply([Change::Service(web.clone())]);
    assert_eq!(endpoints(&snapshot), Some(1));
}

#[test]
fn members_count_the_sick_and_endpoints_do_not() {
    let web = service("shop", "web", 9);
    let mut sick = pod("web", 1);
    sick.status = WorkloadStatus::Unhealthy;
    sick.services.insert(web.key(), Vec::new());
    let snapshot = snapshot([Change::Service(web.clone()), Change::Workload(sick)]);
    let entry = snapshot.service(&web.key()).expect("applied");
    assert_eq!((entry.members, entry.endpoints.len()), (1, 0));
}

#[test]
fn hostnames_are_found_in_any_letter_case() {
    let snapshot = snapshot([Change::Service(service("shop", "Web.example.com", 1))]);
    for hostname in ["web.example.com", "WEB.EXAMPLE.COM", "Web.example.com"] {
        assert!(
            snapshot.service_named(hostname, "shop").is_some(),
            "{hostname}"
        );
    }
}

// === History leaves no trace ===

fn any_workload() -> impl Strategy<Value = Workload> {
    let hostnames = vec(select(&["a", "b", "c"][..]), 0..3);
    (0..4_u8, 0..4_u8, any::<[bool; 4]>(), hostnames, 0..3_u32).prop_map(
        |(name, address, [is_pod, hbone, sick, host], hostnames, capacity)| {
            let name = format!("w-{name}");
            let mut workload = if is_pod {
                pod(&name, address)
            } else {
                entry(&name, address)
            };
            workload.capacity = capacity;
            if hbone {
                workload.tunnel_protocol = TunnelProtocol::Hbone;
            }
            if sick {
                workload.status = WorkloadStatus::Unhealthy;
            }
            if host {
                workload.network_mode = NetworkMode::HostNetwork;
            }
            let key = |hostname| (NamespacedHostname::new("shop", hostname), Vec::new());
            workload.services = hostnames.into_iter().map(key).collect();
            workload
        },
    )
}

fn any_service() -> impl Strategy<Value = Service> {
    let namespace = select(&["shop", "bank"][..]);
    let hostname = select(&["a", "b", "c"][..]);
    (namespace, hostname, 0..4_u8, any::<[bool; 4]>()).prop_map(
        |(namespace, hostname, vip, [by_range, canonical, hidden, tolerant])| {
            let mut service = if by_range {
                range(namespace, hostname, &format!("10.0.0.0/{}", 24 + vip))
            } else {
                service(namespace, hostname, vip)
            };
            service.canonical = canonical;
            if hidden {
                service.visibility = Visibility::Namespace;
            }
            if tolerant {
                service.load_balancing.health_policy = HealthPolicy::AllowAll;
            }
            service
        },
    )
}

fn any_policy() -> impl Strategy<Value = Authorization> {
    let scope = select(&[Scope::Global, Scope::Namespace, Scope::WorkloadSelector][..]);
    let namespace = select(&["shop", "bank"][..]);
    (scope, namespace, 0..3_u8, any::<bool>()).prop_map(|(scope, namespace, name, dry_run)| {
        Authorization {
            name: format!("p-{name}").into(),
            namespace: namespace.into(),
            scope,
            action: Action::Deny,
            dry_run,
            targets: Vec::new(),
            rules: Vec::new(),
        }
    })
}

fn any_change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => any_workload().prop_map(Change::Workload),
        2 => any_service().prop_map(Change::Service),
        2 => any_policy().prop_map(Change::Authorization),
        2 => any_workload().prop_map(|workload| Change::RemoveAddress(workload.uid.0)),
        1 => any_service().prop_map(|service| {
            Change::RemoveAddress(service.key().to_string().into())
        }),
        1 => any_policy().prop_map(|policy| Change::RemoveAuthorization(policy.key())),
    ]
}

/// The resources that a history ends with, by name.
fn survivors(history: &[Change]) -> Vec<Change> {
    let mut left = BTreeMap::new();
    for change in history {
        let (key, kept) = match change {
            Change::Workload(workload) => (workload.uid.to_string(), true),
            Change::Service(service) => (service.key().to_string(), true),
            Change::RemoveAddress(name) => (name.to_string(), false),
            Change::Authorization(policy) => (format!("policy {}", policy.key()), true),
            Change::RemoveAuthorization(key) => (format!("policy {key}"), false),
            Change::Route(route) => (route.key.to_string(), true),
            Change::RemoveRoute(key) => (key.to_string(), false),
            Change::AuthorizationPolicy(policy) => (format!("whole {}", policy.key()), true),
            Change::RemoveAuthorizationPolicy(key) => (format!("whole {key}"), false),
            Change::RequestAuthentication(policy) => (format!("jwt {}", policy.key()), true),
            Change::RemoveRequestAuthentication(key) => (format!("jwt {key}"), false),
        };
        if kept {
            left.insert(key, change.clone());
        } else {
            left.remove(&key);
        }
    }
    left.into_values().collect()
}

/// Everything that can be seen of a snapshot.
fn seen(snapshot: &Snapshot) -> String {
    let mut lines = Vec::new();
    for entry in snapshot.services() {
        let endpoints: Vec<&str> = entry.endpoints.iter().map(|e| &*e.workload.uid.0).collect();
        let (members, equal) = (entry.members, entry.endpoints.have_equal_capacity());
        lines.push(format!(
            "{:?} {members} {equal} {endpoints:?}",
            entry.service
        ));
    }
    lines.extend(snapshot.workloads().map(|workload| format!("{workload:?}")));
    lines.extend(snapshot.policies().map(|policy| format!("{policy:?}")));
    lines.sort();
    lines.push(format!("{:?}", snapshot.global_policies()));
    for namespace in ["shop", "bank"] {
        lines.push(format!("{:?}", snapshot.namespace_policies(namespace)));
        for byte in 0..20 {
            lines.push(format!("{:?}", host_at(snapshot, byte, namespace)));
        }
        for hostname in ["a", "b", "c"] {
            let named = snapshot.service_named(hostname, namespace);
            lines.push(format!("{:?}", named.map(|entry| entry.service.key())));
        }
    }
    for byte in 0..5 {
        lines.push(format!(
            "{:?}",
            snapshot.workload_at(&at(byte)).map(|w| w.uid.clone())
        ));
    }
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_history_in_steps_ends_where_its_survivors_do_at_once(
        history in vec(any_change(), 0..40),
        steps in vec(1..10_usize, 40),
    ) {
        let mut stepwise = Snapshot::default();
        let mut rest = &history[..];
        for step in steps {
            let (now, later) = rest.split_at(step.min(rest.len()));
            stepwise.apply(now.iter().cloned());
            rest = later;
        }
        prop_assert_eq!(seen(&stepwise), seen(&snapshot(survivors(&history))));
    }

    #[test]
    fn the_order_of_resources_does_not_matter(
        (resources, shuffled) in vec(any_change(), 0..30).prop_flat_map(|history| {
            let resources = survivors(&history);
            (Just(resources.clone()), Just(resources).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(seen(&snapshot(resources)), seen(&snapshot(shuffled)));
    }
}
