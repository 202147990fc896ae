//! Messages in, messages out.

use hickory_proto::op::Edns;
use mesh::address::NetworkAddress;
use mesh::service::Service;
use mesh::snapshot::Change;

use super::*;

fn question(name: &str, record_type: RecordType) -> Message {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    let name = Name::from_str(name).expect("name");
    question.add_query(Query::query(name, record_type));
    question
}

/// What a client in `shop` is told, as `owner type data` lines; none when it is forwarded.
fn check(name: &str, record_type: RecordType, expected: Option<&[&str]>) {
    let mut service = Service::new("api", "shop", "api.shop.svc.cluster.local");
    let vip = "10.96.0.7".parse().expect("address");
    service.addresses.push(NetworkAddress::new("", vip));
    let mut snapshot = Snapshot::default();
    snapshot.apply([Change::Service(service)]);
    let client = Workload::new("Kubernetes//Pod/shop/web", "web", "shop");
    let setting = Setting {
        cluster_domain: "cluster.local",
        search_domains: &[].into(),
        ipv6: true,
    };
    let asked = question(name, record_type);
    let mut random = rand::rng();
    let told = match decide(&snapshot, &client, setting, &asked, &mut random) {
        Decision::Forward => None,
        Decision::Answer(answer) => {
            assert_eq!(answer.metadata.id, asked.metadata.id);
            assert_eq!(answer.queries, asked.queries);
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
            assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
            let records = answer.answers.iter().map(|record| {
                assert_eq!(record.ttl, TTL);
                format!("{} {} {}", record.name, record.record_type(), record.data)
            });
            Some(records.collect::<Vec<_>>())
        }
    };
    let expected = expected.map(|lines| lines.iter().map(|l| (*l).to_owned()).collect());
    assert_eq!(told, expected, "{name} {record_type}");
}

#[test]
fn the_meshs_names_are_answered_and_others_forwarded() {
    let fqdn = "api.shop.svc.cluster.local.";
    check(
        fqdn,
        RecordType::A,
        Some(&["api.shop.svc.cluster.local. A 10.96.0.7"]),
    );
    check(fqdn, RecordType::AAAA, Some(&[]));
    check(fqdn, RecordType::SRV, None);
    check("example.com.", RecordType::A, None);
}

#[test]
fn a_cname_leads_to_the_records_it_names() {
    let asked = question("api.shop.svc.cluster.local.other.", RecordType::A);
    let addresses = ["10.96.0.7".parse().expect("address")];
    let cname = Some("api.shop.svc.cluster.local");
    let answer = records(&asked, &asked.queries[0], cname, &addresses);
    let lines: Vec<_> = answer.answers.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "api.shop.svc.cluster.local.other. 30 IN CNAME api.shop.svc.cluster.local.",
            "api.shop.svc.cluster.local. 30 IN A 10.96.0.7"
        ]
    );
}

#[test]
fn what_is_no_question_gets_the_answer_it_deserves() {
    let code = |received: Received| match received {
        Received::Ignore => None,
        Received::Refuse(answer) => Some(answer.metadata.response_code),
        Received::Question(_) => panic!("a question"),
    };
    assert_eq!(code(receive(b"")), None);
    assert_eq!(code(receive(b"abc")), None);
    let broken = [0x12, 0x34, 0x01, 0x00, 0, 9, 0, 0, 0, 0, 0, 0];
    assert_eq!(code(receive(&broken)), Some(ResponseCode::FormErr));
    let mut response = question("a.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    assert_eq!(code(receive(&response.to_vec().expect("encodes"))), None);
    let mut update = question("a.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    update.queries.clear();
    assert_eq!(
        code(receive(&update.to_vec().expect("encodes"))),
        Some(ResponseCode::NotImp)
    );
    let mut none = question("a.", RecordType::A);
    none.queries.clear();
    assert_eq!(
        code(receive(&none.to_vec().expect("encodes"))),
        Some(ResponseCode::FormErr)
    );
}

#[test]
fn edns_is_echoed_and_large_answers_are_cut_to_it() {
    let mut asked = question("big.example.", RecordType::A);
    let mut answer = respond(&asked, ResponseCode::NoError);
    for index in 0..100 {
        let data = RData::A(A::new(192, 0, 2, index));
        let name = asked.queries[0].name().clone();
        answer.add_answer(Record::from_rdata(name, TTL, data));
    }
    let cut = udp_bytes(Some(&asked), &answer).expect("encodes");
    assert!(cut.len() <= 512);
    let cut = Message::from_vec(&cut).expect("decodes");
    assert!(cut.metadata.truncation && cut.answers.is_empty());

    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    asked.set_edns(edns);
    let whole = udp_bytes(Some(&asked), &answer).expect("encodes");
    assert_eq!(
        Message::from_vec(&whole).expect("decodes").answers.len(),
        100
    );
    let echoed = respond(&asked, ResponseCode::NoError).edns;
    assert_eq!(echoed.map(|edns| edns.max_payload()), Some(4096));
    let none = question("a.", RecordType::A);
    assert_eq!(
        relayed(&none, &respond(&asked, ResponseCode::NXDomain)).edns,
        None
    );
}
