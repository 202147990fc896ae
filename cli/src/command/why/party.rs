//! SRC and DST as people write them, and what they stand for in the mesh.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use istio_compat::enablement::Enablement;
use istio_compat::kind::Kind;
use istio_compat::object::ObjectKey;
use mesh::address::NetworkAddress;
use mesh::identity::Identity;
use mesh::service::{AppProtocol, Service};
use mesh::snapshot::ServiceEntry;
use mesh::workload::{TunnelProtocol, Workload};

use super::answer::{Outcome, Stage, Step};
use super::known::Known;
use crate::exit::{Exit, Result};

/// Who opens the connection.
pub(super) struct Source {
    pub(super) name: String,
    pub(super) address: IpAddr,
    /// As the mesh knows it, where its node captures what it sends.
    pub(super) captured: Option<Arc<Workload>>,
    pub(super) namespace: Arc<str>,
    pub(super) step: Step,
}

/// What is dialled.
pub(super) struct Destination {
    pub(super) name: String,
    /// Any of them.
    pub(super) addresses: Vec<SocketAddr>,
    /// What a client that used the name as it is written sends for a host.
    pub(super) host: String,
    pub(super) step: Step,
}

/// `namespace/name`, `name.namespace` or `name`.
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

// === impl Source ===

impl Source {
    pub(super) fn find(known: &Known, text: &str, namespace: &str) -> Result<Self> {
        if text.starts_with("spiffe://") {
            let identity: Identity = text
                .parse()
                .map_err(|error| Exit::Usage.because(format!("{text}: {error}")))?;
            return Ok(Self::with_identity(known, text, &identity));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::at(known, address));
        }
        let name = Name::parse(text, namespace);
        let found = name.workloads(known);
        if let Some((first, others)) = found.split_first() {
            return Ok(Self::of(known, text, first, others.len()));
        }
        let account = ObjectKey::new(Kind::ServiceAccount, name.namespace, name.name);
        let identity = Identity::new(
            known.context().trust_domain.clone(),
            name.namespace,
            name.name,
        );
        let runs = known
            .snapshot
            .workloads()
            .any(|workload| workload.identity() == identity);
        if runs || known.index.object(&account).is_some() {
            return Ok(Self::with_identity(known, text, &identity));
        }
        Err(Exit::NotFound.because(format!(
            "there is no pod, Deployment or ServiceAccount {}/{}",
            name.namespace, name.name
        )))
    }

    /// A pod that runs under it, or one that would.
    fn with_identity(known: &Known, text: &str, identity: &Identity) -> Self {
        let mut workloads: Vec<&Arc<Workload>> = known
            .snapshot
            .workloads()
            .filter(|workload| workload.identity() == *identity)
            .collect();
        workloads.sort_by_key(|workload| &workload.uid);
        if let Some((first, others)) = workloads.split_first() {
            return Self::of(known, text, first, others.len());
        }
        let mut workload = Workload::new("", "", &identity.namespace);
        workload.trust_domain = identity.trust_domain.clone();
        workload.service_account = identity.service_account.clone();
        workload.tunnel_protocol = TunnelProtocol::Hbone;
        let text = format!("no pod runs as {identity}; taken for one that is captured");
        Self {
            name: identity.to_string(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            namespace: identity.namespace.clone(),
            captured: Some(Arc::new(workload)),
            step: Step::new(Stage::Source, Outcome::Neutral, text),
        }
    }

    fn at(known: &Known, address: IpAddr) -> Self {
        let network = known.context().network.clone();
        let key = NetworkAddress::new(network, address);
        if let Some(workload) = known.snapshot.workload_at(&key) {
            return Self::of(known, &address.to_string(), workload, 0);
        }
        let text = format!("{address} is outside the mesh: it has no identity and sends plaintext");
        Self {
            name: address.to_string(),
            address,
            captured: None,
            namespace: "".into(),
            step: Step::new(Stage::Source, Outcome::Neutral, text),
        }
    }

    fn of(known: &Known, written: &str, workload: &Arc<Workload>, others: usize) -> Self {
        let pod = known.pod(workload);
        let is_captured = workload.tunnel_protocol == TunnelProtocol::Hbone;
        let object = known.workload_object(workload);
        let identity = workload.identity();
        let (text, outcome) = match (is_captured, pod) {
            (true, _) => (
                format!("{object} is captured and is {identity}"),
                Outcome::Pass,
            ),
            (false, Some(pod)) => {
                let why = match known.enablement(pod) {
                    Enablement::NotCaptured(why) => why.to_string(),
                    Enablement::Captured => "its node has not captured it yet".to_owned(),
                };
                let text = format!("{object} is not captured: {why}; it sends plaintext");
                (text, Outcome::Neutral)
            }
            (false, None) => (
                format!("{object} is not captured: it sends plaintext"),
                Outcome::Neutral,
            ),
        };
        let several = (others > 0).then(|| {
            let others = format!("{written} has {others} more");
            format!("{others}, which are taken to be alike")
        });
        let unspecified = Ipv4Addr::UNSPECIFIED.into();
        Self {
            name: format!("{}/{}", workload.namespace, workload.name),
            address: workload.addresses.first().copied().unwrap_or(unspecified),
            captured: is_captured.then(|| workload.clone()),
            namespace: workload.namespace.clone(),
            step: Step::new(Stage::Source, outcome, text)
                .at(known.place(&object))
                .with(several),
        }
    }
}

// === impl Destination ===

impl Destination {
    pub(super) fn find(
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
                format!("{address} is outside the mesh"),
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
        let target = match target {
            Some(target) => format!(", port {target} on {endpoints} ready endpoints"),
            None => format!(", {endpoints} ready endpoints"),
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
            name: format!("{}/{}:{port}", first.namespace, first.name),
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

// === impl Name ===

impl<'a> Name<'a> {
    fn parse(text: &'a str, namespace: &'a str) -> Self {
        let (namespace, name) = match text.split_once('/') {
            Some(split) => split,
            None => match text.split_once('.') {
                // `name.namespace`, and longer forms of it.
                Some((name, rest)) => (rest.split('.').next().unwrap_or(rest), name),
                None => (namespace, text),
            },
        };
        Self { namespace, name }
    }

    /// What it could be as a hostname, as it is written first.
    fn hostnames(&self, known: &Known, written: &str) -> Vec<String> {
        let of_service = known.context().service_hostname(self.name, self.namespace);
        let entry = ObjectKey::new(Kind::ServiceEntry, self.namespace, self.name);
        let of_entry = known
            .index
            .object(&entry)
            .and_then(|object| object.get::<istio_compat::kinds::service_entry::ServiceEntry>())
            .and_then(|entry| entry.spec.hosts.first().cloned());
        let written = written.trim_end_matches('.').to_owned();
        [Some(written), Some(of_service), of_entry]
            .into_iter()
            .flatten()
            .collect()
    }

    /// The pod or WorkloadEntry of the name; else the pods of the Deployment.
    fn workloads(&self, known: &Known) -> Vec<Arc<Workload>> {
        let mut found: Vec<Arc<Workload>> = known
            .snapshot
            .workloads()
            .filter(|workload| *workload.namespace == *self.namespace)
            .filter(|workload| {
                *workload.name == *self.name || *workload.workload_name == *self.name
            })
            .cloned()
            .collect();
        // Its own name, then what is ready.
        found.sort_by_key(|workload| {
            let is_ready = workload.status == mesh::workload::WorkloadStatus::Healthy;
            (
                *workload.name != *self.name,
                !is_ready,
                workload.uid.clone(),
            )
        });
        let own = found.iter().take_while(|one| *one.name == *self.name);
        match own.count() {
            0 => found,
            amount => {
                found.truncate(amount);
                found
            }
        }
    }
}
