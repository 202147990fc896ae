//! DST as people write it: a service by name, hostname or address, or pods by theirs.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh::address::NetworkAddress;
use mesh::service::{AppProtocol, Service};
use mesh::snapshot::ServiceEntry;
use mesh::workload::Workload;

use super::{Name, Source};
use crate::command::why::answer::{Outcome, Stage, Step};
use crate::command::why::known::Known;
use crate::exit::{Exit, Result};

/// What is dialled.
pub(in crate::command::why) struct Destination {
    pub(in crate::command::why) name: String,
    /// Any of them.
    pub(in crate::command::why) addresses: Vec<SocketAddr>,
    /// What a client that used the name as it is written sends for a host.
    pub(in crate::command::why) host: String,
    pub(in crate::command::why) step: Step,
}

// === impl Destination ===

impl Destination {
    pub(in crate::command::why) fn find(
        known: &Known,
        text: &str,
        namespace: &str,
        client: &Source,
    ) -> Result<Self> {
        let (host, port) = split_port(text)?;
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Self::at(known, text, address, port, client);
        }
        let name = Name::parse(host, namespace);
        let services = name.hostnames(known, host);
        let mut services = services.iter();
        if let Some(entry) =
            services.find_map(|host| known.snapshot.service_named(host, &client.namespace))
        {
            return Self::service(known, text, host, entry, port);
        }
        let workloads = name.workloads(known);
        if workloads.is_empty() {
            return Err(Exit::NotFound.because(format!(
                "there is no service, pod or Deployment {host:?} that {} may use",
                client.name
            )));
        }
        Self::workloads(known, text, &workloads, port)
    }

    fn at(
        known: &Known,
        text: &str,
        address: IpAddr,
        port: Option<u16>,
        client: &Source,
    ) -> Result<Self> {
        let key = NetworkAddress::new(known.context().network.clone(), address);
        if let Some(entry) = known.snapshot.service_at(&key, &client.namespace) {
            return Self::service(known, text, &address.to_string(), entry, port);
        }
        if let Some(workload) = known.snapshot.workload_at(&key) {
            return Self::workloads(known, text, std::slice::from_ref(workload), port);
        }
        let port = port.ok_or_else(|| Exit::Usage.because(format!("{text} needs a port")))?;
        let address = SocketAddr::new(address, port);
        Ok(Self {
            name: address.to_string(),
            addresses: vec![address],
            host: address.to_string(),
            step: Step::new(
                Stage::Destination,
                Outcome::Neutral,
                format!("no pod and no service has {address}"),
            ),
        })
    }

    fn service(
        known: &Known,
        text: &str,
        written: &str,
        entry: &ServiceEntry,
        port: Option<u16>,
    ) -> Result<Self> {
        let service = &entry.service;
        let object = known.service_object(&service.key(), &service.name);
        let port = match port.or_else(|| only_port(service)) {
            Some(port) => port,
            None => {
                let ports: Vec<String> = service
                    .ports
                    .iter()
                    .map(|port| port.service_port.to_string())
                    .collect();
                let ports = ports.join(", ");
                return Err(Exit::Usage.because(format!("{text} has ports {ports}: which one?")));
            }
        };
        let endpoints = entry.endpoints.len();
        let mut addresses: Vec<SocketAddr> = service
            .addresses
            .iter()
            .take(1)
            .map(|one| SocketAddr::new(one.address, port))
            .collect();
        let is_headless = addresses.is_empty();
        if is_headless {
            // Its name resolves to its pods.
            let pods = entry.endpoints.iter();
            let pods = pods.filter_map(|one| one.workload.addresses.first());
            addresses.extend(pods.map(|address| SocketAddr::new(*address, port)));
        }
        let how = match (is_headless, addresses.first()) {
            (false, Some(address)) => format!("at {address}"),
            (_, _) => "headless: its name is its pods' addresses".to_owned(),
        };
        let target = entry
            .endpoints
            .iter()
            .find_map(|one| entry.target_port(one, port));
        let ready = match endpoints {
            1 => "1 ready endpoint".to_owned(),
            amount => format!("{amount} ready endpoints"),
        };
        let target = match target {
            Some(target) => format!(", port {target} on {ready}"),
            None => format!(", {ready}"),
        };
        let host = match written.contains('/') {
            true => service.hostname.to_string(),
            false => written.to_owned(),
        };
        Ok(Self {
            name: format!("{}/{}:{port}", service.namespace, service.name),
            addresses,
            host: with_port(&host, port),
            step: Step::new(
                Stage::Destination,
                Outcome::Pass,
                format!("{object} {how}{target}"),
            )
            .at(known.place(&object)),
        })
    }

    fn workloads(
        known: &Known,
        text: &str,
        workloads: &[Arc<Workload>],
        port: Option<u16>,
    ) -> Result<Self> {
        let Some(first) = workloads.first() else {
            return Err(Exit::NotFound.because(format!("there is no {text}")));
        };
        let object = known.workload_object(first);
        let own_port = || {
            let pod = known.pod(first)?;
            let mut ports = pod
                .lasting_containers()
                .flat_map(|container| &container.ports);
            let port = ports.next()?.container_port;
            ports.next().is_none().then_some(port)
        };
        let port = port
            .or_else(own_port)
            .ok_or_else(|| Exit::Usage.because(format!("{text} needs a port")))?;
        let address = first
            .addresses
            .first()
            .ok_or_else(|| Exit::NotFound.because(format!("{object} has no address")))?;
        let address = SocketAddr::new(*address, port);
        Ok(Self {
            name: format!("{}/{}:{port}", first.namespace, first.name()),
            addresses: vec![address],
            host: with_port(&url_host(address.ip()), port),
            step: Step::new(
                Stage::Destination,
                Outcome::Pass,
                format!("{object} at {address}, dialled by its own address"),
            )
            .at(known.place(&object)),
        })
    }
}

fn url_host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// Clients leave 80 out.
fn with_port(host: &str, port: u16) -> String {
    match port {
        80 => host.to_owned(),
        port => format!("{host}:{port}"),
    }
}

/// The port that is meant where none is named.
fn only_port(service: &Service) -> Option<u16> {
    let is_http = |protocol| match protocol {
        AppProtocol::Http11 | AppProtocol::Http2 | AppProtocol::Grpc => true,
        AppProtocol::Unknown | AppProtocol::Tcp | AppProtocol::Tls => false,
    };
    if let [port] = &*service.ports {
        return Some(port.service_port);
    }
    let mut http = service.ports.iter().filter(|one| is_http(one.app_protocol));
    match (service.port(80), http.next(), http.next()) {
        (Some(_), _, _) => Some(80),
        (None, Some(only), None) => Some(only.service_port),
        (None, _, _) => None,
    }
}

fn split_port(text: &str) -> Result<(&str, Option<u16>)> {
    let is_bare_v6 = text.parse::<IpAddr>().is_ok();
    match text.rsplit_once(':') {
        Some((host, port)) if !is_bare_v6 && !port.ends_with(']') => match port.parse() {
            Ok(port) if port != 0 => Ok((host, Some(port))),
            Ok(_) | Err(_) => Err(Exit::Usage.because(format!("{port:?} is no port"))),
        },
        _ => Ok((text, None)),
    }
}
