//! Questions and answers in short.
use std::collections::BTreeMap;

use hickory_proto::op::Query;
use rand::SeedableRng as _;

use super::super::super::service::{InternalTrafficPolicy, Protocol};
use super::*;

fn service(name: &str, kind: Kind, endpoints: Vec<Endpoint>) -> Service {
    Service {
        name: name.into(),
        namespace: "shop".into(),
        kind,
        ports: vec![Port {
            name: Some("http".into()),
            number: 80,
            protocol: Protocol::Tcp,
        }],
        endpoints,
        internal_traffic_policy: InternalTrafficPolicy::Cluster,
    }
}

fn endpoint(ips: &[&str], hostname: Option<&str>) -> Endpoint {
    Endpoint {
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        node: 1,
        hostname: hostname.map(Into::into),
        targets: BTreeMap::from([((Protocol::Tcp, 80), 8080)]),
    }
}

fn zone() -> Zone {
    let addresses = vec![
        "10.96.1.1".parse().unwrap(),
        "fd00:96::1:1".parse().unwrap(),
    ];
    Zone::new(&[
        service("web", Kind::ClusterIp(addresses), Vec::new()),
        service(
            "db",
            Kind::Headless,
            vec![
                endpoint(&["10.244.1.2", "fd00:244:1::2"], Some("db-0")),
                endpoint(&["10.244.2.2"], None),
            ],
        ),
        service("idle", Kind::Headless, Vec::new()),
        service(
            "alias",
            Kind::ExternalName("web.shop.svc.cluster.local".into()),
            Vec::new(),
        ),
        service(
            "outside",
            Kind::ExternalName("example.com".into()),
            Vec::new(),
        ),
    ])
}

/// The code and the answers, sorted.
fn ask(name: &str, kind: RecordType) -> String {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let mut random = rand::rngs::SmallRng::seed_from_u64(1);
    let answer = zone().answer(&question, &mut random).unwrap();
    let mut lines: Vec<_> = answer
        .answers
        .iter()
        .map(|record| format!(" {}={}", record.name, record.data))
        .collect();
    lines.sort();
    format!("{:?}{}", answer.metadata.response_code, lines.concat())
}

#[test]
fn a_service_has_its_addresses_whatever_the_case() {
    assert_eq!(
        ask("web.shop.svc.cluster.local.", RecordType::A),
        "NoError web.shop.svc.cluster.local.=10.96.1.1"
    );
    assert_eq!(
        ask("WEB.Shop.svc.cluster.LOCAL.", RecordType::AAAA),
        "NoError WEB.Shop.svc.cluster.LOCAL.=fd00:96::1:1"
    );
}

#[test]
fn a_headless_service_has_its_endpoints() {
    assert_eq!(
        ask("db.shop.svc.cluster.local.", RecordType::A),
        "NoError db.shop.svc.cluster.local.=10.244.1.2 db.shop.svc.cluster.local.=10.244.2.2"
    );
    assert_eq!(
        ask("db-0.db.shop.svc.cluster.local.", RecordType::AAAA),
        "NoError db-0.db.shop.svc.cluster.local.=fd00:244:1::2"
    );
    assert_eq!(
        ask("10-244-2-2.db.shop.svc.cluster.local.", RecordType::A),
        "NoError 10-244-2-2.db.shop.svc.cluster.local.=10.244.2.2"
    );
}

#[test]
fn ports_with_names_have_srv_records() {
    assert_eq!(
        ask("_http._tcp.web.shop.svc.cluster.local.", RecordType::SRV),
        "NoError _http._tcp.web.shop.svc.cluster.local.=0 100 80 web.shop.svc.cluster.local."
    );
    assert!(
        ask("_http._tcp.db.shop.svc.cluster.local.", RecordType::SRV)
            .contains("=0 100 8080 db-0.db.shop.svc.cluster.local.")
    );
}

#[test]
fn what_exists_and_has_nothing_is_no_error() {
    assert_eq!(
        ask("idle.shop.svc.cluster.local.", RecordType::A),
        "NoError"
    );
    assert_eq!(
        ask("web.shop.svc.cluster.local.", RecordType::TXT),
        "NoError"
    );
    assert_eq!(ask("shop.svc.cluster.local.", RecordType::A), "NoError");
}

#[test]
fn other_names_do_not_exist() {
    for name in ["no.shop.svc.cluster.local.", "example.com.", "web.shop."] {
        assert_eq!(ask(name, RecordType::A), "NXDomain", "{name}");
    }
}

#[test]
fn an_alias_leads_on() {
    assert_eq!(
        ask("alias.shop.svc.cluster.local.", RecordType::A),
        "NoError alias.shop.svc.cluster.local.=web.shop.svc.cluster.local. \
         web.shop.svc.cluster.local.=10.96.1.1"
    );
    assert_eq!(
        ask("outside.shop.svc.cluster.local.", RecordType::A),
        "NoError outside.shop.svc.cluster.local.=example.com."
    );
}

#[test]
fn an_answer_gets_no_answer() {
    let message = Message::response(1, OpCode::Query);
    let mut random = rand::rngs::SmallRng::seed_from_u64(1);
    assert!(zone().answer(&message, &mut random).is_none());
}
