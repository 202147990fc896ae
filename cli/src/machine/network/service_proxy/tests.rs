//! Golden rulesets. That the kernel takes them and does as they say is shown in the network's tests.
use super::super::service::Port;
use super::*;

fn service(name: &str, addresses: &[&str], endpoints: &[(&str, usize)]) -> Service {
    let addresses = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    Service {
        name: name.into(),
        namespace: "shop".into(),
        kind: Kind::ClusterIp(addresses),
        ports: vec![
            Port {
                name: None,
                number: 80,
                protocol: Protocol::Tcp,
            },
            Port {
                name: None,
                number: 53,
                protocol: Protocol::Udp,
            },
        ],
        endpoints: endpoints
            .iter()
            .map(|(ip, node)| Endpoint {
                ips: vec![ip.parse().unwrap()],
                node: *node,
                hostname: None,
                targets: BTreeMap::from([((Protocol::Tcp, 80), 8080), ((Protocol::Udp, 53), 5353)]),
            })
            .collect(),
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
    }
}

#[test]
fn nothing() {
    insta::assert_snapshot!(ruleset(&[], 1, true));
}

#[test]
fn both_families() {
    let services = [
        service(
            "web",
            &["10.96.1.1", "fd00:96::1:1"],
            &[("10.244.1.2", 1), ("10.244.2.2", 2), ("fd00:244:1::2", 1)],
        ),
        service("idle", &["10.96.1.2"], &[]),
    ];
    insta::assert_snapshot!(ruleset(&services, 1, true));
}

#[test]
fn ipv4_only() {
    let services = [service(
        "web",
        &["10.96.1.1", "fd00:96::1:1"],
        &[("10.244.1.2", 1), ("fd00:244:1::2", 1)],
    )];
    insta::assert_snapshot!(ruleset(&services, 1, false));
}

#[test]
fn local_traffic_stays_on_the_node() {
    let mut web = service(
        "web",
        &["10.96.1.1"],
        &[("10.244.1.2", 1), ("10.244.2.2", 2)],
    );
    web.internal_traffic_policy = InternalTrafficPolicy::Local;
    let ruleset = ruleset(&[web], 2, false);
    assert!(ruleset.contains("10.244.2.2") && !ruleset.contains("10.244.1.2"));
}

#[test]
fn cluster_dns_is_nobodys_to_take() {
    let dns = service("kube-dns", &["10.96.0.10"], &[("10.244.1.2", 1)]);
    assert!(!ruleset(&[dns], 1, false).contains("10.244.1.2"));
}
