//! ServiceEntry: hosts, addresses, ports and endpoints that agree with the resolution.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::kinds::service_entry::{Resolution, ServiceEntry};
use crate::validate::workload_entry::workload_entry_spec;
use crate::validate::{Problems, Validate, labels, names};

const PROTOCOLS: &[&str] = &[
    "", "GRPC", "GRPC-WEB", "HTTP", "HTTP2", "HTTPS", "MONGO", "MYSQL", "REDIS", "TCP", "TLS",
    "UDP",
];
const MAX_HOSTS: usize = 256;

impl Validate for ServiceEntry {
    fn validate(&self, problems: &mut Problems<'_>) {
        hosts(self, problems);
        addresses(self, problems);
        ports(self, problems);
        endpoints(self, problems);
    }
}

fn hosts(entry: &ServiceEntry, problems: &mut Problems<'_>) {
    let spec = &entry.spec;
    if spec.hosts.is_empty() || spec.hosts.len() > MAX_HOSTS {
        problems.error(
            "spec.hosts",
            format!("has {} hosts: give from 1 to {MAX_HOSTS}", spec.hosts.len()),
        );
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        match host.strip_prefix("*.") {
            Some(parent) => {
                problems.check(field.as_str(), names::host(parent));
                match spec.resolution {
                    Resolution::None | Resolution::DynamicDns => {}
                    Resolution::Static | Resolution::Dns | Resolution::DnsRoundRobin => problems
                        .error(
                            field,
                            "a wildcard host can't be resolved: use resolution NONE or DYNAMIC_DNS",
                        ),
                }
            }
            None if host == "*" => {
                problems.error(
                    field,
                    "\"*\" names every host: name the hosts that are meant",
                );
            }
            None => problems.check(field, names::host(host)),
        }
    }
}

fn addresses(entry: &ServiceEntry, problems: &mut Problems<'_>) {
    let spec = &entry.spec;
    for (index, address) in spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        match (address.parse::<IpNet>(), address.parse::<IpAddr>()) {
            (_, Ok(_)) => {}
            (Ok(_), Err(_)) => match spec.resolution {
                Resolution::None | Resolution::Static => {}
                Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns => problems
                    .error(
                        field,
                        "a range of addresses needs resolution NONE or STATIC",
                    ),
            },
            (Err(_), Err(_)) => problems.check(field, names::cidr(address)),
        }
    }
}

fn ports(entry: &ServiceEntry, problems: &mut Problems<'_>) {
    let spec = &entry.spec;
    let mut numbers = HashSet::new();
    let mut port_names = HashSet::new();
    if spec.ports.is_empty() {
        problems.error("spec.ports", "has no port: give one");
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        problems.check(format!("{field}.number"), names::port(port.number.into()));
        problems.check(format!("{field}.name"), names::label(&port.name));
        if !numbers.insert(port.number) {
            problems.error(
                format!("{field}.number"),
                format!("{} is there twice", port.number),
            );
        }
        if !port_names.insert(&port.name) {
            problems.error(
                format!("{field}.name"),
                format!("{:?} is there twice", port.name),
            );
        }
        if !PROTOCOLS.contains(&port.protocol.to_ascii_uppercase().as_str()) {
            problems.error(
                format!("{field}.protocol"),
                format!(
                    "{:?} is not one of {}",
                    port.protocol,
                    PROTOCOLS[1..].join(", ")
                ),
            );
        }
    }
}

fn endpoints(entry: &ServiceEntry, problems: &mut Problems<'_>) {
    let spec = &entry.spec;
    if let Some(selector) = &spec.workload_selector {
        labels("spec.workloadSelector.labels", &selector.labels, problems);
        if selector.labels.is_empty() {
            problems.error(
                "spec.workloadSelector.labels",
                "is empty and would choose every workload: give labels",
            );
        }
        if !spec.endpoints.is_empty() {
            problems.error(
                "spec.endpoints",
                "is there together with workloadSelector: keep one of them",
            );
        }
    }
    match spec.resolution {
        Resolution::None if !spec.endpoints.is_empty() => problems.error(
            "spec.endpoints",
            "resolution NONE goes to the address asked for and takes no endpoints: use STATIC \
             or DNS",
        ),
        Resolution::Static if spec.endpoints.is_empty() && spec.workload_selector.is_none() => {
            problems.error(
                "spec.endpoints",
                "has no endpoint: resolution STATIC needs endpoints or a workloadSelector",
            );
        }
        Resolution::DnsRoundRobin if spec.endpoints.len() > 1 => problems.error(
            "spec.endpoints",
            "resolution DNS_ROUND_ROBIN takes at most one endpoint: use DNS",
        ),
        Resolution::DynamicDns if !spec.endpoints.is_empty() => problems.error(
            "spec.endpoints",
            "resolution DYNAMIC_DNS takes no endpoints: the host asked for is resolved",
        ),
        Resolution::None
        | Resolution::Static
        | Resolution::Dns
        | Resolution::DnsRoundRobin
        | Resolution::DynamicDns => {}
    }
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        let field = format!("spec.endpoints[{index}]");
        workload_entry_spec(&field, endpoint, problems);
        if spec.resolution == Resolution::Static && endpoint.address.parse::<IpAddr>().is_err() {
            problems.error(
                format!("{field}.address"),
                format!(
                    "{:?} is not an IP address: resolution STATIC needs one, or use DNS",
                    endpoint.address
                ),
            );
        }
        for name in endpoint.ports.keys() {
            if !spec.ports.iter().any(|port| port.name == *name) {
                problems.error(
                    format!("{field}.ports[\"{name}\"]"),
                    format!("no port of spec.ports is named {name:?}"),
                );
            }
        }
    }
}
