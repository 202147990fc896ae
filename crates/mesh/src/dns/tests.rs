//! Tests of DNS answers.

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::address::{NetworkAddress, NetworkCidr};
use crate::service::Visibility;
use crate::snapshot::Change;

const V4: [u8; 4] = [10, 96, 0, 1];

fn v6() -> IpAddr {
    "fd00:96::1".parse().expect("literal")
}

fn service(name: &str, namespace: &str, addresses: &[IpAddr]) -> Service {
    let hostname = format!("{name}.{namespace}.svc.cluster.local");
    let mut service = Service::new(name, namespace, &hostname);
    service.addresses = vips("", addresses);
    service
}

fn external(hostname: &str, address: [u8; 4]) -> Service {
    let mut service = Service::new("external", "shop", hostname);
    service.addresses = vips("", &[address.into()]);
    service
}

fn vips(network: &str, addresses: &[IpAddr]) -> Vec<NetworkAddress> {
    let vip = |address: &IpAddr| NetworkAddress::new(network, *address);
    addresses.iter().map(vip).collect()
}

fn pod(name: &str, service: &Service, addresses: &[IpAddr]) -> Workload {
    let mut workload = Workload::new(&format!("Kubernetes//Pod/shop/{name}"), name, "shop");
    workload.addresses = addresses.to_vec().into();
    workload.services.insert(service.key(), Vec::new());
    workload
}

struct Scenario {
    snapshot: Snapshot,
    search: Vec<String>,
    namespace: &'static str,
    ipv6: bool,
}

impl Scenario {
    fn new(services: impl IntoIterator<Item = Service>) -> Self {
        let mut snapshot = Snapshot::default();
        snapshot.apply(services.into_iter().map(Change::Service));
        let search = [
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local",
        ];
        Self {
            snapshot,
            search: search.map(str::to_owned).into(),
            namespace: "shop",
            ipv6: true,
        }
    }

    fn with(mut self, workloads: impl IntoIterator<Item = Workload>) -> Self {
        self.snapshot
            .apply(workloads.into_iter().map(Change::Workload));
        self
    }

    fn ask(&self, name: &str, record: RecordType) -> Answer {
        let client = Client {
            namespace: self.namespace,
            network: "",
            search: &self.search,
            cluster_domain: "cluster.local",
            ipv6: self.ipv6,
        };
        let mut random = SmallRng::seed_from_u64(7);
        resolve(&self.snapshot, &client, name, record, &mut random)
    }

    fn a(&self, name: &str) -> Answer {
        self.ask(name, RecordType::A)
    }
}

fn records(addresses: &[IpAddr]) -> Answer {
    Answer::Records {
        cname: None,
        addresses: addresses.to_vec(),
    }
}

fn alias(name: &str, address: [u8; 4]) -> Answer {
    Answer::Records {
        cname: Some(name.into()),
        addresses: vec![address.into()],
    }
}

#[test]
fn every_form_of_a_services_name_is_answered() {
    let scenario = Scenario::new([service("web", "shop", &[V4.into()])]);
    for name in [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
        "WEB.Shop.svc.CLUSTER.local",
    ] {
        assert_eq!(scenario.a(name), records(&[V4.into()]), "{name}");
    }
    for name in [
        "",
        ".",
        "other",
        "web.other",
        "web.shop.example.com",
        "shop.svc.cluster.local",
    ] {
        assert_eq!(scenario.a(name), Answer::NotOurs, "{name:?}");
    }
}

#[test]
fn a_short_name_is_of_the_clients_namespace() {
    let services = [service("web", "shop", &[V4.into()])];
    let mut scenario = Scenario::new(services);
    scenario.namespace = "bank";
    assert_eq!(scenario.a("web"), Answer::NotOurs);
    assert_eq!(scenario.a("web.shop"), records(&[V4.into()]));
}

#[test]
fn the_candidates_of_a_name_come_in_this_order() {
    let client = Client {
        namespace: "ns",
        network: "",
        search: &[],
        cluster_domain: "d",
        ipv6: true,
    };
    for (asked, expected) in [
        ("a", vec!["a", "a.ns.svc.d"]),
        ("a.b", vec!["a.b", "a.b.svc.d", "a.b.ns.svc.d"]),
        ("a.b.c", vec!["a.b.c", "a.b.c.svc.d"]),
        ("a.b.svc", vec!["a.b.svc", "a.b.svc.d", "a.b.svc.svc.d"]),
        ("a.b.c.svc", vec!["a.b.c.svc", "a.b.c.svc.d"]),
        ("a.b.c.d", vec!["a.b.c.d"]),
        ("a.b.svc.c.d", vec!["a.b.svc.c.d"]),
    ] {
        let names: Vec<String> = candidates(asked, &client)
            .into_iter()
            .map(|candidate| candidate.name)
            .collect();
        assert_eq!(names, expected, "{asked}");
    }
}

#[test]
fn a_search_domain_is_stripped_and_told_by_a_cname() {
    let mut scenario = Scenario::new([external("api.example.com", [240, 240, 0, 1])]);
    let name = "api.example.com.shop.svc.cluster.local";
    assert_eq!(scenario.a(name), alias("api.example.com", [240, 240, 0, 1]));
    assert_eq!(scenario.a("api.example.com.corp.test"), Answer::NotOurs);
    scenario.search = vec!["Corp.Test.".to_owned(), String::new()];
    let name = "api.example.com.corp.test";
    assert_eq!(scenario.a(name), alias("api.example.com", [240, 240, 0, 1]));
    assert_eq!(scenario.a("corp.test"), Answer::NotOurs);
    assert_eq!(scenario.a("api.example.comcorp.test"), Answer::NotOurs);
}

/// As a resolver with `ndots:5` asks first for what is short already.
#[test]
fn what_is_left_without_a_search_domain_may_be_short_too() {
    let mut scenario = Scenario::new([service("web", "shop", &[V4.into()])]);
    for (name, stripped) in [
        ("web.shop.shop.svc.cluster.local", "web.shop"),
        ("web.shop.svc.shop.svc.cluster.local", "web.shop.svc"),
    ] {
        assert_eq!(scenario.a(name), alias(stripped, V4), "{name}");
        let aaaa = scenario.ask(name, RecordType::Aaaa);
        assert_eq!(aaaa, Answer::NoData, "{name}");
    }
    scenario.namespace = "bank";
    scenario.search[0] = "bank.svc.cluster.local".to_owned();
    let name = "web.shop.bank.svc.cluster.local";
    assert_eq!(scenario.a(name), alias("web.shop", V4));
    let missing = "web.bank.bank.svc.cluster.local";
    assert_eq!(scenario.a(missing), Answer::NotOurs);
}

#[test]
fn a_whole_name_of_another_domain_is_no_service_of_ours() {
    let mut scenario = Scenario::new([
        service("mail", "shop", &[V4.into()]),
        service("web", "bank", &[V4.into()]),
        external("api.example.com", [240, 240, 0, 1]),
    ]);
    scenario.search.push("corp.test".to_owned());
    scenario.search.push("prod.svc.cluster.local".to_owned());
    for name in [
        "mail.corp.test",
        "web.bank.corp.test",
        "mail.prod.svc.cluster.local",
    ] {
        assert_eq!(scenario.a(name), Answer::NotOurs, "{name}");
    }
    let stripped = scenario.a("api.example.com.corp.test");
    assert_eq!(stripped, alias("api.example.com", [240, 240, 0, 1]));
}

#[test]
fn the_name_itself_comes_before_a_stripped_one() {
    let scenario = Scenario::new([
        service("web", "shop", &[V4.into()]),
        external("web", [240, 240, 0, 1]),
    ]);
    assert_eq!(
        scenario.a("web.shop.svc.cluster.local"),
        records(&[V4.into()])
    );
}

#[test]
fn wildcards_match_any_depth_and_the_longest_wins() {
    let scenario = Scenario::new([
        external("*.example.com", [240, 240, 0, 1]),
        external("*.a.example.com", [240, 240, 0, 2]),
        external("b.a.example.com", [240, 240, 0, 3]),
    ]);
    let answer = |last| records(&[[240, 240, 0, last].into()]);
    assert_eq!(scenario.a("x.example.com"), answer(1));
    assert_eq!(scenario.a("x.y.example.com"), answer(1));
    assert_eq!(scenario.a("x.a.example.com"), answer(2));
    assert_eq!(scenario.a("b.a.example.com"), answer(3));
    assert_eq!(scenario.a("example.com"), Answer::NotOurs);
    // No alias can point to a wildcard.
    assert_eq!(scenario.a("x.example.com.svc.cluster.local"), answer(1));
}

#[test]
fn a_name_without_that_family_has_no_data() {
    let only_v4 = service("four", "shop", &[V4.into()]);
    let mut restricted = service("both", "shop", &[V4.into(), v6()]);
    let mut scenario = Scenario::new([only_v4, restricted.clone()]);
    let aaaa = |scenario: &Scenario, name| scenario.ask(name, RecordType::Aaaa);
    assert_eq!(aaaa(&scenario, "four"), Answer::NoData);
    assert_eq!(aaaa(&scenario, "both"), records(&[v6()]));
    assert_eq!(scenario.a("both"), records(&[V4.into()]));

    restricted.ip_families = IpFamilies::Ipv4Only;
    scenario
        .snapshot
        .apply([Change::Service(restricted.clone())]);
    assert_eq!(aaaa(&scenario, "both"), Answer::NoData);
    restricted.ip_families = IpFamilies::Ipv6Only;
    scenario.snapshot.apply([Change::Service(restricted)]);
    assert_eq!(scenario.a("both"), Answer::NoData);
    scenario.ipv6 = false;
    assert_eq!(aaaa(&scenario, "both"), Answer::NoData);
}

#[test]
fn only_vips_of_the_clients_network_count_and_never_ranges() {
    let mut far = service("far", "shop", &[]);
    far.addresses = vips("far", &[V4.into()]);
    let mut range = Service::new("range", "shop", "range.example.com");
    range.cidr_vips = vec![NetworkCidr {
        network: "".into(),
        cidr: "10.0.0.0/8".parse().expect("literal"),
    }];
    let scenario = Scenario::new([far, range]);
    assert_eq!(scenario.a("far"), Answer::NoData);
    assert_eq!(scenario.a("range.example.com"), Answer::NotOurs);
}

#[test]
fn a_service_of_another_namespace_may_be_hidden() {
    let mut hidden = external("api.example.com", [240, 240, 0, 1]);
    hidden.visibility = Visibility::Namespace;
    let mut scenario = Scenario::new([hidden]);
    let answer = records(&[[240, 240, 0, 1].into()]);
    assert_eq!(scenario.a("api.example.com"), answer);
    scenario.namespace = "bank";
    assert_eq!(scenario.a("api.example.com"), Answer::NotOurs);
}

#[test]
fn an_external_name_without_address_is_left_to_real_dns() {
    let service = Service::new("external", "shop", "api.example.com");
    let scenario = Scenario::new([service]);
    assert_eq!(scenario.a("api.example.com"), Answer::NotOurs);
}

#[test]
fn a_headless_service_is_its_endpoints_in_any_order() {
    let headless = service("db", "shop", &[]);
    let ip = |last| IpAddr::from([10, 244, 1, last]);
    let mut far = pod("far", &headless, &[ip(9)]);
    far.network = "far".into();
    let scenario = Scenario::new([headless.clone()]).with([
        pod("db-0", &headless, &[ip(1), v6(), ip(8)]),
        pod("db-1", &headless, &[ip(2)]),
        far,
    ]);
    let Answer::Records {
        mut addresses,
        cname,
    } = scenario.a("db")
    else {
        panic!("{:?}", scenario.a("db"));
    };
    addresses.sort();
    assert_eq!((addresses, cname), (vec![ip(1), ip(2)], None));
    assert_eq!(scenario.ask("db", RecordType::Aaaa), records(&[v6()]));
    assert_eq!(Scenario::new([headless]).a("db"), Answer::NoData);
}

#[test]
fn a_headless_services_pods_have_names_of_their_own() {
    let headless = service("db", "shop", &[]);
    let web = service("web", "shop", &[V4.into()]);
    let ip = IpAddr::from([10, 244, 1, 1]);
    let scenario = Scenario::new([headless.clone(), web.clone()])
        .with([pod("db-0", &headless, &[ip]), pod("web-0", &web, &[ip])]);
    for name in [
        "db-0.db",
        "db-0.db.shop",
        "DB-0.db.shop.svc",
        "db-0.db.shop.svc.cluster.local",
    ] {
        assert_eq!(scenario.a(name), records(&[ip]), "{name}");
    }
    let aaaa = scenario.ask("db-0.db", RecordType::Aaaa);
    assert_eq!(aaaa, Answer::NoData);
    // Somebody else may know it: the cluster's DNS, or a pod that is not ready.
    for name in ["db-1.db", "web-0.web", "x.db-0.db.shop.svc.cluster.local"] {
        assert_eq!(scenario.a(name), Answer::NotOurs, "{name}");
    }
}
