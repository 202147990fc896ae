//! One match of a policy: attributes that must all hold.

use ipnet::IpNet;
use mesh::authorization as model;
use prost::Message;

use super::{Address, Match, ServiceAccountMatch, StringMatch, string_match};
use crate::error::{self, ConversionError};
use crate::generated::istio::workload::Extension;
use crate::ip;

/// Marks a match that its author already could not express, with the reason.
const UNPARSABLE: &str = "weft.dev/unparsable";

const FOR_WAYPOINTS: &str = "is about requests, which only a waypoint sees";

/// Decodes what can be; the first entry that cannot makes the whole match unparsable.
pub(crate) fn decode(wire: Match, problems: &mut Vec<String>) -> model::Match {
    let mut decoder = Decoder::default();
    let mut decoded = model::Match {
        request: None,
        namespaces: decoder.strings("namespaces", wire.namespaces),
        not_namespaces: decoder.strings("not_namespaces", wire.not_namespaces),
        principals: decoder.strings("principals", wire.principals),
        not_principals: decoder.strings("not_principals", wire.not_principals),
        service_accounts: accounts(wire.service_accounts),
        not_service_accounts: accounts(wire.not_service_accounts),
        source_ips: decoder.ranges("source_ips", wire.source_ips),
        not_source_ips: decoder.ranges("not_source_ips", wire.not_source_ips),
        destination_ips: decoder.ranges("destination_ips", wire.destination_ips),
        not_destination_ips: decoder.ranges("not_destination_ips", wire.not_destination_ips),
        destination_ports: decoder.ports("destination_ports", wire.destination_ports),
        not_destination_ports: decoder.ports("not_destination_ports", wire.not_destination_ports),
        unparsable: None,
    };
    for extension in wire.extensions {
        match unparsable_reason(&extension) {
            // Known to whoever sent it: nothing to report back.
            Some(reason) => {
                return model::Match {
                    unparsable: Some(reason.into()),
                    ..Default::default()
                };
            }
            None => decoder
                .problems
                .push(format!("extensions: {} is not known", extension.name)),
        }
    }
    decoded.unparsable = decoder
        .problems
        .first()
        .map(|problem| problem.as_str().into());
    problems.append(&mut decoder.problems);
    decoded
}

#[derive(Default)]
struct Decoder {
    problems: Vec<String>,
}

impl Decoder {
    fn keep<W, M>(
        &mut self,
        wire: Vec<W>,
        decode: impl Fn(W) -> Result<M, ConversionError>,
    ) -> Vec<M> {
        wire.into_iter()
            .filter_map(|one| {
                decode(one)
                    .map_err(|error| self.problems.push(error.to_string()))
                    .ok()
            })
            .collect()
    }

    fn strings(&mut self, field: &'static str, wire: Vec<StringMatch>) -> Vec<model::StringMatch> {
        self.keep(wire, |one| string_match::decode(field, one))
    }

    fn ranges(&mut self, field: &'static str, wire: Vec<Address>) -> Vec<IpNet> {
        self.keep(wire, |one| ip::decode_net(field, &one.address, one.length))
    }

    fn ports(&mut self, field: &'static str, wire: Vec<u32>) -> Vec<u16> {
        self.keep(wire, |one| error::port(field, one))
    }
}

fn accounts(wire: Vec<ServiceAccountMatch>) -> Vec<model::ServiceAccountMatch> {
    wire.into_iter()
        .map(|one| model::ServiceAccountMatch {
            namespace: one.namespace.into(),
            service_account: one.service_account.into(),
        })
        .collect()
}

fn unparsable_reason(extension: &Extension) -> Option<String> {
    if extension.name != UNPARSABLE {
        return None;
    }
    let config = extension.config.as_ref();
    // `String` is how prost spells google.protobuf.StringValue.
    let reason = config.and_then(|any| String::decode(any.value.as_slice()).ok());
    Some(reason.unwrap_or_default())
}

// === Encoding ===

/// As nodes get it. They can't see requests: a match about those never allows, and denies whatever
/// request comes.
pub(super) fn encode_for_node(one: &model::Match, action: model::Action) -> Match {
    match (&one.request, action) {
        (None, _) => encode(one, action),
        (Some(_), model::Action::Allow) => encode_unparsable(FOR_WAYPOINTS, action),
        (Some(_), model::Action::Deny | model::Action::Audit) => {
            let encoded = encode(one, action);
            match encoded == Match::default() {
                true => encode_unparsable(FOR_WAYPOINTS, action),
                false => encoded,
            }
        }
    }
}

/// All of it that is about the connection.
pub(crate) fn encode(one: &model::Match, action: model::Action) -> Match {
    if let Some(reason) = &one.unparsable {
        return encode_unparsable(reason, action);
    }
    Match {
        namespaces: encode_strings(&one.namespaces),
        not_namespaces: encode_strings(&one.not_namespaces),
        principals: encode_strings(&one.principals),
        not_principals: encode_strings(&one.not_principals),
        source_ips: encode_ranges(&one.source_ips),
        not_source_ips: encode_ranges(&one.not_source_ips),
        destination_ips: encode_ranges(&one.destination_ips),
        not_destination_ips: encode_ranges(&one.not_destination_ips),
        destination_ports: encode_ports(&one.destination_ports),
        not_destination_ports: encode_ports(&one.not_destination_ports),
        service_accounts: encode_accounts(&one.service_accounts),
        not_service_accounts: encode_accounts(&one.not_service_accounts),
        extensions: Vec::new(),
    }
}

/// A tunnel that ignores the extension must still come to the same verdict: nothing set
/// never matches, and no connection goes to port 0.
fn encode_unparsable(reason: &str, action: model::Action) -> Match {
    let config = prost_types::Any {
        type_url: "type.googleapis.com/google.protobuf.StringValue".to_owned(),
        value: reason.to_owned().encode_to_vec(),
    };
    Match {
        not_destination_ports: match action {
            model::Action::Allow => Vec::new(),
            model::Action::Deny | model::Action::Audit => vec![0],
        },
        extensions: vec![Extension {
            name: UNPARSABLE.to_owned(),
            config: Some(config),
        }],
        ..Default::default()
    }
}

pub(crate) fn encode_strings(matches: &[model::StringMatch]) -> Vec<StringMatch> {
    matches.iter().map(Into::into).collect()
}

pub(crate) fn encode_ranges(ranges: &[IpNet]) -> Vec<Address> {
    ranges
        .iter()
        .map(|range| Address {
            address: ip::encode(range.addr()),
            length: range.prefix_len().into(),
        })
        .collect()
}

fn encode_ports(ports: &[u16]) -> Vec<u32> {
    ports.iter().copied().map(u32::from).collect()
}

fn encode_accounts(accounts: &[model::ServiceAccountMatch]) -> Vec<ServiceAccountMatch> {
    accounts
        .iter()
        .map(|one| ServiceAccountMatch {
            namespace: one.namespace.as_ref().to_owned(),
            service_account: one.service_account.as_ref().to_owned(),
        })
        .collect()
}
