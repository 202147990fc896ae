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
    let answer = large(&asked, 100);
    let cut = over_udp(&asked, &answer);
    // 29 bytes of header and question, 16 of each address.
    assert!(cut.metadata.truncation);
    assert_eq!(cut.answers, answer.answers[..30]);

    asked.set_edns(edns(4096));
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

fn edns(max_payload: u16) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(max_payload);
    edns
}

/// An answer with so many addresses, of 16 bytes each.
fn large(asked: &Message, addresses: u8) -> Message {
    let mut answer = respond(asked, ResponseCode::NoError);
    for index in 0..addresses {
        answer.add_answer(address(asked, index));
    }
    answer
}

fn address(asked: &Message, index: u8) -> Record {
    let name = asked.queries[0].name().clone();
    Record::from_rdata(name, TTL, RData::A(A::new(192, 0, 2, index)))
}

/// What the client reads, which is never more than it takes.
fn over_udp(asked: &Message, answer: &Message) -> Message {
    let bytes = udp_bytes(Some(asked), answer).expect("encodes");
    assert!(bytes.len() <= usize::from(asked.max_payload()));
    Message::from_vec(&bytes).expect("decodes")
}

#[test]
fn a_cut_answer_keeps_its_edns_and_the_alias_before_its_addresses() {
    let mut asked = question("api.shop.", RecordType::A);
    asked.set_edns(edns(512));
    let addresses: Vec<IpAddr> = (0..100).map(|last| [192, 0, 2, last].into()).collect();
    let cname = Some("api.shop.svc.cluster.local");
    let answer = records(&asked, &asked.queries[0], cname, &addresses);
    let cut = over_udp(&asked, &answer);
    assert_eq!(cut.edns.map(|edns| edns.max_payload()), Some(512));
    assert_eq!(cut.answers[0].record_type(), RecordType::CNAME);
    // 26 bytes of header and question, 11 of EDNS, 40 of the alias, 16 of each address.
    assert_eq!(cut.answers, answer.answers[..1 + 27]);
}

#[test]
fn extras_are_cut_first_and_without_a_word() {
    let asked = question("big.example.", RecordType::A);
    // With 30 answers the 512 bytes are nearly full, with 31 they are more than that.
    for (answers, authorities, additionals, left) in [
        (10, 10, 40, (10, 10, false)),
        (30, 1, 1, (30, 0, false)),
        (31, 1, 1, (30, 0, true)),
    ] {
        let mut answer = large(&asked, answers);
        answer.add_authorities((0..authorities).map(|index| address(&asked, index)));
        answer.add_additionals((0..additionals).map(|index| address(&asked, index)));
        let cut = over_udp(&asked, &answer);
        assert!(cut.additionals.is_empty());
        let truncated = cut.metadata.truncation;
        assert_eq!((cut.answers.len(), cut.authorities.len(), truncated), left);
    }
}

#[test]
fn an_authority_that_the_client_needs_is_not_cut_without_a_word() {
    let mut asked = question("big.example.", RecordType::A);
    let nothing = |asked: &Message| {
        let mut answer = respond(asked, ResponseCode::NXDomain);
        answer.add_authorities((0..40).map(|index| address(asked, index)));
        over_udp(asked, &answer).metadata.truncation
    };
    assert!(nothing(&asked));
    let signed = |asked: &Message| {
        let mut answer = large(asked, 10);
        answer.add_authorities((0..40).map(|index| address(asked, index)));
        over_udp(asked, &answer).metadata.truncation
    };
    assert!(!signed(&asked));
    let mut edns = edns(512);
    edns.set_dnssec_ok(true);
    asked.set_edns(edns);
    assert!(signed(&asked));
}
