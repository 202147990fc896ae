//! Which questions are answered here, and the messages that answer them.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinEncodable as _, BinEncoder};
use mesh::dns::{self, Answer};
use mesh::snapshot::Snapshot;
use mesh::workload::Workload;
use rand::Rng;

/// How long a client may keep our answer, in seconds.
const TTL: u32 = 30;

/// The largest answer a client without EDNS takes over UDP.
const UDP_PAYLOAD: u16 = 512;

/// What to do with a packet from a client.
#[derive(Debug)]
pub enum Received {
    /// Not a question: say nothing, so that two servers can't talk in circles.
    Ignore,
    /// Not a question we understand: answered as it is.
    Refuse(Message),
    Question(Message),
}

/// What the mesh says to a question.
#[derive(Debug)]
pub enum Decision {
    Answer(Message),
    Forward,
}

/// What answers depend on besides the mesh.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    pub cluster_domain: &'a str,
    /// The pod's own search domains; none: what Kubernetes gives by default.
    pub search_domains: &'a Arc<[String]>,
    pub ipv6: bool,
}

/// Reads a packet. A question has exactly one query.
pub fn receive(packet: &[u8]) -> Received {
    let message = match Message::from_vec(packet) {
        Ok(message) => message,
        Err(_) => return malformed(packet),
    };
    if message.metadata.message_type != MessageType::Query {
        return Received::Ignore;
    }
    if message.metadata.op_code != OpCode::Query {
        return Received::Refuse(refuse(&message, ResponseCode::NotImp));
    }
    match message.queries.len() {
        1 => Received::Question(message),
        _ => Received::Refuse(refuse(&message, ResponseCode::FormErr)),
    }
}

/// Repeats the question where it is one; several might not fit into what the client takes, and can't be cut.
fn refuse(message: &Message, code: ResponseCode) -> Message {
    let mut refusal = respond(message, code);
    if refusal.queries.len() > 1 {
        refusal.queries.clear();
    }
    refusal
}

/// A packet of which only the header can be read: 2 bytes id, then the bit that says response.
fn malformed(packet: &[u8]) -> Received {
    match packet {
        [id_high, id_low, flags, _, ..] if flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*id_high, *id_low]);
            let code = ResponseCode::FormErr;
            Received::Refuse(Message::error_msg(id, OpCode::Query, code))
        }
        _ => Received::Ignore,
    }
}

/// An empty answer to a question.
pub fn respond(question: &Message, code: ResponseCode) -> Message {
    let mut metadata = Metadata::response_from_request(&question.metadata);
    metadata.response_code = code;
    metadata.recursion_available = true;
    let mut answer = Message::response(metadata.id, metadata.op_code);
    answer.metadata = metadata;
    answer.queries.clone_from(&question.queries);
    if let Some(edns) = &question.edns {
        let mut echoed = hickory_proto::op::Edns::new();
        echoed
            .set_max_payload(edns.max_payload())
            .set_dnssec_ok(edns.flags().dnssec_ok);
        answer.set_edns(echoed);
    }
    answer
}

/// Decides a question of `client`.
pub fn decide(
    snapshot: &Snapshot,
    client: &Workload,
    setting: Setting<'_>,
    question: &Message,
    random: &mut impl Rng,
) -> Decision {
    let Some(query) = question.queries.first() else {
        return Decision::Answer(respond(question, ResponseCode::FormErr));
    };
    let record_type = match (query.query_class(), query.query_type()) {
        (DNSClass::IN, RecordType::A) => dns::RecordType::A,
        (DNSClass::IN, RecordType::AAAA) => dns::RecordType::Aaaa,
        _ => return Decision::Forward,
    };
    let default_search;
    let search = match setting.search_domains.is_empty() {
        false => setting.search_domains,
        true => {
            default_search = kubernetes_search(&client.namespace, setting.cluster_domain);
            &default_search
        }
    };
    let asking = dns::Client {
        namespace: &client.namespace,
        network: &client.network,
        search,
        cluster_domain: setting.cluster_domain,
        ipv6: setting.ipv6,
    };
    let name = query.name().to_ascii();
    match dns::resolve(snapshot, &asking, &name, record_type, random) {
        Answer::NotOurs => Decision::Forward,
        Answer::NoData => {
            let mut answer = respond(question, ResponseCode::NoError);
            answer.metadata.authoritative = true;
            Decision::Answer(answer)
        }
        Answer::Records { cname, addresses } => {
            Decision::Answer(records(question, query, cname.as_deref(), &addresses))
        }
    }
}

fn records(
    question: &Message,
    query: &Query,
    cname: Option<&str>,
    addresses: &[IpAddr],
) -> Message {
    let mut answer = respond(question, ResponseCode::NoError);
    answer.metadata.authoritative = true;
    let mut owner = query.name().clone();
    // A hostname of the mesh that is no DNS name can't be pointed at.
    if let Some(mut canonical) = cname.and_then(|text| Name::from_str(text).ok()) {
        canonical.set_fqdn(true);
        let data = RData::CNAME(CNAME(canonical.clone()));
        answer.add_answer(Record::from_rdata(owner, TTL, data));
        owner = canonical;
    }
    for address in addresses {
        let data = match address {
            IpAddr::V4(address) => RData::A(A(*address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
        };
        answer.add_answer(Record::from_rdata(owner.clone(), TTL, data));
    }
    answer
}

/// The search domains of a pod that says nothing of its own.
fn kubernetes_search(namespace: &str, cluster_domain: &str) -> Arc<[String]> {
    [
        format!("{namespace}.svc.{cluster_domain}"),
        format!("svc.{cluster_domain}"),
        cluster_domain.to_owned(),
    ]
    .into()
}

/// An upstream's answer as the client must see it.
pub fn relayed(question: &Message, upstream: &Message) -> Message {
    let mut answer = upstream.clone();
    answer.metadata.id = question.metadata.id;
    answer.metadata.truncation = false;
    answer.queries.clone_from(&question.queries);
    answer.edns = respond(question, ResponseCode::NoError)
        .edns
        .map(|mut edns| {
            let code = u16::from(answer.metadata.response_code);
            edns.set_rcode_high((code >> 4) as u8);
            edns
        });
    answer
}

/// Whether an upstream says no more than that it can't say.
pub fn is_failure(upstream: &Message) -> bool {
    let code = upstream.metadata.response_code;
    matches!(code, ResponseCode::ServFail | ResponseCode::Refused)
}

/// The bytes of an answer over UDP: cut to what the client takes.
pub fn udp_bytes(question: Option<&Message>, answer: &Message) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok()?;
    let limit = question.map_or(UDP_PAYLOAD, Message::max_payload);
    match bytes.len() <= usize::from(limit) {
        true => Some(bytes),
        false => cut(answer.clone(), limit),
    }
}

/// What is extra goes first, then answers from the end: a client that can't ask again over TCP
/// (musl before 1.2.4) has those that fit. TC is for what it can't do without (RFC 2181 §9).
fn cut(mut answer: Message, limit: u16) -> Option<Vec<u8>> {
    answer.additionals.clear();
    answer.signature = None;
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= usize::from(limit) {
        return Some(bytes);
    }
    // It proves what is signed (RFC 4035 §3.1.1), and is all that says for how long there is nothing.
    let is_signed = answer.edns.as_ref().is_some_and(|e| e.flags().dnssec_ok);
    let needs_authority = is_signed || answer.answers.is_empty();
    answer.metadata.truncation |= needs_authority && !answer.authorities.is_empty();
    answer.authorities.clear();
    let answers = std::mem::take(&mut answer.answers);
    let mut measured = Vec::new();
    let mut encoder = BinEncoder::new(&mut measured);
    // EDNS takes as much behind the answers as before them.
    answer.emit(&mut encoder).ok()?;
    let fits = |record: &&Record| {
        record.emit(&mut encoder).is_ok() && encoder.offset() <= usize::from(limit)
    };
    answer.answers = answers.iter().take_while(fits).cloned().collect();
    answer.metadata.truncation |= answer.answers.len() < answers.len();
    answer.to_vec().ok()
}

#[cfg(test)]
mod tests;
