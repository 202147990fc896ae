//! Service: ports, addresses and families.

use std::collections::HashSet;
use std::net::IpAddr;

use crate::kinds::IntOrString;
use crate::kinds::service::{IpFamily, Service, ServiceType};
use crate::validate::{Problems, Validate, labels, names};

impl Validate for Service {
    fn validate(&self, problems: &mut Problems<'_>) {
        let spec = &self.spec;
        problems.check("metadata.name", names::label(&self.metadata.name));
        labels("spec.selector", &spec.selector, problems);
        if spec.type_ == ServiceType::ExternalName {
            match spec.external_name.as_str() {
                "" => problems.error(
                    "spec.externalName",
                    "has no value: type ExternalName needs one",
                ),
                name => problems.check("spec.externalName", names::host(name)),
            }
            return;
        }
        if spec.ports.is_empty() && !self.is_headless() {
            problems.error(
                "spec.ports",
                "has no port: a service that is not headless needs one",
            );
        }
        ports(self, problems);
        addresses(self, problems);
        if !spec.traffic_distribution.is_empty()
            && !["PreferClose", "PreferSameZone", "PreferSameNode"]
                .contains(&spec.traffic_distribution.as_str())
        {
            problems.error(
                "spec.trafficDistribution",
                format!(
                    "{:?} is not one of PreferClose, PreferSameZone, PreferSameNode",
                    spec.traffic_distribution
                ),
            );
        }
    }
}

fn ports(service: &Service, problems: &mut Problems<'_>) {
    let mut numbers = HashSet::new();
    let mut port_names = HashSet::new();
    let several = service.spec.ports.len() > 1;
    for (index, port) in service.spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        problems.check(format!("{field}.port"), names::port(port.port.into()));
        if !numbers.insert((port.port, port.protocol)) {
            problems.error(
                format!("{field}.port"),
                format!("{} is there twice for one protocol", port.port),
            );
        }
        if port.name.is_empty() {
            if several {
                problems.error(
                    format!("{field}.name"),
                    "has no value: name each of several ports",
                );
            }
        } else {
            problems.check(format!("{field}.name"), names::label(&port.name));
            if !port_names.insert(&port.name) {
                problems.error(
                    format!("{field}.name"),
                    format!("{:?} is there twice", port.name),
                );
            }
        }
        match &port.target_port {
            Some(IntOrString::Int(number)) => {
                problems.check(format!("{field}.targetPort"), names::port((*number).into()))
            }
            Some(IntOrString::String(name)) => {
                problems.check(format!("{field}.targetPort"), names::port_name(name));
            }
            None => {}
        }
    }
}

fn addresses(service: &Service, problems: &mut Problems<'_>) {
    let spec = &service.spec;
    if !matches!(spec.cluster_ip.as_str(), "" | "None")
        && spec.cluster_ip.parse::<IpAddr>().is_err()
    {
        problems.error(
            "spec.clusterIP",
            format!(
                "{:?} is not an IP address: leave it out to have one assigned, or write None",
                spec.cluster_ip
            ),
        );
    }
    for (index, text) in spec.cluster_ips.iter().enumerate() {
        let field = format!("spec.clusterIPs[{index}]");
        match (text.as_str(), text.parse::<IpAddr>()) {
            ("None", _) if service.is_headless() && spec.cluster_ips.len() == 1 => {}
            (_, Err(_)) => problems.error(field, format!("{text:?} is not an IP address")),
            (_, Ok(ip)) => {
                let family = if ip.is_ipv4() {
                    IpFamily::Ipv4
                } else {
                    IpFamily::Ipv6
                };
                if spec.ip_families.get(index).is_some_and(|f| *f != family) {
                    problems.error(field, format!("{ip} is not of the family at this place"));
                }
            }
        }
    }
    let distinct: HashSet<_> = spec.ip_families.iter().collect();
    if distinct.len() != spec.ip_families.len() {
        problems.error("spec.ipFamilies", "names a family twice");
    }
}
