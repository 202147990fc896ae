//! A policy of a service, for what reaches an endpoint of the service by another way: what it says
//! of the service's ports and addresses, it says of the endpoint's.
//!
//! A DENY of port 80 would let in who dials the pod's own 8080 otherwise.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::{Action, Authorization, Match, Scope};
use crate::address::NamespacedHostname;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// One port of an endpoint, and what of a service it stands for.
#[derive(Clone, Debug)]
pub(crate) struct StandIn {
    port: u16,
    addresses: Vec<IpAddr>,
    service_ports: Vec<u16>,
    service_addresses: Vec<IpAddr>,
}

// === impl StandIn ===

impl StandIn {
    /// None where no port of the service leads to `port`.
    pub(crate) fn new(
        snapshot: &Snapshot,
        service: &NamespacedHostname,
        workload: &Workload,
        port: u16,
    ) -> Option<Self> {
        let entry = snapshot.service(service);
        let own = workload.services.get(service)?.iter();
        let shared = entry.iter().flat_map(|entry| &entry.service.ports);
        let mut seen = Vec::new();
        let mut service_ports = Vec::new();
        // The endpoint's own mapping comes before the service's.
        for one in own.chain(shared).filter(|one| one.target_port != 0) {
            if !seen.contains(&one.service_port) {
                seen.push(one.service_port);
                if one.target_port == port {
                    service_ports.push(one.service_port);
                }
            }
        }
        // Neither has arrived: it may be any port.
        if seen.is_empty() {
            service_ports.push(port);
        }
        let addresses = entry.iter().flat_map(|entry| &entry.service.addresses);
        let mut service_addresses: Vec<IpAddr> = addresses.map(|one| one.address).collect();
        if service_addresses.is_empty() {
            service_addresses.extend_from_slice(&workload.addresses);
        }
        (!service_ports.is_empty()).then(|| Self {
            port,
            addresses: workload.addresses.to_vec(),
            service_ports,
            service_addresses,
        })
    }

    /// For another service as well.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.service_ports.extend(&other.service_ports);
        self.service_addresses.extend(&other.service_addresses);
    }

    pub(crate) fn policy(&self, policy: &Arc<Authorization>) -> Arc<Authorization> {
        let clauses = policy.rules.iter().flat_map(|rule| &rule.clauses);
        let mut matches = clauses.flat_map(|clause| &clause.matches);
        if !matches.any(names_destination) {
            return policy.clone();
        }
        let mut policy = (**policy).clone();
        // Of others than those of targets, the destination is the endpoint.
        policy.scope = Scope::WorkloadSelector;
        let clauses = policy.rules.iter_mut().flat_map(|rule| &mut rule.clauses);
        for one in clauses.flat_map(|clause| &mut clause.matches) {
            self.rewrite(one, policy.action);
        }
        Arc::new(policy)
    }

    /// In doubt, where several ports of services lead here, an ALLOW policy allows less and any
    /// other holds for more.
    fn rewrite(&self, one: &mut Match, action: Action) {
        let (values, not_values) = match action {
            Action::Allow => (Needs::All, Needs::One),
            Action::Deny | Action::Audit => (Needs::One, Needs::All),
        };
        for (ports, needs) in [
            (&mut one.destination_ports, values),
            (&mut one.not_destination_ports, not_values),
        ] {
            if !ports.is_empty() {
                *ports = match needs.met(&self.service_ports, |port| ports.contains(port)) {
                    true => vec![self.port],
                    // No connection goes there, so that the condition stays one.
                    false => vec![0],
                };
            }
        }
        for (nets, needs) in [
            (&mut one.destination_ips, values),
            (&mut one.not_destination_ips, not_values),
        ] {
            if !nets.is_empty() {
                let within = |ip: &IpAddr| nets.iter().any(|net| net.contains(ip));
                *nets = match needs.met(&self.service_addresses, within) {
                    true => self.addresses.iter().copied().map(IpNet::from).collect(),
                    false => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED).into()],
                };
            }
        }
    }
}

/// How many of several readings must hold.
#[derive(Clone, Copy)]
enum Needs {
    One,
    All,
}

impl Needs {
    fn met<T>(self, readings: &[T], holds: impl Fn(&T) -> bool) -> bool {
        match self {
            Self::One => readings.iter().any(holds),
            Self::All => readings.iter().all(holds),
        }
    }
}

fn names_destination(one: &Match) -> bool {
    !one.destination_ports.is_empty()
        || !one.not_destination_ports.is_empty()
        || !one.destination_ips.is_empty()
        || !one.not_destination_ips.is_empty()
}
