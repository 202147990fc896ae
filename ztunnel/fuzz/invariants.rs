//! What must hold of any input: nothing panics, and what was understood is understood again.
//!
//! Both the fuzz targets and the replay of their corpora call these.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use hbone::headers::{self, Baggage, TraceParent};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use http::{HeaderMap, HeaderName, HeaderValue};
use identity::certificate::CertificateSummary;
use identity::revocation::RevocationLists;
use mesh::address::NetworkAddress;
use mesh::destination::Authority;
use mesh::identity::Identity;
use mesh::service::Service;
use mesh::snapshot::{Change, Snapshot};
use mesh::workload::Workload;
use ppp::v2::Addresses;
use prost::Message as _;
use proto::discovery::{DeltaDiscoveryResponse, EncodedResponse};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rustls_pki_types::CertificateDer;
use xds::client::{Received, State, Subscription};
use xds::resource_type::Layer;
use ztunnel::dns::answer::{self, Decision, Setting};
use ztunnel::dns::cache::Cache;
use ztunnel::inpod::request::{DecodeError, Packet};
use ztunnel::inpod::roster::{Roster, Step};
use ztunnel::inpod::{Pod, Request};
use ztunnel::proxy::proxy_protocol;

use trust::Place;

#[path = "trust.rs"]
pub(crate) mod trust;

/// An authority on the first line, headers on the others.
pub(crate) fn connect(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    if let Some(authority) = std::str::from_utf8(first)
        .ok()
        .and_then(|text| text.parse::<Authority>().ok())
    {
        let written = authority.to_string();
        assert_eq!(written.parse(), Ok(authority));
    }
    let mut headers = HeaderMap::new();
    for line in lines {
        let mut halves = line.splitn(2, |byte| *byte == b':');
        let (name, value) = (halves.next().unwrap_or_default(), halves.next());
        let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.unwrap_or_default()),
        ) else {
            continue;
        };
        headers.append(name, value);
    }
    let _ = Baggage::parse(&headers);
    assert!(headers::forwarded_host(&headers).is_none_or(|host| !host.is_empty()));
    if let Some(trace) = TraceParent::parse(&headers) {
        let written = trace.header().expect("hexadecimal digits");
        let again = HeaderMap::from_iter([(headers::TRACEPARENT, written)]);
        assert_eq!(TraceParent::parse(&again), Some(trace));
    }
}

/// Two addresses with their ports, IPv6 where the first byte's bit says so, and the text of an
/// identity. Another parser reads in the header what was put there, and nothing after it.
pub(crate) fn proxy_protocol(input: &[u8]) {
    let Some((families, rest)) = input.split_first() else {
        return;
    };
    let Some((source, rest)) = address(rest, families & 1 != 0) else {
        return;
    };
    let Some((destination, rest)) = address(rest, families & 2 != 0) else {
        return;
    };
    let identity: Option<Identity> = String::from_utf8_lossy(rest).parse().ok();
    let Ok(bytes) = proxy_protocol::header(source, destination, identity.as_ref()) else {
        return;
    };
    let read = ppp::v2::Header::try_from(&*bytes).expect("a header");
    assert_eq!(read.len(), bytes.len());
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    match (read.addresses, source, destination) {
        (Addresses::IPv4(read), SocketAddr::V4(source), SocketAddr::V4(destination)) => {
            assert_eq!(
                (read.source_address, read.source_port),
                (*source.ip(), source.port())
            );
            assert_eq!(
                (read.destination_address, read.destination_port),
                (*destination.ip(), destination.port())
            );
        }
        (Addresses::IPv6(read), source, destination) => {
            assert_eq!(
                (read.source_address, read.source_port),
                (mapped(source), source.port())
            );
            assert_eq!(
                (read.destination_address, read.destination_port),
                (mapped(destination), destination.port())
            );
        }
        (other, ..) => panic!("{other:?} from {source} to {destination}"),
    }
    let texts: Vec<_> = read
        .tlvs()
        .map(|field| field.expect("a field"))
        .map(|field| {
            (
                field.kind,
                String::from_utf8(field.value.to_vec()).expect("text"),
            )
        })
        .collect();
    let wanted = identity.map(|identity| (0xD0, identity.to_string()));
    assert_eq!(texts, Vec::from_iter(wanted));
}

fn address(input: &[u8], is_ipv6: bool) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest) = match is_ipv6 {
        true => {
            let (octets, rest) = input.split_first_chunk::<16>()?;
            (IpAddr::from(*octets), rest)
        }
        false => {
            let (octets, rest) = input.split_first_chunk::<4>()?;
            (IpAddr::from(*octets), rest)
        }
    };
    let (port, rest) = rest.split_first_chunk()?;
    Some((SocketAddr::new(ip, u16::from_be_bytes(*port)), rest))
}

/// Whatever a client asks is answered to it alone, and in a packet that it takes and can read.
pub(crate) fn dns(input: &[u8]) {
    let question = match answer::receive(input) {
        answer::Received::Ignore => return,
        answer::Received::Refuse(refusal) => return check_packet(None, &refusal),
        answer::Received::Question(question) => question,
    };
    let search = Arc::from(["shop.svc.cluster.local".to_owned()]);
    let setting = Setting {
        cluster_domain: "cluster.local",
        search_domains: &search,
        ipv6: true,
    };
    let client = Workload::new("Kubernetes//Pod/shop/web-0", "web-0", "shop");
    let mut random = StdRng::seed_from_u64(0);
    let decided = answer::decide(&NAMES, &client, setting, &question, &mut random);
    let answered = match decided {
        Decision::Answer(message) => {
            let first = message.answers.first().map(|record| &record.name);
            assert!(first.is_none_or(|name| name == question.queries[0].name()));
            message
        }
        Decision::Forward => answer::respond(&question, ResponseCode::ServFail),
    };
    // The same bytes, as if a nameserver had sent them.
    let mut upstream = question.clone();
    upstream.metadata.message_type = MessageType::Response;
    let relayed = answer::relayed(&question, &upstream);
    let (mut cache, now) = (Cache::default(), Instant::now());
    cache.store(&question, &relayed, now);
    let kept = cache.answer(&question, now);
    for message in [Some(answered), Some(relayed), kept].into_iter().flatten() {
        assert_eq!(message.queries, question.queries);
        check_packet(Some(&question), &message);
    }
}

fn check_packet(question: Option<&Message>, message: &Message) {
    let Some(bytes) = answer::udp_bytes(question, message) else {
        return;
    };
    // RFC 1035 §4.2.1, RFC 6891 §6.2.3.
    let most = question.map_or(512, Message::max_payload);
    assert!(bytes.len() <= usize::from(most), "{} bytes", bytes.len());
    let read = Message::from_vec(&bytes).expect("an answer of ours");
    assert_eq!(read.metadata.id, message.metadata.id);
    assert_eq!(read.metadata.message_type, MessageType::Response);
    let code = |message: &Message| message.metadata.response_code.low();
    assert_eq!(code(&read), code(message));
}

/// What the names in the corpus stand for: a service of both families, one without an address of
/// its own, and one for a whole domain.
static NAMES: LazyLock<Snapshot> = LazyLock::new(|| {
    let mut web = Service::new("web", "shop", "web.shop.svc.cluster.local");
    let addresses: [IpAddr; 2] = [[10, 96, 0, 1].into(), [0xfd00, 0, 0, 0, 0, 0, 0, 1].into()];
    web.addresses = addresses
        .map(|address| NetworkAddress::new("", address))
        .into();
    let headless = Service::new("db", "shop", "db.shop.svc.cluster.local");
    let mut wildcard = Service::new("example", "shop", "*.example");
    wildcard.addresses = vec![NetworkAddress::new("", addresses[0])];
    let mut endpoint = Workload::new("Kubernetes//Pod/shop/db-0", "db-0", "shop");
    endpoint.addresses = addresses.to_vec().into();
    endpoint.services.insert(headless.key(), Vec::new());
    let mut names = Snapshot::default();
    names.apply([web, headless, wildcard].map(Change::Service));
    names.apply([Change::Workload(endpoint)]);
    names
});

/// A packet without descriptors, of which what asks for one is refused; and the same with a network
/// namespace's.
pub(crate) fn zds(input: &[u8]) {
    let mut roster = Roster::new(false);
    roster.connected();
    if let Ok(request) = decode(input, Vec::new()) {
        assert!(!matches!(request, Request::Add(_)));
        let _ = roster.request(request);
    }
    if let Ok(request) = with_namespace(input) {
        let Request::Add(pod) = request else {
            panic!("{request:?} comes without a descriptor");
        };
        comes_and_goes(pod);
    }
}

/// What a packet asks for that comes with the descriptor of this process's own namespace.
pub(crate) fn with_namespace(input: &[u8]) -> Result<Request, DecodeError> {
    let own = File::open("/proc/self/ns/net").expect("a network namespace");
    decode(input, vec![own.into()])
}

fn decode(input: &[u8], fds: Vec<OwnedFd>) -> Result<Request, DecodeError> {
    let bytes = input.to_vec();
    Request::decode(Packet { bytes, fds })
}

/// A pod is started once, however often it is named, and stopped when it is deleted.
fn comes_and_goes(pod: Pod) {
    let mut roster = Roster::new(false);
    roster.connected();
    let ask = |roster: &mut Roster, request| roster.request(request).expect("in turn");
    let uid = pod.spec.uid.clone();
    let first = ask(&mut roster, Request::Add(pod.clone()));
    assert!(matches!(first, Step::Start(_)));
    roster.started(pod.clone(), &Ok(()));
    assert_eq!(roster.counts(), (1, 0));
    for request in [Request::SnapshotSent, Request::Add(pod)] {
        assert!(matches!(ask(&mut roster, request), Step::Nothing));
    }
    let gone = ask(&mut roster, Request::Delete(uid.clone()));
    assert!(matches!(gone, Step::Stop(uids) if uids == [uid]));
    assert_eq!(roster.counts(), (0, 0));
}

/// What a response brings can be applied and taken back without a trace, at either layer; of one
/// that can't be read nothing is taken in.
pub(crate) fn xds(input: &[u8]) {
    let Ok(response) = EncodedResponse::decode(input) else {
        return;
    };
    for layer in [Layer::L4, Layer::L7] {
        let mut state = State::new(layer, Subscription::Wildcard);
        let mut snapshot = Snapshot::default();
        let names: Vec<_> = response
            .clone()
            .resources()
            .flatten()
            .map(|one| one.name)
            .collect();
        let received = state.receive(response.clone());
        assert_eq!(received.is_err(), response.check().is_err());
        let Ok(Received {
            update: Some(update),
            acknowledgement,
            ..
        }) = received
        else {
            continue;
        };
        assert_eq!(acknowledgement.response_nonce, response.nonce);
        let told = acknowledgement.error_detail.is_some();
        assert_eq!(told, !update.rejections.is_empty());
        snapshot.apply(update.changes);
        let removal = DeltaDiscoveryResponse {
            type_url: response.type_url.clone(),
            removed_resources: names,
            ..Default::default()
        };
        let removed = state.receive(EncodedResponse::from(&removal));
        let update = removed
            .expect("names only")
            .update
            .expect("of a known type");
        snapshot.apply(update.changes);
        // In every index of it.
        assert_eq!(
            format!("{snapshot:?}"),
            format!("{:?}", Snapshot::default())
        );
        let mut requests = state.initial_requests().into_iter();
        assert!(requests.all(|request| request.initial_resource_versions.is_empty()));
    }
}

/// The names in a certificate read as themselves again, and whoever shows it is judged the same by both
/// ends' verifiers and by revocation lists.
pub(crate) fn certificate(input: &[u8]) {
    let der = CertificateDer::from(input);
    for identity in identity::identities(&der) {
        assert_eq!(identity.to_string().parse(), Ok(identity));
    }
    let _ = CertificateSummary::read(&der);
    let text = std::str::from_utf8(input).unwrap_or_default();
    if let Ok(identity) = text.parse::<Identity>() {
        assert_eq!(identity.to_string(), text);
    }
    let _ = RevocationLists::read(input);
    for place in [Place::EndEntity, Place::AboveLeaf, Place::BelowIntermediate] {
        trust::shown(input, place);
    }
}
