//! The attributes of an HTTP request that a policy's match may be about.

use ipnet::IpNet;
use mesh::authorization as model;

use super::http_rule::try_all;
use super::{RequestMatch, condition};
use crate::authorization::Address;
use crate::authorization::r#match::{encode_ranges, encode_strings};
use crate::error::ConversionError;
use crate::ip;

pub(super) fn decode(wire: RequestMatch) -> Result<model::RequestMatch, ConversionError> {
    let strings = condition::decode_strings;
    Ok(model::RequestMatch {
        hosts: strings("hosts", wire.hosts)?,
        not_hosts: strings("not_hosts", wire.not_hosts)?,
        methods: strings("methods", wire.methods)?,
        not_methods: strings("not_methods", wire.not_methods)?,
        paths: try_all(wire.paths)?,
        not_paths: try_all(wire.not_paths)?,
        request_principals: strings("request_principals", wire.request_principals)?,
        not_request_principals: strings("not_request_principals", wire.not_request_principals)?,
        remote_ips: ranges("remote_ips", wire.remote_ips)?,
        not_remote_ips: ranges("not_remote_ips", wire.not_remote_ips)?,
        conditions: try_all(wire.conditions)?,
    })
}

fn ranges(field: &'static str, wire: Vec<Address>) -> Result<Vec<IpNet>, ConversionError> {
    let range = |one: Address| ip::decode_net(field, &one.address, one.length);
    wire.into_iter().map(range).collect()
}

impl From<&model::RequestMatch> for RequestMatch {
    fn from(one: &model::RequestMatch) -> Self {
        Self {
            hosts: encode_strings(&one.hosts),
            not_hosts: encode_strings(&one.not_hosts),
            methods: encode_strings(&one.methods),
            not_methods: encode_strings(&one.not_methods),
            paths: one.paths.iter().map(Into::into).collect(),
            not_paths: one.not_paths.iter().map(Into::into).collect(),
            request_principals: encode_strings(&one.request_principals),
            not_request_principals: encode_strings(&one.not_request_principals),
            remote_ips: encode_ranges(&one.remote_ips),
            not_remote_ips: encode_ranges(&one.not_remote_ips),
            conditions: one.conditions.iter().map(Into::into).collect(),
        }
    }
}
