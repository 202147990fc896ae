//! What the cluster's names mean: Kubernetes' DNS schema for services, as a pure table.
//!
//! Names outside the cluster's domain do not exist: the machine's network has no way out, so
//! nothing that such a name could lead to is reachable from it.
use std::collections::HashMap;
use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use rand::Rng;
use rand::seq::SliceRandom as _;

use super::super::service::{Endpoint, Kind, Port, Service};

const DOMAIN: &str = "cluster.local";
/// Endpoints come and go.
const TTL: u32 = 5;
const MAX_PAYLOAD: u16 = 1232;

/// All names of the cluster's domain and what they hold.
#[derive(Debug)]
pub(crate) struct Zone {
    origin: Option<Name>,
    /// In lower case. Names that only have others below them are here too, and hold nothing.
    names: HashMap<Name, Vec<RData>>,
}

// === impl Zone ===

impl Default for Zone {
    fn default() -> Self {
        Zone::new(&[])
    }
}

impl Zone {
    pub(crate) fn new(services: &[Service]) -> Zone {
        let mut zone = Zone {
            origin: name(DOMAIN),
            names: HashMap::new(),
        };
        zone.insert(DOMAIN, None);
        for service in services {
            zone.add(service);
        }
        zone
    }

    fn add(&mut self, service: &Service) {
        let own = format!("{}.{}.svc.{DOMAIN}", service.name, service.namespace);
        // A service without endpoints has a name all the same.
        self.insert(&own, None);
        match &service.kind {
            Kind::ClusterIp(addresses) => {
                for ip in addresses {
                    self.insert(&own, Some(address(*ip)));
                }
                for port in &service.ports {
                    self.add_srv(&own, &own, port, port.number);
                }
            }
            Kind::Headless => {
                for endpoint in &service.endpoints {
                    self.add_endpoint(service, &own, endpoint);
                }
            }
            Kind::ExternalName(other) => {
                self.insert(&own, name(other).map(|other| RData::CNAME(CNAME(other))));
            }
        }
    }

    fn add_endpoint(&mut self, service: &Service, own: &str, endpoint: &Endpoint) {
        let Some(first) = endpoint.ips.first() else {
            return;
        };
        let label = match &endpoint.hostname {
            Some(hostname) => hostname.clone(),
            None => first.to_string().replace(['.', ':'], "-"),
        };
        let target = format!("{label}.{own}");
        for ip in &endpoint.ips {
            self.insert(own, Some(address(*ip)));
            self.insert(&target, Some(address(*ip)));
        }
        for port in &service.ports {
            if let Some(number) = endpoint.targets.get(&(port.protocol, port.number)) {
                self.add_srv(own, &target, port, *number);
            }
        }
    }

    /// `_http._tcp.web.shop.svc.cluster.local`, for ports that have a name.
    fn add_srv(&mut self, own: &str, target: &str, port: &Port, number: u16) {
        if let (Some(port_name), Some(target)) = (&port.name, name(target)) {
            let record = RData::SRV(SRV::new(0, 100, number, target));
            let protocol = port.protocol.name();
            self.insert(&format!("_{port_name}._{protocol}.{own}"), Some(record));
        }
    }

    fn insert(&mut self, text: &str, record: Option<RData>) {
        // Kubernetes lets no other names through.
        let Some(mut name) = name(text) else { return };
        let records = self.names.entry(name.clone()).or_default();
        if let Some(record) = record
            && !records.contains(&record)
        {
            records.push(record);
        }
        while self.origin.as_ref() != Some(&name) && !name.is_root() {
            name = name.base_name();
            self.names.entry(name.clone()).or_default();
        }
    }

    /// The answer to `question`; nothing for a packet that is an answer itself.
    pub(super) fn answer(&self, question: &Message, random: &mut impl Rng) -> Option<Message> {
        if question.metadata.message_type != MessageType::Query {
            return None;
        }
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata = Metadata::response_from_request(&question.metadata);
        answer.metadata.recursion_available = true;
        answer.add_queries(question.queries.iter().cloned());
        if question.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_PAYLOAD);
            answer.set_edns(edns);
        }
        answer.metadata.response_code = self.fill(question, &mut answer, random);
        Some(answer)
    }

    fn fill(
        &self,
        question: &Message,
        answer: &mut Message,
        random: &mut impl Rng,
    ) -> ResponseCode {
        if question.metadata.op_code != OpCode::Query {
            return ResponseCode::NotImp;
        }
        let [query] = &question.queries[..] else {
            return ResponseCode::FormErr;
        };
        if query.query_class() != DNSClass::IN {
            return ResponseCode::Refused;
        }
        let asked = query.name();
        answer.metadata.authoritative = self.contains(asked);
        let code = self.look_up(asked, query.query_type(), answer);
        answer.answers.shuffle(random);
        // An alias reads before what it leads to.
        answer
            .answers
            .sort_by_key(|record| record.record_type() != RecordType::CNAME);
        if answer.answers.is_empty() && answer.metadata.authoritative {
            answer.authorities.extend(self.soa());
        }
        code
    }

    fn look_up(&self, asked: &Name, kind: RecordType, answer: &mut Message) -> ResponseCode {
        let Some(records) = self.names.get(&asked.to_lowercase()) else {
            return ResponseCode::NXDomain;
        };
        for data in records {
            let matches = data.record_type() == kind || kind == RecordType::ANY;
            let alias = match data {
                RData::CNAME(target) if !matches => Some(target.0.clone()),
                _ => None,
            };
            if matches || alias.is_some() {
                answer.add_answer(Record::from_rdata(asked.clone(), TTL, data.clone()));
            }
            // One step is all there is: the target of an alias is a service with addresses, or
            // outside, where nothing exists.
            for data in alias
                .iter()
                .flat_map(|alias| self.names.get(alias))
                .flatten()
            {
                if let (Some(alias), true) = (&alias, data.record_type() == kind) {
                    answer.add_answer(Record::from_rdata(alias.clone(), TTL, data.clone()));
                }
            }
        }
        ResponseCode::NoError
    }

    fn contains(&self, asked: &Name) -> bool {
        self.origin
            .as_ref()
            .is_some_and(|origin| origin.zone_of(asked))
    }

    /// Lets clients remember that there is nothing, for as short as anything else.
    fn soa(&self) -> Option<Record> {
        let origin = self.origin.clone()?;
        let server = name(&format!("ns.dns.{DOMAIN}"))?;
        let mailbox = name(&format!("hostmaster.{DOMAIN}"))?;
        let soa = SOA::new(server, mailbox, 1, 7200, 1800, 86400, TTL);
        Some(Record::from_rdata(origin, TTL, RData::SOA(soa)))
    }
}

fn name(text: &str) -> Option<Name> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let name = Name::from_ascii(format!("{text}.")).ok()?;
    Some(name.to_lowercase())
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

#[cfg(test)]
mod tests;
