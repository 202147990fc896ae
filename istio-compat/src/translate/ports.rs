//! Ports: which protocol they speak, and where each leads on an endpoint.

use mesh::service::{AppProtocol, Port};

use crate::kinds::IntOrString;
use crate::kinds::container::Protocol;
use crate::kinds::service::{Service, ServicePort};
use crate::kinds::service_entry::{ServiceEntry, ServiceEntryPort};

/// What a Service's ports are to the mesh. It carries TCP only.
pub(super) fn of_service(service: &Service) -> Vec<Port> {
    tcp_ports(service)
        .map(|port| Port {
            service_port: port.port,
            target_port: numeric_target(port).unwrap_or(0),
            app_protocol: service_protocol(port),
        })
        .collect()
}

pub(super) fn tcp_ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    service
        .spec
        .ports
        .iter()
        .filter(|port| port.protocol == Protocol::Tcp)
}

/// The target by number; none where it goes by a name.
pub(super) fn numeric_target(port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => name.parse().ok(),
    }
}

pub(super) fn target_name(port: &ServicePort) -> Option<&str> {
    match &port.target_port {
        Some(IntOrString::String(name)) => Some(name),
        Some(IntOrString::Int(_)) | None => None,
    }
}

/// `appProtocol` first, then the part of the port's name before the first dash.
pub(super) fn service_protocol(port: &ServicePort) -> AppProtocol {
    match &port.app_protocol {
        Some(protocol) => by_name(protocol),
        None => by_name(port.name.split('-').next().unwrap_or_default()),
    }
}

pub(super) fn of_service_entry(entry: &ServiceEntry) -> Vec<Port> {
    tcp_entry_ports(entry)
        .map(|port| Port {
            service_port: port.number,
            target_port: entry_target(port),
            app_protocol: by_name(&port.protocol),
        })
        .collect()
}

pub(super) fn tcp_entry_ports(entry: &ServiceEntry) -> impl Iterator<Item = &ServiceEntryPort> {
    entry
        .spec
        .ports
        .iter()
        .filter(|port| !port.protocol.eq_ignore_ascii_case("UDP"))
}

pub(super) fn entry_target(port: &ServiceEntryPort) -> u16 {
    match port.target_port {
        0 => port.number,
        target => target,
    }
}

/// The ports of an endpoint of a ServiceEntry: its own by the port's name, else the
/// entry's.
pub(super) fn of_entry_endpoint(
    entry: &ServiceEntry,
    own: impl Fn(&str) -> Option<u16>,
) -> Vec<Port> {
    tcp_entry_ports(entry)
        .map(|port| Port {
            service_port: port.number,
            target_port: own(&port.name).unwrap_or_else(|| entry_target(port)),
            app_protocol: by_name(&port.protocol),
        })
        .collect()
}

fn by_name(protocol: &str) -> AppProtocol {
    match protocol.to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" => AppProtocol::Http11,
        "http2" | "h2c" | "kubernetes.io/h2c" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tls" | "https" | "kubernetes.io/wss" => AppProtocol::Tls,
        "tcp" | "mongo" | "mysql" | "redis" => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_is_the_fields_then_the_names() {
        let port = |name: &str, app_protocol: Option<&str>| ServicePort {
            name: name.into(),
            app_protocol: app_protocol.map(Into::into),
            ..ServicePort::default()
        };
        let check = |name, app_protocol, expected| {
            assert_eq!(service_protocol(&port(name, app_protocol)), expected);
        };
        check("http-web", None, AppProtocol::Http11);
        check("grpc", None, AppProtocol::Grpc);
        check("httpx", None, AppProtocol::Unknown);
        check("http-web", Some("tcp"), AppProtocol::Tcp);
        check("http-web", Some("example.com/own"), AppProtocol::Unknown);
        check("", Some("kubernetes.io/h2c"), AppProtocol::Http2);
    }
}
